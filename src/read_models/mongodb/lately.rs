//! What builds were lately known to be, so that not every batch has to ask.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Store;
use super::builds::Standing;
use super::errors::Trouble;
use super::named::ALIASES;
use crate::read_models::ReadModelError;

/// How long that is taken for true; from half of that on it is asked again beside what goes by it. A build
/// that another process drops or makes anew is noticed so much later at the most, or by its checkpoint, which
/// no batch moves past that; another live build as well.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// Builds by their collections: those that were written to lately.
#[derive(Default)]
pub(super) struct Lately {
    known: Mutex<HashMap<String, Known>>,
    live: Mutex<Live>,
    /// Those with documents past their checkpoints.
    unsaved: Mutex<HashMap<String, Unsaved>>,
}

#[derive(Clone)]
struct Known {
    since: Instant,
    standing: Standing,
    /// It is being asked again.
    asked: bool,
}

/// The live builds that queries went to, by projection.
#[derive(Default)]
struct Live {
    known: HashMap<String, (Instant, String)>,
    /// How often this process set out to change one.
    changes: u64,
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
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A live build is about to be changed here, or was.
    pub(super) fn changes_live(&self, projection: &str) {
        let mut live = self.live();
        live.changes += 1;
        live.known.remove(projection);
    }

    fn unsaved(&self) -> MutexGuard<'_, HashMap<String, Unsaved>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The build of a collection, as it was a moment ago.
    pub(super) async fn standing_lately(self: &Arc<Self>, collection: &str) -> Result<Standing, Trouble> {
        let Some((standing, is_due)) = self.known_standing(collection) else {
            return self.ask_standing(collection).await;
        };
        if is_due {
            let (store, collection) = (self.clone(), collection.to_owned());
            // What comes of it is known then, or is asked by the next batch.
            tokio::spawn(async move {
                if store.ask_standing(&collection).await.is_err() {
                    store.lately.known().remove(&collection);
                }
            });
        }
        Ok(standing)
    }

    /// What is known of a collection, and whether it is to be asked again.
    fn known_standing(&self, collection: &str) -> Option<(Standing, bool)> {
        let mut known = self.lately.known();
        let known = known.get_mut(collection).filter(|known| known.since.elapsed() < KNOWN_FOR)?;
        let is_due = !known.asked && known.since.elapsed() >= KNOWN_FOR / 2;
        known.asked |= is_due;
        Some((known.standing.clone(), is_due))
    }

    async fn ask_standing(&self, collection: &str) -> Result<Standing, Trouble> {
        let since = Instant::now();
        let standing = self.standing(collection).await?;
        let mut known = self.lately.known();
        known.retain(|_, known| known.since.elapsed() < KNOWN_FOR);
        known.insert(collection.to_owned(), Known { since, standing: standing.clone(), asked: false });
        Ok(standing)
    }

    /// The live build of a projection for queries, as it was a moment ago.
    pub(super) async fn live_lately(&self, projection: &str) -> Result<Option<String>, Trouble> {
        let (known, changes) = {
            let live = self.lately.live();
            let known = live.known.get(projection).filter(|(since, _)| since.elapsed() < KNOWN_FOR);
            (known.map(|(_, collection)| collection.clone()), live.changes)
        };
        if known.is_some() {
            return Ok(known);
        }
        let since = Instant::now();
        let found = self.named(ALIASES, projection, "collection").await?;
        let mut live = self.lately.live();
        if let (Some(collection), true) = (&found, live.changes == changes) {
            live.known.insert(projection.to_owned(), (since, collection.clone()));
        }
        Ok(found)
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
