//! A sorted table in an index file: entries of one width that begin with a 64-bit key.
//!
//! In memory there is a filter, which says "not here" for nearly every key that is not, or, where
//! there are few keys, those; and a *fence*: the first key and the checksum of each block of entries. A lookup reads one block.
//! Keys may collide; the record that an entry points at decides.

use std::io;

use xorf::{BinaryFuse16, Descriptor, Filter as _};

use super::bytes::{Fields, to_u32, to_u64, to_usize};
use super::checksum::crc32c;
use super::storage::StoredFile;

/// Entries in one block.
const BLOCK_ENTRIES: usize = 128;
/// Parts that entries are sorted in: one for each value of a key's first byte.
const PARTS: usize = 256;
/// Below this many keys a filter is not worth its bytes (and is not always constructible).
const FILTER_KEYS_MIN: usize = 64;

/// A table's part that stays in memory.
#[derive(Debug)]
pub(super) struct Table {
    width: usize,
    count: u32,
    /// Where its entries begin in the file.
    base: u64,
    fence: Vec<(u64, u32)>,
    filter: Option<BinaryFuse16>,
    /// The keys, if there are few; none if they are not known.
    few: Box<[u64]>,
}

/// Why a lookup gave no answer.
#[derive(Debug)]
pub(super) enum TableError {
    Io(io::Error),
    /// The block at this offset is not what was written.
    Damaged(u64),
}

/// Entries in ascending order: their keys are spread evenly, so a part for each first byte is sorted
/// on its own, in a nearer cache, and with a pause in which others get the core.
pub(super) fn sorted<const REST: usize>(
    entries: impl Iterator<Item = (u64, [u8; REST])>,
    count: usize,
) -> Vec<(u64, [u8; REST])> {
    let room = count / PARTS + count / PARTS / 4;
    let mut parts: Vec<Vec<_>> = (0..PARTS).map(|_| Vec::with_capacity(room)).collect();
    for entry in entries {
        let [first, ..] = entry.0.to_be_bytes();
        if let Some(part) = parts.get_mut(usize::from(first)) {
            part.push(entry);
        }
    }
    let mut all = Vec::with_capacity(count);
    for mut part in parts {
        part.sort_unstable();
        all.append(&mut part);
        std::thread::yield_now();
    }
    all
}

impl Table {
    /// Builds a table from entries sorted by key; gives its part for memory and its bytes.
    pub(super) fn build<const REST: usize>(entries: &[(u64, [u8; REST])]) -> (Self, Vec<u8>) {
        let width = REST + 8;
        let mut bytes = Vec::with_capacity(entries.len() * width);
        let mut fence = Vec::with_capacity(entries.len() / BLOCK_ENTRIES + 1);
        for block in entries.chunks(BLOCK_ENTRIES) {
            let start = bytes.len();
            for (key, rest) in block {
                bytes.extend_from_slice(&key.to_le_bytes());
                bytes.extend_from_slice(rest);
            }
            let crc = crc32c(bytes.get(start..).unwrap_or_default());
            fence.push((block.first().map_or(0, |(key, _)| *key), crc));
        }
        let mut keys: Vec<u64> = entries.iter().map(|(key, _)| *key).collect();
        keys.dedup();
        let filter =
            if keys.len() < FILTER_KEYS_MIN { None } else { BinaryFuse16::try_from(keys.as_slice()).ok() };
        let few = if filter.is_none() && keys.len() < FILTER_KEYS_MIN { keys.into() } else { Box::default() };
        (Self { width, count: to_u32(entries.len()), base: 0, fence, filter, few }, bytes)
    }

    /// Says where the entries begin in the file.
    pub(super) fn place(&mut self, base: u64) {
        self.base = base;
    }

    /// Keeps the keys in mind if they are few: a segment of few streams, as one of a busy room is, would
    /// else be looked into for each new one. What does not read is told to whoever looks for an entry.
    pub(super) fn remember(&mut self, file: &dyn StoredFile) {
        if self.filter.is_some() || to_usize(u64::from(self.count)) >= FILTER_KEYS_MIN {
            return;
        }
        let mut keys = Vec::new();
        let read = self.each(file, |entry| keys.extend(Fields(entry).u64()));
        if read.is_ok() {
            self.few = keys.into();
        }
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.count) * to_u64(self.width)
    }

    /// Bytes of the filter in memory.
    pub(super) fn filter_bytes(&self) -> u64 {
        let few = to_u64(self.few.len() * 8);
        few + self.filter.as_ref().map_or(0, |filter| to_u64(filter.fingerprints.len() * 2))
    }

    /// The same without its filter: lookups are as right as with it, and each reads a block.
    pub(super) fn without_filter(&self) -> Self {
        Self { fence: self.fence.clone(), filter: None, few: Box::default(), ..*self }
    }

    /// Whether the key may be here; "no" is certain.
    pub(super) fn may_hold(&self, key: u64) -> bool {
        self.count > 0
            && self.filter.as_ref().is_none_or(|filter| filter.contains(&key))
            && (self.few.is_empty() || self.few.contains(&key))
    }

    /// The entries with this key, without the key.
    pub(super) fn find(&self, file: &dyn StoredFile, key: u64) -> Result<Vec<Vec<u8>>, TableError> {
        let mut found = Vec::new();
        let first = self.fence.partition_point(|(start, _)| *start < key).saturating_sub(1);
        for (number, (start, crc)) in self.fence.iter().enumerate().skip(first) {
            if *start > key {
                break;
            }
            let block = self.block(file, number, *crc)?;
            for entry in block.chunks_exact(self.width) {
                let mut fields = Fields(entry);
                if fields.u64() == Some(key) {
                    found.push(fields.0.to_vec());
                }
            }
        }
        Ok(found)
    }

    /// Visits every entry, its key included.
    pub(super) fn each(&self, file: &dyn StoredFile, mut visit: impl FnMut(&[u8])) -> Result<(), TableError> {
        for (number, (_, crc)) in self.fence.iter().enumerate() {
            self.block(file, number, *crc)?.chunks_exact(self.width).for_each(&mut visit);
        }
        Ok(())
    }

    fn block(&self, file: &dyn StoredFile, number: usize, crc: u32) -> Result<Vec<u8>, TableError> {
        let skipped = number * BLOCK_ENTRIES;
        let entries = to_usize(u64::from(self.count)).saturating_sub(skipped).min(BLOCK_ENTRIES);
        let offset = self.base + to_u64(skipped * self.width);
        let mut block = vec![0; entries * self.width];
        file.read_exact_at(&mut block, offset).map_err(TableError::Io)?;
        if crc32c(&block) == crc { Ok(block) } else { Err(TableError::Damaged(offset)) }
    }

    /// Appends the part for memory to an index file's head.
    pub(super) fn encode(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(&self.count.to_le_bytes());
        for (key, crc) in &self.fence {
            head.extend_from_slice(&key.to_le_bytes());
            head.extend_from_slice(&crc.to_le_bytes());
        }
        let none = Descriptor { seed: 0, segment_length: 0, segment_length_mask: 0, segment_count_length: 0 };
        let (descriptor, prints) = self
            .filter
            .as_ref()
            .map_or((&none, &[][..]), |filter| (&filter.descriptor, filter.fingerprints.as_ref()));
        head.extend_from_slice(&descriptor.seed.to_le_bytes());
        for number in [
            descriptor.segment_length,
            descriptor.segment_length_mask,
            descriptor.segment_count_length,
            to_u32(prints.len()),
        ] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        for print in prints {
            head.extend_from_slice(&print.to_le_bytes());
        }
    }

    /// Reads the part for memory back; `None` if it does not fit together.
    pub(super) fn decode(fields: &mut Fields<'_>, width: usize) -> Option<Self> {
        let count = fields.u32()?;
        let blocks = to_usize(u64::from(count)).div_ceil(BLOCK_ENTRIES);
        let mut stored = Fields(fields.take(blocks.checked_mul(12)?)?);
        let mut fence = Vec::with_capacity(blocks);
        for _ in 0..blocks {
            fence.push((stored.u64()?, stored.u32()?));
        }
        let descriptor = Descriptor {
            seed: fields.u64()?,
            segment_length: fields.u32()?,
            segment_length_mask: fields.u32()?,
            segment_count_length: fields.u32()?,
        };
        let prints = to_usize(u64::from(fields.u32()?));
        // As long as is known before: what grows on its way leaves memory behind that nobody needs.
        let (stored, _) = fields.take(prints.checked_mul(2)?)?.as_chunks();
        let fingerprints: Box<[u16]> = stored.iter().map(|print| u16::from_le_bytes(*print)).collect();
        let filter = if prints == 0 {
            None
        } else {
            // What a lookup will index is checked once, here.
            let length = u64::from(descriptor.segment_length);
            let fits = length.is_power_of_two()
                && u64::from(descriptor.segment_length_mask) == length - 1
                && descriptor.segment_count_length >= descriptor.segment_length
                && descriptor.segment_count_length.is_multiple_of(descriptor.segment_length)
                && u64::from(descriptor.segment_count_length) + 2 * length <= to_u64(prints);
            fits.then_some(())?;
            Some(BinaryFuse16 { descriptor, fingerprints })
        };
        Some(Self { width: width + 8, count, base: 0, fence, filter, few: Box::default() })
    }
}
