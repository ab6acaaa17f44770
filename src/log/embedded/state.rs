//! What readers and the writer share: the segments with their indexes, and the newest events.
//!
//! Only the writer changes it, and only after its sync: whatever is found here is durable. A
//! reader takes what it needs in one short look and reads files afterwards.

use std::sync::Arc;

use dramatis_events::{Position, Revision, StreamId};

use super::bytes::{to_u32, to_usize};
use super::ring::{Block, Live, Ring};
use super::segment::{Closed, Open, SegmentBytes};
use super::sidecar::stream_key;
use crate::log::{CommandRef, Filter, LogError, ReadLimit};

pub(super) struct State {
    pub(super) closed: Arc<Vec<Arc<Closed>>>,
    pub(super) open: Open,
    pub(super) ring: Ring,
}

/// Records to read from one segment, by position and offset.
pub(super) struct Places {
    pub(super) bytes: SegmentBytes,
    pub(super) at: Vec<(u64, u64)>,
}

/// Where the events of a read are.
pub(super) enum Found {
    /// In memory.
    Here(Vec<Live>),
    /// In the open segment's file.
    There(Places),
    /// Not only in the open segment: the closed ones must be asked.
    Older,
}

/// Where the next page of the whole log is.
pub(super) enum Next {
    /// In memory.
    Live(Vec<Arc<Block>>),
    /// In the files.
    Stored(Stored),
}

/// The closed segments, and what is looked for in the open one.
pub(super) struct Stored {
    pub(super) closed: Arc<Vec<Arc<Closed>>>,
    pub(super) open: OpenPart,
    /// The position after the last event there is.
    pub(super) end: u64,
}

/// What is looked for in the open segment.
pub(super) enum OpenPart {
    /// These records, and whether they are all that are wanted.
    Some(Places, bool),
    /// All from this position and offset on.
    From(SegmentBytes, u64, u64),
    /// None.
    Empty,
}

impl State {
    pub(super) fn next_position(&self) -> u64 {
        self.open.next_position()
    }

    /// A stream's events from a revision on, if the open segment holds them all.
    pub(super) fn stream(&self, stream: &StreamId, from: u64, limit: ReadLimit) -> Found {
        match self.open.index.span(stream) {
            Some(span) if from >= span.first_revision => {
                let skip = from - span.first_revision;
                self.open_events(self.open.index.list(span, skip, limit.events.max(1)))
            }
            None if !self.may_be_closed(stream) => Found::Here(Vec::new()),
            _ => Found::Older,
        }
    }

    /// What the open segment holds of a stream from a revision on, to be read from its file.
    pub(super) fn open_part(&self, stream: &StreamId, from: u64, limit: ReadLimit) -> Option<Places> {
        let span = self.open.index.span(stream)?;
        let skip = from.saturating_sub(span.first_revision);
        Some(self.open_places(self.open.index.list(span, skip, limit.events.max(1))))
    }

    fn open_events(&self, list: &[u32]) -> Found {
        let here: Option<Vec<_>> =
            list.iter().map(|at| self.ring.get(self.open.first + u64::from(*at))).collect();
        here.map_or_else(|| Found::There(self.open_places(list)), Found::Here)
    }

    fn open_places(&self, list: &[u32]) -> Places {
        let place = |at: &u32| {
            let offset = self.open.index.offsets.get(to_usize(u64::from(*at))).copied()?;
            Some((self.open.first + u64::from(*at), u64::from(offset)))
        };
        Places { bytes: self.open.bytes(), at: list.iter().filter_map(place).collect() }
    }

    /// Where the events from a position on are, so many at the most; there are some.
    pub(super) fn next(&self, from: u64, filter: &Filter, count: u64) -> Next {
        if let Some(blocks) = self.ring.from(from, count) {
            return Next::Live(blocks);
        }
        let skip = to_u32(to_usize(from.saturating_sub(self.open.first)));
        let open = match filter.stream.as_ref() {
            Some(stream) => self.open_list(stream, skip, to_usize(count)),
            None => self.open.index.offsets(skip, 1).first().map_or(OpenPart::Empty, |offset| {
                let position = self.open.first + u64::from(skip);
                OpenPart::From(self.open.bytes(), position, u64::from(*offset))
            }),
        };
        Next::Stored(Stored { closed: self.closed.clone(), open, end: self.next_position() })
    }

    /// A stream's events in the open segment from an index on, so many at the most.
    fn open_list(&self, stream: &StreamId, skip: u32, count: usize) -> OpenPart {
        let span = self.open.index.span(stream);
        let all = span.map_or(&[][..], |span| self.open.index.list(span, 0, usize::MAX));
        let left = all.get(all.partition_point(|at| *at < skip)..).unwrap_or_default();
        let taken = left.get(..count).unwrap_or(left);
        OpenPart::Some(self.open_places(taken), taken.len() == left.len())
    }

    /// The revision after a stream's last one, 0 if it has none; or the segments that know, if files must
    /// be read to tell.
    pub(super) fn next_revision(&self, stream: &StreamId) -> Result<u64, Arc<Vec<Arc<Closed>>>> {
        match self.open.index.span(stream) {
            Some(span) => Ok(span.next_revision()),
            None if self.may_be_closed(stream) => Err(self.closed.clone()),
            None => Ok(0),
        }
    }

    /// Whether a closed segment may hold events of a stream.
    fn may_be_closed(&self, stream: &StreamId) -> bool {
        let key = stream_key(stream.as_str());
        self.closed.iter().any(|closed| closed.may_hold_stream(stream, key))
    }

    /// The first outcome of a command in the open segment: in memory, or where to read it.
    pub(super) fn open_command(&self, command: &CommandRef) -> Option<Found> {
        let at = self.open.index.command(command.key().to_bytes())?;
        Some(self.open_events(&[at]))
    }

    /// Whether a closed segment may know the command.
    pub(super) fn may_be_older(&self, command: &CommandRef) -> bool {
        let key = command.key().to_bytes();
        self.closed.iter().any(|closed| closed.may_hold_command(key))
    }

    /// The index of a closed segment is in its file now.
    pub(super) fn stored(&mut self, segment: Arc<Closed>) {
        let closed = Arc::make_mut(&mut self.closed);
        if let Some(slot) = closed.iter_mut().find(|closed| closed.first() == segment.first()) {
            *slot = segment;
        }
    }
}

/// The revision after a stream's last one that closed segments know; 0 if they know none.
pub(super) fn older_next_revision(closed: &[Arc<Closed>], stream: &StreamId) -> Result<u64, LogError> {
    for segment in closed.iter().rev() {
        if let Some(span) = segment.span(stream)? {
            return Ok(span.next_revision());
        }
    }
    Ok(0)
}

pub(super) fn before(position: u64) -> Option<Position> {
    position.checked_sub(1).map(Position::from_engine)
}

/// A revision as the port says it, from the one after it.
pub(super) fn head_before(next: u64) -> Option<Revision> {
    next.checked_sub(1).map(Revision::new)
}
