//! What a session pays for each message, and when its patience with refusals ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Account, Meter};

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
    session: Option<Meter>,
    user: Arc<Account>,
    address: Option<Arc<Account>>,
    refused: u32,
    refused_max: u32,
    since: Option<Instant>,
}

impl Toll {
    pub(super) fn new(
        session: Option<Meter>,
        user: Arc<Account>,
        address: Option<Arc<Account>>,
        refused_max: u32,
    ) -> Self {
        Self { session, user, address, refused: 0, refused_max, since: None }
    }

    /// The user's account.
    pub fn user(&self) -> &Account {
        &self.user
    }

    /// Pays for one message of so many bytes.
    pub fn take(&mut self, bytes: usize) -> Taken {
        let meters = [
            self.session.as_ref(),
            Some(&self.user.meter),
            self.address.as_ref().map(|address| &address.meter),
        ];
        let taken = meters.into_iter().flatten().try_for_each(|meter| meter.take(bytes));
        match taken {
            Ok(()) => Taken::Yes,
            Err(after) => self.refuse(after, Instant::now()),
        }
    }

    fn refuse(&mut self, after: Duration, now: Instant) -> Taken {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.refused = 0;
        }
        self.refused = self.refused.saturating_add(1);
        if self.refused > self.refused_max { Taken::Abuse } else { Taken::After(after) }
    }
}

impl Account {
    /// Pays for one request of so many bytes; else says when it would be taken.
    pub fn take(&self, bytes: usize) -> Result<(), Duration> {
        self.meter.take(bytes)
    }
}
