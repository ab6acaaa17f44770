//! What builds were lately known to be, so that not every batch has to ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dramatis_events::Position;

use super::Store;
use super::builds::Standing;
use super::errors::Trouble;
use super::named::ALIASES;
use crate::read_models::{Batch, ReadModelError};

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
    /// How often connections had broken then.
    breaks: u64,
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

/// What was known when something was begun: batches of documents may go on while a checkpoint is written.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    breaks: u64,
    batches: u64,
}

/// Documents past a checkpoint: a server that dies may lose them although it acknowledged them.
#[derive(Clone, Copy)]
pub(super) struct Unsaved {
    /// How often connections had broken when the first of them was written; `None` where some are lost for sure.
    breaks: Option<u64>,
    /// How many batches of them there were.
    batches: u64,
    /// The last position of them.
    to: Position,
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
        if known.breaks != self.breaks.count() {
            return None;
        }
        let is_due = !known.asked && known.since.elapsed() >= KNOWN_FOR / 2;
        known.asked |= is_due;
        Some((known.standing.clone(), is_due))
    }

    pub(super) async fn ask_standing(&self, collection: &str) -> Result<Standing, Trouble> {
        let (since, breaks) = (Instant::now(), self.breaks.count());
        let standing = self.standing(collection).await?;
        let mut known = self.lately.known();
        known.retain(|_, known| known.since.elapsed() < KNOWN_FOR);
        known
            .insert(collection.to_owned(), Known { since, breaks, standing: standing.clone(), asked: false });
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

    /// The checkpoint was moved here.
    pub(super) fn stands_at(&self, collection: &str, position: i64) {
        if let Some(known) = self.lately.known().get_mut(collection) {
            known.standing.position = known.standing.position.max(Some(position));
        }
    }

    /// Has the next batch ask again, and begin anew.
    pub(super) fn forget_standing(&self, collection: &str) {
        self.lately.known().remove(collection);
        self.lately.unsaved().remove(collection);
    }

    /// A batch is about to be written, with documents or without. Called in the order in which its caller has
    /// them: what a checkpoint stands for was begun before.
    pub(super) fn begin_batch(&self, collection: &str, batch: &Batch) -> Result<Begun, ReadModelError> {
        let breaks = self.breaks.count();
        let mut all = self.lately.unsaved();
        if let Some(lost) = all.get(collection).filter(|unsaved| unsaved.breaks != Some(breaks)) {
            return Err(set_back(collection, lost.to));
        }
        if let Some(to) = batch.writes.iter().map(|write| write.position).max() {
            let first = Unsaved { breaks: Some(breaks), batches: 0, to };
            let unsaved = all.entry(collection.to_owned()).or_insert(first);
            (unsaved.batches, unsaved.to) = (unsaved.batches + 1, unsaved.to.max(to));
        }
        Ok(Begun { breaks, batches: all.get(collection).map_or(0, |unsaved| unsaved.batches) })
    }

    /// Something else is about to be done to a collection.
    pub(super) fn begun(&self, collection: &str) -> Begun {
        let batches = self.unsaved(collection).map_or(0, |unsaved| unsaved.batches);
        Begun { breaks: self.breaks.count(), batches }
    }

    /// Documents past the checkpoint of a collection.
    pub(super) fn unsaved(&self, collection: &str) -> Option<Unsaved> {
        self.lately.unsaved().get(collection).copied()
    }

    /// Up to where there were documents past the checkpoint, if some of them may be lost: some of these, or of
    /// those that were there before.
    fn lost(&self, collection: &str, before: Option<Unsaved>) -> Option<Position> {
        let breaks = self.breaks.count();
        let unsaved = self.unsaved(collection).into_iter().chain(before);
        unsaved.filter(|unsaved| unsaved.breaks != Some(breaks)).map(|unsaved| unsaved.to).max()
    }

    /// Refuses what would go on from documents that are lost, perhaps: until a run goes on from the checkpoint.
    pub(super) fn unless_set_back(
        &self,
        collection: &str,
        before: Option<Unsaved>,
    ) -> Result<(), ReadModelError> {
        match self.lost(collection, before) {
            Some(acknowledged) => Err(set_back(collection, acknowledged)),
            None => Ok(()),
        }
    }

    /// Refuses to read what was lost, perhaps, until it is written again. What is asked for when its server dies
    /// may be answered only when that is there again: so what was there before counts as well.
    pub(super) fn unless_lost(&self, collection: &str, before: Option<Unsaved>) -> Result<(), Trouble> {
        if self.lost(collection, before).is_none() {
            return Ok(());
        }
        let reason = format!("the connection broke: what was written to {collection} last is written again");
        Err(ReadModelError::Failure { reason }.into())
    }

    /// Does what stands on what was written before, and nothing of it once a connection broke since it was begun:
    /// what it stands on may be lost then. What was on its way is done or not.
    pub(super) async fn while_kept<T>(
        &self,
        collection: &str,
        begun: Begun,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        if let Some(done) = self.breaks.unbroken(begun.breaks, work).await {
            return done;
        }
        self.unless_set_back(collection, None)?;
        let reason = format!("the connection broke while {collection} was written to");
        Err(ReadModelError::Failure { reason }.into())
    }

    /// The store was found to have lost what it acknowledged up to here.
    pub(super) fn lose(&self, collection: &str, acknowledged: Position) -> ReadModelError {
        let lost = Unsaved { breaks: None, batches: 0, to: acknowledged };
        self.lately.unsaved().entry(collection.to_owned()).or_insert(lost).breaks = None;
        set_back(collection, acknowledged)
    }

    /// The checkpoint stands for all that was written before its batch was begun and with it, or that is
    /// written again. What was begun meanwhile is not.
    pub(super) fn end_unsaved_of(&self, collection: &str, begun: Begun) {
        let mut unsaved = self.lately.unsaved();
        if unsaved.get(collection).is_some_and(|unsaved| unsaved.batches == begun.batches) {
            unsaved.remove(collection);
        }
    }
}

fn set_back(collection: &str, acknowledged: Position) -> ReadModelError {
    ReadModelError::SetBack { collection: collection.to_owned(), acknowledged }
}
