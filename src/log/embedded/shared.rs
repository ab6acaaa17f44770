//! What readers, the writer and those beside it share, and what they have operators told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dramatis_events::{Position, StreamId};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::segment::Closed;
use super::state::State;
use super::storage::{Storage, read_up_to};
use crate::log::LogError;

/// See the module.
pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) state: RwLock<State>,
    pub(super) head: watch::Sender<Option<Position>>,
    pub(super) poisoned: Mutex<Option<String>>,
    /// What is wrong although the log goes on, the last of each kind.
    pub(super) troubles: Mutex<BTreeMap<Trouble, String>>,
    /// The file that could not be read last, until it can.
    pub(super) unread: Mutex<Option<String>>,
}

/// What can be wrong although the log goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// Stored bytes do not read back.
    Damage,
    /// Closed segments cannot be read, as while a disk is away.
    Unread,
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

    /// Whether closed segments could not be read or moved, which is looked at again by and by.
    pub(super) fn is_out_of_reach(&self) -> bool {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.contains_key(&Trouble::Unread) || troubles.contains_key(&Trouble::Moving)
    }

    /// Notes that something could not be read, and which file, if it was one.
    fn miss(&self, file: Option<&str>, error: &LogError) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        *unread = file.map(str::to_owned);
        let why = format!("older segments cannot be read: {error}: see that their disk is mounted");
        self.note(Trouble::Unread, Some(why));
    }

    /// Looks whether what could not be read can: that others can says nothing of it. It may take as long
    /// as a disk does that does not answer.
    pub(super) fn look_again(&self) {
        let missed = self.unread.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reads = |name: &String| self.storage.open(name).and_then(|file| read_up_to(&*file, 0, 1));
        if missed.as_ref().is_some_and(|name| reads(name).is_err()) {
            return;
        }
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may have been missed meanwhile.
        if *unread == missed {
            *unread = None;
            self.note(Trouble::Unread, None);
        }
    }

    /// What operators are to be told.
    pub(super) fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Reads files on a thread that may wait for them. Operators are told of what is damaged, which stays so,
/// and of what cannot be read, until it can.
pub(super) fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> BoxFuture<'static, Result<T, LogError>> {
    let shared = shared.clone();
    Box::pin(async move {
        let stopped =
            |error: tokio::task::JoinError| LogError::Failure { file: None, reason: error.to_string() };
        let read = tokio::task::spawn_blocking(read).await.map_err(stopped)?;
        match &read {
            Err(error @ LogError::Damaged { .. }) => {
                let why = format!("{error}: `dramatis log verify` lists all damage");
                shared.note(Trouble::Damage, Some(why));
            }
            Err(error @ LogError::Failure { file, .. }) => shared.miss(file.as_deref(), error),
            Ok(_) | Err(_) => {}
        }
        read
    })
}
