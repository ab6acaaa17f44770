//! A bounded number of places, shared by threads: the connections of the process. What a user or an
//! address may hold is counted in [`meters`](super::meters).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub struct Places {
    count: Count,
    emptied: Notify,
}

/// How many there are, of so many that may be.
#[derive(Debug)]
pub(super) struct Count {
    taken: AtomicU32,
    max: u32,
}

impl Count {
    /// Up to `max`; 0 is no limit.
    pub(super) fn to(max: usize) -> Self {
        let max = if max == 0 { u32::MAX } else { u32::try_from(max).unwrap_or(u32::MAX) };
        Self { taken: AtomicU32::new(0), max }
    }

    /// One more, if there may be.
    pub(super) fn add(&self) -> bool {
        let add = |taken: u32| (taken < self.max).then(|| taken.saturating_add(1));
        self.taken.try_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    /// So many fewer; how many there were.
    pub(super) fn remove(&self, count: u32) -> u32 {
        self.taken.fetch_sub(count, Ordering::AcqRel)
    }
}

/// One place that is taken; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// At most `max` at a time; 0 is no limit.
    pub fn new(max: usize) -> Self {
        Self { count: Count::to(max), emptied: Notify::new() }
    }

    /// Takes a place, if there is one.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        self.count.add().then(|| Place(self.clone()))
    }

    /// Waits until every place was given back.
    pub async fn empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.count.taken.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.count.remove(1) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let places = Arc::new(Places::new(1));
        let first = places.enter().unwrap();
        assert!(places.enter().is_none());
        drop(first);
        assert!(places.enter().is_some());
        let unbounded = Arc::new(Places::new(0));
        let many: Vec<_> = std::iter::repeat_with(|| unbounded.enter()).take(1_000).collect();
        assert!(many.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn the_last_one_to_leave_wakes_who_waits() {
        let places = Arc::new(Places::new(2));
        places.empty().await;
        let (one, two) = (places.enter().unwrap(), places.enter().unwrap());
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.empty().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(two);
        waiting.await.unwrap();
    }
}
