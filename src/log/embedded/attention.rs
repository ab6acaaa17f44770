//! Whether the writer's thread looks for its next message for a moment before it sleeps.
//!
//! A lone writer appends, waits for the answer and appends again. To wake a thread that sleeps takes
//! tens of microseconds, and a quick disk's sync is not much longer. So where a message came soon
//! after the last answer, the next one is looked for as long as that; where none came in that time,
//! the thread sleeps again. Whoever has something to do on its core goes first. Where many write,
//! there is something to do without that.

use std::num::NonZero;
use std::sync::mpsc::Receiver;
use std::thread::{available_parallelism, yield_now};
use std::time::{Duration, Instant};

/// How long is looked.
const LOOK_FOR: Duration = Duration::from_micros(100);
/// Who slept no longer than this, its waking included, would have found something.
const SLEPT_MAX: Duration = Duration::from_micros(150);

/// See the module.
pub(super) struct Attention {
    /// Whether others have a core while this thread looks.
    spare: bool,
    /// Whether the last batch was one append.
    lone: bool,
    pays: bool,
}

impl Attention {
    pub(super) fn new() -> Self {
        let spare = available_parallelism().is_ok_and(|cores| cores > NonZero::<usize>::MIN);
        Self { spare, lone: false, pays: false }
    }

    /// Looks for a message, if that is likely to find one.
    pub(super) fn look<T>(&mut self, messages: &Receiver<T>) -> Option<T> {
        if !self.pays || !self.lone {
            return None;
        }
        let begun = Instant::now();
        while begun.elapsed() < LOOK_FOR {
            if let Ok(message) = messages.try_recv() {
                return Some(message);
            }
            yield_now();
        }
        self.pays = false;
        None
    }

    /// A message came after this much sleep.
    pub(super) fn slept(&mut self, long: Duration) {
        self.pays = self.spare && long <= SLEPT_MAX;
    }

    /// So many appends were answered at once.
    pub(super) fn answered(&mut self, appends: usize) {
        self.lone = appends == 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_a_lone_writer_that_comes_back_soon_is_looked_for() {
        let (sender, messages) = channel();
        let mut attention = Attention { spare: true, lone: false, pays: false };
        sender.send(()).unwrap();
        for (appends, slept, found) in
            [(1, SLEPT_MAX * 2, false), (2, SLEPT_MAX, false), (1, SLEPT_MAX, true), (1, SLEPT_MAX, false)]
        {
            attention.answered(appends);
            attention.slept(slept);
            assert_eq!(attention.look(&messages).is_some(), found, "{appends} appends, {slept:?} asleep");
        }
        sender.send(()).unwrap();
        assert_eq!(attention.look(&messages), None, "none came the last time");
        attention.slept(SLEPT_MAX);
        assert_eq!(attention.look(&messages), Some(()));
    }

    #[test]
    fn a_thread_without_a_core_to_spare_sleeps() {
        let (sender, messages) = channel();
        sender.send(()).unwrap();
        let mut attention = Attention { spare: false, lone: true, pays: false };
        attention.slept(Duration::ZERO);
        assert_eq!(attention.look(&messages), None);
    }
}
