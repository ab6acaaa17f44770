//! Whether two builds show the same: a merge by key, and a second look at what moved meanwhile.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};

use dramatis_events::Position;
use dramatis_projections::{Digest, Stored};
use serde::{Deserialize, Serialize};

use super::record::Completion;
use crate::read_models::{Direction, Document, FIND_MAX, Query, ReadModelError, ReadModels};

/// How many differing documents a report shows.
pub(super) const SHOWN_MAX: usize = 20;
/// How many bytes of each document a report shows.
const BODY_BYTES_SHOWN_MAX: usize = 1_000;

/// How the documents of a new build differ from the live ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// How many documents differ; a count past the limit of what is held stands for more.
    pub documents: u64,
    /// Some of them, in key order.
    pub shown: Vec<Differing>,
    /// How many keys are parked in one of the builds alone, or from another event on.
    #[serde(default)]
    pub parked: u64,
    /// Some of these, in key order.
    #[serde(default)]
    pub parked_shown: Vec<ParkedApart>,
}

/// A key that two builds have not parked alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedApart {
    /// The key; a stream's name stands for every key of that stream.
    pub key: String,
    /// The event that it waits behind in the live build; `None` if it is not parked there.
    pub live: Option<Position>,
    /// The same of the new build.
    pub new: Option<Position>,
}

/// A document that two builds show differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    /// Its key.
    pub key: String,
    /// The top-level fields that differ; empty if one build has no such document.
    pub fields: Vec<String>,
    /// What of it the live build has otherwise, cut short if it is long: the whole document if the
    /// other build has none; `None` if this one has none.
    pub live: Option<String>,
    /// What of it the new build has otherwise.
    pub new: Option<String>,
    /// The event that last changed it in the live build.
    pub live_position: Option<Position>,
    /// The event that last changed it in the new build.
    pub new_position: Option<Position>,
}

/// One build, read in key order.
struct Walk<'a> {
    store: &'a dyn ReadModels,
    collection: &'a str,
    /// The last key to read.
    up_to: Option<String>,
    page: VecDeque<Document>,
    last: Option<String>,
    ended: bool,
}

impl<'a> Walk<'a> {
    fn new(store: &'a dyn ReadModels, collection: &'a str, up_to: Option<String>) -> Self {
        Self { store, collection, up_to, page: VecDeque::new(), last: None, ended: false }
    }

    /// Whether the next page is to be read.
    fn is_due(&self) -> bool {
        self.page.is_empty() && !self.ended
    }

    async fn fill(&mut self) -> Result<(), ReadModelError> {
        if self.is_due() {
            self.page = self.store.scan(self.collection, self.last.take(), FIND_MAX).await?.into();
            self.last = self.page.back().map(|document| document.key.clone());
            let is_past = |key: &String| self.up_to.as_ref().is_some_and(|up_to| key > up_to);
            self.ended = self.last.as_ref().is_none_or(is_past);
            self.page.retain(|document| !is_past(&document.key));
        }
        Ok(())
    }

    /// Goes on past a key with what is there by now.
    fn go_on_past(&mut self, key: Option<&String>) {
        self.page.clear();
        (self.last, self.ended) = (key.cloned(), false);
    }
}

impl Completion {
    fn empty(position: Option<Position>) -> Self {
        Self { position, documents: 0, digest: Digest::default() }
    }

    fn count(&mut self, document: &Document) {
        self.digest.add(&document.key, document.body.as_bytes());
        self.documents += 1;
    }
}

/// What a build comes to that rests at a position, counted a page at a time.
pub(super) struct Count<'a> {
    walk: Walk<'a>,
    pub(super) completion: Completion,
}

impl<'a> Count<'a> {
    pub(super) fn new(store: &'a dyn ReadModels, collection: &'a str, position: Option<Position>) -> Self {
        Self { walk: Walk::new(store, collection, None), completion: Completion::empty(position) }
    }

    /// Counts a page in; tells whether there was one.
    pub(super) async fn page(&mut self) -> Result<bool, ReadModelError> {
        self.walk.fill().await?;
        while let Some(document) = self.walk.page.pop_front() {
            self.completion.count(&document);
        }
        Ok(!self.walk.ended)
    }
}

/// Two builds, compared side by side in key order, a page at a time. Each key is met once, however long
/// that takes and whatever both do meanwhile.
pub(super) struct Merge<'a> {
    live: Walk<'a>,
    new: Walk<'a>,
    /// Where the new build stood when this was begun.
    began_at: Option<Position>,
    /// The last key that was compared.
    last: Option<String>,
    /// What the new build came to up to there, while it rests.
    count: Option<Completion>,
    ended: bool,
    meets_old: bool,
}

impl<'a> Merge<'a> {
    /// Begins to compare with a new build that rests at a position, up to the last key that one of them has:
    /// what comes after that later is in neither, and one that is written to at its end has none.
    pub(super) async fn begin(
        store: &'a dyn ReadModels,
        (live, new): (&'a str, &'a str),
        position: Option<Position>,
    ) -> Result<Self, ReadModelError> {
        let last = last_key(store, live).await?.max(last_key(store, new).await?);
        // No key is empty, so this stands for none.
        let up_to = Some(last.unwrap_or_default());
        Ok(Self {
            live: Walk::new(store, live, up_to.clone()),
            new: Walk::new(store, new, up_to),
            began_at: position,
            last: None,
            count: Some(Completion::empty(position)),
            ended: false,
            meets_old: true,
        })
    }

    /// Compares up to where a page ends, or until there are so many keys that the two show differently;
    /// tells whether there is more.
    pub(super) async fn page(
        &mut self,
        suspects: &mut Vec<String>,
        suspects_max: usize,
    ) -> Result<bool, ReadModelError> {
        self.live.fill().await?;
        self.new.fill().await?;
        self.meets_old = false;
        while !self.live.is_due() && !self.new.is_due() && suspects.len() < suspects_max {
            let order = match (self.live.page.front(), self.new.page.front()) {
                (None, None) => {
                    self.ended = true;
                    return Ok(false);
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(live), Some(new)) => live.key.as_bytes().cmp(new.key.as_bytes()),
            };
            let live = if order == Ordering::Greater { None } else { self.live.page.pop_front() };
            let new = if order == Ordering::Less { None } else { self.new.page.pop_front() };
            if let (Some(count), Some(new)) = (&mut self.count, &new) {
                count.count(new);
            }
            let old = |document: &Document| Some(document.position) <= self.began_at;
            self.meets_old |= live.iter().chain(&new).any(old);
            let differs = live.as_ref().map(|d| &d.body) != new.as_ref().map(|d| &d.body);
            self.last = live.or(new).map(|document| document.key);
            if differs {
                suspects.extend(self.last.clone());
            }
        }
        Ok(true)
    }

    /// Both builds have moved on: what comes next is read as it is by now.
    pub(super) fn go_on(&mut self) {
        for walk in [&mut self.live, &mut self.new] {
            walk.go_on_past(self.last.as_ref());
        }
        self.count = None;
    }

    /// Whether the last page had documents that are as they were when this was begun. There are only so many
    /// of those, while new ones may come as fast as they are compared.
    pub(super) const fn meets_old(&self) -> bool {
        self.meets_old
    }

    /// What the new build comes to, if all of it was met while it rested.
    pub(super) fn completion(&self) -> Option<Completion> {
        self.count.filter(|_| self.ended)
    }
}

async fn last_key(store: &dyn ReadModels, collection: &str) -> Result<Option<String>, ReadModelError> {
    let last = Query {
        key_prefix: None,
        equal: Vec::new(),
        sort: None,
        direction: Direction::Descending,
        after: None,
        limit: 1,
    };
    Ok(store.find(collection, last).await?.pop().map(|document| document.key))
}

/// What a second look at suspects tells, while `new` rests at a position that `live` has passed.
#[derive(Debug, Default)]
pub(super) struct SecondLook {
    /// What differs at one and the same position.
    pub(super) difference: Difference,
    /// What one of the builds changed after the position: nobody can tell yet.
    pub(super) moved: Vec<String>,
}

/// Looks again at keys that differed, up to a position that both builds have passed.
pub(super) async fn look_again(
    store: &dyn ReadModels,
    (live, new): (&str, &str),
    suspects: Vec<String>,
    position: Option<Position>,
) -> Result<SecondLook, ReadModelError> {
    let mut look = SecondLook::default();
    for keys in suspects.chunks(FIND_MAX) {
        let mut olds = by_key(store.load(live, keys.to_vec()).await?);
        let mut news = by_key(store.load(new, keys.to_vec()).await?);
        for key in keys {
            let (old, new) = (olds.remove(key), news.remove(key));
            let body = |stored: &Option<Stored>| stored.as_ref().and_then(|stored| stored.body.clone());
            if body(&old) == body(&new) {
                continue;
            }
            let at = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.position);
            if at(&old).max(at(&new)) > position {
                look.moved.push(key.clone());
                continue;
            }
            look.difference.documents += 1;
            if look.difference.shown.len() < SHOWN_MAX {
                look.difference.shown.push(Differing::of(key, old, new));
            }
        }
    }
    Ok(look)
}

fn by_key(stored: Vec<Stored>) -> HashMap<String, Stored> {
    stored.into_iter().map(|stored| (stored.key.clone(), stored)).collect()
}

/// The keys that two builds have not parked alike, of what is parked up to a position.
pub(super) async fn parked_apart(
    store: &dyn ReadModels,
    (live, new): (&str, &str),
    up_to: Option<Position>,
) -> Result<Vec<ParkedApart>, ReadModelError> {
    let mut keys: BTreeMap<String, (Option<Position>, Option<Position>)> = BTreeMap::new();
    for letter in store.dead_letters(live).await? {
        keys.entry(letter.key).or_default().0 = Some(letter.position);
    }
    for letter in store.dead_letters(new).await? {
        keys.entry(letter.key).or_default().1 = Some(letter.position);
    }
    let within = |position: Option<Position>| position.filter(|position| Some(*position) <= up_to);
    let keys = keys.into_iter().map(|(key, (live, new))| (key, within(live), within(new)));
    let apart = keys.filter(|(_, live, new)| live != new);
    Ok(apart.map(|(key, live, new)| ParkedApart { key, live, new }).collect())
}

impl Difference {
    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        self.documents > 0 || self.parked > 0
    }

    /// Takes in the keys that are not parked alike.
    pub(super) fn park(&mut self, mut apart: Vec<ParkedApart>) {
        self.parked = u64::try_from(apart.len()).unwrap_or(u64::MAX);
        apart.truncate(SHOWN_MAX);
        self.parked_shown = apart;
    }

    /// Counts in what a later look found.
    pub(super) fn add(&mut self, other: Self) {
        self.documents = self.documents.saturating_add(other.documents);
        self.shown.extend(other.shown);
        self.shown.sort_by(|a, b| a.key.cmp(&b.key));
        self.shown.truncate(SHOWN_MAX);
    }
}

impl Differing {
    fn of(key: &str, live: Option<Stored>, new: Option<Stored>) -> Self {
        let position = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.position);
        let (live_position, new_position) = (position(&live), position(&new));
        let (mut live, mut new) = (live.and_then(|stored| stored.body), new.and_then(|stored| stored.body));
        let mut fields = Vec::new();
        if let (Some(old), Some(other)) = (&live, &new) {
            let (names, old, other) = apart(old, other);
            (fields, live, new) = (names, Some(old), Some(other));
        }
        let short = |body: Option<String>| body.map(|body| shortened(&body));
        Self { key: key.to_owned(), fields, live: short(live), new: short(new), live_position, new_position }
    }
}

/// The top-level fields whose values differ, and both documents with these alone.
fn apart(live: &str, new: &str) -> (Vec<String>, String, String) {
    type Fields = serde_json::Map<String, serde_json::Value>;
    let parse = |body: &str| serde_json::from_str::<Fields>(body);
    let (Ok(mut old), Ok(mut other)) = (parse(live), parse(new)) else {
        return (Vec::new(), live.to_owned(), new.to_owned());
    };
    let names = old.keys().chain(other.keys().filter(|name| !old.contains_key(*name)));
    let names: Vec<_> = names.filter(|name| old.get(*name) != other.get(*name)).cloned().collect();
    for fields in [&mut old, &mut other] {
        fields.retain(|name, _| names.contains(name));
    }
    let text = |fields| serde_json::Value::Object(fields).to_string();
    (names, text(old), text(other))
}

fn shortened(body: &str) -> String {
    if body.len() <= BODY_BYTES_SHOWN_MAX {
        return body.to_owned();
    }
    let end = (0..=BODY_BYTES_SHOWN_MAX).rev().find(|at| body.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", body.get(..end).unwrap_or_default())
}
