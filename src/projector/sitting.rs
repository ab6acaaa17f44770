//! One sitting of work on a build: what it did so far, and whether it gains on the log.

use std::time::Duration;

use dramatis_events::Position;
use tokio::time::Instant;

use super::record::{Job, Parked};
use super::run::Run;

/// How often it is looked at whether a build gains on the log.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A build on its way, and what was done for it before this sitting.
pub(super) struct Sitting {
    pub(super) job: Job,
    pub(super) run: Run,
    pub(super) began: Instant,
    pub(super) saved: Instant,
}

impl Sitting {
    /// The job with what was done in this sitting counted in.
    pub(super) fn job(&self) -> Job {
        let mut job = self.job.clone();
        job.events += self.run.events;
        job.documents_written += self.run.documents_written;
        job.parked = Parked::of(&self.run.parked);
        let worked = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        job.worked_ms = job.worked_ms.saturating_add(worked);
        job
    }

    /// Events of one page, at the most: a quarter of a second's where an admin bounds the rate, so
    /// that it is kept to evenly.
    pub(super) fn page_events_max(&self) -> usize {
        let of = |rate: u64| usize::try_from(rate / 4).unwrap_or(usize::MAX).max(1);
        self.job.events_per_s_max.map_or(usize::MAX, of)
    }
}

/// Whether a build gains on the log. One that does not would never end by giving way.
pub(super) struct Pace {
    left: u64,
    since: Instant,
    gains: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { left: u64::MAX, since: Instant::now(), gains: true }
    }

    /// What is left now; whether that is less than a while ago.
    pub(super) fn gains(&mut self, left: u64) -> bool {
        if self.since.elapsed() >= LOOK_EVERY {
            self.gains = left < self.left;
            (self.left, self.since) = (left, Instant::now());
        }
        self.gains
    }
}

/// How much of the log comes after a position, in the measure of its engine.
pub(super) fn left(position: Option<Position>, head: Option<Position>) -> u64 {
    let number = |position: Option<Position>| position.map_or(0, Position::to_engine);
    number(head).saturating_sub(number(position))
}
