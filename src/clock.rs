//! Time as an argument: the log's writer and the actors read it here, tests set it by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dramatis_events::UnixMillis;

/// A source of wall-clock time. It may step back; who needs order keeps its own maximum.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970 by this clock.
    fn now(&self) -> UnixMillis;
}

/// Reads a time as people and programs write it: RFC 3339, or Unix milliseconds.
pub fn parse_time(text: &str) -> Result<UnixMillis, String> {
    if let Ok(millis) = text.parse() {
        return Ok(UnixMillis::new(millis));
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        format!("expected a time such as 2024-01-31T12:00:00Z, or Unix milliseconds, got {text:?}")
    })?;
    Ok(UnixMillis::new(time.as_millisecond()))
}

/// A time as people write it; one that no calendar has stays a number.
pub fn time_text(time: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(time.get())
        .map_or_else(|_| format!("{} ms", time.get()), |time| time.to_string())
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands where it was set.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Moves the clock, forwards or back.
    pub fn set(&self, now: UnixMillis) {
        self.0.store(now.get(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis::new(self.0.load(Ordering::SeqCst))
    }
}
