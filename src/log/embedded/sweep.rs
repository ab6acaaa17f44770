//! Going through a segment from one of its events on, record after record.
//!
//! A batch that is wanted whole is checked by the checksum in its header, which costs far less
//! than one for each record. What such a batch shows a visitor counts only once its checksum has
//! come out right: until then an error discards it. A batch of which only some records are wanted
//! is checked record by record.

use super::bytes::{Fields, to_u64, to_usize};
use super::checksum::Crc32c;
use super::format::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::record::{BODY_BYTES_MAX, FRAME_BYTES, Raw, take_body};
use super::segment::{SegmentBytes, damaged};
#[cfg(test)]
use super::tests::bugs::{self, Bug};
use crate::log::LogError;

/// Bytes read at a time: what was read is still in the processor's cache when it is looked at.
const CHUNK_BYTES: usize = 128 * 1024;

/// See the module.
pub(super) struct Sweep<'a> {
    segment: &'a SegmentBytes,
    log: u64,
    /// Where the next record or batch header begins.
    at: u64,
    /// The position of the next event.
    position: u64,
    /// Where the bytes in memory begin, and how many there are.
    start: u64,
    held: usize,
    buffer: Vec<u8>,
}

/// How a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// At the segment's end.
    All,
    /// Before it: so many events were visited, or the visitor had enough.
    Part,
}

/// A batch that is checked as a whole.
struct Whole {
    header: BatchHeader,
    crc: Crc32c,
    /// Where the batch begins and ends, and up to where its checksum was taken.
    start: u64,
    end: u64,
    checked: u64,
}

impl<'a> Sweep<'a> {
    /// From the event at this position on, whose record begins at the offset.
    pub(super) fn new(segment: &'a SegmentBytes, position: u64, offset: u64) -> Result<Self, LogError> {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        segment.read_at(&mut header, 0)?;
        let log = SegmentHeader::decode(&header)
            .map_err(|_| damaged(segment.name(), 0, "the segment header does not read back"))?
            .log;
        let mut sweep = Self { segment, log, at: offset, position, start: 0, held: 0, buffer: Vec::new() };
        // The first record of its batch is swept with the batch.
        if let Some(before) = offset.checked_sub(to_u64(BATCH_HEADER_BYTES)) {
            let mut header = [0; BATCH_HEADER_BYTES];
            segment.read_at(&mut header, before)?;
            if BatchHeader::decode(&header, log).is_ok_and(|(header, _)| header.first_position == position) {
                sweep.at = before;
            }
        }
        Ok(sweep)
    }

    /// Visits about so many records at the most, until the visitor has enough (`false`).
    pub(super) fn run(
        mut self,
        budget: &mut u64,
        mut visit: impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
    ) -> Result<Swept, LogError> {
        while self.at < self.segment.end() {
            if *budget == 0 {
                return Ok(Swept::Part);
            }
            self.load(FRAME_BYTES)?;
            let more = if self.bytes().starts_with(&BATCH_MAGIC) {
                let header = self.batch_header()?;
                if u64::from(header.count) <= *budget {
                    *budget -= u64::from(header.count);
                    self.whole(header, &mut visit)?
                } else {
                    self.at += to_u64(BATCH_HEADER_BYTES);
                    true
                }
            } else {
                *budget -= 1;
                self.one(&mut visit)?
            };
            if !more {
                return Ok(Swept::Part);
            }
        }
        Ok(Swept::All)
    }

    fn batch_header(&mut self) -> Result<BatchHeader, LogError> {
        self.load(BATCH_HEADER_BYTES)?;
        let (header, _) =
            BatchHeader::decode(self.bytes(), self.log).map_err(|why| self.bad(self.at, why))?;
        if header.first_position != self.position {
            return Err(self.bad(self.at, "a batch does not begin at the next position"));
        }
        Ok(header)
    }

    /// Visits one record, checked by itself.
    fn one(
        &mut self,
        visit: &mut impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
    ) -> Result<bool, LogError> {
        self.load_record()?;
        let body = take_body(&mut Fields(self.bytes())).map_err(|why| self.bad(self.at, why))?;
        let len = FRAME_BYTES + body.len();
        let more = self.show(body, visit).map_err(|why| self.bad(self.at, why))?;
        self.at += to_u64(len);
        self.position += 1;
        Ok(more)
    }

    /// Visits all records of a batch, which is checked as a whole.
    fn whole(
        &mut self,
        header: BatchHeader,
        visit: &mut impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
    ) -> Result<bool, LogError> {
        let body = self.at + to_u64(BATCH_HEADER_BYTES);
        let end = body + u64::from(header.body_len);
        if end > self.segment.end() {
            return Err(self.bad(self.at, "a batch is cut short"));
        }
        let mut batch = Whole { header, crc: Crc32c::new(), start: self.at, end, checked: body };
        self.at = body;
        let shown = self.show_all(&mut batch, visit);
        match self.proven(&mut batch) {
            Ok(true) => shown,
            Ok(false) => Err(self.culprit(&batch)),
            Err(error) => Err(error),
        }
    }

    fn show_all(
        &mut self,
        batch: &mut Whole,
        visit: &mut impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
    ) -> Result<bool, LogError> {
        for _ in 0..batch.header.count {
            self.load_record()?;
            self.check(batch);
            let mut fields = Fields(self.bytes());
            let len = fields.u32().unwrap_or(u32::MAX);
            let _crc = fields.u32();
            let body =
                fields.take(to_usize(u64::from(len))).filter(|_| to_usize(u64::from(len)) <= BODY_BYTES_MAX);
            let body = body.ok_or_else(|| self.bad(self.at, "a record is cut short"))?;
            let more = self.show(body, visit).map_err(|why| self.bad(self.at, why))?;
            self.at += to_u64(FRAME_BYTES) + u64::from(len);
            self.position += 1;
            if !more {
                return Ok(false);
            }
        }
        if self.at == batch.end {
            Ok(true)
        } else {
            Err(self.bad(self.at, "a batch holds more than its records"))
        }
    }

    /// Takes the checksum over what of the batch came into memory.
    fn check(&self, batch: &mut Whole) {
        let until = batch.end.min(self.start + to_u64(self.held));
        if let Some(len) = until.checked_sub(batch.checked)
            && len > 0
        {
            let skip = to_usize(batch.checked.saturating_sub(self.start));
            let bytes = self.buffer.get(skip..).and_then(|rest| rest.get(..to_usize(len)));
            batch.crc.add(bytes.unwrap_or_default());
            batch.checked = until;
        }
    }

    /// Whether the batch's checksum is right; reads on to its end.
    fn proven(&mut self, batch: &mut Whole) -> Result<bool, LogError> {
        let at = self.at;
        self.check(batch);
        while batch.checked < batch.end {
            self.at = batch.checked;
            self.load(1)?;
            self.check(batch);
        }
        self.at = at;
        let right = batch.crc.sum() == batch.header.body_crc;
        #[cfg(test)]
        let right = right || bugs::has(Bug::SkipChecksum);
        Ok(right)
    }

    /// Which record it is that makes a batch's checksum wrong.
    fn culprit(&mut self, batch: &Whole) -> LogError {
        self.position = batch.header.first_position;
        self.at = batch.start + to_u64(BATCH_HEADER_BYTES);
        while self.at < batch.end {
            if let Err(error) = self.one(&mut |_| Ok(true)) {
                return error;
            }
        }
        self.bad(batch.start, "a batch's checksum is wrong")
    }

    fn show(
        &self,
        body: &[u8],
        visit: &mut impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
    ) -> Result<bool, &'static str> {
        let raw = Raw::read(body)?;
        if raw.position == self.position {
            visit(raw)
        } else {
            Err("a record of another position stands here")
        }
    }

    /// What is in memory of the bytes from the next record or header on.
    fn bytes(&self) -> &[u8] {
        let held = self.buffer.get(..self.held).unwrap_or_default();
        held.get(to_usize(self.at.saturating_sub(self.start))..).unwrap_or_default()
    }

    fn load_record(&mut self) -> Result<(), LogError> {
        self.load(FRAME_BYTES)?;
        let len = to_usize(u64::from(Fields(self.bytes()).u32().unwrap_or(0)));
        self.load(FRAME_BYTES + len.min(BODY_BYTES_MAX))
    }

    /// Brings at least so many bytes into memory, if the segment has them.
    fn load(&mut self, len: usize) -> Result<(), LogError> {
        let kept = self.bytes().len();
        if kept >= len {
            return Ok(());
        }
        let left = to_usize(self.segment.end().saturating_sub(self.at));
        let wanted = len.max(CHUNK_BYTES).min(left);
        if kept >= wanted {
            return Ok(());
        }
        let skip = self.held - kept;
        self.buffer.copy_within(skip..self.held, 0);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let room = self.buffer.get_mut(kept..wanted).unwrap_or_default();
        // In case of an error nothing of it counts.
        (self.start, self.held) = (self.at, kept);
        self.segment.read_at(room, self.at + to_u64(kept))?;
        self.held = wanted;
        Ok(())
    }

    fn bad(&self, at: u64, reason: &str) -> LogError {
        damaged(self.segment.name(), at, reason)
    }
}
