//! What a session pays for each message, and when its patience with refusals ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::UNLIMITED;
use super::{Account, Meter};
use crate::config::{LimitsConfig, RateConfig};

/// Refusals are counted in windows of this length.
const WINDOW: Duration = Duration::from_mins(1);

/// Whether a message is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is.
    Yes,
    /// It is not; send it again after this.
    After(Duration),
    /// It is not, and the client has gone on over the limit for too long.
    Abuse,
}

/// See the module.
pub struct Toll {
    /// Made once the session says something.
    session: Option<Box<Meter>>,
    rate: RateConfig,
    burst_s: u32,
    user: Arc<Account>,
    address: Option<Arc<Account>>,
    refusals: Option<Box<Refusals>>,
    refused_max: u32,
}

/// Few are ever refused.
struct Refusals {
    count: u32,
    since: Instant,
}

impl Toll {
    /// For a session of this pace, of this user and address.
    pub(super) fn new(
        rate: RateConfig,
        user: Arc<Account>,
        address: Option<Arc<Account>>,
        limits: &LimitsConfig,
    ) -> Self {
        let (burst_s, refused_max) = (limits.burst_s, limits.refused_per_minute_max);
        Self { session: None, rate, burst_s, user, address, refusals: None, refused_max }
    }

    /// Pays for one message of so many bytes.
    pub fn take(&mut self, bytes: usize) -> Taken {
        match self.take_all(bytes) {
            Ok(()) => Taken::Yes,
            Err(after) => self.refuse(after, Instant::now()),
        }
    }

    fn take_all(&mut self, bytes: usize) -> Result<(), Duration> {
        if self.rate != UNLIMITED {
            let make = || Box::new(Meter::new(self.rate, self.burst_s));
            self.session.get_or_insert_with(make).take(bytes)?;
        }
        self.user.take(bytes)?;
        self.address.as_ref().map_or(Ok(()), |address| address.take(bytes))
    }

    fn refuse(&mut self, after: Duration, now: Instant) -> Taken {
        let refusals = self.refusals.get_or_insert_with(|| Box::new(Refusals { count: 0, since: now }));
        if now.saturating_duration_since(refusals.since) >= WINDOW {
            **refusals = Refusals { count: 0, since: now };
        }
        refusals.count = refusals.count.saturating_add(1);
        if refusals.count > self.refused_max { Taken::Abuse } else { Taken::After(after) }
    }
}
