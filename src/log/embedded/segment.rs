//! One segment as readers see it: which events it holds, and their bytes.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use dramatis_events::{Recorded, StreamId};

use super::bytes::{Fields, to_u32, to_u64, to_usize};
use super::format::{index_name, segment_name};
use super::index::{MemoryIndex, RunSpan};
use super::record::{BODY_BYTES_MAX, FRAME_BYTES, Raw, take_body};
use super::sidecar::{Facts, Sidecar, stream_key};
use super::storage::{Storage, StoredFile};
use super::table::TableError;
use crate::log::{Filter, LogError};

/// Bytes read at a time when a scan goes through a segment.
const CHUNK_BYTES: u64 = 256 * 1024;
/// Bytes read for one record, mostly enough.
const NEAR_BYTES: u64 = 4 * 1024;
/// Offsets between the first and the last of a list that are read at once.
const OFFSETS_MAX: u32 = 4_096;

/// Where the index of a closed segment is.
pub(super) enum Index {
    /// In memory, until its file is written.
    Memory(MemoryIndex),
    /// In its file; what speeds up lookups in memory.
    Stored(Sidecar),
}

/// A segment that will never change, and its index. It holds no file open: each read opens what
/// it needs.
pub(super) struct Closed {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) facts: Facts,
    pub(super) index: Index,
}

impl Closed {
    pub(super) fn first(&self) -> u64 {
        self.facts.first
    }

    pub(super) fn end(&self) -> u64 {
        self.first() + u64::from(self.facts.count)
    }

    /// Bytes in memory that only speed lookups up.
    pub(super) fn filter_bytes(&self) -> u64 {
        match &self.index {
            Index::Memory(_) => 0,
            Index::Stored(sidecar) => sidecar.filter_bytes(),
        }
    }

    /// The same without its filters; `None` if its index is in memory as a whole.
    pub(super) fn without_filters(&self) -> Option<Self> {
        let Index::Stored(sidecar) = &self.index else { return None };
        let index = Index::Stored(sidecar.without_filters());
        Some(Self { storage: self.storage.clone(), facts: self.facts, index })
    }

    fn index_name(&self) -> String {
        index_name(self.first())
    }

    fn index_file(&self) -> Result<Arc<dyn StoredFile>, LogError> {
        self.storage.open(&self.index_name()).map_err(|error| self.index_error(TableError::Io(error)))
    }

    /// Whether an event that passes the filter may be here; "no" is certain.
    pub(super) fn may_pass(&self, filter: &Filter) -> bool {
        let in_time = filter.recorded_from.is_none_or(|from| self.facts.last_recorded_at >= from.get())
            && filter.recorded_before.is_none_or(|before| self.facts.first_recorded_at < before.get());
        let of_kind = || match &self.index {
            Index::Memory(_) => true,
            Index::Stored(sidecar) => sidecar.kinds().is_none_or(|kinds| {
                let named = |name: &str| kinds.names.iter().any(|known| known == name);
                let unwanted = |known: &str| filter.except.iter().any(|name| name.as_str() == known);
                let category = filter.category.as_ref();
                category.is_none_or(|wanted| kinds.categories.iter().any(|known| known == wanted.as_str()))
                    && (filter.names.is_empty() || filter.names.iter().any(|name| named(name.as_str())))
                    && (filter.except.is_empty() || kinds.names.iter().any(|known| !unwanted(known)))
            }),
        };
        in_time
            && of_kind()
            && filter
                .stream
                .as_ref()
                .is_none_or(|stream| self.may_hold_stream(stream, stream_key(stream.as_str())))
    }

    /// Whether events of a stream, whose key is made once for all segments, may be here.
    pub(super) fn may_hold_stream(&self, stream: &StreamId, key: u64) -> bool {
        match &self.index {
            Index::Memory(index) => index.span(stream).is_some(),
            Index::Stored(sidecar) => sidecar.may_hold_stream(key),
        }
    }

    pub(super) fn may_hold_command(&self, key: [u8; 16]) -> bool {
        match &self.index {
            Index::Memory(index) => index.command(key).is_some(),
            Index::Stored(sidecar) => sidecar.may_hold_command(key),
        }
    }

    /// What this segment holds of a stream, proven by the records.
    pub(super) fn span(&self, stream: &StreamId) -> Result<Option<RunSpan>, LogError> {
        let sidecar = match &self.index {
            Index::Memory(index) => return Ok(index.span(stream)),
            Index::Stored(sidecar) if !sidecar.may_hold_stream(stream_key(stream.as_str())) => {
                return Ok(None);
            }
            Index::Stored(sidecar) => sidecar,
        };
        let spans = sidecar.spans(&*self.index_file()?, stream).map_err(|error| self.index_error(error))?;
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

    /// The places of events by their indices, which ascend.
    pub(super) fn places(&self, list: &[u32]) -> Result<Vec<(u64, u64)>, LogError> {
        let (Some(&low), Some(&high)) = (list.first(), list.last()) else { return Ok(Vec::new()) };
        let between = high.checked_sub(low).ok_or_else(|| self.astray())?;
        let near = between < OFFSETS_MAX;
        let together = if near { self.offsets(low, to_usize(u64::from(between)) + 1)? } else { Vec::new() };
        let place = |at: &u32| {
            let offset = if near {
                at.checked_sub(low).and_then(|skip| together.get(to_usize(u64::from(skip))).copied())
            } else {
                self.offsets(*at, 1)?.first().copied()
            };
            let offset = offset.ok_or_else(|| self.astray())?;
            Ok((self.first() + u64::from(*at), u64::from(offset)))
        };
        list.iter().map(place).collect()
    }

    /// Where the record of the event at a position begins.
    pub(super) fn place(&self, position: u64) -> Result<u64, LogError> {
        let skip = to_u32(to_usize(position.saturating_sub(self.first())));
        self.offsets(skip, 1)?.first().copied().map(u64::from).ok_or_else(|| self.astray())
    }

    /// The indices of a span's events.
    pub(super) fn list(&self, span: RunSpan, skip: u64, count: usize) -> Result<Vec<u32>, LogError> {
        match &self.index {
            Index::Memory(index) => Ok(index.list(span, skip, count).to_vec()),
            Index::Stored(sidecar) => sidecar
                .list(&*self.index_file()?, span, skip, count)
                .map_err(|error| self.index_error(TableError::Io(error))),
        }
    }

    /// The last events of commands that may be this one.
    pub(super) fn commands(&self, key: [u8; 16]) -> Result<Vec<u32>, LogError> {
        match &self.index {
            Index::Memory(index) => Ok(index.command(key).into_iter().collect()),
            Index::Stored(sidecar) if !sidecar.may_hold_command(key) => Ok(Vec::new()),
            Index::Stored(sidecar) => {
                sidecar.commands(&*self.index_file()?, key).map_err(|error| self.index_error(error))
            }
        }
    }

    /// One event by its index.
    pub(super) fn one(&self, at: u32) -> Result<Recorded, LogError> {
        match self.places(&[at])?[..] {
            [(position, offset)] => self.by_index(self.bytes()?.record(offset, position)),
            _ => Err(self.astray()),
        }
    }

    pub(super) fn astray(&self) -> LogError {
        damaged(&self.index_name(), 0, "it points astray: `dramatis log reindex` builds it again")
    }

    /// What does not read right where the index led: the segment may be whole and the index wrong.
    pub(super) fn by_index<T>(&self, read: Result<T, LogError>) -> Result<T, LogError> {
        read.map_err(|error| match error {
            LogError::Damaged { file, offset, reason } if file == segment_name(self.first()) => {
                let index = self.index_name();
                let hint =
                    "`dramatis log verify` tells which, and `dramatis log reindex` builds an index again";
                LogError::Damaged {
                    file,
                    offset,
                    reason: format!("{reason}, or {index} points astray: {hint}"),
                }
            }
            other => other,
        })
    }

    /// Where the records of some events begin.
    fn offsets(&self, from: u32, count: usize) -> Result<Vec<u32>, LogError> {
        match &self.index {
            Index::Memory(index) => Ok(index.offsets(from, count).to_vec()),
            Index::Stored(sidecar) => sidecar
                .offsets(&*self.index_file()?, from, count)
                .map_err(|error| self.index_error(TableError::Io(error))),
        }
    }

    pub(super) fn bytes(&self) -> Result<SegmentBytes, LogError> {
        let name = segment_name(self.first());
        let file = self.storage.open(&name).map_err(|error| not_read(&name, &error))?;
        Ok(SegmentBytes { name, file, end: self.facts.end })
    }

    fn index_error(&self, error: TableError) -> LogError {
        let name = self.index_name();
        match error {
            TableError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                damaged(&name, 0, "the file is cut short: `dramatis log reindex` builds it again")
            }
            TableError::Io(error) => not_read(&name, &error),
            TableError::Damaged(offset) => {
                damaged(&name, offset, "a block's checksum is wrong: `dramatis log reindex` builds it again")
            }
        }
    }
}

/// The segment that is written to; only durable events are found by its index.
pub(super) struct Open {
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) first: u64,
    /// Where the next batch goes.
    pub(super) end: u64,
    pub(super) index: MemoryIndex,
}

impl Open {
    pub(super) fn bytes(&self) -> SegmentBytes {
        SegmentBytes { name: segment_name(self.first), file: self.file.clone(), end: self.end }
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
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The end of the last durable batch.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Fills the buffer from the file.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), LogError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| self.unread(&error, offset))
    }

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
            let body = window.body(offset);
            let enough = body.and_then(Raw::read).and_then(|raw| {
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
        self.read_at(&mut window.bytes, offset)
    }

    fn unread(&self, error: &io::Error, offset: u64) -> LogError {
        match error.kind() {
            ErrorKind::UnexpectedEof => damaged(&self.name, offset, "the file ends before what it held"),
            _ => not_read(&self.name, error),
        }
    }
}

/// What a file came to that the system did not read.
fn not_read(name: &str, error: &io::Error) -> LogError {
    LogError::Failure { file: Some(name.to_owned()), reason: format!("{name}: {error}") }
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

pub(super) fn damaged(file: &str, offset: u64, reason: &str) -> LogError {
    LogError::Damaged { file: file.to_owned(), offset, reason: reason.to_owned() }
}
