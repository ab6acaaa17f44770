//! What admins ask of a projector: builds, the way back, parked keys, the past.

use std::time::Duration;

use dramatis_events::{Epoch, Position, UnixMillis};
use dramatis_projections::DeadLetter;
use tokio::sync::oneshot;

use super::asks::{Ask, Mended};
use super::history::{self, AsOf, Asked, Causes, EVENTS_MAX, Past};
use super::record::{Job, JobState, Kept, Purpose, Record};
use super::run::{RunError, next_collection};
use super::status::{History, JobProgress, another_log};
use super::{Health, Projector, Running, names};
use crate::log::{Filter, ReadLimit};
use crate::read_models::queries::of_live;

/// How long an order waits until the live build is found.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
/// The most builds as of positions that one projection keeps.
const AS_OF_MAX: usize = 4;

/// Why what an admin asked was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// There is no such projection.
    #[error("no projection {0:?}; there are {known}", known = names())]
    Unknown(String),
    /// One job at a time.
    #[error("{projection} has a build under way ({state}): wait for its end, accept it or cancel it", state = .state.as_str())]
    Busy {
        /// The projection.
        projection: &'static str,
        /// How its job stands.
        state: JobState,
    },
    /// There is no job, or it is over.
    #[error(
        "{projection} has no build under way: start one with `dramatis projections rebuild {projection}`"
    )]
    NoJob {
        /// The projection.
        projection: &'static str,
    },
    /// The job does not stand so that this could be done.
    #[error("the build of {projection} cannot be told to {wish}: it {stands}", stands = .state.stands())]
    NotNow {
        /// The projection.
        projection: &'static str,
        /// How its job stands.
        state: JobState,
        /// What was asked.
        wish: &'static str,
    },
    /// Its build never goes live, so there is nothing to accept.
    #[error(
        "{build} is not made to go live, but to check {projection} or to show how it was: there is nothing to \
         accept; `dramatis projections rebuild {projection}` makes one to switch to"
    )]
    NotToSwitch {
        /// The projection.
        projection: &'static str,
        /// The build under way.
        build: String,
    },
    /// Too many builds as of positions are kept.
    #[error(
        "{projection} keeps {max} builds as of positions already, which is the limit: drop one with `dramatis \
         projections drop {projection} BUILD`, or ask again after {} (Unix milliseconds), when the first goes",
        .until.get()
    )]
    TooManyKept {
        /// The projection.
        projection: &'static str,
        /// The limit.
        max: usize,
        /// When the next one is dropped.
        until: UnixMillis,
    },
    /// No build from before is kept.
    #[error("no build of {projection} from before the live one is kept: there is nothing to go back to")]
    NothingKept {
        /// The projection.
        projection: &'static str,
    },
    /// There is no such build of it.
    #[error(
        "{projection} has no build {build:?}: `dramatis projections list` shows the live one, what is built beside \
         it and what is kept"
    )]
    NoSuchBuild {
        /// The projection.
        projection: String,
        /// What was named.
        build: String,
    },
    /// It is no build as of a position.
    #[error(
        "{build:?} is no build of {projection} as of a position: `dramatis projections list` shows those that are \
         kept"
    )]
    NotKept {
        /// The projection.
        projection: &'static str,
        /// What was named.
        build: String,
    },
    /// The key is not parked.
    #[error("{key:?} is not parked: `dramatis projections dead-letters` lists what is")]
    NotParked {
        /// The key.
        key: String,
    },
    /// It is parked in a build that does not go on.
    #[error("{key:?} stays parked while the live build of {projection} is frozen: {reason}")]
    Frozen {
        /// The projection.
        projection: &'static str,
        /// The key.
        key: String,
        /// Why it is, and what to do.
        reason: String,
    },
    /// Too many events were let pass.
    #[error("{projection} has {max} events skipped already, which is the limit: mend the fold instead")]
    TooManySkipped {
        /// The projection.
        projection: &'static str,
        /// The limit.
        max: usize,
    },
    /// No stream feeds the key.
    #[error(
        "no stream is known that feeds {key:?} of {projection}: is the key right? The whole read model as of \
         a position is built by `dramatis projections as-of {projection}`"
    )]
    WholeLog {
        /// The projection.
        projection: &'static str,
        /// The key.
        key: String,
    },
    /// Too many events for an answer at once.
    #[error(
        "the history of {key:?} is too long to be folded for one answer: build the read model as of a \
         position with `dramatis projections as-of {projection}`"
    )]
    TooMuch {
        /// The key.
        key: String,
        /// The projection.
        projection: &'static str,
    },
    /// The store cannot keep it.
    #[error("{projection} is not kept: {reason}")]
    Unsupported {
        /// The projection.
        projection: &'static str,
        /// Why.
        reason: String,
    },
    /// Its live build is not known yet.
    #[error(
        "the live build of {projection} is not found yet: `dramatis projections list` says why; ask again"
    )]
    NotFound {
        /// The projection.
        projection: &'static str,
    },
    /// Another process runs it.
    #[error("another process keeps this projection in the store, {holder}: ask that process")]
    Elsewhere {
        /// Which.
        holder: String,
    },
    /// The store is another log's.
    #[error("{projection} is not kept: {}", another_log(*epoch))]
    Foreign {
        /// The projection.
        projection: &'static str,
        /// The other log's epoch.
        epoch: Epoch,
    },
    /// What is live cannot be compared with the log.
    #[error(
        "the live build of {projection} is of another history than the log, so it is not what the log says: \
         `dramatis projections rebuild {projection}` builds it anew"
    )]
    OtherHistory {
        /// The projection.
        projection: &'static str,
    },
    /// The log has no such place.
    #[error("the log has no event up to there: as_of must be at or after its first event")]
    BeforeTheLog,
    /// The log or the store failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The projector was stopped.
    #[error("the projector was stopped")]
    Stopped,
}

/// What a build is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// What for.
    pub purpose: Purpose,
    /// Whether to switch although documents differ.
    pub accept: bool,
    /// The most events a second; `None` leaves it to the share that live traffic leaves.
    pub events_per_s_max: Option<u64>,
}

/// That queries get the build before again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The collection that was live.
    pub from: String,
    /// The collection that is live now.
    pub to: String,
}

/// What an admin wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To hold it up.
    Pause,
    /// To go on.
    Resume,
    /// To drop it.
    Cancel,
    /// To switch although documents differ.
    Accept,
}

impl Wish {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Accept => "accept",
        }
    }
}

impl Projector {
    fn running(&self, projection: &str) -> Result<&Running, AdminError> {
        self.named(projection).ok_or_else(|| AdminError::Unknown(projection.to_owned()))
    }

    /// The same, if it is this process that runs it.
    fn running_here(&self, projection: &str) -> Result<&Running, AdminError> {
        let running = self.running(projection)?;
        let projection = running.projection.name();
        match &running.status.borrow().health {
            Health::Unsupported { reason } => {
                Err(AdminError::Unsupported { projection, reason: reason.clone() })
            }
            health => health.elsewhere(projection).map_or(Ok(running), Err),
        }
    }

    /// Starts a build beside the live one.
    pub async fn order(&self, projection: &str, order: Order) -> Result<Job, AdminError> {
        let running = self.running_here(projection)?;
        let name = running.projection.name();
        let mut status = running.status.clone();
        // Until the first build is made its name is free.
        let found = status.wait_for(|status| !status.collection.is_empty());
        let found = tokio::time::timeout(FOUND_WITHIN, found).await;
        let Some(history) = found.ok().and_then(Result::ok).map(|status| status.history) else {
            return Err(AdminError::NotFound { projection: name });
        };
        if order.purpose == Purpose::Verify && history != History::Present {
            return Err(AdminError::OtherHistory { projection: name });
        }
        let collection = next_collection(&self.shared, name).await?;
        let (version, epoch) = (running.projection.version(), self.shared.log.epoch());
        let mut job = Job::new(collection, order.purpose, version, epoch, self.shared.clock.now());
        (job.accept, job.events_per_s_max) = (order.accept, order.events_per_s_max);
        let begin = |record: &mut Record| {
            if let Some(active) = record.active() {
                return Err(AdminError::Busy { projection: name, state: active.state });
            }
            let shown = record.kept.iter().filter(|kept| kept.as_of.is_some()).map(|kept| kept.drop_at);
            let full = shown.clone().count() >= AS_OF_MAX && matches!(order.purpose, Purpose::AsOf { .. });
            if let (true, Some(until)) = (full, shown.min()) {
                return Err(AdminError::TooManyKept { projection: name, max: AS_OF_MAX, until });
            }
            record.job = Some(job.clone());
            if order.purpose == Purpose::Rebuild {
                (record.held_version, record.held_epoch) = (None, None);
            }
            Ok(())
        };
        let _changes = running.changes.lock().await;
        running.ledger.update(begin).await?;
        running.tell(&job);
        Ok(job)
    }

    /// Has a job paused, resumed, cancelled or accepted; answers how it stands then.
    pub async fn wish(&self, projection: &str, wish: Wish) -> Result<Job, AdminError> {
        let running = self.running_here(projection)?;
        let (name, now) = (running.projection.name(), self.shared.clock.now());
        let (frozen, history) = {
            let status = running.status.borrow();
            (matches!(status.health, Health::Frozen { .. }), status.history)
        };
        let change = |record: &mut Record| {
            let Some(mut job) = record.active().cloned() else {
                return Err(AdminError::NoJob { projection: name });
            };
            let state = job.state;
            if wish == Wish::Accept && job.purpose != Purpose::Rebuild {
                return Err(AdminError::NotToSwitch { projection: name, build: job.collection });
            }
            match (wish, state) {
                (Wish::Pause, JobState::Building | JobState::Proving) => job.state = JobState::Paused,
                (Wish::Resume, JobState::Paused) => job.state = JobState::Building,
                (Wish::Cancel, _) => {
                    job.end(JobState::Cancelled, now);
                    if frozen && job.purpose == Purpose::Rebuild {
                        record.hold_back(history, &job);
                    }
                }
                (Wish::Accept, JobState::Differs) => {
                    (job.accept, job.state) = (true, JobState::Building);
                }
                (Wish::Accept, JobState::Building | JobState::Proving) => job.accept = true,
                (Wish::Pause | Wish::Resume | Wish::Accept, state) => {
                    return Err(AdminError::NotNow { projection: name, state, wish: wish.as_str() });
                }
            }
            record.job = Some(job.clone());
            Ok(job)
        };
        let _changes = running.changes.lock().await;
        let job = running.ledger.update(change).await?;
        running.tell(&job);
        Ok(job)
    }

    /// How far the last job of a projection got, if it had one.
    pub fn job(&self, projection: &str) -> Result<Option<JobProgress>, AdminError> {
        Ok(self.running(projection)?.progress.borrow().clone())
    }

    /// Has queries get the build that was live before: at once if it is warm still.
    pub async fn roll_back(&self, projection: &str) -> Result<RolledBack, AdminError> {
        let running = self.running_here(projection)?;
        let (answer, answered) = oneshot::channel();
        running.asks.send(Ask::RollBack(answer)).await.map_err(|_| AdminError::Stopped)?;
        answered.await.map_err(|_| AdminError::Stopped)?
    }

    /// Drops a build as of a position before its time; answers what it was.
    pub async fn drop_past(&self, projection: &str, build: &str) -> Result<Kept, AdminError> {
        let running = self.running_here(projection)?;
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Drop { build: build.to_owned(), answer };
        running.asks.send(ask).await.map_err(|_| AdminError::Stopped)?;
        answered.await.map_err(|_| AdminError::Stopped)?
    }

    /// Folds a parked key again, in the live build; without the event that parked it if that is
    /// to be skipped, as later builds in this store and of this history do.
    pub async fn mend(&self, projection: &str, key: &str, skip: bool) -> Result<Mended, AdminError> {
        let running = self.running_here(projection)?;
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Mend { key: key.to_owned(), skip, answer };
        running.asks.send(ask).await.map_err(|_| AdminError::Stopped)?;
        answered.await.map_err(|_| AdminError::Stopped)?
    }

    /// The parked keys of a projection's live build, in log order.
    pub async fn dead_letters(&self, projection: &str) -> Result<Vec<DeadLetter>, AdminError> {
        let name = self.running(projection)?.projection.name();
        let store = self.shared.store.as_ref();
        let letters = of_live(store, name, |build| store.dead_letters(build)).await;
        Ok(letters.map_err(RunError::Store)?.unwrap_or_default())
    }

    /// The document of a key as of a position or time.
    pub async fn past(&self, projection: &str, key: &str, as_of: AsOf) -> Result<Past, AdminError> {
        history::past(&self.shared, self.running(projection)?.projection, key, as_of).await
    }

    /// So many of the events that made a document what it is, past a position, in log order. They may be fewer, or
    /// none, though there are more: `next` says.
    pub async fn why(
        &self,
        projection: &str,
        key: &str,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Causes, AdminError> {
        let asked = Asked { key, after, limit, events_max: EVENTS_MAX };
        history::causes_past(&self.shared, self.running(projection)?.projection, asked).await
    }

    /// The last position with everything that was recorded up to a time.
    pub async fn position_at(&self, as_of: AsOf) -> Result<Position, AdminError> {
        let log = &self.shared.log;
        let head = *log.head().borrow();
        let time = match as_of {
            AsOf::Position(position) => return Ok(position),
            AsOf::Time(time) => time,
        };
        let next = UnixMillis::new(time.get().saturating_add(1));
        let filter = Filter { recorded_from: Some(next), ..Filter::default() };
        let mut after = None;
        loop {
            let page = log.read_all(after, filter.clone(), ReadLimit::events(1)).await;
            let page = page.map_err(RunError::Log)?;
            if let Some(first) = page.events.first() {
                let before = first.position.to_engine().checked_sub(1).map(Position::from_engine);
                return before.ok_or(AdminError::BeforeTheLog);
            }
            if page.scanned <= after || page.scanned >= head {
                return head.ok_or(AdminError::BeforeTheLog);
            }
            after = page.scanned;
        }
    }
}
