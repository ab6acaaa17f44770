//! What readers, the writer and those beside it share, and what they have operators told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dramatis_events::{Position, StreamId};
use tokio::sync::watch;

use super::segment::Closed;
use super::state::State;
use super::storage::Storage;

/// See the module.
pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) state: RwLock<State>,
    pub(super) head: watch::Sender<Option<Position>>,
    pub(super) poisoned: Mutex<Option<String>>,
    /// What is wrong although the log goes on, the last of each kind.
    pub(super) troubles: Mutex<BTreeMap<Trouble, String>>,
}

/// What can be wrong although the log goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// Stored bytes do not read back.
    Damage,
    /// The chain is broken.
    Chain,
    /// A closed segment has no index or no line in the chain yet.
    Index,
    /// There is no next segment.
    Rolling,
    /// Closed segments do not move to the cold tier.
    Moving,
}

impl Shared {
    /// See [`State::next_revision`].
    pub(super) fn next_revision(&self, stream: &StreamId) -> Result<u64, Arc<Vec<Arc<Closed>>>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).next_revision(stream)
    }

    /// Has operators told of a trouble, or that it is over.
    pub(super) fn note(&self, trouble: Trouble, why: Option<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => troubles.insert(trouble, why),
            None => troubles.remove(&trouble),
        };
    }

    /// What operators are to be told.
    pub(super) fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
