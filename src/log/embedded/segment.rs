//! One segment as readers see it: which events it holds, and their bytes.

use std::sync::Arc;

use dramatis_events::{Recorded, StreamId};

use super::bytes::{Fields, to_u64, to_usize};
use super::index::{MemoryIndex, RunSpan};
use super::record::{BODY_BYTES_MAX, FRAME_BYTES, Raw, take_body};
use super::sidecar::{Sidecar, stream_key};
use super::storage::StoredFile;
use super::table::TableError;
use crate::log::LogError;

/// Bytes read at a time when a scan goes through a segment.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// A segment that will never change, and its index.
pub(super) struct Closed {
    pub(super) name: String,
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) index_name: String,
    pub(super) index: Arc<dyn StoredFile>,
    pub(super) sidecar: Sidecar,
}

impl Closed {
    pub(super) fn first(&self) -> u64 {
        self.sidecar.facts.first
    }

    pub(super) fn end(&self) -> u64 {
        self.first() + u64::from(self.sidecar.facts.count)
    }

    /// What this segment holds of a stream, proven by the records.
    pub(super) fn span(&self, stream: &StreamId) -> Result<Option<RunSpan>, LogError> {
        if !self.sidecar.may_hold_stream(stream) {
            return Ok(None);
        }
        let spans = self.sidecar.spans(&*self.index, stream).map_err(|e| self.index_error(e))?;
        for span in spans {
            let [at] = self.list(span, 0, 1)?[..] else { return Err(self.astray()) };
            let found = self.one(at)?.stream;
            if found == *stream {
                return Ok(Some(span));
            }
            // Another stream may share the key; if it does not, "not here" would be a lie.
            if stream_key(found.as_str()) != stream_key(stream.as_str()) {
                return Err(self.astray());
            }
        }
        Ok(None)
    }

    /// The places of events by their indices.
    pub(super) fn places(&self, list: &[u32]) -> Result<Vec<(u64, u64)>, LogError> {
        let place = |at: &u32| match self.offsets(*at, 1)?[..] {
            [offset] => Ok((self.first() + u64::from(*at), u64::from(offset))),
            _ => Err(self.astray()),
        };
        list.iter().map(place).collect()
    }

    /// The indices of a span's events.
    pub(super) fn list(&self, span: RunSpan, skip: u64, count: usize) -> Result<Vec<u32>, LogError> {
        self.sidecar.list(&*self.index, span, skip, count).map_err(|e| self.index_error(TableError::Io(e)))
    }

    /// The last events of commands that may be this one.
    pub(super) fn commands(&self, key: [u8; 16]) -> Result<Vec<u32>, LogError> {
        if !self.sidecar.may_hold_command(key) {
            return Ok(Vec::new());
        }
        self.sidecar.commands(&*self.index, key).map_err(|e| self.index_error(e))
    }

    /// One event by its index.
    pub(super) fn one(&self, at: u32) -> Result<Recorded, LogError> {
        match self.places(&[at])?[..] {
            [(position, offset)] => self.bytes().record(offset, position),
            _ => Err(self.astray()),
        }
    }

    pub(super) fn astray(&self) -> LogError {
        damaged(&self.index_name, 0, "it points astray: remove this file and restart, it is built again")
    }

    /// Where the records of some events begin.
    pub(super) fn offsets(&self, from: u32, count: usize) -> Result<Vec<u32>, LogError> {
        self.sidecar.offsets(&*self.index, from, count).map_err(|e| self.index_error(TableError::Io(e)))
    }

    pub(super) fn bytes(&self) -> SegmentBytes {
        let facts = &self.sidecar.facts;
        SegmentBytes { name: self.name.clone(), file: self.file.clone(), end: facts.end }
    }

    fn index_error(&self, error: TableError) -> LogError {
        match error {
            TableError::Io(error) => LogError::Failure { reason: format!("{}: {error}", self.index_name) },
            TableError::Damaged(offset) => damaged(&self.index_name, offset, "a block's checksum is wrong"),
        }
    }
}

/// The segment that is written to; its index holds durable events only.
pub(super) struct Open {
    pub(super) name: String,
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) first: u64,
    /// Where the next batch goes.
    pub(super) end: u64,
    pub(super) index: MemoryIndex,
}

impl Open {
    pub(super) fn bytes(&self) -> SegmentBytes {
        SegmentBytes { name: self.name.clone(), file: self.file.clone(), end: self.end }
    }

    pub(super) fn next_position(&self) -> u64 {
        self.first + u64::from(self.index.count())
    }
}

/// A segment's stored bytes up to the end of its last durable batch.
#[derive(Clone)]
pub(super) struct SegmentBytes {
    name: String,
    file: Arc<dyn StoredFile>,
    end: u64,
}

impl SegmentBytes {
    /// The event whose record begins here.
    pub(super) fn record(&self, offset: u64, position: u64) -> Result<Recorded, LogError> {
        let mut found = None;
        self.scan(&[(position, offset)], |raw| {
            found = Some(raw.decode()?);
            Ok(true)
        })?;
        found.ok_or_else(|| damaged(&self.name, offset, "no record begins here"))
    }

    /// Visits records by position and offset, ascending, until the visitor has enough (`false`).
    /// Nearby records are read together.
    pub(super) fn scan(
        &self,
        places: &[(u64, u64)],
        mut visit: impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
    ) -> Result<(), LogError> {
        let last = places.last().map_or(0, |(_, offset)| *offset);
        let mut window = Window { start: 0, bytes: Vec::new() };
        for (position, offset) in places.iter().copied() {
            self.load(&mut window, offset, last)?;
            let enough = window.body(offset).and_then(Raw::read).and_then(|raw| {
                if raw.position == position {
                    visit(raw)
                } else {
                    Err("a record of another position stands here")
                }
            });
            match enough {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(reason) => return Err(damaged(&self.name, offset, reason)),
            }
        }
        Ok(())
    }

    /// Makes sure that the record at `offset` is in the window, with those up to `last` if they fit.
    fn load(&self, window: &mut Window, offset: u64, last: u64) -> Result<(), LogError> {
        if window.holds(offset) {
            return Ok(());
        }
        let len = last.saturating_sub(offset).saturating_add(NEAR_BYTES).min(CHUNK_BYTES);
        self.read(window, offset, len)?;
        if !window.holds(offset) {
            self.read(window, offset, window.record_len(offset))?;
        }
        Ok(())
    }

    fn read(&self, window: &mut Window, offset: u64, len: u64) -> Result<(), LogError> {
        let len = len.min(self.end.saturating_sub(offset));
        window.start = offset;
        window.bytes.resize(to_usize(len), 0);
        self.file
            .read_exact_at(&mut window.bytes, offset)
            .map_err(|error| LogError::Failure { reason: format!("{}: {error}", self.name) })
    }
}

/// Bytes of a segment in memory, for a while.
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn from(&self, offset: u64) -> &[u8] {
        let skip = offset.checked_sub(self.start).map_or(usize::MAX, to_usize);
        self.bytes.get(skip..).unwrap_or_default()
    }

    /// What the frame at `offset` says of its record's length, frame included; bounded.
    fn record_len(&self, offset: u64) -> u64 {
        let body = Fields(self.from(offset)).u32().unwrap_or(0);
        to_u64(FRAME_BYTES) + u64::from(body).min(to_u64(BODY_BYTES_MAX))
    }

    fn holds(&self, offset: u64) -> bool {
        let left = self.from(offset);
        left.len() >= FRAME_BYTES && to_u64(left.len()) >= self.record_len(offset)
    }

    fn body(&self, offset: u64) -> Result<&[u8], &'static str> {
        take_body(&mut Fields(self.from(offset)))
    }
}

/// Bytes read for one record, mostly enough.
const NEAR_BYTES: u64 = 4 * 1024;

pub(super) fn damaged(file: &str, offset: u64, reason: &str) -> LogError {
    LogError::Damaged { file: file.to_owned(), offset, reason: reason.to_owned() }
}
