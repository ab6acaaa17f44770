//! A bounded number of places, shared by threads: the connections of the process. What a user or an
//! address may hold is counted in [`meters`](super::meters).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    max: usize,
    emptied: Notify,
}

/// One place that is taken; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// At most `max` at a time; 0 is no limit.
    pub fn new(max: usize) -> Self {
        let max = if max == 0 { usize::MAX } else { max };
        Self { taken: AtomicUsize::new(0), max, emptied: Notify::new() }
    }

    /// Takes a place, if there is one.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let place = Place(self.clone());
        (self.taken.fetch_add(1, Ordering::AcqRel) < self.max).then_some(place)
    }

    /// Waits until every place was given back.
    pub async fn empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.taken.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::AcqRel) == 1 {
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
