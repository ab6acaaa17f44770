//! How many requests wait at an entity or are in its hands: its own bound, since an actix
//! mailbox has none for `do_send`; and the door that closes when the entity leaves memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct PendingCount(Arc<AtomicUsize>);

/// The count of an entity that takes nothing any more.
const RETIRED: usize = usize::MAX / 2;

/// Whether requests were counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// So many of them, one at the least.
    Some(usize),
    Full,
    Retired,
}

impl PendingCount {
    /// Takes room for as many of `count` requests as there is, so that there are not more than `max`.
    pub(super) fn add(&self, count: usize, max: usize) -> Added {
        let room = |before: usize| max.saturating_sub(before).min(count);
        let added = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
            (before < RETIRED && room(before) > 0).then(|| before.saturating_add(room(before)))
        });
        match added {
            Ok(before) => Added::Some(room(before)),
            Err(before) if before >= RETIRED => Added::Retired,
            Err(_) => Added::Full,
        }
    }

    /// Takes requests off the count: they are answered.
    pub fn remove(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::AcqRel);
    }

    /// Closes the door, if nothing waits.
    pub fn retire(&self) -> bool {
        self.0.compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether both are of one entity.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_taken_as_there_is_room_for() {
        let count = PendingCount::default();
        assert_eq!(count.add(3, 4), Added::Some(3));
        assert_eq!((count.add(3, 4), count.add(3, 4)), (Added::Some(1), Added::Full));
        assert!(!count.retire());
        count.remove(4);
        assert!(count.retire());
        assert_eq!((count.add(1, 4), count.add(1, usize::MAX)), (Added::Retired, Added::Retired));
    }
}
