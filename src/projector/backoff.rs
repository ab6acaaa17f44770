//! Waits that double, with jitter, so that many who wait do not come back at once.

use std::time::Duration;

use tokio::time::Instant;

use super::Options;

/// How often it is said again that what failed fails still.
const SAY_EVERY: Duration = Duration::from_mins(1);

pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    state: u64,
    failures: u32,
    said: Option<Instant>,
}

impl Backoff {
    /// `name` keeps projections of one process apart.
    pub(super) fn new(options: &Options, name: &str) -> Self {
        let seed =
            name.bytes().fold(options.seed, |seed, b| seed.wrapping_mul(31).wrapping_add(u64::from(b)));
        // Zero is the one state that xorshift never leaves.
        Self {
            min: options.backoff_min,
            max: options.backoff_max,
            state: seed.max(1),
            failures: 0,
            said: None,
        }
    }

    /// How often it failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// It goes well again; answers how often it had failed in a row, if that was said.
    pub(super) fn reset(&mut self) -> Option<u32> {
        let failures = std::mem::take(&mut self.failures);
        self.said.take().map(|_| failures)
    }

    /// Whether a failure is worth a line: the first one is, and then one in a while.
    pub(super) fn is_worth_saying(&mut self) -> bool {
        let worth = self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
        if worth {
            self.said = Some(Instant::now());
        }
        worth
    }

    /// Counts a failure; answers how long to wait: between half and the whole of the doubled time.
    pub(super) fn fail(&mut self) -> Duration {
        let whole = self.min.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        // xorshift64, Marsaglia 2003.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let share = u32::try_from(self.state % 1_000).unwrap_or(0);
        whole / 2 + whole / 2 * share / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_anew() {
        let options = Options::default();
        let mut backoff = Backoff::new(&options, "rooms");
        let mut whole = options.backoff_min;
        for _ in 0..40 {
            let wait = backoff.fail();
            assert!(whole / 2 <= wait && wait <= whole, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(options.backoff_max);
        }
        assert_eq!(backoff.reset(), None);
        assert!(backoff.fail() <= options.backoff_min);
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_said_once_in_a_while() {
        let mut backoff = Backoff::new(&Options::default(), "rooms");
        assert!(backoff.is_worth_saying() && !backoff.is_worth_saying());
        tokio::time::advance(SAY_EVERY).await;
        assert!(backoff.is_worth_saying() && !backoff.is_worth_saying());
        backoff.fail();
        assert_eq!(backoff.reset(), Some(1));
        assert!(backoff.is_worth_saying());
    }
}
