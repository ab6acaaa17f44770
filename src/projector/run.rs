//! One build on its way through the log.

use std::sync::Arc;

use dramatis_events::{Category, Epoch, EventName, Position, Recorded, UnixMillis};
use dramatis_projections::{DeadLetter, DynProjection, Fold, FoldError, Folded};

use super::Shared;
use super::record::Ledger;
use crate::log::{Filter, LogError, Page};
use crate::read_models::{Batch, Checkpoint, NewBuild, ReadModelError};

/// Why a step of a projection failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store did not answer or refused.
    #[error(transparent)]
    Store(#[from] ReadModelError),
    /// A stored document could not be read.
    #[error(transparent)]
    Document(#[from] FoldError),
    /// Someone else named another live build meanwhile.
    #[error(
        "the alias of {projection} was moved by someone else while it was to name {collection}; looking again"
    )]
    AliasMoved {
        /// The projection.
        projection: &'static str,
        /// The build it was to name.
        collection: String,
    },
    /// A name that the log's filter cannot hold.
    #[error("projection {projection} asks for {name:?}, which is no category or event name")]
    Name {
        /// The projection.
        projection: &'static str,
        /// The name.
        name: String,
    },
}

/// A build, how far it got, and the documents it holds in memory.
pub(super) struct Run {
    shared: Shared,
    projection: &'static dyn DynProjection,
    filter: Filter,
    fold: Box<dyn Fold>,
    /// A failed fold may have left documents in memory half folded: it starts from none again.
    stale: bool,
    /// Folded but not yet known to be written: goes first in the next step.
    unwritten: Option<Unwritten>,
    pub(super) collection: String,
    pub(super) epoch: Epoch,
    pub(super) position: Option<Position>,
    /// When the last event folded was recorded.
    pub(super) folded_at: Option<UnixMillis>,
    pub(super) events: u64,
    pub(super) documents_written: u64,
    pub(super) parked: Arc<Vec<DeadLetter>>,
}

struct Unwritten {
    batch: Batch,
    events: u64,
}

impl Run {
    /// Creates a build, from the log's start.
    pub(super) async fn create(
        shared: &Shared,
        projection: &'static dyn DynProjection,
        collection: String,
    ) -> Result<Self, RunError> {
        let epoch = shared.log.epoch();
        shared.store.create(described(projection, &collection, epoch)).await?;
        Self::begin(shared, projection, collection, Checkpoint { epoch, position: None }).await
    }

    /// Goes on with a build from its checkpoint, with the indexes that this release has.
    pub(super) async fn open(
        shared: &Shared,
        projection: &'static dyn DynProjection,
        collection: String,
        checkpoint: Checkpoint,
    ) -> Result<Self, RunError> {
        shared.store.index_build(described(projection, &collection, checkpoint.epoch)).await?;
        Self::begin(shared, projection, collection, checkpoint).await
    }

    async fn begin(
        shared: &Shared,
        projection: &'static dyn DynProjection,
        collection: String,
        checkpoint: Checkpoint,
    ) -> Result<Self, RunError> {
        let filter = filter(projection)?;
        let (fold, parked) = start(shared, projection, &collection).await?;
        Ok(Self {
            shared: shared.clone(),
            projection,
            filter,
            fold,
            stale: false,
            unwritten: None,
            collection,
            epoch: checkpoint.epoch,
            position: checkpoint.position,
            folded_at: None,
            events: 0,
            documents_written: 0,
            parked,
        })
    }

    /// Folds one page up to the log's head; tells whether there was one.
    pub(super) async fn step(&mut self) -> Result<bool, RunError> {
        let head = *self.shared.log.head().borrow();
        self.step_to(head).await
    }

    /// Folds everything up to a position, and nothing past it.
    pub(super) async fn run_to(&mut self, target: Option<Position>) -> Result<(), RunError> {
        while self.step_to(target).await? {}
        Ok(())
    }

    /// Folds one page up to a position, and nothing past it; tells whether there was one.
    pub(super) async fn step_to(&mut self, target: Option<Position>) -> Result<bool, RunError> {
        if self.unwritten.is_some() {
            self.write().await?;
            return Ok(true);
        }
        if self.position >= target {
            return Ok(false);
        }
        let limit = self.shared.options.page;
        let page = self.shared.log.read_all(self.position, self.filter.clone(), limit).await?;
        let Page { mut events, scanned } = page;
        events.retain(|event| Some(event.position) <= target);
        let reached = scanned.min(target);
        if reached <= self.position {
            return Ok(false);
        }
        let folded = self.fold(&events).await?;
        self.folded_at = events.last().map_or(self.folded_at, |event| Some(event.recorded_at));
        for letter in &folded.parked {
            tracing::error!(
                projection = self.projection.name(), key = letter.key, position = %letter.position,
                event = letter.event, error = letter.error,
                "parked a key: its later events wait until it is tried again or the event is skipped"
            );
        }
        let checkpoint = Checkpoint { epoch: self.epoch, position: reached };
        let batch = Batch { writes: folded.writes, parked: folded.parked, checkpoint };
        self.unwritten = Some(Unwritten { batch, events: folded.events });
        self.write().await?;
        Ok(true)
    }

    async fn fold(&mut self, events: &[Arc<Recorded>]) -> Result<Folded, RunError> {
        if self.stale {
            (self.fold, self.parked) = start(&self.shared, self.projection, &self.collection).await?;
        }
        self.stale = true;
        let missing = self.fold.begin(events);
        if !missing.is_empty() {
            let stored = self.shared.store.load(&self.collection, missing).await?;
            self.fold.load(stored)?;
        }
        let folded = self.fold.finish()?;
        self.stale = false;
        Ok(folded)
    }

    async fn write(&mut self) -> Result<(), RunError> {
        let Some(unwritten) = &self.unwritten else { return Ok(()) };
        // The outcome of a failed write is unknown; made again it has the effect of one.
        self.shared.store.write(&self.collection, unwritten.batch.clone()).await?;
        if let Some(Unwritten { batch, events }) = self.unwritten.take() {
            self.position = batch.checkpoint.position;
            self.events += events;
            if !batch.parked.is_empty() {
                Arc::make_mut(&mut self.parked).extend(batch.parked);
            }
            let documents = u64::try_from(batch.writes.len()).unwrap_or(u64::MAX);
            self.documents_written = self.documents_written.saturating_add(documents);
        }
        Ok(())
    }

    /// Has the next page start from what the store holds: parked keys were changed there.
    pub(super) async fn reload(&mut self) -> Result<(), RunError> {
        self.stale = true;
        self.parked = Arc::new(self.dead_letters().await?);
        Ok(())
    }

    /// What is parked in this build.
    pub(super) async fn dead_letters(&self) -> Result<Vec<DeadLetter>, RunError> {
        Ok(self.shared.store.dead_letters(&self.collection).await?)
    }
}

/// A build as a store is told of it.
fn described(projection: &'static dyn DynProjection, collection: &str, epoch: Epoch) -> NewBuild {
    NewBuild {
        collection: collection.to_owned(),
        projection: projection.name().to_owned(),
        version: projection.version(),
        epoch,
        indexes: projection.indexes(),
        text: projection.text(),
    }
}

/// The collection of the next build of a projection: its name, `@` and a number never used by
/// a build that is there.
pub(super) async fn next_collection(shared: &Shared, projection: &str) -> Result<String, RunError> {
    let builds = shared.store.builds().await?;
    let record = Ledger::new(shared.store.clone(), projection).read().await?;
    let named = builds.iter().map(|build| &build.collection);
    let named = named.chain(record.job.iter().map(|job| &job.collection));
    let numbers = named.filter_map(|collection| collection.split_once('@'));
    let numbers = numbers.filter(|(name, _)| *name == projection);
    let last = numbers.filter_map(|(_, number)| number.parse::<u64>().ok()).max().unwrap_or(0);
    Ok(format!("{projection}@{}", last + 1))
}

/// A fold without documents, and what it has parked.
async fn start(
    shared: &Shared,
    projection: &'static dyn DynProjection,
    collection: &str,
) -> Result<(Box<dyn Fold>, Arc<Vec<DeadLetter>>), RunError> {
    let letters = shared.store.dead_letters(collection).await?;
    let mut fold = projection.start(shared.options.documents_max);
    fold.park(&letters);
    let record = Ledger::new(shared.store.clone(), projection.name()).read().await?;
    if record.skipped_in == Some(shared.log.epoch()) {
        fold.skip(record.skipped);
    }
    Ok((fold, Arc::new(letters)))
}

pub(super) fn filter(projection: &'static dyn DynProjection) -> Result<Filter, RunError> {
    let refused = |name: &str| RunError::Name { projection: projection.name(), name: name.to_owned() };
    let category = projection.category();
    let names = projection.event_names().iter();
    let names = names.map(|name| EventName::parse(name).map_err(|_| refused(name)));
    Ok(Filter {
        category: Some(Category::parse(category).map_err(|_| refused(category))?),
        names: names.collect::<Result<_, _>>()?,
        ..Filter::default()
    })
}
