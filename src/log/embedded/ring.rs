//! The newest events in memory, so that readers at the head never touch the disk.

use std::collections::VecDeque;
use std::sync::Arc;

use dramatis_events::Recorded;

use super::bytes::{to_u64, to_usize};

/// What an event weighs besides its payload, about.
const OVERHEAD_BYTES: usize = 400;

/// Contiguous events up to the head, bounded by bytes and number; the oldest make room.
pub(super) struct Ring {
    events: VecDeque<Arc<Recorded>>,
    first: u64,
    bytes: usize,
    bytes_max: usize,
    events_max: usize,
}

impl Ring {
    pub(super) fn new(next: u64, bytes_max: usize, events_max: usize) -> Self {
        Self { events: VecDeque::new(), first: next, bytes: 0, bytes_max, events_max }
    }

    pub(super) fn push(&mut self, event: Arc<Recorded>) {
        self.bytes += event.envelope.data.len() + OVERHEAD_BYTES;
        self.events.push_back(event);
        while self.bytes > self.bytes_max || self.events.len() > self.events_max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.envelope.data.len() + OVERHEAD_BYTES);
            self.first += 1;
        }
    }

    /// Whether this position is held, or would be the next.
    pub(super) fn covers(&self, position: u64) -> bool {
        position >= self.first && position <= self.first + to_u64(self.events.len())
    }

    pub(super) fn get(&self, position: u64) -> Option<&Arc<Recorded>> {
        self.events.get(to_usize(position.checked_sub(self.first)?))
    }

    /// The events from this position on.
    pub(super) fn from(&self, position: u64) -> impl Iterator<Item = &Arc<Recorded>> {
        self.events.range(to_usize(position.saturating_sub(self.first)).min(self.events.len())..)
    }
}
