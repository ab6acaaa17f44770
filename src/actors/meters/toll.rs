//! What a session pays for each message, and when its patience with refusals ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Account, Pace, Seat};

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
    session: Option<Pace>,
    user: Seat,
    address: Option<Arc<Account>>,
    refused: u32,
    refused_max: u32,
    since: Option<Instant>,
}

impl Toll {
    pub(super) fn new(
        session: Option<Pace>,
        user: Seat,
        address: Option<Arc<Account>>,
        refused_max: u32,
    ) -> Self {
        Self { session, user, address, refused: 0, refused_max, since: None }
    }

    /// What the connection has of its user's account.
    pub fn seat(&mut self) -> &mut Seat {
        &mut self.user
    }

    /// Pays for one message of so many bytes.
    pub fn take(&mut self, bytes: usize) -> Taken {
        match self.take_all(bytes) {
            Ok(()) => Taken::Yes,
            Err(after) => self.refuse(after, Instant::now()),
        }
    }

    fn take_all(&self, bytes: usize) -> Result<(), Duration> {
        self.session.as_ref().map_or(Ok(()), |session| session.take(bytes))?;
        self.user.account().take(bytes)?;
        self.address.as_ref().map_or(Ok(()), |address| address.take(bytes))
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
