//! Going away in good order: clients are told, each gets a slot of its own for coming back, and
//! what is in flight is answered before its connection is closed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::config::DrainConfig;
use crate::protocol;

/// The end of a process, seen by all of its threads.
pub struct Drain {
    config: DrainConfig,
    began: watch::Sender<bool>,
    slots: AtomicU64,
}

impl Drain {
    /// Not begun yet.
    pub fn new(config: DrainConfig) -> Self {
        Self { config, began: watch::Sender::new(false), slots: AtomicU64::new(0) }
    }

    /// Begins, for good.
    pub fn begin(&self) {
        self.began.send_replace(true);
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        *self.began.borrow()
    }

    /// Waits until it begins.
    pub async fn begins(&self) {
        // It fails only without a sender, which is here.
        let _ = self.began.subscribe().wait_for(|begun| *begun).await;
    }

    /// Waits until it is time to close what clients were told of.
    pub async fn closes(&self) {
        self.begins().await;
        actix_rt::time::sleep(self.notice()).await;
    }

    /// From telling clients to closing their connections.
    pub fn notice(&self) -> Duration {
        Duration::from_millis(self.config.notice_ms)
    }

    /// From closing connections to the first client's slot.
    pub fn successor(&self) -> Duration {
        Duration::from_millis(self.config.successor_ms)
    }

    /// From closing connections to leaving those that are not closed yet.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.config.patience_ms)
    }

    /// What the next client is told: its slot lies behind that of the client before.
    pub fn slot(&self) -> protocol::Drain {
        let number = self.slots.fetch_add(1, Ordering::Relaxed);
        let spread_ms = number.saturating_mul(1_000) / u64::from(self.config.reconnects_per_s.max(1));
        protocol::Drain {
            in_ms: self.config.notice_ms,
            slot_ms: self.config.successor_ms.saturating_add(spread_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_at_the_rate_that_the_successor_can_take() {
        let config =
            DrainConfig { reconnects_per_s: 50, successor_ms: 700, notice_ms: 300, patience_ms: 5_000 };
        let drain = Drain::new(config);
        let slots: Vec<_> = (0..101).map(|_| drain.slot()).collect();
        let told: Vec<_> = slots.iter().map(|slot| slot.slot_ms).collect();
        assert!(told.windows(2).all(|pair| matches!(pair, [a, b] if b - a == 20)), "{told:?}");
        assert_eq!((told.first(), told.last()), (Some(&700), Some(&2_700)));
        assert!(slots.iter().all(|slot| slot.in_ms == 300));
    }
}
