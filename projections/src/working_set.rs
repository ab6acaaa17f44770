//! The step that is the same for every projection: which documents to load, what to skip,
//! what to write. It holds typed documents between batches and parks what cannot be folded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use dramatis_events::{Event, Position, Recorded};
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::canonical::to_json;
use crate::projection::{FoldError, Projection, wants};

/// Bytes of a document as JSON. In BSON lists of small things take seven times that, and servers refuse
/// more than 16 MiB: what is parked is the same in every store.
const DOCUMENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A document as the store holds it; a tombstone has no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// The event that last changed it.
    pub position: Position,
    /// Canonical JSON; `None` once deleted.
    pub body: Option<String>,
}

/// A document to write, if the store holds it at a lower position or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Its key.
    pub key: String,
    /// The event that last changed it.
    pub position: Position,
    /// Canonical JSON; `None` once deleted.
    pub body: Option<String>,
    /// Whether the store is not known to hold it. It may all the same, written by a batch that
    /// comes again.
    pub is_new: bool,
}

/// A key that is parked, with the event that could not be folded. Its later events are not
/// folded either, until it is tried again or the event is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeadLetter {
    /// The parked key. A stream's name stands for every key of that stream.
    pub key: String,
    /// The event that could not be folded.
    pub position: Position,
    /// The event's name.
    pub event: String,
    /// Why.
    pub error: String,
}

/// What a batch came to: every touched document once, and what was parked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    /// Documents to write, in key order.
    pub writes: Vec<Write>,
    /// Keys parked by this batch.
    pub parked: Vec<DeadLetter>,
    /// How many events were folded into documents.
    pub events: u64,
}

/// A running fold: [`Fold::begin`], then [`Fold::load`], then [`Fold::finish`].
pub trait Fold: Send + Sync {
    /// Takes a batch of events in log order; answers the keys whose documents it does not hold.
    fn begin(&mut self, events: &[Arc<Recorded>]) -> Vec<String>;

    /// Takes the stored documents among those keys; the others are new.
    fn load(&mut self, stored: Vec<Stored>) -> Result<(), FoldError>;

    /// Folds the batch. Events at or below a document's position are skipped before folding. With
    /// [`FoldError::Unwritable`] nothing that it holds is sure: another fold, which checks each document
    /// after each event, finds out whose event it was.
    fn finish(&mut self) -> Result<Folded, FoldError>;

    /// Has each document checked after each event, which takes long, or only once it is to be written.
    fn check_each(&mut self, event: bool);

    /// Takes what an earlier run parked: from its position on a key is not folded.
    fn park(&mut self, letters: &[DeadLetter]);

    /// Takes the events that admins let pass: they change nothing in the document of that key.
    fn skip(&mut self, events: Vec<Skipped>);

    /// Says that it begins with the first event: until it lets go of documents, those it does not
    /// hold are new.
    fn start_empty(&mut self);

    /// Keeps about so many documents at the most between batches from now on.
    fn keep(&mut self, documents_max: usize);

    /// Folds this key alone from now on; a stream's name stands for every key of that stream.
    fn only(&mut self, key: &str);
}

/// An event that is not to be folded into the document of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Skipped {
    /// The key; a stream's name for an event that nobody can read.
    pub key: String,
    /// The event.
    pub position: Position,
}

/// The [`Fold`] of a projection.
pub struct WorkingSet<P: Projection> {
    /// Documents by their keys, in the order in which they came.
    slots: IndexMap<String, Slot<P::Document>, RandomState>,
    parked: HashMap<String, Position>,
    skipped: HashSet<Skipped>,
    only: Option<String>,
    checks_each: bool,
    /// Whether it holds every document there is.
    holds_all: bool,
    batch: Vec<Arriving<P::Event>>,
    /// The slots that the events of the batch touch, one event after the other.
    places: Vec<usize>,
    batches: u64,
    documents_max: usize,
}

struct Slot<D> {
    position: Option<Position>,
    document: Option<D>,
    used_in: u64,
    changed: bool,
    is_new: bool,
}

struct Arriving<E> {
    recorded: Arc<Recorded>,
    event: Result<E, FoldError>,
    /// Where in the batch's places its own are.
    places: Range<usize>,
}

impl<P: Projection> WorkingSet<P> {
    /// An empty set that keeps at about the most so many documents between batches.
    pub fn new(documents_max: usize) -> Self {
        Self {
            slots: IndexMap::default(),
            parked: HashMap::new(),
            skipped: HashSet::new(),
            only: None,
            checks_each: false,
            holds_all: false,
            batch: Vec::new(),
            places: Vec::new(),
            batches: 0,
            documents_max,
        }
    }

    /// Takes an event into the batch, and a place for each document it touches; adds the keys of
    /// those that must be loaded.
    fn arrive(&mut self, recorded: &Arc<Recorded>, keys: &mut Vec<String>, missing: &mut Vec<String>) {
        let event = P::Event::from_envelope(&recorded.envelope).map_err(FoldError::from);
        let from = self.places.len();
        if let Ok(event) = &event {
            P::keys(recorded, event, keys);
            if let Some(only) = self.only.as_ref().filter(|only| **only != *recorded.stream.as_str()) {
                keys.retain(|key| key == only);
            }
            let is_new = self.holds_all || P::is_first(event);
            for key in keys.drain(..) {
                let entry = self.slots.entry(key);
                self.places.push(entry.index());
                let batch = self.batches;
                entry.and_modify(|slot| slot.used_in = batch).or_insert_with_key(|key| {
                    if !is_new {
                        missing.push(key.clone());
                    }
                    Slot::new(batch)
                });
            }
        }
        self.batch.push(Arriving { recorded: recorded.clone(), event, places: from..self.places.len() });
    }

    /// A key waits from the event on that could not be folded: what came before is folded
    /// still, should a crash have lost its document.
    fn is_parked(&self, key: &str, recorded: &Recorded) -> bool {
        let from = |key: &str| self.parked.get(key).is_some_and(|from| *from <= recorded.position);
        !self.parked.is_empty() && (from(key) || from(recorded.stream.as_str()))
    }

    fn is_skipped(&self, key: &str, position: Position) -> bool {
        !self.skipped.is_empty() && self.skipped.contains(&Skipped { key: key.to_owned(), position })
    }

    /// Whether what happens to a whole stream happens to what is folded: all, this stream, a key of it.
    fn concerns(&self, stream: &str) -> bool {
        let of_stream = |only: &str| {
            only.strip_prefix(stream).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.only.as_deref().is_none_or(of_stream)
    }

    fn park_at(&mut self, key: &str, recorded: &Recorded, error: &FoldError, folded: &mut Folded) {
        let known = self.parked.get(key).is_some_and(|from| *from <= recorded.position);
        if !known {
            self.parked.insert(key.to_owned(), recorded.position);
            folded.parked.push(DeadLetter {
                key: key.to_owned(),
                position: recorded.position,
                event: recorded.envelope.name.to_string(),
                error: error.to_string(),
            });
        }
    }

    fn fold_one(&mut self, arriving: Arriving<P::Event>, folded: &mut Folded, touched: &mut Vec<usize>) {
        let Arriving { recorded, event, places } = arriving;
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                // Nobody can tell which documents it would change: the whole stream waits.
                let (stream, position) = (recorded.stream.as_str(), recorded.position);
                if self.concerns(stream) && !self.is_skipped(stream, position) {
                    self.park_at(stream, &recorded, &error, folded);
                }
                return;
            }
        };
        for place in places {
            let Some(place) = self.places.get(place).copied() else { continue };
            if let Err((key, error)) = self.fold_into(place, &recorded, &event, folded, touched) {
                self.park_at(&key, &recorded, &error, folded);
            }
        }
    }

    fn fold_into(
        &mut self,
        place: usize,
        recorded: &Recorded,
        event: &P::Event,
        folded: &mut Folded,
        touched: &mut Vec<usize>,
    ) -> Result<(), (String, FoldError)> {
        let Some((key, _)) = self.slots.get_index(place) else { return Ok(()) };
        if self.is_parked(key, recorded) {
            return Ok(());
        }
        let skipped = self.is_skipped(key, recorded.position);
        let Some((key, slot)) = self.slots.get_index_mut(place) else { return Ok(()) };
        if slot.position >= Some(recorded.position) {
            return Ok(());
        }
        if !skipped {
            let folded = if self.checks_each {
                slot.fold_checked::<P>(recorded, event)
            } else {
                P::fold(&mut slot.document, recorded, event)
            };
            folded.map_err(|error| (key.clone(), error))?;
        }
        slot.position = Some(recorded.position);
        if !slot.changed {
            slot.changed = true;
            touched.push(place);
        }
        folded.events += 1;
        Ok(())
    }

    fn collect(&mut self, touched: &[usize]) -> Result<Vec<Write>, FoldError> {
        let (mut writes, mut size) = (Vec::with_capacity(touched.len()), 0);
        for place in touched {
            let Some((key, slot)) = self.slots.get_index_mut(*place) else { continue };
            let Some(position) = slot.position else { continue };
            let body = slot.document.as_ref().map(|document| writable(document, size)).transpose()?;
            size = body.as_ref().map_or(size, String::len);
            slot.changed = false;
            let is_new = std::mem::replace(&mut slot.is_new, false);
            writes.push(Write { key: key.clone(), position, body, is_new });
        }
        // Stable, as this sort makes use of the runs that the log's order leaves.
        writes.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(writes)
    }

    /// Lets go of the documents that were used longest ago until about half of what may be kept is
    /// left: so it is done seldom, and what was touched lately need not be loaded again.
    fn forget_cold(&mut self) {
        if self.slots.len() <= self.documents_max {
            return;
        }
        self.holds_all = false;
        let mut used: BTreeMap<u64, usize> = BTreeMap::new();
        for slot in self.slots.values() {
            *used.entry(slot.used_in).or_default() += 1;
        }
        let (mut kept, mut since) = (0, self.batches + 1);
        for (batch, documents) in used.into_iter().rev() {
            kept += documents;
            let most = if batch == self.batches { self.documents_max } else { self.documents_max / 2 };
            if kept > most {
                break;
            }
            since = batch;
        }
        self.slots.retain(|_, slot| slot.used_in >= since);
    }
}

impl<D: Serialize + DeserializeOwned> Slot<D> {
    fn new(batch: u64) -> Self {
        Self { position: None, document: None, used_in: batch, changed: false, is_new: true }
    }

    /// Folds an event, unless what it makes of the document cannot be written: it is as it was then.
    fn fold_checked<P: Projection<Document = D>>(
        &mut self,
        recorded: &Recorded,
        event: &P::Event,
    ) -> Result<(), FoldError> {
        let json = |document: &Option<D>| document.as_ref().map(|document| writable(document, 0)).transpose();
        let before = json(&self.document)?;
        P::fold(&mut self.document, recorded, event)?;
        let Err(error) = json(&self.document) else { return Ok(()) };
        let Ok(before) = before.as_deref().map(serde_json::from_str).transpose() else { return Err(error) };
        self.document = before;
        Err(error)
    }
}

/// A document as stores get it; `like` is the length of another.
fn writable(document: &impl Serialize, like: usize) -> Result<String, FoldError> {
    let json = to_json(document, like).map_err(|error| FoldError::unwritable(&error))?;
    if json.len() > DOCUMENT_BYTES_MAX {
        let reason = format!("it takes {} bytes, and may take {DOCUMENT_BYTES_MAX}", json.len());
        return Err(FoldError::Unwritable { reason });
    }
    Ok(json)
}

impl<P: Projection> Fold for WorkingSet<P> {
    fn begin(&mut self, events: &[Arc<Recorded>]) -> Vec<String> {
        self.batches += 1;
        self.batch.clear();
        self.places.clear();
        let (mut keys, mut missing) = (Vec::new(), Vec::new());
        for recorded in events.iter().filter(|recorded| wants::<P>(recorded)) {
            self.arrive(recorded, &mut keys, &mut missing);
        }
        missing
    }

    fn load(&mut self, stored: Vec<Stored>) -> Result<(), FoldError> {
        for Stored { key, position, body } in stored {
            let document = body.as_deref().map(serde_json::from_str).transpose();
            let document =
                document.map_err(|e| FoldError::Document { key: key.clone(), reason: e.to_string() })?;
            let (position, used_in) = (Some(position), self.batches);
            let slot = Slot { position, document, used_in, changed: false, is_new: false };
            self.slots.insert(key, slot);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Folded, FoldError> {
        let (mut folded, mut touched) = (Folded::default(), Vec::new());
        for arriving in std::mem::take(&mut self.batch) {
            self.fold_one(arriving, &mut folded, &mut touched);
        }
        folded.writes = self.collect(&touched)?;
        self.forget_cold();
        Ok(folded)
    }

    fn park(&mut self, letters: &[DeadLetter]) {
        self.parked.extend(letters.iter().map(|letter| (letter.key.clone(), letter.position)));
    }

    fn skip(&mut self, events: Vec<Skipped>) {
        self.skipped.extend(events);
    }

    fn start_empty(&mut self) {
        self.holds_all = self.slots.is_empty();
    }

    fn keep(&mut self, documents_max: usize) {
        self.documents_max = documents_max;
    }

    fn check_each(&mut self, event: bool) {
        self.checks_each = event;
    }

    fn only(&mut self, key: &str) {
        self.only = Some(key.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::projection::testing::history;
    use crate::timeline::Timeline;

    #[test]
    fn what_was_used_longest_ago_is_let_go_of_first() {
        let mut lines = String::new();
        for said in 0..6 {
            let _ = writeln!(lines, r#"alice MessagePosted {{"kind":"text","text":"{said}"}}"#);
        }
        for target in [5, 0, 4, 3] {
            let _ = writeln!(lines, r#"bob ReactionAdded {{"target":{target},"emoji":"x"}}"#);
        }
        let mut events = history(&lines).into_iter().map(Arc::new).collect::<Vec<_>>().into_iter();
        let mut fold = WorkingSet::<Timeline>::new(4);
        let mut batch = |count: usize| {
            let missing = fold.begin(&events.by_ref().take(count).collect::<Vec<_>>());
            (missing, fold.finish().map(|folded| folded.writes.len()))
        };
        let key = |revision: u64| format!("room-main.lobby/{revision:020}");
        assert_eq!(batch(4), (vec![], Ok(4)));
        // Six are more than four: the first batch's go, the last one's stay.
        assert_eq!(batch(2), (vec![], Ok(2)));
        assert_eq!(batch(1), (vec![], Ok(1)));
        assert_eq!(batch(1), (vec![key(0)], Ok(0)), "the store is not there, so nobody has that message");
        assert_eq!(batch(1), (vec![], Ok(1)));
        assert_eq!(batch(1), (vec![key(3)], Ok(0)));
    }
}
