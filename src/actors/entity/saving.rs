//! When an entity's state is worth a snapshot.
//!
//! A snapshot costs its bytes and saves reading the events before it, so one that is large
//! waits for more of them. One is in flight at a time.

use super::load::Origin;

/// With fewer events since the last snapshot, an entity leaves memory without a new one.
const LEAVING_EVENTS_MIN: u64 = 50;
/// Bytes of state that one event less to read is worth.
const BYTES_PER_EVENT: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// Events between two snapshots; 0 makes none.
    every: u64,
    /// Events in the last snapshot that is known to be kept.
    kept: u64,
    /// Events in the last one that was tried.
    tried: u64,
    /// Its size.
    bytes: usize,
    in_flight: bool,
}

impl Saving {
    pub(super) fn every(events: u64) -> Self {
        Self { every: events, ..Self::default() }
    }

    /// The entity was read.
    pub(super) fn loaded(&mut self, origin: Origin) {
        (self.kept, self.bytes) = match origin {
            Origin::Snapshot { events, bytes } => (events, bytes),
            Origin::Start | Origin::UnfitSnapshot => (0, 0),
        };
        self.tried = self.kept;
    }

    /// Whether to save an entity of so many events.
    pub(super) fn is_due(&self, events: u64) -> bool {
        self.is_due_after(self.every, self.tried, events)
    }

    /// Whether to save an entity of so many events that is about to leave memory.
    pub(super) fn is_due_on_leaving(&self, events: u64) -> bool {
        self.is_due_after(self.every.min(LEAVING_EVENTS_MIN), self.kept, events)
    }

    fn is_due_after(&self, more: u64, than: u64, events: u64) -> bool {
        let worth = u64::try_from(self.bytes / BYTES_PER_EVENT).unwrap_or(u64::MAX);
        self.every > 0 && !self.in_flight && events.saturating_sub(than) >= more.max(worth)
    }

    /// A snapshot of so many events is on its way.
    pub(super) fn begun(&mut self, events: u64, bytes: usize) {
        (self.tried, self.bytes, self.in_flight) = (events, bytes, true);
    }

    /// A snapshot could not be made.
    pub(super) fn failed(&mut self, events: u64) {
        self.tried = events;
    }

    /// The one in flight, of so many events, was kept or was not.
    pub(super) fn ended(&mut self, events: u64, kept: bool) {
        self.in_flight = false;
        if kept {
            self.kept = events;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_states_are_saved_every_so_often_one_at_a_time() {
        let mut saving = Saving::every(1_000);
        assert!(!saving.is_due(999) && saving.is_due(1_000));
        saving.begun(1_000, 300);
        assert!(!saving.is_due(9_000) && !saving.is_due_on_leaving(9_000), "one in flight");
        saving.ended(1_000, true);
        assert!(!saving.is_due(1_999) && saving.is_due(2_000));
        assert!(!saving.is_due_on_leaving(1_049) && saving.is_due_on_leaving(1_050));
    }

    #[test]
    fn what_was_not_kept_is_tried_again_later_or_on_leaving() {
        let mut saving = Saving::every(1_000);
        saving.begun(1_000, 300);
        saving.ended(1_000, false);
        assert!(!saving.is_due(1_999) && saving.is_due(2_000));
        assert!(saving.is_due_on_leaving(1_000));
        saving.failed(2_000);
        assert!(!saving.is_due(2_999));
    }

    #[test]
    fn a_large_state_waits_for_more_events() {
        let mut saving = Saving::every(1_000);
        saving.loaded(Origin::Snapshot { events: 5_000, bytes: 400_000 });
        assert!(!saving.is_due(8_999) && saving.is_due(9_000));
        assert!(!saving.is_due_on_leaving(8_999) && saving.is_due_on_leaving(9_000));
        saving.loaded(Origin::UnfitSnapshot);
        assert!(saving.is_due(1_000), "nothing is kept");
    }

    #[test]
    fn none_are_made_when_they_are_switched_off() {
        let saving = Saving::every(0);
        assert!(!saving.is_due(u64::MAX) && !saving.is_due_on_leaving(u64::MAX));
    }
}
