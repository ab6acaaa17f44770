//! One byte budget of the process over what all clients hold of a kind, so that very many slow ones
//! together cannot hold more than one machine has: what waits for them, what has come of them in part.
//!
//! Each worker thread counts for itself and settles with the process's sum now and then: a
//! push costs no shared cache line.

use std::cell::Cell;

use prometheus_client::metrics::gauge::Gauge;
use std::sync::atomic::{AtomicI64, Ordering};

/// While the budget is used up a client may still hold so many bytes: who drains gets on, and only
/// those with much waiting are read from the log later.
pub const LEAST_BYTES: usize = 4 * 1024;

/// A thread settles when it is off by this, in bytes; by less where the budget is small.
const SETTLE_BYTES: i64 = 64 * 1024;

/// One thread's share in the budget.
pub struct Share {
    held: Gauge<i64, AtomicI64>,
    most: Gauge<i64, AtomicI64>,
    /// The same, as far as this thread knows.
    most_here: Cell<usize>,
    max: i64,
    settle: i64,
    unsettled: Cell<i64>,
}

impl Share {
    /// A share in a budget of so many bytes; `held` counts what all threads hold, `most` the most that
    /// ever waited for one client.
    pub fn new(held: Gauge<i64, AtomicI64>, most: Gauge<i64, AtomicI64>, bytes_max: usize) -> Self {
        let max = signed(bytes_max);
        let settle = SETTLE_BYTES.min(max / 64);
        Self { held, most, most_here: Cell::new(0), max, settle, unsettled: Cell::new(0) }
    }

    /// Notes what waits for one client.
    pub fn note(&self, bytes: usize) {
        if bytes > self.most_here.get() {
            self.most_here.set(bytes);
            self.most.inner().fetch_max(signed(bytes), Ordering::Relaxed);
        }
    }

    /// Counts bytes that begin to wait.
    pub fn take(&self, bytes: usize) {
        self.add(signed(bytes));
    }

    /// Counts bytes that no longer wait.
    pub fn give(&self, bytes: usize) {
        self.add(signed(bytes).saturating_neg());
    }

    /// Whether the budget is used up.
    pub fn is_over(&self) -> bool {
        self.held.get() > self.max
    }

    /// Whether half of it is: what is worth little gives way from here on.
    pub fn is_scarce(&self) -> bool {
        self.held.get() > self.max / 2
    }

    fn add(&self, bytes: i64) {
        let unsettled = self.unsettled.get().saturating_add(bytes);
        if unsettled.abs() >= self.settle {
            self.held.inc_by(unsettled);
            self.unsettled.set(0);
        } else {
            self.unsettled.set(unsettled);
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn threads_share_one_budget_and_give_back_what_they_took() {
        let held = Gauge::default();
        let share = || Share::new(held.clone(), Gauge::default(), 1_000_000);
        let threads = [share(), share()];
        for thread in &threads {
            (0..600).for_each(|_| thread.take(1_000));
        }
        assert!(threads.iter().all(|thread| thread.is_over() && thread.is_scarce()));
        for thread in &threads {
            (0..300).for_each(|_| thread.give(1_000));
        }
        assert!(threads.iter().all(|thread| !thread.is_over() && thread.is_scarce()));
        for thread in &threads {
            (0..300).for_each(|_| thread.give(1_000));
        }
        assert!(threads.iter().all(|thread| !thread.is_scarce()));
        assert!(held.get().abs() < 2 * 1_000_000 / 64, "{}", held.get());
    }

    #[test]
    fn the_most_that_waited_for_one_client_is_that_of_all_threads() {
        let most = Gauge::<i64, AtomicI64>::default();
        let share = || Share::new(Gauge::default(), most.clone(), 1_000_000);
        let threads = [share(), share()];
        for (thread, bytes, expected) in [(0, 10, 10), (1, 5, 10), (0, 7, 10), (1, 20, 20), (0, 15, 20)] {
            threads[thread].note(bytes);
            assert_eq!(most.get(), expected);
        }
    }
}
