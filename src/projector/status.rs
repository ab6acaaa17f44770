//! How a projection stands, as admins and waiting queries see it.

use dramatis_events::{Epoch, Position};
use dramatis_projections::DynProjection;

use super::Shared;

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
    /// Up to where it is done.
    pub position: Option<Position>,
    /// The log's last position when this was said.
    pub head: Option<Position>,
    /// Events folded into documents since the process started.
    pub events: u64,
    /// Keys parked in the live build.
    pub parked: usize,
    /// How it fares.
    pub health: Health,
}

/// How a projection fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It has more of the log to read.
    CatchingUp,
    /// It waits for the log to grow.
    Live,
    /// A step failed; it waits and tries again. Nothing is lost.
    Retrying {
        /// What failed.
        error: String,
        /// How often in a row.
        failures: u32,
    },
    /// It was stopped, or the log was closed.
    Stopped,
}

impl Status {
    pub(super) fn new(projection: &dyn DynProjection, shared: &Shared) -> Self {
        Self {
            projection: projection.name(),
            version: projection.version(),
            collection: String::new(),
            epoch: shared.log.epoch(),
            position: None,
            head: *shared.log.head().borrow(),
            events: 0,
            parked: 0,
            health: Health::CatchingUp,
        }
    }
}

/// How far a rebuild got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebuildProgress {
    /// The new build's collection.
    pub collection: String,
    /// How far it read.
    pub position: Option<Position>,
    /// The log's last position.
    pub head: Option<Position>,
    /// How much of the log that is, 0 to 100.
    pub percent: u64,
    /// Events folded.
    pub events: u64,
    /// Events folded a second, since the start.
    pub events_per_s: u64,
    /// Documents written, each as often as it was.
    pub documents_written: u64,
    /// About how long it will take yet, in seconds.
    pub eta_s: u64,
}

impl RebuildProgress {
    /// Works out rates from what was done in the elapsed time.
    pub(super) fn estimate(&mut self, elapsed_ms: u64) {
        let number = |position: Option<Position>| position.map_or(0, Position::to_engine);
        let (done, all) = (number(self.position), number(self.head));
        let left = all.saturating_sub(done);
        self.percent = if left == 0 { 100 } else { share(done, 100, all) };
        self.events_per_s = share(self.events, 1_000, elapsed_ms.max(1));
        self.eta_s = share(elapsed_ms, left, done.max(1)) / 1_000;
    }
}

/// `part * of / whole` without overflow on the way.
fn share(part: u64, of: u64, whole: u64) -> u64 {
    let product = u128::from(part) * u128::from(of);
    u64::try_from(product / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}
