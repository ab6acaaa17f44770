//! The next segment's file, filled with zeros ahead of its use. A sync of what is written over
//! zeros that are on the disk already need not find room for it nor record how long the file has
//! become: it is about twice as quick, and the slowest ones several times.
//!
//! The file is filled beside the writer, in step with how far the open segment is, so a log that
//! stays small has none. If it is not ready in time, the segment grows as it is written.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bytes::to_usize;
use super::storage::{Storage, StoredFile};

/// The file's name until it becomes a segment.
const NAME: &str = "spare";
/// Bytes written before they are synced: few enough not to hold up the writer's own syncs.
const STEP_BYTES: u64 = 2 * 1024 * 1024;
/// Parts in which the open segment's progress is told.
const PARTS: u64 = 16;
/// Filling begins when so many of them are written.
const FIRST: u64 = 2;
/// Equal shares in which it is filled, one with each part.
const SHARES: u64 = 10;

/// A file that is ready. It is locked while it takes its name: until then no second one may be made.
#[derive(Default)]
pub(super) struct Ready(Mutex<Option<Arc<dyn StoredFile>>>);

impl Ready {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn StoredFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a file that is ready its name; that is durable after a sync of the names.
pub(super) fn take_name(storage: &dyn Storage, name: &str) -> io::Result<()> {
    storage.rename(NAME, name)
}

/// How far the file should be filled, by how far the open segment is.
#[derive(Debug)]
pub(super) struct Pace {
    segment_bytes: u64,
    /// Parts of the open segment that were told.
    told: u64,
}

impl Pace {
    pub(super) fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes, told: 0 }
    }

    /// Bytes that should be filled once the open segment is so long, if that was not told.
    pub(super) fn due(&self, at: u64) -> Option<u64> {
        let part = self.part(at);
        let share = part.checked_sub(FIRST).filter(|_| part > self.told)? + 1;
        Some(if share >= SHARES { self.segment_bytes } else { self.segment_bytes / SHARES * share })
    }

    pub(super) fn tell(&mut self, at: u64) {
        self.told = self.part(at);
    }

    /// Another segment is open.
    pub(super) fn restart(&mut self) {
        self.told = 0;
    }

    fn part(&self, at: u64) -> u64 {
        at / (self.segment_bytes / PARTS).max(1)
    }
}

/// What fills the file.
pub(super) struct Spare {
    file: Option<Arc<dyn StoredFile>>,
    filled: u64,
    segment_bytes: u64,
    /// Bytes of the disk that stay free.
    reserve_bytes: u64,
}

impl Spare {
    /// Removes what an earlier process left.
    pub(super) fn new(storage: &dyn Storage, segment_bytes: u64, reserve_bytes: u64) -> io::Result<Self> {
        if storage.list()?.iter().any(|name| name == NAME) {
            storage.remove(NAME)?;
        }
        Ok(Self { file: None, filled: 0, segment_bytes, reserve_bytes })
    }

    /// Fills the file up to here; whole, it is ready. After an error it is begun anew.
    pub(super) fn fill(&mut self, storage: &dyn Storage, ready: &Ready, until: u64) -> io::Result<()> {
        let made = self.file.take().map_or_else(
            || {
                let slot = ready.lock();
                self.filled = 0;
                if slot.is_some() { Ok(None) } else { storage.create(NAME).map(Some) }
            },
            |file| Ok(Some(file)),
        );
        let Some(file) = made? else { return Ok(()) };
        while self.filled < until {
            let bytes = (until - self.filled).min(STEP_BYTES);
            if storage.space()?.refuses(bytes, self.reserve_bytes).is_some() {
                break;
            }
            file.write_all_at(&vec![0; to_usize(bytes)], self.filled)?;
            file.sync()?;
            self.filled += bytes;
        }
        if self.filled >= self.segment_bytes {
            *ready.lock() = Some(file);
        } else {
            self.file = Some(file);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_part_by_part_and_filled_before_the_segment_is_full() {
        for segment_bytes in [1, 15, 1_000, 128 << 20] {
            let (mut pace, mut told) = (Pace::new(segment_bytes), Vec::new());
            for at in (0..=1_000).map(|thousandth| segment_bytes * thousandth / 1_000) {
                if let Some(until) = pace.due(at) {
                    assert!(at >= segment_bytes / PARTS * FIRST, "{until} told at {at} of {segment_bytes}");
                    told.push((at, until));
                    pace.tell(at);
                }
            }
            assert!(told.is_sorted(), "{told:?}");
            let whole = told.iter().find(|(_, until)| *until == segment_bytes);
            assert!(
                segment_bytes < PARTS || whole.is_some_and(|(at, _)| at * 10 <= segment_bytes * 7),
                "{told:?}"
            );
        }
    }
}
