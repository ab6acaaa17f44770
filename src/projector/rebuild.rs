//! A build beside the live one, proven before it takes its place.

use dramatis_projections::{Digest, DynProjection};
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::compare::{differences, digest};
use super::run::{Run, RunError};
use super::{RebuildProgress, Shared};
use crate::read_models::ReadModelError;

/// How many differing keys an error names.
const DIFFERENCES_SHOWN_MAX: usize = 10;

/// What to do when the new build shows other documents than the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDifference {
    /// Keep the live build.
    Stop,
    /// Switch all the same, because the difference is wanted: after a fix, for example.
    Accept,
}

/// A rebuild that runs.
pub struct Rebuild {
    progress: watch::Receiver<RebuildProgress>,
    task: JoinHandle<Result<RebuildReport, RebuildError>>,
}

/// That a rebuild is done: an empty build is one, if this says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildReport {
    /// The collection that is live now.
    pub collection: String,
    /// The collection that was live before; it is dropped.
    pub replaced: String,
    /// How many documents there are.
    pub documents: u64,
    /// Their digest.
    pub digest: Digest,
    /// Events folded.
    pub events: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// Why the live build was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// There is no such projection.
    #[error("no projection {0:?}; there are rooms, timeline and members")]
    Unknown(String),
    /// One at a time.
    #[error("this projection is being rebuilt already; wait for that to end")]
    Running,
    /// A step failed.
    #[error("the rebuild stopped and the live build stays: {0}")]
    Run(#[from] RunError),
    /// The builds show different documents.
    #[error("nothing was switched: {0}. Accept the difference if a fix explains it")]
    Differs(Box<Difference>),
    /// The projector was stopped.
    #[error("the projector was stopped; the live build stays")]
    Stopped,
}

/// How the new build differs from the live one, which the same version of the fold made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the live build {old} has digest {old_digest}, the new build {new} {new_digest}; they differ in {keys:?}"
)]
pub struct Difference {
    /// The live build.
    pub old: String,
    /// Its digest.
    pub old_digest: Digest,
    /// The new build; it is dropped.
    pub new: String,
    /// Its digest.
    pub new_digest: Digest,
    /// Some keys that differ.
    pub keys: Vec<String>,
}

impl From<ReadModelError> for RebuildError {
    fn from(error: ReadModelError) -> Self {
        Self::Run(error.into())
    }
}

impl Rebuild {
    pub(super) fn start(
        runtime: &Handle,
        projection: &'static dyn DynProjection,
        shared: Shared,
        switches: mpsc::Sender<Switch>,
        difference: OnDifference,
        only: OwnedMutexGuard<()>,
    ) -> Self {
        let (publish, progress) = watch::channel(RebuildProgress::default());
        let task = runtime.spawn(async move {
            let _only = only;
            build(projection, &shared, &switches, difference, &publish).await
        });
        Self { progress, task }
    }

    /// Follows how far it got.
    pub fn progress(&self) -> watch::Receiver<RebuildProgress> {
        self.progress.clone()
    }

    /// Waits for its end. Dropping a rebuild does not stop it.
    pub async fn finish(self) -> Result<RebuildReport, RebuildError> {
        self.task.await.unwrap_or(Err(RebuildError::Stopped))
    }
}

async fn build(
    projection: &'static dyn DynProjection,
    shared: &Shared,
    switches: &mpsc::Sender<Switch>,
    difference: OnDifference,
    publish: &watch::Sender<RebuildProgress>,
) -> Result<RebuildReport, RebuildError> {
    let started = Instant::now();
    let run = Run::create(shared, projection).await?;
    let collection = run.collection.clone();
    let built = match catch_up(run, shared, publish, started).await {
        Ok(run) => {
            let (answer, answered) = oneshot::channel();
            let switch = Switch { run, difference, started, answer };
            match switches.send(switch).await {
                Ok(()) => answered.await.unwrap_or(Err(RebuildError::Stopped)),
                Err(_) => Err(RebuildError::Stopped),
            }
        }
        Err(error) => Err(error),
    };
    match &built {
        Ok(report) => tracing::info!(projection = projection.name(), ?report, "rebuilt"),
        Err(error) => {
            tracing::error!(projection = projection.name(), %error, "a rebuild came to nothing");
            // If it stays, the next start drops it. The live build it cannot be.
            if shared.store.alias(projection.name()).await?.as_ref() != Some(&collection) {
                shared.store.drop_build(&collection).await?;
            }
        }
    }
    built
}

async fn catch_up(
    mut run: Run,
    shared: &Shared,
    publish: &watch::Sender<RebuildProgress>,
    started: Instant,
) -> Result<Run, RebuildError> {
    loop {
        if *shared.stop.borrow() {
            return Err(RebuildError::Stopped);
        }
        let moved = run.step().await?;
        let mut progress = RebuildProgress {
            collection: run.collection.clone(),
            position: run.position,
            head: *shared.log.head().borrow(),
            events: run.events,
            documents_written: run.documents_written,
            ..RebuildProgress::default()
        };
        progress.estimate(elapsed_ms(started));
        publish.send_replace(progress);
        if !moved {
            return Ok(run);
        }
        tokio::task::yield_now().await;
    }
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A build that is ready to take the live one's place; made by the live build's own task, so
/// that neither moves while they are compared.
pub(super) struct Switch {
    run: Run,
    difference: OnDifference,
    started: Instant,
    answer: oneshot::Sender<Result<RebuildReport, RebuildError>>,
}

impl Switch {
    /// Keeps the live build, which has its own troubles.
    pub(super) fn refuse(self, error: RunError) {
        let _ = self.answer.send(Err(error.into()));
    }

    /// Answers the build that is live from now on, and whether it is the new one.
    pub(super) async fn make(
        mut self,
        shared: &Shared,
        projection: &'static dyn DynProjection,
        mut old: Run,
    ) -> (Run, bool) {
        let made = self.prove_and_switch(shared, projection, &mut old).await;
        let (live, switched) = if made.is_ok() { (self.run, true) } else { (old, false) };
        // Nobody waiting is fine: what was done stays done.
        let _ = self.answer.send(made);
        (live, switched)
    }

    async fn prove_and_switch(
        &mut self,
        shared: &Shared,
        projection: &'static dyn DynProjection,
        old: &mut Run,
    ) -> Result<RebuildReport, RebuildError> {
        let store = shared.store.as_ref();
        let head = *shared.log.head().borrow();
        old.run_to(head).await?;
        self.run.run_to(head).await?;
        let new = &self.run;
        let (old_digest, _) = digest(store, &old.collection).await?;
        let (new_digest, documents) = digest(store, &new.collection).await?;
        if old_digest != new_digest && self.difference == OnDifference::Stop {
            let keys = differences(store, &old.collection, &new.collection, DIFFERENCES_SHOWN_MAX).await?;
            let (old, new) = (old.collection.clone(), new.collection.clone());
            let difference = Difference { old, old_digest, new, new_digest, keys };
            return Err(RebuildError::Differs(Box::new(difference)));
        }
        let from = Some(old.collection.clone());
        if !store.swap_alias(projection.name(), from, &new.collection).await? {
            let (projection, collection) = (projection.name(), new.collection.clone());
            return Err(RunError::AliasMoved { projection, collection }.into());
        }
        if let Err(error) = store.drop_build(&old.collection).await {
            // The switch stands; the next start drops what is left.
            tracing::warn!(collection = old.collection, %error, "the replaced build was not dropped");
        }
        Ok(RebuildReport {
            collection: new.collection.clone(),
            replaced: old.collection.clone(),
            documents,
            digest: new_digest,
            events: new.events,
            elapsed_ms: elapsed_ms(self.started),
        })
    }
}
