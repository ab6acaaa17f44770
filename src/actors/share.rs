//! One byte budget over all outboxes of the process, so that very many slow clients together
//! cannot hold more than one machine has.
//!
//! Each worker thread counts for itself and settles with the process's sum now and then: a
//! push costs no shared cache line.

use std::cell::Cell;

use prometheus_client::metrics::gauge::Gauge;
use std::sync::atomic::AtomicI64;

/// While the budget is used up an outbox may still hold so many bytes: who drains gets on, and
/// only those with much waiting are read from the log later.
pub const LEAST_BYTES: usize = 4 * 1024;

/// A thread settles when it is off by this, in bytes; by less where the budget is small.
const SETTLE_BYTES: i64 = 64 * 1024;

/// One thread's share in the budget.
pub struct Share {
    held: Gauge<i64, AtomicI64>,
    max: i64,
    settle: i64,
    unsettled: Cell<i64>,
}

impl Share {
    /// A share in a budget of so many bytes; `held` counts what all threads hold.
    pub fn new(held: Gauge<i64, AtomicI64>, bytes_max: usize) -> Self {
        let max = signed(bytes_max);
        Self { held, max, settle: SETTLE_BYTES.min(max / 64), unsettled: Cell::new(0) }
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
mod tests {
    use super::*;

    #[test]
    fn threads_share_one_budget_and_give_back_what_they_took() {
        let held = Gauge::default();
        let threads = [Share::new(held.clone(), 1_000_000), Share::new(held.clone(), 1_000_000)];
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
}
