//! The port to the one ordered log, and what all engines share.
//!
//! **Durability.** [`EventLog::append`] answers only when the events are durable on the
//! engine's own terms, and no reader sees an event before that. **Order.** Within a stream
//! revisions are contiguous from 0; positions order the whole log. `recorded_at` never runs
//! backwards. **Unknown outcomes.** After [`AppendError::Failure`] the events may or may not
//! be recorded: the caller reads the stream again before it decides anything.

use std::fmt;
use std::sync::Arc;

use dramatis_events::{
    Category, CommandId, CommandKey, ContentHash, Envelope, Epoch, EventName, MemberId, Position, Recorded,
    Revision, StreamId, UnixMillis,
};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

#[cfg(test)]
pub(crate) mod contract;
mod tail;

pub mod embedded;
pub mod memory;

pub use tail::Tail;

/// An ordered, durable, append-only log of events.
pub trait EventLog: Send + Sync + 'static {
    /// Appends atomically, if the stream stands where `expected` says.
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, AppendError>>;

    /// Events of one stream from `from` on, ascending. Fewer than the limit means the head was reached.
    fn read_stream(
        &self,
        stream: &StreamId,
        from: Revision,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>>;

    /// Events of one stream below `before` (or from its end), descending.
    fn read_stream_backwards(
        &self,
        stream: &StreamId,
        before: Option<Revision>,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>>;

    /// Events of the whole log past `after` (or from its start) that pass the filter, ascending.
    fn read_all(
        &self,
        after: Option<Position>,
        filter: Filter,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Page, LogError>>;

    /// The last revision of a stream; `None` if it has no event.
    fn stream_head(&self, stream: &StreamId) -> BoxFuture<'static, Result<Option<Revision>, LogError>>;

    /// The first outcome of a command, if it recorded anything, however long ago.
    fn find_command(
        &self,
        command: CommandRef,
    ) -> BoxFuture<'static, Result<Option<CommandOutcome>, LogError>>;

    /// Follows the position of the last durable event; `None` while the log is empty.
    fn head(&self) -> watch::Receiver<Option<Position>>;

    /// The epoch of this history.
    fn epoch(&self) -> Epoch;

    /// Why appends fail until a restart, if they do.
    fn poisoned(&self) -> Option<String>;

    /// What operators must know although appends go on, or why they are refused for now. It may ask the
    /// disk: to be called where that may be waited for.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// What it takes on the disk, as far as an engine knows. It may ask the disk, likewise.
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// What a log takes on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segment files.
    pub segments: u64,
    /// Bytes of events with their metadata.
    pub stored_bytes: u64,
    /// Bytes that the disk has free.
    pub free_bytes: u64,
    /// Whether an append may be answered before it is durable.
    pub relaxed: bool,
}

/// Where a stream must stand for an append to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It has no event yet.
    NoStream,
    /// Its last event has this revision.
    Exact(Revision),
    /// Anywhere. For tools only: deciders never use it.
    Any,
}

impl Expected {
    /// What to expect of a stream whose last revision is known.
    pub fn after(head: Option<Revision>) -> Self {
        head.map_or(Self::NoStream, Self::Exact)
    }
}

/// A conditional, atomic append to one stream.
#[derive(Debug, Clone)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// Where it must stand.
    pub expected: Expected,
    /// What to record, in this order. Not empty.
    pub envelopes: Vec<Envelope>,
}

/// The most events of one append.
pub const APPEND_EVENTS_MAX: usize = 4_096;
/// The most payload bytes of one event.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// The most payload bytes of one append.
pub const APPEND_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Append {
    /// Checks the sizes that every engine holds to.
    pub fn check(&self) -> Result<(), AppendError> {
        let too_large = |what, max, got| Err(AppendError::TooLarge { what, max, got });
        let (mut total, mut largest) = (0, 0);
        for envelope in &self.envelopes {
            total += envelope.data.len();
            largest = largest.max(envelope.data.len());
        }
        match self.envelopes.len() {
            0 => Err(AppendError::Empty),
            count if count > APPEND_EVENTS_MAX => too_large("events of an append", APPEND_EVENTS_MAX, count),
            _ if largest > EVENT_BYTES_MAX => too_large("bytes of an event", EVENT_BYTES_MAX, largest),
            _ if total > APPEND_BYTES_MAX => too_large("bytes of an append", APPEND_BYTES_MAX, total),
            _ => Ok(()),
        }
    }
}

/// Why an append was not made, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The stream stands elsewhere; nothing was recorded.
    #[error(
        "the stream was expected at {expected:?} but stands at {actual:?}: read it again and decide again"
    )]
    Conflict {
        /// What the append expected.
        expected: Expected,
        /// The last revision there is.
        actual: Option<Revision>,
    },
    /// No envelope was given; nothing was recorded.
    #[error("an append needs at least one event")]
    Empty,
    /// Over a size limit; nothing was recorded.
    #[error("{what}: at most {max}, got {got}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        max: usize,
        /// What came.
        got: usize,
    },
    /// The log takes no appends now; nothing was recorded.
    #[error("the log takes no appends: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The world broke while appending: it may or may not be recorded.
    #[error("the append failed and its outcome is unknown: {reason}")]
    Failure {
        /// What broke.
        reason: String,
    },
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Stored bytes are not what was written.
    #[error("the log is damaged in {file} at byte {offset}: {reason}")]
    Damaged {
        /// The file's name.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The storage did not answer.
    #[error("the log cannot be read: {reason}")]
    Failure {
        /// The file that could not be read, if it was one.
        file: Option<String>,
        /// What broke.
        reason: String,
    },
    /// The position is past the end of the log.
    #[error("position {asked} is past the log's end")]
    AheadOfLog {
        /// What was asked.
        asked: Position,
    },
}

/// How much one read may return; at least one event always fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Events at the most.
    pub events: usize,
    /// Payload bytes at about the most.
    pub bytes: usize,
}

impl ReadLimit {
    /// A limit by number, at 1 MiB.
    pub const fn events(events: usize) -> Self {
        Self { events, bytes: 1024 * 1024 }
    }
}

/// Which events a reader wants, told from headers alone. The default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only streams of this category.
    pub category: Option<Category>,
    /// Only this stream.
    pub stream: Option<StreamId>,
    /// Only events of these names; empty means any.
    pub names: Vec<EventName>,
    /// No events of these names.
    pub except: Vec<EventName>,
    /// Only events recorded at this time or after it.
    pub recorded_from: Option<UnixMillis>,
    /// Only events recorded before this time.
    pub recorded_before: Option<UnixMillis>,
}

/// What of an event a filter looks at.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The stream's name, UTF-8.
    pub stream: &'a [u8],
    /// The event's name, UTF-8.
    pub name: &'a [u8],
    /// When the log took it.
    pub recorded_at: UnixMillis,
}

impl<'a> Header<'a> {
    /// The header of an event.
    pub fn of(event: &'a Recorded) -> Self {
        let (stream, name) = (event.stream.as_str().as_bytes(), event.envelope.name.as_str().as_bytes());
        Self { stream, name, recorded_at: event.recorded_at }
    }

    /// The stream's category.
    pub fn category(&self) -> &'a [u8] {
        self.stream.split(|byte| *byte == b'-').next().unwrap_or_default()
    }
}

impl Filter {
    /// Whether an event with this header passes.
    pub fn passes(&self, header: &Header<'_>) -> bool {
        self.stream.as_ref().is_none_or(|wanted| wanted.as_str().as_bytes() == header.stream)
            && self.category.as_ref().is_none_or(|wanted| wanted.as_str().as_bytes() == header.category())
            && (self.names.is_empty()
                || self.names.iter().any(|wanted| wanted.as_str().as_bytes() == header.name))
            && !self.except.iter().any(|unwanted| unwanted.as_str().as_bytes() == header.name)
            && self.recorded_from.is_none_or(|from| header.recorded_at >= from)
            && self.recorded_before.is_none_or(|before| header.recorded_at < before)
    }
}

/// One page of the whole log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// What passed the filter, ascending.
    pub events: Vec<Arc<Recorded>>,
    /// How far was looked: read on after this position. `None` only at the log's very start.
    pub scanned: Option<Position>,
}

/// Names a command by its scope and id.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandRef {
    /// The stream it was for; names the tenant too.
    pub stream: StreamId,
    /// Who sent it.
    pub author: MemberId,
    /// The client's id for it.
    pub id: CommandId,
}

impl CommandRef {
    /// The key that indexes hold.
    pub fn key(&self) -> CommandKey {
        CommandKey::derive(&self.stream, &self.author, &self.id)
    }

    /// Whether this recorded event came from the command.
    pub fn is_of(&self, event: &Recorded) -> bool {
        event.stream == self.stream
            && event.envelope.author == self.author
            && event.envelope.command.as_ref().is_some_and(|stamp| stamp.id == self.id)
    }
}

impl fmt::Debug for CommandRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {} in {}", self.id, self.author, self.stream)
    }
}

/// What a command recorded, the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandOutcome {
    /// The hash of what it asked.
    pub hash: ContentHash,
    /// The revision of its last event.
    pub revision: Revision,
    /// The position of its last event.
    pub position: Position,
}
