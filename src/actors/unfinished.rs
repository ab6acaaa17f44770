//! One byte budget of the process over what has come of clients and is not handled yet: messages in
//! part, and whole ones that wait for those before them.
//!
//! When it is used up who holds most is closed, on whichever thread that is, and not who happens to
//! need a little more: nobody keeps others out by holding on to much.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::closing::{Closer, Closing};
use super::share::LEAST_BYTES;
use crate::protocol::CloseCode;
use prometheus_client::metrics::gauge::Gauge;

/// See the module.
pub struct Budget {
    gauge: Gauge<i64, AtomicI64>,
    bytes_max: usize,
    holders: Mutex<Holders>,
}

/// One thread's way to the budget.
pub struct Unfinished {
    budget: Arc<Budget>,
    thread: Arc<Closing>,
}

#[derive(Default)]
struct Holders {
    by_connection: HashMap<u64, Holder>,
    /// Bytes of all.
    bytes: usize,
    /// Bytes of those that were told to go.
    leaving_bytes: usize,
    /// Those that have more than the least and were not told.
    large: usize,
    entered: u64,
}

struct Holder {
    bytes: usize,
    /// Its place in the order in which they came.
    entered: u64,
    is_leaving: bool,
    thread: Arc<Closing>,
}

impl Budget {
    /// So many bytes; `gauge` tells what is held.
    pub fn new(gauge: Gauge<i64, AtomicI64>, bytes_max: usize) -> Self {
        Self { gauge, bytes_max, holders: Mutex::default() }
    }
}

impl Unfinished {
    /// For the connections of one thread, which closes them.
    pub fn new(budget: Arc<Budget>, thread: Arc<Closing>) -> Self {
        Self { budget, thread }
    }

    /// A connection holds so many bytes in place of so many that it held before. `false` if it may
    /// not, and is to be closed.
    pub fn change(&self, connection: u64, before: usize, now: usize) -> bool {
        let Budget { gauge, bytes_max, holders } = &*self.budget;
        let mut holders = lock(holders);
        let held = holders.change(connection, &self.thread, before, now);
        gauge.set(i64::try_from(holders.bytes).unwrap_or(i64::MAX));
        if now <= before || held <= LEAST_BYTES {
            return true;
        }
        while holders.bytes.saturating_sub(holders.leaving_bytes) > *bytes_max
            && let Some((largest, thread)) = holders.send_away_largest()
        {
            if largest != connection {
                Closer::new(thread, largest).close(CloseCode::Overloaded);
            }
        }
        // Those that were told need a moment to go; who grows meanwhile does not go far beyond.
        let is_leaving = holders.by_connection.get(&connection).is_some_and(|holder| holder.is_leaving);
        !is_leaving && holders.bytes / 2 <= *bytes_max
    }
}

impl Holders {
    /// How much the connection holds then.
    fn change(&mut self, connection: u64, thread: &Arc<Closing>, before: usize, now: usize) -> usize {
        let entered = self.entered;
        let holder = self.by_connection.entry(connection).or_insert_with(|| Holder {
            bytes: 0,
            entered,
            is_leaving: false,
            thread: thread.clone(),
        });
        self.entered = self.entered.wrapping_add(1);
        let (held, holds) = (holder.bytes, holder.bytes.saturating_sub(before).saturating_add(now));
        holder.bytes = holds;
        self.bytes = self.bytes.saturating_sub(held).saturating_add(holds);
        if holder.is_leaving {
            self.leaving_bytes = self.leaving_bytes.saturating_sub(held).saturating_add(holds);
        } else {
            self.large = self.large.saturating_sub(is_large(held)).saturating_add(is_large(holds));
        }
        if holds == 0 {
            self.by_connection.remove(&connection);
            super::shrink::shrink(&mut self.by_connection);
        }
        holds
    }

    /// Marks who holds most; of several that hold as much, who came first.
    fn send_away_largest(&mut self) -> Option<(u64, Arc<Closing>)> {
        if self.large == 0 {
            return None;
        }
        let staying = self.by_connection.iter_mut().filter(|(_, holder)| !holder.is_leaving);
        let (connection, largest) =
            staying.max_by_key(|(_, holder)| (holder.bytes, std::cmp::Reverse(holder.entered)))?;
        largest.is_leaving = true;
        self.leaving_bytes = self.leaving_bytes.saturating_add(largest.bytes);
        self.large = self.large.saturating_sub(is_large(largest.bytes));
        Some((*connection, largest.thread.clone()))
    }
}

/// Counts as one of those that may be closed, or as none.
fn is_large(bytes: usize) -> usize {
    usize::from(bytes > LEAST_BYTES)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    const KIB: usize = 1_024;

    fn budget(bytes_max: usize) -> (Unfinished, Unfinished) {
        let budget = Arc::new(Budget::new(Gauge::default(), bytes_max));
        (Unfinished::new(budget.clone(), Arc::default()), Unfinished::new(budget, Arc::default()))
    }

    fn told(thread: &Unfinished) -> Vec<u64> {
        thread.thread.take().into_iter().map(|(connection, _)| connection).collect()
    }

    #[test]
    fn who_holds_most_goes_on_whichever_thread_and_who_came_first_of_several() {
        let (here, there) = budget(100 * KIB);
        for (thread, connection, bytes) in [(&there, 1, 40), (&here, 2, 40), (&here, 3, 15)] {
            assert!(thread.change(connection, 0, bytes * KIB));
        }
        assert!(here.change(4, 0, 10 * KIB));
        assert_eq!((told(&here), told(&there)), (vec![], vec![1]));
        assert!(!there.change(1, 40 * KIB, 41 * KIB), "it is to go");
        assert!(here.change(4, 10 * KIB, 30 * KIB));
        assert_eq!(told(&here), [0; 0]);
        assert!(here.change(4, 30 * KIB, 39 * KIB) && here.change(3, 15 * KIB, 22 * KIB));
        assert_eq!(told(&here), [2]);
        assert!(!here.change(4, 39 * KIB, 139 * KIB), "nobody else holds as much");
        assert!(here.change(4, 139 * KIB, 0) && there.change(1, 41 * KIB, 0) && here.change(2, 40 * KIB, 0));
        let holders = lock(&here.budget.holders);
        assert_eq!((holders.bytes, holders.leaving_bytes, holders.large), (22 * KIB, 0, 1));
        assert_eq!((here.budget.gauge.get(), holders.by_connection.len()), (22 * 1_024, 1));
    }

    #[test]
    fn small_ones_stay_and_large_ones_do_not_grow_while_others_are_about_to_go() {
        let (here, _) = budget(100 * KIB);
        assert!((0..30).all(|connection| here.change(connection, 0, 4 * KIB)));
        assert_eq!(told(&here), [0; 0]);
        assert!(!here.change(30, 0, 5 * KIB), "it is the only one that may be closed");
        assert!(here.change(30, 5 * KIB, 0));
        assert!((0..30).all(|connection| here.change(connection, 4 * KIB, 0)));
        assert!(here.change(40, 0, 90 * KIB) && here.change(41, 0, 80 * KIB));
        assert_eq!(told(&here), [40]);
        assert!(!here.change(42, 0, 81 * KIB));
        assert!(!here.change(43, 0, 60 * KIB), "twice as much as may be is not gone yet");
    }

    #[tokio::test]
    async fn a_thread_is_woken_for_its_own() {
        let (here, there) = budget(10 * KIB);
        assert!(here.change(1, 0, 9 * KIB) && there.change(2, 0, 8 * KIB));
        assert_eq!(here.thread.next().await, [(1, CloseCode::Overloaded)]);
    }
}
