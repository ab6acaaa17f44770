//! What readers and the writer share: the segments with their indexes, and the newest events.
//!
//! Only the writer changes it, and only after its sync: whatever is found here is durable.

use std::sync::Arc;

use dramatis_events::{Position, Recorded, Revision, StreamId};

use super::bytes::{to_u32, to_u64, to_usize};
use super::ring::Ring;
use super::segment::{Closed, Open, SegmentBytes};
use crate::log::{CommandOutcome, CommandRef, Filter, LogError, Page, ReadLimit};

/// Events looked at between two answers of one filtered read: a bound on how long it takes.
const SCAN_EVENTS_MAX: u64 = 65_536;

pub(super) struct State {
    pub(super) closed: Vec<Arc<Closed>>,
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
    Here(Vec<Arc<Recorded>>),
    /// In the open segment's file.
    There(Places),
    /// Not only in the open segment: the closed ones must be asked.
    Older,
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
                self.open_events(&self.open.index.list(stream, skip, limit.events.max(1)))
            }
            None if !self.closed.iter().any(|closed| closed.sidecar.may_hold_stream(stream)) => {
                Found::Here(Vec::new())
            }
            _ => Found::Older,
        }
    }

    /// What the open segment holds of a stream from a revision on, to be read from its file.
    pub(super) fn open_part(&self, stream: &StreamId, from: u64, limit: ReadLimit) -> Option<Places> {
        let span = self.open.index.span(stream)?;
        let skip = from.saturating_sub(span.first_revision);
        let list = self.open.index.list(stream, skip, limit.events.max(1));
        Some(Places { bytes: self.open.bytes(), at: self.open_places(&list) })
    }

    fn open_events(&self, list: &[u32]) -> Found {
        let position = |at: u32| self.open.first + u64::from(at);
        let here: Option<Vec<_>> = list.iter().map(|at| self.ring.get(position(*at)).cloned()).collect();
        match here {
            Some(here) => Found::Here(here),
            None => Found::There(Places { bytes: self.open.bytes(), at: self.open_places(list) }),
        }
    }

    fn open_places(&self, list: &[u32]) -> Vec<(u64, u64)> {
        let offset = |at: u32| self.open.index.offsets.get(to_usize(u64::from(at))).copied();
        list.iter()
            .filter_map(|at| Some((self.open.first + u64::from(*at), u64::from(offset(*at)?))))
            .collect()
    }

    /// Events from a position on that are held in memory; `None` if older ones are wanted.
    pub(super) fn recent(&self, from: u64, filter: &Filter, limit: ReadLimit) -> Option<Page> {
        if !self.ring.covers(from) {
            return None;
        }
        let (mut page, mut left) = (Page { events: Vec::new(), scanned: before(from) }, Left::new(limit));
        for event in self.ring.from(from) {
            if filter.passes(event.stream.as_str(), event.envelope.name.as_str()) {
                if !left.take(event.envelope.data.len()) {
                    break;
                }
                page.events.push(event.clone());
            }
            page.scanned = Some(event.position);
        }
        Some(page)
    }

    /// The places of the events from a position on, in the segment that holds it.
    pub(super) fn places(&self, from: u64, events: u64) -> Result<Option<Places>, LogError> {
        let count = to_usize(events.min(SCAN_EVENTS_MAX));
        if from >= self.open.first {
            let list: Vec<u32> = self.open_indices(from, count);
            let at = self.open_places(&list);
            return Ok((!at.is_empty()).then(|| Places { bytes: self.open.bytes(), at }));
        }
        let segment = self.closed.partition_point(|closed| closed.end() <= from);
        let Some(closed) = self.closed.get(segment) else { return Ok(None) };
        let skip = to_u32(to_usize(from - closed.first()));
        let offsets = closed.offsets(skip, count)?;
        let at = (from..).zip(offsets.into_iter().map(u64::from)).collect();
        Ok(Some(Places { bytes: closed.bytes(), at }))
    }

    fn open_indices(&self, from: u64, count: usize) -> Vec<u32> {
        let skip = to_u32(to_usize(from - self.open.first));
        let end = skip.saturating_add(to_u32(count)).min(self.open.index.count());
        (skip..end).collect()
    }

    /// The revision after a stream's last one; 0 if it has none.
    pub(super) fn next_revision(&self, stream: &StreamId) -> Result<u64, LogError> {
        if let Some(span) = self.open.index.span(stream) {
            return Ok(span.next_revision());
        }
        for closed in self.closed.iter().rev() {
            if let Some(span) = closed.span(stream)? {
                return Ok(span.next_revision());
            }
        }
        Ok(0)
    }

    /// Whether looking a stream or command up can be answered without reading a file.
    pub(super) fn knows_stream(&self, stream: &StreamId) -> bool {
        self.open.index.span(stream).is_some()
            || !self.closed.iter().any(|closed| closed.sidecar.may_hold_stream(stream))
    }

    /// The first outcome of a command in the open segment: in memory, or where to read it.
    pub(super) fn open_command(&self, command: &CommandRef) -> Option<Found> {
        let at = *self.open.index.commands.get(&command.key().to_bytes())?;
        Some(self.open_events(&[at]))
    }

    /// Whether a closed segment may know the command.
    pub(super) fn may_be_older(&self, command: &CommandRef) -> bool {
        let key = command.key().to_bytes();
        self.closed.iter().any(|closed| closed.sidecar.may_hold_command(key))
    }
}

/// A stream's events from a revision on, out of closed segments and the open one.
pub(super) fn older_stream(
    closed: &[Arc<Closed>],
    open: Option<Places>,
    stream: &StreamId,
    from: u64,
    limit: ReadLimit,
) -> Result<Vec<Arc<Recorded>>, LogError> {
    let (mut events, mut left, mut next) = (Vec::new(), Left::new(limit), from);
    for segment in closed {
        let Some(span) = segment.span(stream)? else { continue };
        while next < span.next_revision() && !left.is_full() {
            let skip = next.saturating_sub(span.first_revision);
            let list = segment.list(span, skip, left.events.min(STREAM_PAGE))?;
            let wanted = (span.next_revision() - next.max(span.first_revision))
                .min(to_u64(left.events.min(STREAM_PAGE)));
            let at = segment.places(&list)?;
            if to_u64(at.len()) != wanted {
                return Err(segment.astray());
            }
            read_stream_places(
                &Places { bytes: segment.bytes(), at },
                stream,
                &mut next,
                &mut left,
                &mut events,
            )?;
        }
    }
    if let (Some(places), false) = (open, left.is_full()) {
        read_stream_places(&places, stream, &mut next, &mut left, &mut events)?;
    }
    Ok(events)
}

/// Events of a stream looked up together in a closed segment.
const STREAM_PAGE: usize = 1_024;

/// Reads events of one stream; their revisions must follow on.
pub(super) fn read_stream_places(
    places: &Places,
    stream: &StreamId,
    next: &mut u64,
    left: &mut Left,
    events: &mut Vec<Arc<Recorded>>,
) -> Result<(), LogError> {
    places.bytes.scan(&places.at, |raw| {
        if raw.stream != stream.as_str() || raw.revision != *next {
            return Err("a record of another stream or revision stands here");
        }
        let event = raw.decode()?;
        if !left.take(event.envelope.data.len()) {
            return Ok(false);
        }
        *next += 1;
        events.push(Arc::new(event));
        Ok(!left.is_full())
    })
}

/// Reads a page of the whole log.
pub(super) fn read_page(places: &Places, filter: &Filter, limit: ReadLimit) -> Result<Page, LogError> {
    let from = places.at.first().map_or(0, |(position, _)| *position);
    let (mut page, mut left) = (Page { events: Vec::new(), scanned: before(from) }, Left::new(limit));
    places.bytes.scan(&places.at, |raw| {
        if filter.passes(raw.stream, raw.name) {
            let event = raw.decode()?;
            if !left.take(event.envelope.data.len()) {
                return Ok(false);
            }
            page.events.push(Arc::new(event));
        }
        page.scanned = Some(Position::from_engine(raw.position));
        Ok(true)
    })?;
    Ok(page)
}

fn before(position: u64) -> Option<Position> {
    position.checked_sub(1).map(Position::from_engine)
}

/// The outcome that this event is the last of, if it is the command's.
pub(super) fn outcome(event: &Recorded, command: &CommandRef) -> Option<CommandOutcome> {
    let stamp = event.envelope.command.as_ref().filter(|_| command.is_of(event))?;
    Some(CommandOutcome { hash: stamp.hash, revision: event.revision, position: event.position })
}

/// The first outcome of a command that closed segments know.
pub(super) fn older_command(
    closed: &[Arc<Closed>],
    command: &CommandRef,
) -> Result<Option<CommandOutcome>, LogError> {
    for segment in closed {
        for at in segment.commands(command.key().to_bytes())? {
            if let Some(outcome) = outcome(&segment.one(at)?, command) {
                return Ok(Some(outcome));
            }
        }
    }
    Ok(None)
}

/// The outcome in the open segment, read from where it was found.
pub(super) fn first_outcome(
    found: Option<Found>,
    command: &CommandRef,
) -> Result<Option<CommandOutcome>, LogError> {
    match found {
        None | Some(Found::Older) => Ok(None),
        Some(Found::Here(events)) => Ok(events.first().and_then(|event| outcome(event, command))),
        Some(Found::There(Places { bytes, at })) => match at.first() {
            Some((position, offset)) => Ok(outcome(&bytes.record(*offset, *position)?, command)),
            None => Ok(None),
        },
    }
}

/// What a read may still return; the first event always fits.
pub(super) struct Left {
    pub(super) events: usize,
    bytes: usize,
    first: bool,
}

impl Left {
    pub(super) fn new(limit: ReadLimit) -> Self {
        Self { events: limit.events.max(1), bytes: limit.bytes, first: true }
    }

    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = self.events > 0 && (self.first || bytes <= self.bytes);
        if fits {
            self.events -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.first = false;
        } else {
            self.events = 0;
        }
        fits
    }

    pub(super) fn is_full(&self) -> bool {
        self.events == 0
    }
}

/// A revision as the port says it, from the one after it.
pub(super) fn head_before(next: u64) -> Option<Revision> {
    next.checked_sub(1).map(Revision::new)
}

/// Weighs events in memory against a limit.
pub(super) fn within(events: Vec<Arc<Recorded>>, limit: ReadLimit) -> Vec<Arc<Recorded>> {
    let mut left = Left::new(limit);
    events.into_iter().take_while(|event| left.take(event.envelope.data.len())).collect()
}

/// How many events to look at for a read of so many.
pub(super) fn look_at(filter: &Filter, limit: ReadLimit) -> u64 {
    if *filter == Filter::default() { to_u64(limit.events.max(1)) } else { SCAN_EVENTS_MAX }
}
