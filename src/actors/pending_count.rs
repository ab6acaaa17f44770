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
pub(super) enum Added {
    Yes,
    Full,
    Retired,
}

impl PendingCount {
    /// Takes room for `count` requests, unless there would then be more than `max`.
    pub(super) fn add(&self, count: usize, max: usize) -> Added {
        let before = self.0.fetch_add(count, Ordering::AcqRel);
        if before.saturating_add(count) <= max {
            return Added::Yes;
        }
        self.0.fetch_sub(count, Ordering::AcqRel);
        if before >= RETIRED { Added::Retired } else { Added::Full }
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
