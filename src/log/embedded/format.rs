//! Headers of segments and batches.
//!
//! A segment is a header of 48 bytes, then batches, then zeros up to its allocation.
//!
//! | segment header | bytes |
//! |---|---|
//! | magic `DRAMLOG` and a zero, version, three zeros | 8 + 4 |
//! | epoch counter, log id | 4 + 8 |
//! | first position, first batch number | 8 + 8 |
//! | checksum of the batch before it, crc32c of all above | 4 + 4 |
//!
//! | batch header | bytes |
//! |---|---|
//! | magic, crc32c over the log id and all below | 4 + 4 |
//! | number, watermark, first position, `recorded_at` | 8 each |
//! | checksum of the batch before, records, body length, crc32c of the body | 4 each |
//!
//! The *watermark* is one past the number of the last batch that was durable when this one was
//! written: a valid header proves that every batch below its watermark was acknowledged.
//! A batch's own checksum is its header's, which covers the body's.

use super::bytes::Fields;
use super::checksum::{Crc32c, crc32c};

/// The format this build reads and writes.
pub(super) const VERSION: u8 = 1;
/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 48;
/// Bytes of a batch's header.
pub(super) const BATCH_HEADER_BYTES: usize = 56;
/// The longest batch body that is looked at.
pub(super) const BATCH_BYTES_MAX: u32 = 64 * 1024 * 1024;

const SEGMENT_MAGIC: [u8; 8] = *b"DRAMLOG\0";
/// How every batch begins.
pub(super) const BATCH_MAGIC: [u8; 4] = [0xd7, 0xa3, 0xba, 0x7c];

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) counter: u32,
    pub(super) log: u64,
    pub(super) first_position: u64,
    pub(super) first_batch: u64,
    pub(super) previous: u32,
}

/// Why a segment's header does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Written by a newer build.
    Newer(u8),
    /// Not a header of ours.
    Invalid(&'static str),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
        bytes.extend_from_slice(&self.counter.to_le_bytes());
        bytes.extend_from_slice(&self.log.to_le_bytes());
        bytes.extend_from_slice(&self.first_position.to_le_bytes());
        bytes.extend_from_slice(&self.first_batch.to_le_bytes());
        bytes.extend_from_slice(&self.previous.to_le_bytes());
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderError> {
        let mut fields = Fields(bytes);
        let short = HeaderError::Invalid("the segment header is cut short");
        let magic: [u8; 8] = fields.array().ok_or(short)?;
        let [version, ..]: [u8; 4] = fields.array().ok_or(short)?;
        if magic != SEGMENT_MAGIC {
            return Err(HeaderError::Invalid("the segment header is missing"));
        }
        // Every version keeps the header's length and its checksum: what is damaged is not called newer.
        let (covered, crc) = bytes.split_at(SEGMENT_HEADER_BYTES - 4);
        if crc32c(covered).to_le_bytes() != crc {
            return Err(HeaderError::Invalid("the segment header's checksum is wrong"));
        }
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        Ok(Self {
            counter: fields.u32().ok_or(short)?,
            log: fields.u64().ok_or(short)?,
            first_position: fields.u64().ok_or(short)?,
            first_batch: fields.u64().ok_or(short)?,
            previous: fields.u32().ok_or(short)?,
        })
    }
}

/// What a batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) number: u64,
    pub(super) watermark: u64,
    pub(super) first_position: u64,
    pub(super) recorded_at: i64,
    pub(super) previous: u32,
    pub(super) count: u32,
    pub(super) body_len: u32,
    pub(super) body_crc: u32,
}

impl BatchHeader {
    /// The header's bytes and the batch's checksum.
    pub(super) fn encode(&self, log: u64) -> (Vec<u8>, u32) {
        let mut fields = Vec::with_capacity(BATCH_HEADER_BYTES);
        for number in [self.number, self.watermark, self.first_position] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        fields.extend_from_slice(&self.recorded_at.to_le_bytes());
        for number in [self.previous, self.count, self.body_len, self.body_crc] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        let crc = header_crc(log, &fields);
        let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES);
        bytes.extend_from_slice(&BATCH_MAGIC);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&fields);
        (bytes, crc)
    }

    /// Reads a header off the front of the bytes, with the batch's checksum.
    pub(super) fn decode(bytes: &[u8], log: u64) -> Result<(Self, u32), &'static str> {
        let header = bytes.get(..BATCH_HEADER_BYTES).ok_or("a batch header is cut short")?;
        let mut fields = Fields(header);
        let short = "a batch header is cut short";
        if fields.array() != Some(BATCH_MAGIC) {
            return Err("no batch begins here");
        }
        let crc = fields.u32().ok_or(short)?;
        if header_crc(log, fields.0) != crc {
            return Err("a batch header's checksum is wrong");
        }
        let header = Self {
            number: fields.u64().ok_or(short)?,
            watermark: fields.u64().ok_or(short)?,
            first_position: fields.u64().ok_or(short)?,
            recorded_at: fields.i64().ok_or(short)?,
            previous: fields.u32().ok_or(short)?,
            count: fields.u32().ok_or(short)?,
            body_len: fields.u32().ok_or(short)?,
            body_crc: fields.u32().ok_or(short)?,
        };
        if header.body_len > BATCH_BYTES_MAX {
            return Err("a batch's length is past the limit");
        }
        Ok((header, crc))
    }
}

/// The checksum of a batch's header: over the log's id and all fields behind it.
fn header_crc(log: u64, fields: &[u8]) -> u32 {
    Crc32c::new().add(&log.to_le_bytes()).add(fields).sum()
}

/// A segment's file name, by the position of its first event.
pub(super) fn segment_name(first_position: u64) -> String {
    format!("{first_position:020}.segment")
}

/// The file name of a closed segment's index.
pub(super) fn index_name(first_position: u64) -> String {
    format!("{first_position:020}.index")
}

/// The first position that a segment's file name tells.
pub(super) fn parse_segment_name(name: &str) -> Option<u64> {
    name.strip_suffix(".segment").filter(|digits| digits.len() == 20)?.parse().ok()
}
