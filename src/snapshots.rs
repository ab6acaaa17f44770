//! The port to entity snapshots: a decider's state at one event, so that an entity need not
//! fold its stream from the start.
//!
//! **Disposable.** The log is the truth; a snapshot only saves reading it. An engine loses
//! snapshots freely and serves one only whole and under exactly the key it was saved under:
//! state of another decider, state version or epoch is never converted, it is folded anew.
//! **Never in the way.** Nothing here fails: what cannot be read is not there, what cannot be
//! kept is dropped, and the log line says why. **Bounded.** One snapshot a stream.

use dramatis_events::{Epoch, EventId, Recorded, Revision, StreamId, UnixMillis};
use futures_util::future::BoxFuture;

#[cfg(test)]
pub(crate) mod contract;

pub mod memory;
pub mod sqlite;

/// A store of entity snapshots.
pub trait Snapshots: Send + Sync + 'static {
    /// The snapshot saved under this key.
    fn load(&self, key: &Key) -> BoxFuture<'static, Option<Snapshot>>;

    /// Keeps a snapshot in place of the stream's earlier one, whatever key that had. It begins
    /// when it is called; the answer says whether it was kept.
    fn save(&self, key: &Key, snapshot: Snapshot) -> BoxFuture<'static, bool>;
}

/// What a snapshot is of. All of it must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The stream.
    pub stream: StreamId,
    /// The decider's name.
    pub decider: &'static str,
    /// The version of the decider's state.
    pub state_version: u32,
    /// The epoch of the history that was folded.
    pub epoch: Epoch,
}

/// A decider's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last event folded into it.
    pub last: LastEvent,
    /// The state, JSON.
    pub state: Vec<u8>,
}

/// The last event of a history, and enough of it to tell it from one that was recorded at the
/// same revision after the log had been cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEvent {
    /// Its revision.
    pub revision: Revision,
    /// Its id.
    pub id: EventId,
    /// When it was recorded.
    pub recorded_at: UnixMillis,
}

impl From<&Recorded> for LastEvent {
    fn from(event: &Recorded) -> Self {
        Self { revision: event.revision, id: event.envelope.id, recorded_at: event.recorded_at }
    }
}

/// Keeps nothing: entities fold their streams from the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSnapshots;

impl Snapshots for NoSnapshots {
    fn load(&self, _: &Key) -> BoxFuture<'static, Option<Snapshot>> {
        Box::pin(std::future::ready(None))
    }

    fn save(&self, _: &Key, _: Snapshot) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(false))
    }
}
