//! What a read model says about itself: its keys, its fold, its indexes.

use std::borrow::Cow;

use dramatis_events::{DecodeError, Event, Recorded, Revision, StreamId, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::canonical::INTEGER_MAX;
use crate::key::{self, DIGITS, KeyPart};
use crate::working_set::{Fold, WorkingSet};

/// A pure fold from events to documents.
///
/// Every key is the stream's name, or begins with it and a slash: so a whole stream can be
/// parked when one of its events cannot be read at all.
pub trait Projection: Send + Sync + 'static {
    /// The read model's name.
    const NAME: &'static str;
    /// Raised with every change to what the fold makes of the same events.
    const VERSION: u32;
    /// What follows the stream's name in its keys.
    const KEY: &'static [KeyPart];
    /// The names of the events it folds; others never reach [`Projection::fold`]. One that the category
    /// does not know is refused: its stream waits.
    const EVENTS: &'static [&'static str];
    /// What the store is to index.
    const INDEXES: &'static [Index];
    /// What full-text search looks into; none by default.
    const TEXT: &'static [TextField] = &[];
    /// The events of one stream category.
    type Event: Event + Send + Sync + 'static;
    /// The document. Serialized it is canonical: no floats, no integer beyond 2⁵³.
    type Document: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Which documents the event changes, told from the event alone.
    fn keys(recorded: &Recorded, event: &Self::Event, keys: &mut Vec<String>);

    /// Whether the event is the first of each of its documents, so that none needs to be looked
    /// for in the store. Should one be there, written by a batch that comes again, it stands at
    /// a later position, and the guard keeps it.
    fn is_first(_: &Self::Event) -> bool {
        false
    }

    /// The streams whose events may change the document of this key: they are all it takes to
    /// fold it again as of any position. Empty if only the whole log would do, or the key is none.
    fn streams_of(key: &str) -> Vec<StreamId> {
        let stream = key.split('/').next().and_then(|stream| StreamId::parse(stream).ok());
        stream.filter(|stream| stream.category() == Self::Event::CATEGORY).into_iter().collect()
    }

    /// Applies the event to one document; `None` is no document, before its first event or
    /// after its deletion. An error leaves the document as it was.
    fn fold(
        document: &mut Option<Self::Document>,
        recorded: &Recorded,
        event: &Self::Event,
    ) -> Result<(), FoldError>;
}

/// A [`Projection`] whose types are hidden, as the projector holds it.
pub trait DynProjection: Send + Sync + 'static {
    /// The read model's name.
    fn name(&self) -> &'static str;
    /// The version of the fold.
    fn version(&self) -> u32;
    /// The stream category it reads.
    fn category(&self) -> &'static str;
    /// The names of the category's events that it does not fold.
    fn passed_over(&self) -> Vec<&'static str>;
    /// The form of its keys for people, such as `room-main.ROOM/MESSAGE`.
    fn key_form(&self) -> String;
    /// The key that this one stands for: revisions in it may lack the zeros before them.
    fn whole_key<'a>(&self, key: &'a str) -> Cow<'a, str>;
    /// What the store is to index.
    fn indexes(&self) -> &'static [Index];
    /// What full-text search looks into.
    fn text(&self) -> &'static [TextField];
    /// The streams whose events may change the document of this key; empty if only the whole
    /// log would do, or the key is none.
    fn streams_of(&self, key: &str) -> Vec<StreamId>;
    /// The revision before which no event of these streams changes the document of this key, but for one that parks
    /// the whole stream.
    fn first_of(&self, key: &str) -> Revision;
    /// Which documents an event changes; none if the projection does not fold it.
    fn keys_of(&self, recorded: &Recorded) -> Result<Vec<String>, FoldError>;
    /// A fold with an empty working set, that keeps at about the most so many documents.
    fn start(&self, documents_max: usize) -> Box<dyn Fold>;
}

impl<P: Projection> DynProjection for P {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn version(&self) -> u32 {
        P::VERSION
    }

    fn category(&self) -> &'static str {
        P::Event::CATEGORY
    }

    fn passed_over(&self) -> Vec<&'static str> {
        let names = P::Event::NAMES.iter().map(|(name, _)| *name);
        names.filter(|name| !P::EVENTS.contains(name)).collect()
    }

    fn key_form(&self) -> String {
        key::form(P::Event::CATEGORY, P::KEY)
    }

    fn whole_key<'a>(&self, key: &'a str) -> Cow<'a, str> {
        key::whole(P::KEY, key)
    }

    fn indexes(&self) -> &'static [Index] {
        P::INDEXES
    }

    fn text(&self) -> &'static [TextField] {
        P::TEXT
    }

    fn streams_of(&self, key: &str) -> Vec<StreamId> {
        P::streams_of(key)
    }

    fn first_of(&self, key: &str) -> Revision {
        key::first(P::KEY, key)
    }

    fn keys_of(&self, recorded: &Recorded) -> Result<Vec<String>, FoldError> {
        let mut keys = Vec::new();
        if wants::<P>(recorded) {
            P::keys(recorded, &P::Event::from_envelope(&recorded.envelope)?, &mut keys);
        }
        Ok(keys)
    }

    fn start(&self, documents_max: usize) -> Box<dyn Fold> {
        Box::new(WorkingSet::<P>::new(documents_max))
    }
}

/// Whether a projection folds this event, or would refuse it: of one that a newer release recorded
/// nobody can tell what it changes.
pub(crate) fn wants<P: Projection>(recorded: &Recorded) -> bool {
    let name = recorded.envelope.name.as_str();
    let is_known = || P::Event::NAMES.iter().any(|(known, _)| *known == name);
    recorded.stream.category() == P::Event::CATEGORY && (P::EVENTS.contains(&name) || !is_known())
}

/// Fields that the store indexes together, in this order; the key follows as the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// The index's name within its collection.
    pub name: &'static str,
    /// Top-level fields of the document.
    pub fields: &'static [Field],
}

/// A top-level field of a document that queries may filter or sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in the JSON.
    pub name: &'static str,
    /// What it holds, never null.
    pub kind: FieldKind,
}

/// What an indexed field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Text, ordered by its bytes.
    Text,
    /// An integer.
    Integer,
}

/// A top-level field of a document, text or absent, whose words can be searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextField {
    /// Its name in the JSON.
    pub name: &'static str,
    /// How much a match in it counts beside one in another field, at least 1.
    pub weight: u32,
}

/// An event that cannot be folded: its key is parked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The event contradicts what the document says.
    #[error("event {event} cannot happen here: {reason}; the log was written by other rules or is damaged")]
    OutOfPlace {
        /// The event's name.
        event: &'static str,
        /// What contradicts it.
        reason: &'static str,
    },
    /// The stored bytes are no event of the category.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The document that the event makes is none that a store can hold.
    #[error("what the event makes of the document cannot be written: {reason}; mend the fold")]
    Unwritable {
        /// What it holds.
        reason: String,
    },
    /// A stored document is not what this release writes.
    #[error("document {key:?} is not what this release writes: {reason}; rebuild the projection")]
    Document {
        /// The document's key.
        key: String,
        /// What the parser said.
        reason: String,
    },
}

impl FoldError {
    pub(crate) fn unwritable(error: &serde_json::Error) -> Self {
        Self::Unwritable { reason: error.to_string() }
    }

    pub(crate) fn out_of_place(event: &impl Event, reason: &'static str) -> Self {
        Self::OutOfPlace { event: event.name(), reason }
    }

    /// An event that [`Projection::EVENTS`] does not name.
    pub(crate) fn not_mine(event: &impl Event) -> Self {
        Self::out_of_place(event, "this projection does not fold it")
    }
}

const ZEROS: &str = "00000000000000000000";
const _: () = assert!(ZEROS.len() == DIGITS);

/// The key of a message or of what hangs on one: `<stream>/<revision, zero-padded>`. Written out,
/// as formatting takes longer than all else that is done for a key.
pub(crate) fn message_key(stream: &StreamId, revision: Revision) -> String {
    let mut digits = itoa::Buffer::new();
    let (stream, digits) = (stream.as_str(), digits.format(revision.get()));
    let mut key = String::with_capacity(stream.len() + 1 + ZEROS.len());
    key.push_str(stream);
    key.push('/');
    key.push_str(ZEROS.get(digits.len()..).unwrap_or_default());
    key.push_str(digits);
    key
}

/// When it happened: by its author's account if that was given, or when the log took it. A time that
/// no document can hold is none.
pub(crate) fn happened_at(recorded: &Recorded) -> UnixMillis {
    let occurred_at = recorded.envelope.occurred_at.filter(|at| at.get().unsigned_abs() <= INTEGER_MAX);
    occurred_at.unwrap_or(recorded.recorded_at)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
pub(crate) mod testing {
    use dramatis_events::room::RoomEvent;
    use dramatis_events::user::UserEvent;
    use dramatis_events::{
        Envelope, Event, EventId, MemberId, Position, Recorded, Revision, StreamId, UnixMillis,
    };

    use super::{FoldError, Projection};
    use crate::canonical::to_json;

    /// An event of `room-main.lobby`, recorded at 1000 plus its revision, position revision plus 100.
    pub(crate) fn recorded(revision: u64, by: &str, event: &RoomEvent) -> Recorded {
        recorded_in("room-main.lobby", revision, by, event)
    }

    fn recorded_in(stream: &str, revision: u64, by: &str, event: &impl Event) -> Recorded {
        let stream = StreamId::parse(stream).unwrap();
        let revision = Revision::new(revision);
        let envelope = Envelope {
            id: EventId::at(&stream, revision),
            name: event.event_name(),
            version: event.version(),
            occurred_at: None,
            author: MemberId::parse(by).unwrap(),
            command: None,
            correlation_id: None,
            causation_id: None,
            subject: None,
            data: event.encode().unwrap(),
        };
        let recorded_at = UnixMillis::new(1_000 + i64::try_from(revision.get()).unwrap());
        Recorded {
            stream,
            revision,
            position: Position::from_engine(100 + revision.get()),
            recorded_at,
            envelope,
        }
    }

    /// Reads `by Name {json}` lines as events, the line's number being the revision.
    pub(crate) fn history(lines: &str) -> Vec<Recorded> {
        let mut events = Vec::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let (by, name, data) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or("{}"));
            let event = RoomEvent::decode(name, 1, data.as_bytes()).unwrap();
            events.push(recorded(u64::try_from(events.len()).unwrap(), by, &event));
        }
        events
    }

    /// Reads `Name {json}` lines as events of `user-main.alice`, the line's number being the revision.
    pub(crate) fn user_history(lines: &str) -> Vec<Recorded> {
        let lines = (0..).zip(lines.lines().map(str::trim));
        let event = |(revision, line): (u64, &str)| {
            let (name, data) = line.split_once(' ').unwrap();
            let event = UserEvent::decode(name, 1, data.as_bytes()).unwrap();
            recorded_in("user-main.alice", revision, "alice", &event)
        };
        lines.map(event).collect()
    }

    /// Folds the events of one key, and shows the document as stores get it.
    pub(crate) fn document<P: Projection>(key: &str, events: &[Recorded]) -> Result<String, FoldError> {
        let mut document = None;
        for recorded in events {
            let event = P::Event::from_envelope(&recorded.envelope)?;
            let mut keys = Vec::new();
            P::keys(recorded, &event, &mut keys);
            assert!(keys.is_empty() || P::EVENTS.contains(&event.name()), "EVENTS lacks {}", event.name());
            if keys.iter().any(|k| k == key) {
                P::fold(&mut document, recorded, &event)?;
            }
        }
        let json = document.map(|document| to_json(&document, 0)).transpose();
        Ok(json.map_err(|error| FoldError::unwritable(&error))?.unwrap_or_else(|| "none".to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests;
