//! Ephemerals of a client: checked, counted against its rate, and given to the hubs.

use std::time::{Duration, Instant};

use dramatis_events::MemberId;
use serde_json::value::RawValue;

use super::Session;
use crate::config::EphemeralConfig;
use crate::protocol::{Ephemeral, EphemeralFrame, ErrorCode};

/// When the next one is due if all came evenly (the virtual schedule of ATM's generic cell rate
/// algorithm, ITU-T I.371): one instant in place of a bucket.
#[derive(Default)]
pub(super) struct Rate(Option<Instant>);

impl Rate {
    fn takes(&mut self, limits: &EphemeralConfig, now: Instant) -> bool {
        let interval = Duration::from_secs(1) / limits.per_second_max.max(1);
        let due = self.0.map_or(now, |due| due.max(now));
        let ahead = due.duration_since(now);
        let takes = ahead <= interval.saturating_mul(limits.burst_max.saturating_sub(1));
        if takes {
            self.0 = due.checked_add(interval);
        }
        takes
    }
}

impl Session {
    /// Tells all others who follow the room, where its sender may speak. Nothing is answered but to what can
    /// never be right.
    pub(super) fn ephemeral(&mut self, by: &MemberId, ephemeral: &Ephemeral) {
        let Ephemeral { room, name, data, .. } = ephemeral;
        let limits = &self.stage.limits.ephemeral;
        let data = data.as_deref().unwrap_or(RawValue::NULL);
        let (size, max) = (data.get().len(), limits.data_bytes_max);
        if size > max {
            let reason = format!("an ephemeral's data has at most {max} bytes, got {size}");
            return self.malformed(None, reason);
        }
        let follows =
            |stream: &dramatis_events::StreamId| stream.category() == "room" && stream.id() == room.as_str();
        let Some(follow) = self.follows.iter().find(|follow| follows(&follow.stream)) else {
            let message = format!("follow room {room} first: ephemerals go to rooms that one follows");
            return self.reject(None, ErrorCode::Forbidden, message);
        };
        if !self.ephemeral_rate.takes(limits, Instant::now()) {
            self.stage.metrics.ephemerals.limited.inc();
            return;
        }
        // Without a word: that the room is closed is told to everybody, and a removal in its place.
        if !follow.may_be_heard() {
            self.stage.metrics.ephemerals.unheard.inc();
            return;
        }
        let frame = EphemeralFrame { room, name, by, data };
        self.stage.relay.shout(&follow.stream, self.connection, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_an_even_rate() {
        let limits = EphemeralConfig {
            data_bytes_max: 16,
            per_second_max: 10,
            burst_max: 5,
            deliveries_per_second_max: 100,
        };
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut taken_at = |ms: u64, tries: u32| {
            let now = start + Duration::from_millis(ms);
            (0..tries).filter(|_| rate.takes(&limits, now)).count()
        };
        assert_eq!(taken_at(0, 20), 5);
        assert_eq!(taken_at(99, 20), 0);
        assert_eq!(taken_at(100, 20), 1);
        assert_eq!(taken_at(300, 20), 2);
        assert_eq!(taken_at(60_000, 20), 5);
    }
}
