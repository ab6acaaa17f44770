//! Runs every projection over the log, each at its own pace.
//!
//! A projection goes on from its checkpoint: read a page, load the documents it touches, fold,
//! write each touched document once, then move the checkpoint, past irrelevant events too. It
//! never stops for a store that is down (it backs off and says so) nor for an event that
//! cannot be folded (its key is parked). It never holds up the log or the live build while
//! another is built beside it, except for the moment of the switch.

use std::sync::Arc;
use std::time::Duration;

use dramatis_events::Position;
use dramatis_projections::{DeadLetter, DynProjection};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use crate::log::{EventLog, ReadLimit};
use crate::read_models::{ReadModelError, ReadModels};

mod backoff;
mod compare;
mod rebuild;
mod run;
mod status;
mod worker;

pub use rebuild::{Difference, OnDifference, Rebuild, RebuildError, RebuildReport};
pub use run::RunError;
pub use status::{Health, RebuildProgress, Status};

/// How projections run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How much is read, folded and written at once.
    pub page: ReadLimit,
    /// About how many documents each projection keeps in memory between pages.
    pub documents_max: usize,
    /// The wait after a first failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Where the jitter of waits comes from; give each process another.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            page: ReadLimit { events: 2_000, bytes: 4 * 1024 * 1024 },
            documents_max: 10_000,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            seed: 1,
        }
    }
}

/// What all parts of a projector share.
#[derive(Clone)]
struct Shared {
    log: Arc<dyn EventLog>,
    store: Arc<dyn ReadModels>,
    options: Options,
    stop: watch::Receiver<bool>,
}

/// The running projections.
pub struct Projector {
    shared: Shared,
    stop: watch::Sender<bool>,
    runtime: Handle,
    running: Vec<Running>,
}

struct Running {
    projection: &'static dyn DynProjection,
    status: watch::Receiver<Status>,
    switches: mpsc::Sender<rebuild::Switch>,
    rebuilding: Arc<Mutex<()>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Why a wait for a position ended without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// There is no such projection.
    #[error("no projection {0:?}; there are rooms, timeline and members")]
    Unknown(String),
    /// Time ran out.
    #[error("the projection stands at {at:?} and did not reach {wanted} in time; ask again")]
    TimedOut {
        /// The position asked.
        wanted: Position,
        /// Where it stands.
        at: Option<Position>,
    },
    /// The projector was stopped.
    #[error("the projector was stopped")]
    Stopped,
}

impl Projector {
    /// Starts every projection on the runtime it is called in, which needs its time driver.
    pub fn start(log: Arc<dyn EventLog>, store: Arc<dyn ReadModels>, options: Options) -> Self {
        Self::start_these(dramatis_projections::all(), log, store, options)
    }

    fn start_these(
        projections: &[&'static dyn DynProjection],
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadModels>,
        options: Options,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let shared = Shared { log, store, options, stop: stopped };
        let runtime = Handle::current();
        let running = projections.iter().map(|&projection| {
            // A switch waits for its answer: there is one at a time.
            let (switches, arriving) = mpsc::channel(1);
            let (publish, status) = watch::channel(Status::new(projection, &shared));
            let task =
                runtime.spawn(worker::Worker::new(projection, shared.clone(), publish, arriving).work());
            Running { projection, status, switches, rebuilding: Arc::default(), task: Mutex::new(Some(task)) }
        });
        let running = running.collect();
        Self { shared, stop, runtime, running }
    }

    /// How every projection stands now.
    pub fn status(&self) -> Vec<Status> {
        self.running.iter().map(|running| running.status.borrow().clone()).collect()
    }

    /// Follows how a projection stands.
    pub fn watch(&self, projection: &str) -> Option<watch::Receiver<Status>> {
        self.named(projection).map(|running| running.status.clone())
    }

    /// Waits until a projection has got to a position of the log's present epoch.
    pub async fn wait_for(
        &self,
        projection: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let running = self.named(projection).ok_or_else(|| WaitError::Unknown(projection.to_owned()))?;
        let mut status = running.status.clone();
        let reached = status.wait_for(|status| status.position >= Some(position));
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::TimedOut { wanted: position, at: running.status.borrow().position }),
        }
    }

    /// The parked keys of a projection's live build, in log order.
    pub async fn dead_letters(&self, projection: &str) -> Result<Vec<DeadLetter>, ReadModelError> {
        match self.shared.store.alias(projection).await? {
            Some(collection) => self.shared.store.dead_letters(&collection).await,
            None => Ok(Vec::new()),
        }
    }

    /// Starts to build a projection anew beside the live build; it goes live once it is proven.
    pub fn rebuild(&self, projection: &str, difference: OnDifference) -> Result<Rebuild, RebuildError> {
        let running = self.named(projection).ok_or_else(|| RebuildError::Unknown(projection.to_owned()))?;
        let only = running.rebuilding.clone().try_lock_owned().map_err(|_| RebuildError::Running)?;
        let (switches, shared) = (running.switches.clone(), self.shared.clone());
        Ok(Rebuild::start(&self.runtime, running.projection, shared, switches, difference, only))
    }

    /// Stops every projection after the page it is at, and a rebuild that runs.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        for running in &self.running {
            if let Some(task) = running.task.lock().await.take() {
                // A task that broke has said so itself.
                let _ = task.await;
            }
        }
    }

    fn named(&self, projection: &str) -> Option<&Running> {
        self.running.iter().find(|running| running.projection.name() == projection)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests;
