//! Runs every projection over the log, each at its own pace.
//!
//! A projection goes on from its checkpoint: read a page, load the documents it touches, fold,
//! write each touched document once, then move the checkpoint, past irrelevant events too. It
//! never stops for a store that is down (it backs off and says so) nor for an event that
//! cannot be folded (its key is parked). It never holds up the log; another build made beside
//! the live one holds that up only for the moment of the switch.
//!
//! **What queries get.** The build that the alias names. A first build goes live at once and
//! fills as it reads. After that only a complete build goes live: one whose version or history
//! is not this process's serves on as it stands, and every status says so, until its successor
//! is ready.

use std::sync::Arc;
use std::time::Duration;

use dramatis_events::Position;
use dramatis_projections::DynProjection;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::{Clock, SystemClock};
use crate::log::{EventLog, ReadLimit};
use crate::read_models::ReadModels;
use gather::Turns;
use threads::Handles;

mod admin;
mod asks;
mod backoff;
mod beside;
mod builder;
mod compare;
mod frozen;
mod gather;
mod history;
mod keeper;
mod lease;
mod live;
mod mend;
mod record;
mod run;
mod sitting;
mod status;
mod threads;
mod trouble;
mod upkeep;
mod whose;
mod worker;

pub use admin::{AdminError, Order, RolledBack, Wish};
pub use asks::Mended;
pub use compare::{Difference, Differing, ParkedApart};
pub use history::{AsOf, Cause, Causes, Past};
pub use record::{Completion, Job, JobState, Kept, Parked, Purpose};
pub use run::RunError;
pub use status::{Health, History, JobProgress, Status, another_log, kept_elsewhere};
pub use threads::Threads;

/// How projections run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much is read, folded and written at once.
    pub page: ReadLimit,
    /// The same for a build beside the live one: it comes further in larger steps, and the store is
    /// held for longer at a time.
    pub rebuild_page: ReadLimit,
    /// About how many documents each projection keeps in memory between pages.
    pub documents_max: usize,
    /// The same while a build is made.
    pub rebuild_documents_max: usize,
    /// The wait after a first failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Where the jitter of waits comes from; give each process another.
    pub seed: u64,
    /// This projector's name in leases: the same after a restart, so that it need not wait for
    /// itself, and another for each process that shares the store.
    pub holder: Arc<str>,
    /// How long the build before is kept up with the log after a switch.
    pub warm: Duration,
    /// How long a build stays after a switch, and one as of a position after it was made.
    pub retention: Duration,
    /// How much of the time a build that is made beside the live one works while live traffic
    /// goes on, 1 to 100.
    pub rebuild_share_percent: u32,
    /// How many keys that two builds show differently are held until both have read on and they are looked at
    /// again. If so many differ then, that stands for everything.
    pub suspects_max: usize,
    /// Whether a new version of a fold goes live although its documents differ.
    pub accept_new_versions: bool,
    /// How long another projector waits for one that has gone silent.
    pub lease: Duration,
    /// The id of another log whose builds make way for those of this one.
    pub take_over: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            page: ReadLimit { events: 2_000, bytes: 4 * 1024 * 1024 },
            rebuild_page: ReadLimit { events: 20_000, bytes: 16 * 1024 * 1024 },
            documents_max: 10_000,
            rebuild_documents_max: 50_000,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            seed: 1,
            holder: "alone".into(),
            warm: Duration::from_mins(10),
            retention: Duration::from_hours(24),
            rebuild_share_percent: 50,
            suspects_max: 100_000,
            accept_new_versions: false,
            lease: Duration::from_secs(10),
            take_over: None,
        }
    }
}

/// What all parts of a projector share.
#[derive(Clone)]
struct Shared {
    log: Arc<dyn EventLog>,
    store: Arc<dyn ReadModels>,
    clock: Arc<dyn Clock>,
    options: Options,
    /// This projector's name in leases.
    holder: Arc<str>,
    stop: watch::Receiver<bool>,
    handles: Handles,
    turns: Turns,
}

/// The running projections.
pub struct Projector {
    shared: Shared,
    stop: watch::Sender<bool>,
    running: Vec<Running>,
}

struct Running {
    projection: &'static dyn DynProjection,
    status: watch::Receiver<Status>,
    progress: watch::Sender<Option<JobProgress>>,
    /// Whether the builder has told of the record once.
    looked: watch::Receiver<bool>,
    asks: mpsc::Sender<asks::Ask>,
    wake: watch::Sender<u64>,
    /// The last position that somebody waits for.
    wanted: watch::Sender<Option<Position>>,
    ledger: record::Ledger,
    /// Held by whoever changes the job until that is told: of two admins the later one's word stands.
    changes: Mutex<()>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Running {
    /// Has the projection not let events gather until it is at this position.
    fn want(&self, position: Position) {
        self.wanted.send_if_modified(|wanted| {
            let further = *wanted < Some(position);
            if further {
                *wanted = Some(position);
            }
            further
        });
    }

    /// Tells of a job that was changed so in the record, and has the builder look at that. Both in one
    /// step: of what it read before, the builder tells nothing from then on.
    fn tell(&self, job: &Job) {
        let head = self.status.borrow().head;
        self.progress.send_modify(|told| {
            let is_it =
                |known: &Job| (&known.collection, known.started_at) == (&job.collection, job.started_at);
            let known = told.as_ref().filter(|progress| is_it(&progress.job));
            // The builder may have read the record as well, and be done.
            if known.is_none_or(|progress| progress.job.state.is_active() || !job.state.is_active()) {
                let position = known.and_then(|progress| progress.position);
                *told = Some(JobProgress::of(job.clone(), position, head));
            }
            self.wake.send_modify(|wakes| *wakes += 1);
        });
    }
}

/// Why a wait for a position ended without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// There is no such projection.
    #[error("no projection {0:?}; there are {known}", known = names())]
    Unknown(String),
    /// Time ran out.
    #[error("the projection stands {stands} and did not reach {wanted} in time; ask again", stands = stands(*at))]
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

/// Where a projection stands, as a sentence has it.
fn stands(at: Option<Position>) -> String {
    at.map_or_else(|| "before the first event".to_owned(), |at| format!("at {at}"))
}

/// The names of all projections, as a sentence has them.
fn names() -> String {
    let names: Vec<_> = dramatis_projections::all().iter().map(|projection| projection.name()).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

impl Projector {
    /// Starts every projection on the runtime it is called in, which needs its time driver.
    pub fn start(log: Arc<dyn EventLog>, store: Arc<dyn ReadModels>, options: Options) -> Self {
        Self::start_some(dramatis_projections::all(), log, store, options)
    }

    /// The same with these projections alone: the others' builds stay as they are.
    pub fn start_some(
        projections: &[&'static dyn DynProjection],
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadModels>,
        options: Options,
    ) -> Self {
        Self::start_these(projections, log, store, Arc::new(SystemClock), options, Handles::here())
    }

    /// Starts every projection on threads of their own.
    pub fn start_on(
        threads: &Threads,
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadModels>,
        options: Options,
    ) -> Self {
        let (clock, handles) = (Arc::new(SystemClock), threads.handles());
        Self::start_these(dramatis_projections::all(), log, store, clock, options, handles)
    }

    fn start_these(
        projections: &[&'static dyn DynProjection],
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadModels>,
        clock: Arc<dyn Clock>,
        options: Options,
        handles: Handles,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let holder = options.holder.clone();
        let shared =
            Shared { log, store, clock, options, holder, stop: stopped, handles, turns: Turns::new() };
        let start = |&projection| Running::start(projection, &shared);
        let (running, of_all) = projections.iter().map(start).unzip();
        shared.handles.live.spawn(status::follow_head(shared.clone(), of_all));
        Self { shared, stop, running }
    }

    /// How every projection stands now.
    pub fn status(&self) -> Vec<Status> {
        self.running.iter().map(|running| self.stands(running)).collect()
    }

    /// How one of them stands now.
    pub fn status_of(&self, projection: &str) -> Option<Status> {
        self.named(projection).map(|running| self.stands(running))
    }

    fn stands(&self, running: &Running) -> Status {
        let (head, now) = (*self.shared.log.head().borrow(), self.shared.clock.now());
        running.status.borrow().clone().at(head, now)
    }

    /// Waits until it is known what is live and what is being built, as right after a start it is not; but
    /// not past this moment.
    pub async fn known(&self, projection: &str, until: tokio::time::Instant) {
        let Some(running) = self.named(projection) else { return };
        let (mut status, mut looked) = (running.status.clone(), running.looked.clone());
        let known = async {
            let settled = status.wait_for(Status::is_settled).await.map(|status| status.health.clone());
            if matches!(settled, Ok(Health::CatchingUp | Health::Live | Health::Frozen { .. })) {
                let _ = looked.wait_for(|looked| *looked).await;
            }
        };
        let _ = tokio::time::timeout_at(until, known).await;
    }

    /// Follows how a projection stands.
    pub fn watch(&self, projection: &str) -> Option<watch::Receiver<Status>> {
        self.named(projection).map(|running| running.status.clone())
    }

    /// Follows how far the jobs of a projection get.
    pub fn watch_job(&self, projection: &str) -> Option<watch::Receiver<Option<JobProgress>>> {
        self.named(projection).map(|running| running.progress.subscribe())
    }

    /// Waits until a projection has got to a position of the log's present epoch.
    pub async fn wait_for(
        &self,
        projection: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let running = self.named(projection).ok_or_else(|| WaitError::Unknown(projection.to_owned()))?;
        running.want(position);
        let mut status = running.status.clone();
        let reached = status.wait_for(|status| status.position >= Some(position));
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::TimedOut { wanted: position, at: running.status.borrow().position }),
        }
    }

    /// Stops every projection after the page it is at, and what is being built.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        for running in &self.running {
            for task in running.tasks.lock().await.drain(..) {
                // A task that broke has said so itself.
                let _ = task.await;
            }
        }
    }

    fn named(&self, projection: &str) -> Option<&Running> {
        self.running.iter().find(|running| running.projection.name() == projection)
    }
}

impl Running {
    fn start(projection: &'static dyn DynProjection, shared: &Shared) -> (Self, watch::Sender<Status>) {
        // Who asks waits for the answer: there is one at a time.
        let (asks, arriving) = mpsc::channel(1);
        let (publish, status) = watch::channel(Status::new(projection, shared));
        let (progress, _) = watch::channel(None);
        let (looks, looked) = watch::channel(false);
        let (wake, wakes) = watch::channel(0);
        let (wanted, wants) = watch::channel(None);
        let gathering = gather::Gathering::new(wants, shared.turns.clone());
        let worker = worker::Worker::new(
            projection,
            shared.clone(),
            publish.clone(),
            arriving,
            wake.clone(),
            gathering,
        );
        let builder = builder::Builder::new(
            projection,
            shared.clone(),
            asks.clone(),
            status.clone(),
            wakes,
            progress.clone(),
            looks,
        );
        let Handles { live, builds } = &shared.handles;
        let tasks = vec![live.spawn(worker.work()), builds.spawn(builder.work())];
        let ledger = record::Ledger::new(shared.store.clone(), projection.name());
        let (changes, tasks) = (Mutex::new(()), Mutex::new(tasks));
        (Self { projection, status, progress, looked, asks, wake, wanted, ledger, changes, tasks }, publish)
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
