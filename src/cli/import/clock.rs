//! The clock that the lines of a file show: what it means that it runs back. Pure.

use super::parse::Message;

const MINUTE_MS: i64 = 60 * 1_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// When a clock of 24 hours runs back by more than this, midnight has passed.
const MIDNIGHT_STEP_MS: i64 = 12 * HOUR_MS;
/// When one of 12 hours does by more than this, midnight or noon has.
const HALF_DAY_STEP_MS: i64 = 6 * HOUR_MS;
/// Up to this it was set, as where summer time ends.
const SET_MS_MAX: i64 = HOUR_MS;
/// What no clock of 12 hours shows.
const BEYOND_MS: i64 = 13 * HOUR_MS;
/// What noon and midnight are apart.
pub(super) const HALF_DAY_MS: i64 = 12 * HOUR_MS;

/// How many hours a clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Dial {
    #[default]
    Of24,
    Of12,
}

/// What it means that a clock shows an earlier time than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It goes on, or was set.
    Within,
    /// Midnight has passed.
    NextDay,
    /// Midnight or noon has.
    HalfDay,
    /// Nobody can tell.
    Unclear,
}

impl Dial {
    /// From one time of day to the next, milliseconds since midnight.
    pub(super) fn step(self, from_ms: i64, to_ms: i64) -> Step {
        match (self, from_ms - to_ms) {
            (_, back_ms) if back_ms > MIDNIGHT_STEP_MS => Step::NextDay,
            (Self::Of12, back_ms) if back_ms > HALF_DAY_STEP_MS => Step::HalfDay,
            (_, back_ms) if back_ms > SET_MS_MAX => Step::Unclear,
            _ => Step::Within,
        }
    }
}

/// Looks at the messages of a file for the hours that its clock counts: it is one of 12 if it never shows
/// 13:00 or later, and once runs back from 12 to 1 o'clock, or from 11 to 0.
#[derive(Debug, Default)]
pub(super) struct Look {
    last_ms: Option<i64>,
    turned: bool,
    beyond: bool,
}

impl Look {
    /// Takes the next message. One that names its day has no part in it.
    pub(super) fn at(&mut self, message: &Message<'_>) {
        if message.place.is_some() {
            return;
        }
        let hours = self.last_ms.map(|last_ms| (last_ms / HOUR_MS, message.time_ms / HOUR_MS));
        self.turned |= matches!(hours, Some((12, 1) | (11, 0)));
        self.beyond |= message.time_ms >= BEYOND_MS;
        self.last_ms = Some(message.time_ms);
    }

    /// Whether no further message changes what comes of it.
    pub(super) fn is_settled(&self) -> bool {
        self.beyond
    }

    /// What came of it.
    pub(super) fn dial(&self) -> Dial {
        if self.turned && !self.beyond { Dial::Of12 } else { Dial::Of24 }
    }
}

/// A time of day as a clock shows it.
pub(super) fn shown(time_ms: i64) -> String {
    format!("{:02}:{:02}", time_ms / HOUR_MS, time_ms % HOUR_MS / MINUTE_MS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use crate::cli::import::parse::{Line, parse};

    fn dial(clocks: &[&str]) -> Dial {
        let mut look = Look::default();
        for clock in clocks {
            let line = format!("[{clock}] <a> hi");
            let Line::Message(message) = parse(&line).unwrap() else { panic!("{line}") };
            look.at(&message);
        }
        look.dial()
    }

    #[test]
    fn a_clock_of_twelve_hours_is_known_by_its_turn() {
        for (clocks, wanted) in [
            (&["03:00", "12:59", "01:00"][..], Dial::Of12),
            (&["11:59", "00:00", "11:30"], Dial::Of12),
            (&["12:30", "01:15", "13:00"], Dial::Of24),
            (&["13:00", "12:30", "01:15"], Dial::Of24),
            (&["11:59", "12:00", "12:59"], Dial::Of24),
            (&["12:59", "02:00"], Dial::Of24),
            (&["23:59", "00:00"], Dial::Of24),
        ] {
            assert_eq!(dial(clocks), wanted, "{clocks:?}");
        }
    }
}
