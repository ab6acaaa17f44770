//! How a projection stands, as admins and waiting queries see it.

use std::sync::Arc;
use std::time::Duration;

use dramatis_events::{Epoch, Position, UnixMillis};
use dramatis_projections::{DeadLetter, DynProjection};
use tokio::sync::watch;

use super::record::{Job, Kept};
use super::{AdminError, Purpose, Shared};

/// The least time between two looks at the log's head: lags are told to no finer measure.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a projection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub projection: &'static str,
    /// The version of its fold.
    pub version: u32,
    /// The collection of its live build; empty until that is found.
    pub collection: String,
    /// The epoch of the log it reads.
    pub epoch: Epoch,
    /// What its live build shows.
    pub history: History,
    /// Up to where it is done in this epoch.
    pub position: Option<Position>,
    /// The log's last position when this was said.
    pub head: Option<Position>,
    /// Since when it has not been at the log's end; `None` while it is.
    pub behind_since: Option<UnixMillis>,
    /// How long that is, in milliseconds, when this was said.
    pub lag_ms: u64,
    /// Events folded into documents since the process started.
    pub events: u64,
    /// What is parked in the live build.
    pub parked: Arc<Vec<DeadLetter>>,
    /// How it fares.
    pub health: Health,
    /// Builds that stay for a while beside the live one.
    pub kept: Vec<Kept>,
}

/// What a live build shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// What the log has recorded, as far as the build is done.
    Present,
    /// What the same log had recorded before it was cut or restored.
    Earlier,
    /// What a copy of this log has recorded that went another way.
    OfAnotherCopy,
    /// What another log has recorded.
    OfAnotherLog(Epoch),
}

/// How a projection fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It has more of the log to read.
    CatchingUp,
    /// It waits for the log to grow.
    Live,
    /// Queries get an older build as it stands, because this release cannot go on with it.
    Frozen {
        /// Why, and what to do.
        reason: String,
    },
    /// Another process keeps it in this store: what that has there is of another copy of the log, and
    /// queries are not answered with it.
    Standby {
        /// Which.
        holder: String,
    },
    /// The store holds it of another log: it is left as it is, and queries are not answered with
    /// what is not theirs.
    Foreign {
        /// The other log's epoch.
        epoch: Epoch,
    },
    /// A step failed; it waits and tries again. Nothing is lost.
    Retrying {
        /// What failed.
        error: String,
        /// How often in a row.
        failures: u32,
    },
    /// The store cannot keep this read model; its queries say so. It is asked again now and then.
    Unsupported {
        /// Why.
        reason: String,
    },
    /// It was stopped, or the log was closed.
    Stopped,
}

impl Health {
    /// The word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Frozen { .. } => "frozen",
            Self::Standby { .. } => "standby",
            Self::Foreign { .. } => "foreign",
            Self::Retrying { .. } => "retrying",
            Self::Unsupported { .. } => "unsupported",
            Self::Stopped => "stopped",
        }
    }

    /// Whether it is not this projector that runs it.
    pub(super) const fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Standby { .. } | Self::Foreign { .. })
    }

    /// Why admins ask for nothing here, if it is not this projector that runs it.
    pub(super) fn elsewhere(&self, projection: &'static str) -> Option<AdminError> {
        match self {
            Self::Standby { holder } => Some(AdminError::Elsewhere { holder: holder.clone() }),
            Self::Foreign { epoch } => Some(AdminError::Foreign { projection, epoch: *epoch }),
            _ => None,
        }
    }
}

/// That a store is another log's, in words.
pub fn another_log(epoch: Epoch) -> String {
    format!(
        "the store holds read models of another log, of epoch {epoch}, and they are left alone: give each log a \
         store of its own, or, if nobody needs those, have them dropped by read_models.take_over = \"{:016x}\"",
        epoch.log()
    )
}

/// That another process keeps a projection, in words.
pub fn kept_elsewhere(holder: &str) -> String {
    format!(
        "another process keeps it in this store, {holder}, and what is there is of that process's log: give each \
         data directory a store of its own. Once that process has gone, this one takes over within \
         projections.lease_ms"
    )
}

impl Status {
    pub(super) fn new(projection: &dyn DynProjection, shared: &Shared) -> Self {
        Self {
            projection: projection.name(),
            version: projection.version(),
            collection: String::new(),
            epoch: shared.log.epoch(),
            history: History::Present,
            position: None,
            head: *shared.log.head().borrow(),
            behind_since: Some(shared.clock.now()),
            lag_ms: 0,
            events: 0,
            parked: Arc::default(),
            health: Health::CatchingUp,
            kept: Vec::new(),
        }
    }

    /// Why the store cannot keep this read model, if that is so.
    pub fn unsupported(&self) -> Option<&str> {
        match &self.health {
            Health::Unsupported { reason } => Some(reason),
            _ => None,
        }
    }

    /// Whether it is known what the live build is, or why that cannot be told.
    pub fn is_settled(&self) -> bool {
        let fails = matches!(self.health, Health::Retrying { .. } | Health::Stopped);
        fails || !self.collection.is_empty() || self.refuses().is_some()
    }

    /// Why its queries are not answered, if that is so.
    pub fn refuses(&self) -> Option<String> {
        match &self.health {
            Health::Unsupported { reason } => Some(reason.clone()),
            Health::Foreign { epoch } => Some(another_log(*epoch)),
            Health::Standby { holder } => Some(kept_elsewhere(holder)),
            _ => match self.history {
                History::OfAnotherCopy => Some(
                    "what is there is of a copy of this log that went another way, until it is built anew"
                        .to_owned(),
                ),
                History::OfAnotherLog(epoch) => {
                    Some(format!("what is there is of another log, of epoch {epoch}, until it is built anew"))
                }
                History::Present | History::Earlier => None,
            },
        }
    }

    /// Events of the log that it has not looked at, in the measure of the log's engine. Nothing
    /// is behind that is not kept at all.
    pub fn lag_events(&self) -> u64 {
        if self.unsupported().is_some() {
            return 0;
        }
        // Positions count from 0: having none is one more behind than having the first.
        let count = |position: Option<Position>| position.map_or(0, |p| p.to_engine().saturating_add(1));
        count(self.head).saturating_sub(count(self.position))
    }

    /// What keeps documents from being up to date: of one key, or of all keys below a stream.
    pub fn waits(&self, key: &str) -> Option<&DeadLetter> {
        let below = |key: &str, of: &str| key.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'));
        let concerns = |parked: &str| parked == key || below(key, parked) || below(parked, key);
        self.parked.iter().find(|letter| concerns(&letter.key))
    }

    /// Notes since when it has not been at the log's end. What comes next was recorded after what was
    /// folded last.
    pub(super) fn stands_at(
        &mut self,
        head: Option<Position>,
        folded_at: Option<UnixMillis>,
        now: UnixMillis,
    ) {
        let is_there = !self.collection.is_empty() && self.position >= head;
        self.behind_since = (!is_there).then(|| self.behind_since.max(folded_at).unwrap_or(now));
    }

    /// The same, with the head and the lag of now.
    pub(super) fn at(mut self, head: Option<Position>, now: UnixMillis) -> Self {
        self.head = head;
        let behind = self.position < head;
        let since = self.behind_since.filter(|_| behind && self.unsupported().is_none());
        self.lag_ms = since.map_or(0, |since| u64::try_from(now.get() - since.get()).unwrap_or(0));
        self
    }
}

/// Notes since when projections are not at the log's end, as soon as that has moved past them: the task
/// of a live build may wait for the store then.
pub(super) async fn follow_head(shared: Shared, of_all: Vec<watch::Sender<Status>>) {
    let (mut head, mut stop) = (shared.log.head(), shared.stop.clone());
    while !*stop.borrow() {
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            _ = stop.changed() => return,
        }
        let (last, now) = (*head.borrow_and_update(), shared.clock.now());
        for of_one in &of_all {
            of_one.send_if_modified(|status| {
                let is_passed = status.behind_since.is_none() && status.position < last;
                if is_passed {
                    status.behind_since = Some(now);
                }
                is_passed
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How far a job got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobProgress {
    /// The job.
    pub job: Job,
    /// How far it read.
    pub position: Option<Position>,
    /// How far it is to read: the log's last position, or the one it is to show.
    pub target: Option<Position>,
    /// How much of that is done, 0 to 100.
    pub percent: u64,
    /// Events folded a second, while it worked.
    pub events_per_s: u64,
    /// About how long it will take yet, in milliseconds; `None` while it is not reading.
    pub eta_ms: Option<u64>,
}

impl JobProgress {
    /// A job of which nothing more is known than its record.
    pub fn begun(job: Job) -> Self {
        Self::of(job, None, None)
    }

    pub(super) fn of(job: Job, position: Option<Position>, head: Option<Position>) -> Self {
        let ended = job.completion.filter(|_| !job.state.is_active());
        let target = match job.purpose {
            Purpose::AsOf { position } => Some(position).min(head),
            Purpose::Rebuild | Purpose::Verify => ended.map_or(head, |completion| completion.position),
        };
        let number = |position: Option<Position>| position.map_or(0, Position::to_engine);
        let (done, all) = (number(position), number(target));
        let left = all.saturating_sub(done);
        let percent = match (left, job.state) {
            // The log may be empty, and the build complete all the same.
            (0, super::JobState::Building) if position.is_none() || position < target => 0,
            (0, _) => 100,
            _ => share(done, 100, all).min(99),
        };
        let events_per_s = share(job.events, 1_000, job.worked_ms.max(1));
        let reading = job.state == super::JobState::Building && job.worked_ms > 0 && position.is_some();
        let eta_ms = reading.then(|| share(job.worked_ms, left, done.max(1)));
        Self { job, position, target, percent, events_per_s, eta_ms }
    }
}

/// `part * of / whole` without overflow on the way.
fn share(part: u64, of: u64, whole: u64) -> u64 {
    let product = u128::from(part) * u128::from(of);
    u64::try_from(product / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}
