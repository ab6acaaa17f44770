//! What a generated log holds, so that any event of it can be named without reading it.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// The file beside a log that was generated whole.
const MARKER: &str = "generated.json";

/// A log's events: in streams of the same length, give or take one, recorded in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) events: u64,
    pub(super) streams: u64,
    /// Events that a stream gets in a row before it is the next one's turn.
    pub(super) burst: u64,
    /// Bytes of an event's payload.
    pub(super) event_bytes: usize,
}

impl Shape {
    /// How many events a stream has.
    pub(super) fn events_of(&self, stream: u64) -> u64 {
        self.events / self.streams + u64::from(stream < self.events % self.streams)
    }

    /// The events of a stream in its turn: the first revision, and how many.
    pub(super) fn turn(&self, stream: u64, turn: u64) -> (u64, u64) {
        let first = turn.saturating_mul(self.burst);
        (first, self.events_of(stream).saturating_sub(first).min(self.burst))
    }

    /// How many turns there are.
    pub(super) fn turns(&self) -> u64 {
        self.events_of(0).div_ceil(self.burst)
    }

    /// Whether the directory holds a whole log of this shape; not if it is empty. Anything else
    /// in it is an error, since it is neither to be measured nor to be removed.
    pub(super) fn is_in(&self, dir: &Path) -> anyhow::Result<bool> {
        let marker = dir.join(MARKER);
        if !marker.exists() {
            let empty = !dir.exists() || dir.read_dir()?.next().is_none();
            ensure!(
                empty,
                "expected {} to be empty or to hold a generated log, but it has no {MARKER}: remove what is there",
                dir.display()
            );
            return Ok(false);
        }
        let text = std::fs::read_to_string(&marker)?;
        let found: Self =
            serde_json::from_str(&text).with_context(|| format!("{} does not parse", marker.display()))?;
        ensure!(
            found == *self,
            "expected a log of {self:?} in {}, got {found:?}: choose another directory",
            dir.display()
        );
        Ok(true)
    }

    /// Marks the directory's log as whole.
    pub(super) fn mark(&self, dir: &Path) -> anyhow::Result<()> {
        Ok(std::fs::write(dir.join(MARKER), serde_json::to_string(self)?)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { events: 103, streams: 10, burst: 4, event_bytes: 300 };

    #[test]
    fn all_turns_of_all_streams_are_all_events() {
        let turns = (0..SHAPE.turns()).flat_map(|turn| (0..10).map(move |stream| SHAPE.turn(stream, turn)));
        assert_eq!(turns.map(|(_, events)| events).sum::<u64>(), 103);
        assert_eq!((SHAPE.events_of(2), SHAPE.events_of(3)), (11, 10));
        assert_eq!((SHAPE.turn(2, 2), SHAPE.turn(3, 2), SHAPE.turn(3, 3)), ((8, 3), (8, 2), (12, 0)));
    }

    #[test]
    fn only_a_whole_log_of_the_same_shape_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!SHAPE.is_in(dir.path()).unwrap());
        std::fs::create_dir(dir.path().join("log")).unwrap();
        SHAPE.is_in(dir.path()).unwrap_err();
        SHAPE.mark(dir.path()).unwrap();
        assert!(SHAPE.is_in(dir.path()).unwrap());
        Shape { events: 104, ..SHAPE }.is_in(dir.path()).unwrap_err();
    }
}
