//! Reading events out of memory and files, once it is known where they are.

use std::sync::Arc;

use dramatis_events::{Recorded, StreamId, UnixMillis};

use super::bytes::{to_u32, to_u64, to_usize};
use super::record::Raw;
use super::ring::{Block, Live};
use super::segment::{Closed, SegmentBytes, damaged};
use super::state::{Found, OpenPart, Places, Stored, before};
use super::sweep::{Sweep, Swept};
use crate::log::{CommandOutcome, CommandRef, Filter, Header, LogError, Page, ReadLimit};

/// Events looked at between two answers of one filtered read: a bound on how long it takes.
const SCAN_EVENTS_MAX: u64 = 65_536;
/// Events of a stream looked up together in a closed segment.
const STREAM_PAGE: usize = 1_024;

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

/// Events of a stream in memory, as far as the limit allows.
pub(super) fn live_events(live: &[Live], limit: ReadLimit) -> Result<Vec<Arc<Recorded>>, LogError> {
    let (mut events, mut left) = (Vec::with_capacity(live.len()), Left::new(limit));
    for event in live {
        let event = event.event().map_err(in_memory)?;
        if !left.take(event.envelope.data.len()) {
            break;
        }
        events.push(event);
    }
    Ok(events)
}

fn in_memory(reason: &'static str) -> LogError {
    damaged("memory", 0, reason)
}

/// A page of the whole log, in memory.
pub(super) fn live_page(
    blocks: &[Arc<Block>],
    from: u64,
    filter: &Filter,
    limit: ReadLimit,
) -> Result<Page, LogError> {
    let (mut page, mut left) = (Page { events: Vec::new(), scanned: before(from) }, Left::new(limit));
    for block in blocks {
        for event in block.events(from).map_err(in_memory)? {
            if filter.passes(&Header::of(event)) {
                if !left.take(event.envelope.data.len()) {
                    return Ok(page);
                }
                page.events.push(event.clone());
            }
            page.scanned = Some(event.position);
        }
    }
    Ok(page)
}

/// Visits the records from a position on that may pass the filter, closed segments first, until
/// the visitor has enough (`false`) or so many were looked at. Returns the position from which
/// to go on.
pub(super) fn scan(
    stored: &Stored,
    from: u64,
    filter: &Filter,
    mut budget: u64,
    mut visit: impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
) -> Result<u64, LogError> {
    let mut next = from;
    let segment = stored.closed.partition_point(|closed| closed.end() <= from);
    for segment in stored.closed.get(segment..).unwrap_or_default() {
        if !segment.may_pass(filter) {
            next = segment.end();
            continue;
        }
        let whole = match filter.stream.as_ref() {
            None => {
                let offset = segment.place(next)?;
                let swept = sweep(&segment.bytes()?, offset, &mut next, &mut budget, &mut visit);
                let whole = segment.by_index(swept)?;
                // An offset past the segment's end would look like the end of its events.
                if whole && next != segment.end() {
                    return Err(segment.astray());
                }
                whole
            }
            Some(stream) => visit_stream(segment, stream, &mut next, &mut budget, &mut visit)?,
        };
        if !whole {
            return Ok(next);
        }
        next = segment.end();
        if budget == 0 {
            return Ok(next);
        }
    }
    let whole = match &stored.open {
        OpenPart::Empty => true,
        OpenPart::Some(places, all) => visit_places(places, &mut next, &mut visit)? && *all,
        OpenPart::From(bytes, position, offset) => {
            next = next.max(*position);
            sweep(bytes, *offset, &mut next, &mut budget, &mut visit)?
        }
    };
    Ok(if whole { next.max(stored.end) } else { next })
}

/// Visits a segment's records from the next position on, whose record begins at the offset;
/// whether that was all of them, and the visitor would have more.
fn sweep(
    bytes: &SegmentBytes,
    offset: u64,
    next: &mut u64,
    budget: &mut u64,
    visit: &mut impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
) -> Result<bool, LogError> {
    let swept = Sweep::new(bytes, *next, offset)?.run(budget, following(next, visit))?;
    Ok(swept == Swept::All)
}

/// Visits a stream's records in a closed segment; whether that was all of them, and the visitor
/// would have more.
fn visit_stream(
    segment: &Closed,
    stream: &StreamId,
    next: &mut u64,
    budget: &mut u64,
    visit: &mut impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
) -> Result<bool, LogError> {
    let Candidates { at, whole, mut revision } = candidates(segment, stream, *next, *budget)?;
    *budget = budget.saturating_sub(to_u64(at.len()));
    let mut proven = |raw: Raw<'_>| {
        if raw.stream != stream.as_str().as_bytes() || raw.revision != revision {
            return Err("a record of another stream or revision stands here");
        }
        revision = revision.saturating_add(1);
        visit(raw)
    };
    let visited = visit_places(&Places { bytes: segment.bytes()?, at }, next, &mut proven);
    Ok(segment.by_index(visited)? && whole)
}

/// A stream's records in a closed segment that a scan visits.
struct Candidates {
    at: Vec<(u64, u64)>,
    /// Whether that is all of them.
    whole: bool,
    /// The revision of the first.
    revision: u64,
}

/// A stream's records in a closed segment from a position on.
fn candidates(segment: &Closed, stream: &StreamId, from: u64, budget: u64) -> Result<Candidates, LogError> {
    let count = to_usize(budget.min(SCAN_EVENTS_MAX));
    let Some(span) = segment.span(stream)? else {
        return Ok(Candidates { at: Vec::new(), whole: true, revision: 0 });
    };
    let list = segment.list(span, 0, to_usize(u64::from(span.count)))?;
    let first = to_u32(to_usize(from.saturating_sub(segment.first())));
    let (passed, left) = list.split_at(list.partition_point(|at| *at < first));
    let revision = span.first_revision.saturating_add(to_u64(passed.len()));
    // The list has no checksum: the event before the first one wanted proves that none is left out.
    if let Some(at) = passed.last() {
        let before = segment.one(*at)?;
        if before.stream != *stream || before.revision.next().get() != revision {
            return Err(segment.astray());
        }
    }
    if revision.saturating_add(to_u64(left.len())) != span.next_revision() {
        return Err(segment.astray());
    }
    let taken = left.get(..count.min(left.len())).unwrap_or_default();
    Ok(Candidates { at: segment.places(taken)?, whole: taken.len() == left.len(), revision })
}

fn visit_places(
    places: &Places,
    next: &mut u64,
    visit: &mut impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
) -> Result<bool, LogError> {
    let mut more = true;
    let mut visit = following(next, visit);
    places.bytes.scan(&places.at, |raw| {
        more = visit(raw)?;
        Ok(more)
    })?;
    Ok(more)
}

/// Visits, and keeps count of the position after the last record that was taken.
fn following(
    next: &mut u64,
    visit: &mut impl FnMut(Raw<'_>) -> Result<bool, &'static str>,
) -> impl FnMut(Raw<'_>) -> Result<bool, &'static str> {
    |raw| {
        let position = raw.position;
        let more = visit(raw)?;
        if more {
            *next = position + 1;
        }
        Ok(more)
    }
}

/// Reads a page of the whole log out of files.
pub(super) fn stored_page(
    stored: &Stored,
    from: u64,
    filter: &Filter,
    limit: ReadLimit,
) -> Result<Page, LogError> {
    let (mut events, mut left) = (Vec::<Arc<Recorded>>::new(), Left::new(limit));
    let budget = look_at(filter, limit);
    let next = scan(stored, from, filter, budget, |raw| {
        if filter.passes(&header(&raw)) {
            let event = raw.decode_beside(events.last().map(Arc::as_ref))?;
            if !left.take(event.envelope.data.len()) {
                return Ok(false);
            }
            events.push(Arc::new(event));
        }
        Ok(true)
    })?;
    Ok(Page { events, scanned: before(next) })
}

/// How many events to look at for a read of so many.
pub(super) fn look_at(filter: &Filter, limit: ReadLimit) -> u64 {
    if *filter == Filter::default() { to_u64(limit.events.max(1)) } else { SCAN_EVENTS_MAX }
}

/// What filters look at.
pub(super) fn header<'a>(raw: &Raw<'a>) -> Header<'a> {
    Header { stream: raw.stream, name: raw.name, recorded_at: UnixMillis::new(raw.recorded_at) }
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
    for segment in closed.get(first_with(closed, stream, from)?..).unwrap_or_default() {
        if left.is_full() {
            return Ok(events);
        }
        let Some(span) = segment.span(stream)? else { continue };
        while next < span.next_revision() && !left.is_full() {
            let skip = next.saturating_sub(span.first_revision);
            let list = segment.list(span, skip, left.events.min(STREAM_PAGE))?;
            let wanted = (span.next_revision() - next.max(span.first_revision))
                .min(to_u64(left.events.min(STREAM_PAGE)));
            if to_u64(list.len()) != wanted {
                return Err(segment.astray());
            }
            let places = Places { bytes: segment.bytes()?, at: segment.places(&list)? };
            segment.by_index(stream_events(&places, stream, &mut next, &mut left, &mut events))?;
        }
    }
    if let (Some(places), false) = (open, left.is_full()) {
        stream_events(&places, stream, &mut next, &mut left, &mut events)?;
    }
    Ok(events)
}

/// The first segment that holds a stream's events from a revision on. Revisions ascend with the
/// segments, so half of them are ruled out with each one that is asked.
fn first_with(closed: &[Arc<Closed>], stream: &StreamId, from: u64) -> Result<usize, LogError> {
    let (mut low, mut high) = (0, closed.len());
    if from == 0 {
        return Ok(low);
    }
    let mut found = high;
    while low < high {
        let middle = low.midpoint(high);
        let mut asked = None;
        for (index, segment) in closed.iter().enumerate().take(high).skip(middle) {
            if let Some(span) = segment.span(stream)? {
                asked = Some((index, span));
                break;
            }
        }
        match asked {
            Some((index, span)) if span.next_revision() <= from => low = index + 1,
            Some((index, _)) => (found, high) = (index, middle),
            None => high = middle,
        }
    }
    Ok(found)
}

/// Reads events of one stream; their revisions must follow on.
pub(super) fn stream_events(
    places: &Places,
    stream: &StreamId,
    next: &mut u64,
    left: &mut Left,
    events: &mut Vec<Arc<Recorded>>,
) -> Result<(), LogError> {
    places.bytes.scan(&places.at, |raw| {
        if raw.stream != stream.as_str().as_bytes() || raw.revision != *next {
            return Err("a record of another stream or revision stands here");
        }
        let event = raw.decode_beside(events.last().map(Arc::as_ref))?;
        if !left.take(event.envelope.data.len()) {
            return Ok(false);
        }
        *next += 1;
        events.push(Arc::new(event));
        Ok(!left.is_full())
    })
}

/// The outcome that this event is the last of, if it is the command's.
fn outcome(event: &Recorded, command: &CommandRef) -> Option<CommandOutcome> {
    let stamp = event.envelope.command.as_ref().filter(|_| command.is_of(event))?;
    Some(CommandOutcome { hash: stamp.hash, revision: event.revision, position: event.position })
}

/// The first outcome of a command that closed segments know.
pub(super) fn older_command(
    closed: &[Arc<Closed>],
    command: &CommandRef,
) -> Result<Option<CommandOutcome>, LogError> {
    let key = command.key().to_bytes();
    for segment in closed {
        for at in segment.commands(key)? {
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
        Some(Found::Here(events)) => match events.first() {
            Some(live) => Ok(outcome(&*live.event().map_err(in_memory)?, command)),
            None => Ok(None),
        },
        Some(Found::There(Places { bytes, at })) => match at.first() {
            Some((position, offset)) => Ok(outcome(&bytes.record(*offset, *position)?, command)),
            None => Ok(None),
        },
    }
}
