//! The records of one batch: whether the one that stands at a place is the one that belongs
//! there, and where the next one is after damage.

use crate::log::embedded::bytes::{Fields, to_usize};
use crate::log::embedded::record::{FRAME_BYTES, Raw, take_body};

/// Where in a batch a record must stand.
pub(super) struct Within {
    pub(super) position: u64,
    /// The position after the batch.
    pub(super) end: u64,
    /// When the batch was recorded.
    pub(super) recorded_at: i64,
}

impl Within {
    /// The record that begins these bytes, if it is the one.
    pub(super) fn read<'a>(&self, bytes: &'a [u8]) -> Result<Raw<'a>, &'static str> {
        let raw = Raw::read(take_body(&mut Fields(bytes))?)?;
        if raw.position != self.position || raw.position >= self.end {
            return Err("a record does not stand at the next position");
        }
        if raw.recorded_at > self.recorded_at {
            return Err("a record is younger than its batch");
        }
        raw.decode()?;
        Ok(raw)
    }

    /// The next record of the batch that reads back: where it begins, and its position.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<(usize, u64)> {
        (0..bytes.len()).find_map(|skip| {
            let rest = bytes.get(skip..)?;
            let position = Fields(rest.get(FRAME_BYTES..)?).u64()?;
            let fits = (self.position + 1..self.end).contains(&position);
            let there = Self { position, ..*self };
            (fits && there.read(rest).is_ok()).then_some((skip, position))
        })
    }
}

/// The length of a record that reads back, with its frame.
pub(super) fn record_len(bytes: &[u8]) -> usize {
    FRAME_BYTES + to_usize(u64::from(Fields(bytes).u32().unwrap_or(0)))
}
