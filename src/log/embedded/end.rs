//! The end of the log on disk: where the next batch goes, and what makes it durable.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dramatis_events::Epoch;

use super::bytes::{to_u32, to_u64, to_usize};
use super::checksum::crc32c;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name};
use super::index::MemoryIndex;
use super::segment::Open;
use super::sidecar::Facts;
use super::storage::{Storage, StoredFile};
use super::syncer::Job;

/// Bytes filled with zeros ahead of small batches: a sync that need not grow the file is quicker,
/// and so few at a time delay the batch that meets them little.
pub(super) const AHEAD_BYTES: u64 = 1024 * 1024;
/// Batches from this size on grow the file themselves: each byte written twice would cost more.
const AHEAD_BATCH_BYTES_MAX: u64 = 384 * 1024;

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After its bytes are synced to the disk.
    Sync,
    /// Before that: what was answered since the last sync, so long ago at the most, may be lost
    /// with the machine's power or its kernel. The epoch tells clients when it may have been.
    Interval(Duration),
}

/// Why there is no next segment.
pub(super) enum NotRolled {
    /// Its file cannot be made, or not begun: all is as it was.
    Untouched(io::Error),
    /// What of it is on the disk is not known.
    Unknown(io::Error),
}

/// The end of the chain of batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub(super) next_batch: u64,
    pub(super) last_crc: u32,
    pub(super) last_recorded_at: i64,
}

/// A batch about to be written: room for its header, then its records.
#[derive(Default)]
pub(super) struct Sealed {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
    pub(super) recorded_at: i64,
    /// Where it goes, once it has a place.
    pub(super) first_position: u64,
    pub(super) at: u64,
}

/// See the module.
pub(super) struct End {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) epoch: Epoch,
    pub(super) segment_bytes: u64,
    /// Below so many free bytes nothing is written.
    pub(super) reserve_bytes: u64,
    pub(super) chain: Chain,
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) segment_first: u64,
    /// Where the next batch goes.
    pub(super) at: u64,
    /// Up to where the file is filled with zeros.
    pub(super) allocated: u64,
    pub(super) next_position: u64,
    /// The number after the last batch known to be durable.
    pub(super) synced: u64,
}

impl End {
    /// Whether this batch begins a new segment.
    pub(super) fn is_full(&self, batch: &Sealed) -> bool {
        self.next_position > self.segment_first && self.at + to_u64(batch.bytes.len()) > self.segment_bytes
    }

    /// Why a batch of so many bytes must not be written now, if it must not: nothing was, yet.
    pub(super) fn refuses(&self, batch: &Sealed) -> Option<String> {
        let until = self.at + to_u64(batch.bytes.len());
        if self.reserve_bytes == 0 || (until <= self.allocated && !self.is_full(batch)) {
            return None;
        }
        // What is filled in ahead takes space too.
        self.storage.space().ok()?.refuses(to_u64(batch.bytes.len()) + AHEAD_BYTES, self.reserve_bytes)
    }

    /// Gives the batch its header and its place, and takes its bytes. Once it is written it is
    /// durable after [`End::sync`]; after an error nothing more may be written. The watermark is
    /// below which number all batches are durable by the time this one is written.
    pub(super) fn place(&mut self, batch: &mut Sealed, watermark: u64) -> Job {
        let body = batch.bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        let (header, crc) = BatchHeader {
            number: self.chain.next_batch,
            watermark,
            first_position: self.next_position,
            recorded_at: batch.recorded_at,
            previous: self.chain.last_crc,
            count: batch.count,
            body_len: to_u32(body.len()),
            body_crc: crc32c(body),
        }
        .encode(self.epoch.log());
        if let Some(head) = batch.bytes.get_mut(..BATCH_HEADER_BYTES) {
            head.copy_from_slice(&header);
        }
        (batch.first_position, batch.at) = (self.next_position, self.at);
        let until = self.at + to_u64(batch.bytes.len());
        let bytes = std::mem::take(&mut batch.bytes);
        let job = Job { file: self.file.clone(), bytes, at: self.at, zeros: self.ahead(until) };
        self.at = until;
        self.next_position += u64::from(batch.count);
        self.chain = Chain {
            next_batch: self.chain.next_batch + 1,
            last_crc: crc,
            last_recorded_at: batch.recorded_at,
        };
        job
    }

    /// Makes what was written durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.synced();
        Ok(())
    }

    /// All that has a place is durable.
    pub(super) fn synced(&mut self) {
        self.synced = self.chain.next_batch;
    }

    /// Where to fill in zeros ahead, so that a sync need not wait for the file to grow.
    fn ahead(&mut self, until: u64) -> Option<(u64, u64)> {
        if until <= self.allocated {
            return None;
        }
        if until - self.at >= AHEAD_BATCH_BYTES_MAX {
            self.allocated = until;
            return None;
        }
        let target = until.saturating_add(AHEAD_BYTES).min(self.segment_bytes.max(until));
        let from = std::mem::replace(&mut self.allocated, target);
        Some((from, target))
    }

    /// Begins the next segment; gives what the one before it holds.
    pub(super) fn roll(&mut self, first_recorded_at: i64) -> Result<(Facts, Open), NotRolled> {
        if self.synced < self.chain.next_batch {
            self.sync().map_err(NotRolled::Unknown)?;
        }
        // Mostly it is a file more that a process may not have, and not for long.
        let name = segment_name(self.next_position);
        let file = self.storage.create(&name).map_err(NotRolled::Untouched)?;
        let header = SegmentHeader {
            counter: self.epoch.counter(),
            log: self.epoch.log(),
            first_position: self.next_position,
            first_batch: self.chain.next_batch,
            previous: self.chain.last_crc,
        };
        if let Err(error) = file.write_all_at(&header.encode(), 0) {
            // A disk without room for it, mostly. It must be gone for good: the segment before it may
            // still take what begins where it would.
            return Err(match self.storage.remove(&name).and_then(|()| self.storage.sync_names()) {
                Ok(()) => NotRolled::Untouched(error),
                Err(_) => NotRolled::Unknown(error),
            });
        }
        self.begin(file, first_recorded_at).map_err(NotRolled::Unknown)
    }

    /// The file has its header.
    fn begin(&mut self, file: Arc<dyn StoredFile>, first_recorded_at: i64) -> io::Result<(Facts, Open)> {
        let closed = Facts {
            first: self.segment_first,
            count: to_u32(to_usize(self.next_position - self.segment_first)),
            end: self.at,
            next_batch: self.chain.next_batch,
            last_crc: self.chain.last_crc,
            first_recorded_at,
            last_recorded_at: self.chain.last_recorded_at,
        };
        file.sync()?;
        self.storage.sync_names()?;
        self.file = file.clone();
        self.segment_first = self.next_position;
        self.at = to_u64(SEGMENT_HEADER_BYTES);
        self.allocated = self.at;
        let open = Open { file, first: self.next_position, end: self.at, index: MemoryIndex::default() };
        Ok((closed, open))
    }
}
