//! One build on its way through the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dramatis_events::{Category, Epoch, EventName, Position, Recorded, UnixMillis};
use dramatis_projections::{DeadLetter, DynProjection, Fold, FoldError, Folded, Write};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Shared;
use super::gather::Found;
use super::record::Ledger;
use crate::log::{Filter, LogError, Page, ReadLimit};
use crate::read_models::{Batch, Checkpoint, NewBuild, ReadModelError};

/// How often the checkpoint of a build that keeps up is written down, beside the steps: who waits for a
/// document does not wait for that, and what a restart folds again it skips by the documents' own
/// positions.
const SAVE_EVERY: Duration = Duration::from_millis(250);

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

impl RunError {
    /// Whether the same may succeed a moment later.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self, Self::Log(LogError::Failure { .. }) | Self::Store(ReadModelError::Failure { .. }))
    }
}

/// A build, how far it got, and the documents it holds in memory.
pub(super) struct Run {
    shared: Shared,
    projection: &'static dyn DynProjection,
    filter: Filter,
    fold: Box<dyn Fold>,
    /// A failed fold may have left documents in memory half folded: it starts from none again.
    stale: bool,
    /// Set while the next page is read, and the last one written, as one is folded.
    overlaps: Option<Pages>,
    /// The page after what is folded.
    ahead: Option<Ahead>,
    /// Folded but not yet known to be written, in this order: goes first in the next step.
    unwritten: VecDeque<Unwritten>,
    /// The write of the first of these, if it is on its way.
    writing: Option<JoinHandle<Result<(), ReadModelError>>>,
    /// How far events are folded; what is written is at [`Run::position`].
    folded_to: Option<Position>,
    /// Where the store stands once all that is folded is written.
    pub(super) stored_at: Option<Position>,
    /// What the last page came to.
    pub(super) found: Found,
    /// Since when the store has not been told of the position.
    unsaved_since: Option<Instant>,
    /// The checkpoint that is on its way to the store by itself.
    saving: Option<Saving>,
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
    batch: Arc<Batch>,
    /// Up to where events are folded into it and those before.
    to: Option<Position>,
    events: u64,
}

struct Saving {
    to: Option<Position>,
    write: JoinHandle<Result<(), ReadModelError>>,
}

/// Events of pages. The first are smaller, so that the store need not wait long for what to write.
struct Pages {
    next: usize,
    max: usize,
}

struct Ahead {
    after: Option<Position>,
    page: JoinHandle<Result<Page, LogError>>,
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
        let (fold, parked) = start(shared, projection, &collection, checkpoint.position).await?;
        Ok(Self {
            shared: shared.clone(),
            projection,
            filter,
            fold,
            stale: false,
            overlaps: None,
            ahead: None,
            unwritten: VecDeque::new(),
            writing: None,
            folded_to: checkpoint.position,
            stored_at: checkpoint.position,
            found: Found::Nothing,
            unsaved_since: None,
            saving: None,
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

    /// Has it read ahead and write behind from now on, in larger pages of so many events at the most
    /// and with more documents in memory, or no longer.
    pub(super) fn overlap(&mut self, page_events_max: Option<usize>) {
        let options = &self.shared.options;
        self.overlaps = page_events_max.map(|max| {
            let max = options.rebuild_page.events.min(max);
            Pages { next: options.page.events.min(max), max }
        });
        self.ahead = None;
        self.fold.keep(self.documents_max());
    }

    fn documents_max(&self) -> usize {
        let options = &self.shared.options;
        if self.overlaps.is_some() { options.rebuild_documents_max } else { options.documents_max }
    }

    /// Folds one page up to a position, and nothing past it; tells whether there was one. Where
    /// steps overlap, its documents are on their way to the store when this ends; a step that
    /// finds no page waits for them.
    pub(super) async fn step_to(&mut self, target: Option<Position>) -> Result<bool, RunError> {
        let stepped = self.one_step_to(target).await;
        if stepped.is_err() {
            // What comes next may go by the checkpoint.
            let _ = self.saved().await;
        }
        stepped
    }

    async fn one_step_to(&mut self, target: Option<Position>) -> Result<bool, RunError> {
        if self.overlaps.is_some() || self.saving.as_ref().is_some_and(|saving| saving.write.is_finished()) {
            self.saved().await?;
        }
        let failed = self.writing.is_none() && !self.unwritten.is_empty();
        if failed || self.folded_to >= target {
            return self.rest().await;
        }
        let Page { mut events, scanned } = self.page().await?;
        events.retain(|event| Some(event.position) <= target);
        let reached = scanned.min(target);
        if reached <= self.folded_to {
            return self.rest().await;
        }
        let folded = self.fold(&events).await?;
        self.folded_at = events.last().map_or(self.folded_at, |event| Some(event.recorded_at));
        say_parked(&self.collection, &folded.parked);
        self.folded_to = reached;
        self.found = found(&folded.writes);
        let nothing = folded.writes.is_empty() && folded.parked.is_empty() && self.unwritten.is_empty();
        if nothing && self.overlaps.is_none() {
            self.position = reached;
            self.unsaved_since.get_or_insert_with(Instant::now);
            return self.rest().await.map(|_| true);
        }
        let mut checkpoint = Checkpoint { epoch: self.epoch, position: None };
        let after = self.stored_at;
        if self.overlaps.is_some() {
            checkpoint.position = reached;
            self.stored_at = reached;
        }
        let batch = Arc::new(Batch { writes: folded.writes, parked: folded.parked, checkpoint, after });
        self.unwritten.push_back(Unwritten { batch, to: reached, events: folded.events });
        if self.overlaps.is_some() {
            while self.unwritten.len() > 1 {
                self.write().await?;
            }
            self.begin_write();
        } else {
            self.rest().await?;
        }
        Ok(true)
    }

    /// Waits until all that is folded is written, and has the store told of the position now and
    /// then; tells whether there was something.
    async fn rest(&mut self) -> Result<bool, RunError> {
        let some = self.settle().await?;
        if self.unsaved_since.is_some_and(|since| since.elapsed() >= SAVE_EVERY) {
            self.begin_save();
        }
        Ok(some)
    }

    /// Has the store told of the position, once all that is folded is written.
    pub(super) async fn save(&mut self) -> Result<(), RunError> {
        self.settle().await?;
        self.saved().await?;
        self.begin_save();
        self.saved().await
    }

    /// Hands the position to the store, unless one is on its way or it was told.
    fn begin_save(&mut self) {
        if self.saving.is_some() || self.unsaved_since.take().is_none() {
            return;
        }
        let to = self.position;
        let checkpoint = Checkpoint { epoch: self.epoch, position: to };
        let batch = Batch { writes: Vec::new(), parked: Vec::new(), checkpoint, after: self.stored_at };
        let write = tokio::spawn(self.shared.store.write(&self.collection, batch.into()));
        self.saving = Some(Saving { to, write });
    }

    /// Waits until the position that is on its way is written down.
    pub(super) async fn saved(&mut self) -> Result<(), RunError> {
        let Some(Saving { to, write }) = self.saving.take() else { return Ok(()) };
        let written = write.await.unwrap_or_else(|error| Err(broke(&error)));
        match &written {
            Ok(()) => self.stored_at = to,
            Err(_) => self.unsaved_since = Some(self.unsaved_since.unwrap_or_else(Instant::now)),
        }
        Ok(written?)
    }

    /// Waits until all that is folded is written; tells whether there was something.
    pub(super) async fn settle(&mut self) -> Result<bool, RunError> {
        let some = !self.unwritten.is_empty();
        while !self.unwritten.is_empty() {
            self.write().await?;
        }
        Ok(some)
    }

    /// The page after what is folded. Where steps overlap, the one after it is read from now on.
    async fn page(&mut self) -> Result<Page, RunError> {
        let after = self.folded_to;
        let page = if let Some(ahead) = self.ahead.take().filter(|ahead| ahead.after == after) {
            let broke =
                |error: tokio::task::JoinError| LogError::Failure { file: None, reason: error.to_string() };
            ahead.page.await.map_err(broke)??
        } else {
            let limit = self.next_limit();
            self.shared.log.read_all(after, self.filter.clone(), limit).await?
        };
        if self.overlaps.is_some() && page.scanned > after && page.scanned < *self.shared.log.head().borrow()
        {
            let limit = self.next_limit();
            let reading = self.shared.log.read_all(page.scanned, self.filter.clone(), limit);
            self.ahead = Some(Ahead { after: page.scanned, page: tokio::spawn(reading) });
        }
        Ok(page)
    }

    fn next_limit(&mut self) -> ReadLimit {
        let options = &self.shared.options;
        let Some(pages) = &mut self.overlaps else { return options.page };
        let events = pages.next;
        pages.next = events.saturating_mul(2).min(pages.max);
        ReadLimit { events, ..options.rebuild_page }
    }

    async fn fold(&mut self, events: &[Arc<Recorded>]) -> Result<Folded, RunError> {
        match self.fold_page(events, false).await {
            Err(RunError::Document(FoldError::Unwritable { .. })) => self.fold_page(events, true).await,
            folded => folded,
        }
    }

    /// Folds a page; if `each` document is checked after each event, what cannot be written parks its key.
    async fn fold_page(&mut self, events: &[Arc<Recorded>], each: bool) -> Result<Folded, RunError> {
        if self.stale {
            self.settle().await?;
            (self.fold, self.parked) =
                start(&self.shared, self.projection, &self.collection, self.position).await?;
            self.fold.keep(self.documents_max());
        }
        self.stale = true;
        self.fold.check_each(each);
        let missing = self.fold.begin(events);
        if !missing.is_empty() {
            // What is on its way to the store may be among them.
            self.settle().await?;
            let stored = self.shared.store.load(&self.collection, missing).await?;
            self.fold.load(stored)?;
        }
        let folded = self.fold.finish()?;
        self.stale = false;
        Ok(folded)
    }

    /// Hands the first batch to the store, if none is on its way.
    fn begin_write(&mut self) {
        if let (None, Some(first)) = (&self.writing, self.unwritten.front()) {
            let write = self.shared.store.write(&self.collection, first.batch.clone());
            self.writing = Some(tokio::spawn(write));
        }
    }

    /// Waits until the first batch is written.
    async fn write(&mut self) -> Result<(), RunError> {
        self.begin_write();
        let Some(writing) = self.writing.take() else { return Ok(()) };
        // The outcome of a failed write is unknown; made again it has the effect of one.
        writing.await.map_err(|error| broke(&error))??;
        if let Some(Unwritten { batch, to, events }) = self.unwritten.pop_front() {
            let saved = batch.checkpoint.position.is_some();
            let unsaved_since = || Some(self.unsaved_since.unwrap_or_else(Instant::now));
            self.unsaved_since = if saved { None } else { unsaved_since() };
            self.position = to;
            self.events += events;
            if !batch.parked.is_empty() {
                Arc::make_mut(&mut self.parked).extend(batch.parked.iter().cloned());
            }
            let documents = u64::try_from(batch.writes.len()).unwrap_or(u64::MAX);
            self.documents_written = self.documents_written.saturating_add(documents);
        }
        Ok(())
    }

    /// Has the next page start from what the store holds: parked keys were changed there.
    pub(super) async fn reload(&mut self) -> Result<(), RunError> {
        self.stale = true;
        // Of what was written for that the store is to know as well that it is done.
        self.unsaved_since.get_or_insert_with(Instant::now);
        self.parked = Arc::new(self.dead_letters().await?);
        Ok(())
    }

    /// What is parked in this build.
    pub(super) async fn dead_letters(&self) -> Result<Vec<DeadLetter>, RunError> {
        Ok(self.shared.store.dead_letters(&self.collection).await?)
    }
}

fn broke(error: &tokio::task::JoinError) -> ReadModelError {
    ReadModelError::Failure { reason: error.to_string() }
}

/// Says which keys are parked from now on.
pub(super) fn say_parked(collection: &str, parked: &[DeadLetter]) {
    for letter in parked {
        tracing::error!(
            collection, key = letter.key, position = %letter.position,
            event = letter.event, error = letter.error,
            "parked a key: its later events wait until it is tried again or the event is skipped"
        );
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
    let named = named
        .chain(record.job.iter().map(|job| &job.collection))
        .chain(&record.strangers)
        .chain(&record.lost);
    let numbers = named.filter_map(|collection| collection.split_once('@'));
    let numbers = numbers.filter(|(name, _)| *name == projection);
    let last = numbers.filter_map(|(_, number)| number.parse::<u64>().ok()).max().unwrap_or(0);
    Ok(format!("{projection}@{}", last + 1))
}

/// A fold without documents that goes on from a position, and what it has parked.
async fn start(
    shared: &Shared,
    projection: &'static dyn DynProjection,
    collection: &str,
    position: Option<Position>,
) -> Result<(Box<dyn Fold>, Arc<Vec<DeadLetter>>), RunError> {
    let letters = shared.store.dead_letters(collection).await?;
    let mut fold = projection.start(shared.options.documents_max);
    fold.park(&letters);
    if position.is_none() {
        fold.start_empty();
    }
    let record = Ledger::new(shared.store.clone(), projection.name()).read().await?;
    if record.skipped_in == Some(shared.log.epoch()) {
        fold.skip(record.skipped);
    }
    Ok((fold, Arc::new(letters)))
}

fn found(writes: &[Write]) -> Found {
    let new = writes.iter().filter(|write| write.is_new).count();
    match writes.len() {
        0 => Found::Nothing,
        all if all > 2 * new => Found::Again,
        _ => Found::New,
    }
}

pub(super) fn filter(projection: &'static dyn DynProjection) -> Result<Filter, RunError> {
    let refused = |name: &str| RunError::Name { projection: projection.name(), name: name.to_owned() };
    let category = projection.category();
    let passed_over = projection.passed_over();
    let names = passed_over.iter().map(|name| EventName::parse(name).map_err(|_| refused(name)));
    Ok(Filter {
        category: Some(Category::parse(category).map_err(|_| refused(category))?),
        except: names.collect::<Result<_, _>>()?,
        ..Filter::default()
    })
}
