//! What builds were lately known to be, so that not every batch has to ask.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Store;
use super::builds::Standing;
use super::errors::Trouble;
use crate::read_models::ReadModelError;

/// How long that is taken for true. A build that another process drops or makes anew is noticed so
/// much later at the most, or by its checkpoint, which no batch moves past that.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// Builds by their collections: those that were written to lately.
#[derive(Default)]
pub(super) struct Lately {
    known: Mutex<HashMap<String, (Instant, Standing)>>,
    /// Those with documents past their checkpoints.
    unsaved: Mutex<HashMap<String, Unsaved>>,
}

/// What was known when a batch was begun: batches of documents may go on while a checkpoint is written.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    breaks: u64,
    batches: u64,
}

#[derive(Clone, Copy)]
struct Unsaved {
    /// How often connections had broken when the first of the documents was written.
    breaks: u64,
    /// How many batches of them there were.
    batches: u64,
}

impl Lately {
    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, Standing)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsaved(&self) -> MutexGuard<'_, HashMap<String, Unsaved>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The build of a collection, as it was a moment ago.
    pub(super) async fn standing_lately(&self, collection: &str) -> Result<Standing, Trouble> {
        let fresh = |since: &Instant| since.elapsed() < KNOWN_FOR;
        let known = self.lately.known().get(collection).filter(|(since, _)| fresh(since)).cloned();
        if let Some((_, standing)) = known {
            return Ok(standing);
        }
        let asked = Instant::now();
        let standing = self.standing(collection).await?;
        let mut known = self.lately.known();
        known.retain(|_, (since, _)| fresh(since));
        known.insert(collection.to_owned(), (asked, standing.clone()));
        Ok(standing)
    }

    /// Has the next batch ask again.
    pub(super) fn forget_standing(&self, collection: &str) {
        self.lately.known().remove(collection);
        self.lately.unsaved().remove(collection);
    }

    /// A batch is about to be written, with documents or without.
    pub(super) fn begin_batch(&self, collection: &str, documents: bool) -> Begun {
        let now = Unsaved { breaks: self.breaks.load(Ordering::Relaxed), batches: 0 };
        let mut unsaved = self.lately.unsaved();
        if documents {
            unsaved.entry(collection.to_owned()).or_insert(now).batches += 1;
        }
        Begun { breaks: now.breaks, batches: unsaved.get(collection).map_or(0, |unsaved| unsaved.batches) }
    }

    /// Whether no connection broke since the first document past the checkpoint was written: a server
    /// that died meanwhile may have lost some and keep the checkpoint that is written next.
    pub(super) fn keeps_unsaved(&self, collection: &str) -> bool {
        let breaks = self.breaks.load(Ordering::Relaxed);
        self.lately.unsaved().get(collection).is_none_or(|unsaved| unsaved.breaks == breaks)
    }

    /// The same, for a checkpoint: and whether none broke since its batch was begun.
    pub(super) fn keeps(&self, collection: &str, begun: Begun) -> bool {
        self.breaks.load(Ordering::Relaxed) == begun.breaks && self.keeps_unsaved(collection)
    }

    /// Refuses to read what was lost, perhaps, until it is written again.
    pub(super) fn unless_lost(&self, collection: &str) -> Result<(), Trouble> {
        if self.keeps_unsaved(collection) {
            return Ok(());
        }
        let reason = format!("the connection broke: what was written to {collection} last is written again");
        Err(ReadModelError::Failure { reason }.into())
    }

    /// The checkpoint stands for all that was written before its batch was begun and with it, or that is
    /// written again. What was begun meanwhile is not.
    pub(super) fn end_unsaved_of(&self, collection: &str, begun: Begun) {
        let mut unsaved = self.lately.unsaved();
        if unsaved.get(collection).is_some_and(|unsaved| unsaved.batches == begun.batches) {
            unsaved.remove(collection);
        }
    }

    /// What may be lost is written again, from the checkpoint.
    pub(super) fn end_unsaved(&self, collection: &str) {
        self.lately.unsaved().remove(collection);
    }
}
