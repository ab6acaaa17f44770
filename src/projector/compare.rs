//! Whether two builds show the same: a merge by key, and a second look at what moved meanwhile.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};

use dramatis_events::Position;
use dramatis_projections::{Digest, Stored};
use serde::{Deserialize, Serialize};

use super::record::Completion;
use crate::read_models::{Document, FIND_MAX, ReadModelError, ReadModels};

/// How many differing documents a report shows.
pub(super) const SHOWN_MAX: usize = 20;
/// How many bytes of each document a report shows.
const BODY_BYTES_SHOWN_MAX: usize = 1_000;
/// How many keys that differ at first sight are held for the second look. More of them means
/// that everything differs, and then the count alone says so.
pub(super) const SUSPECTS_MAX: usize = 100_000;

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
    page: VecDeque<Document>,
    last: Option<String>,
    ended: bool,
}

impl<'a> Walk<'a> {
    fn new(store: &'a dyn ReadModels, collection: &'a str) -> Self {
        Self { store, collection, page: VecDeque::new(), last: None, ended: false }
    }

    /// Whether the next page is to be read.
    fn is_due(&self) -> bool {
        self.page.is_empty() && !self.ended
    }

    async fn fill(&mut self) -> Result<(), ReadModelError> {
        if self.is_due() {
            self.page = self.store.scan(self.collection, self.last.take(), FIND_MAX).await?.into();
            self.last = self.page.back().map(|document| document.key.clone());
            self.ended = self.page.is_empty();
        }
        Ok(())
    }
}

/// Asked once a page: whether to stop there.
pub(super) type Halted<'a> = &'a (dyn Fn() -> bool + Sync);

/// The completion of a build that rests at a position, without comparing it. `None` if it was halted.
pub(super) async fn complete(
    store: &dyn ReadModels,
    collection: &str,
    position: Option<Position>,
    halted: Halted<'_>,
) -> Result<Option<Completion>, ReadModelError> {
    let mut completion = Completion { position, documents: 0, digest: Digest::default() };
    let mut walk = Walk::new(store, collection);
    loop {
        if walk.is_due() && halted() {
            return Ok(None);
        }
        walk.fill().await?;
        let Some(document) = walk.page.pop_front() else { return Ok(Some(completion)) };
        completion.digest.add(&document.key, document.body.as_bytes());
        completion.documents += 1;
    }
}

/// The keys that two builds show differently while `new` rests at a position, and its completion.
/// `None` if it was halted.
pub(super) async fn merge(
    store: &dyn ReadModels,
    (live, new): (&str, &str),
    position: Option<Position>,
    halted: Halted<'_>,
) -> Result<Option<(Vec<String>, Completion)>, ReadModelError> {
    let mut completion = Completion { position, documents: 0, digest: Digest::default() };
    let (mut left, mut right, mut suspects) = (Walk::new(store, live), Walk::new(store, new), Vec::new());
    loop {
        if (left.is_due() || right.is_due()) && halted() {
            return Ok(None);
        }
        left.fill().await?;
        right.fill().await?;
        let order = match (left.page.front(), right.page.front()) {
            (None, None) => return Ok(Some((suspects, completion))),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(live), Some(new)) => live.key.as_bytes().cmp(new.key.as_bytes()),
        };
        let live = if order == Ordering::Greater { None } else { left.page.pop_front() };
        let new = if order == Ordering::Less { None } else { right.page.pop_front() };
        if let Some(new) = &new {
            completion.digest.add(&new.key, new.body.as_bytes());
            completion.documents += 1;
        }
        let differs = live.as_ref().map(|d| &d.body) != new.as_ref().map(|d| &d.body);
        if differs && suspects.len() <= SUSPECTS_MAX {
            suspects.extend(live.or(new).map(|document| document.key));
        }
    }
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
