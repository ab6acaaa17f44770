//! Opening a directory: every segment's place in the chain is checked, the last one is read
//! batch by batch, and a torn tail is cut before anything is served.
//!
//! A batch whose number is below a later batch's watermark was acknowledged: if it does not
//! read back, that is damage and an error, never cut. Past that, what does not read back was
//! never answered. **The limit that remains**: the last batch's own acknowledgement stands
//! nowhere until the next batch is written, so damage to exactly the last batch looks like a
//! torn tail.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use dramatis_events::{CommandId, CommandKey, Epoch, EventName, MemberId, StreamId};

use super::OpenError;
use super::bytes::{Fields, to_u32, to_u64, to_usize};
use super::chain;
use super::checksum::crc32c;
use super::end::Chain;
use super::format::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader,
    index_name, parse_segment_name, segment_name,
};
use super::index::{Following, MemoryIndex};
use super::record::{Raw, parsed, take_body};
use super::segment::{Closed, Index, Open};
use super::sidecar::{Facts, Sidecar};
use super::storage::{DIRECTORY, Storage, StoredFile, read_up_to};
#[cfg(test)]
use super::tests::bugs::{self, Bug};

/// What a directory holds.
pub(super) struct Recovered {
    pub(super) closed: Vec<Arc<Closed>>,
    pub(super) open: Open,
    pub(super) chain: Chain,
    pub(super) lines: chain::Reading,
    /// Up to where the open segment's file reaches.
    pub(super) allocated: u64,
}

/// The first batch's number.
const FIRST_BATCH: u64 = 1;

/// Reads a directory, makes its tail whole and durable, and says what it holds.
pub(super) fn recover(
    storage: &Arc<dyn Storage>,
    epoch: Epoch,
    filter_bytes_max: u64,
) -> Result<Recovered, OpenError> {
    let names = storage.list().map_err(OpenError::io(DIRECTORY))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    firsts.sort_unstable();
    let mut closed: Vec<Closed> = Vec::new();
    let (mut filter_bytes, mut without) = (0, 0);
    let mut at = LOG_START;
    let last = firsts.pop();
    // A chain that does not read proves nothing: what it is for says so.
    let lines = chain::Chain::read(&**storage);
    if let Ok(Ok(lines)) = &lines
        && let Some(named) = lost_after(lines, last)
    {
        return Err(damaged(&segment_name(named), 0, MISSING_AFTER));
    }
    let nexts = firsts.iter().skip(1).chain(&last).copied().collect::<Vec<_>>();
    for (first, next) in firsts.into_iter().zip(nexts) {
        let segment = close(storage, first..next, &at, epoch.log())?;
        at = Start { position: segment.end(), chain: chain_of(&segment.facts) };
        filter_bytes += segment.filter_bytes();
        closed.push(segment);
        // Beyond the bound the oldest go without.
        while filter_bytes > filter_bytes_max
            && let Some(oldest) = closed.get_mut(without)
        {
            filter_bytes -= oldest.filter_bytes();
            if let Some(bare) = oldest.without_filters() {
                *oldest = bare;
            }
            without += 1;
        }
    }
    let scanned = match last {
        Some(first) => open_last(&**storage, first, &at, epoch)?,
        None => begin(&**storage, &at, epoch)?,
    };
    let Scanned { file, facts, index, size } = scanned;
    let open = Open { file, first: facts.first, end: facts.end, index };
    let closed = closed.into_iter().map(Arc::new).collect();
    Ok(Recovered { closed, open, chain: chain_of(&facts), lines, allocated: size })
}

/// What is wrong if the chain names the last segment there is.
pub(super) const MISSING_AFTER: &str =
    "the chain names it as closed, but no segment after it is there: what that held is missing";

/// The last segment that the chain names, if none comes after it: its line was written once the next
/// one was durable, and whoever makes a closed segment the open one again takes its line back.
pub(super) fn lost_after(lines: &chain::Chain, last: Option<u64>) -> Option<u64> {
    lines.last().filter(|named| last.is_none_or(|last| *named >= last))
}

/// Where a segment must go on.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) position: u64,
    pub(super) chain: Chain,
}

/// Where the first segment of a log begins.
pub(super) const LOG_START: Start =
    Start { position: 0, chain: Chain { next_batch: FIRST_BATCH, last_crc: 0, last_recorded_at: 0 } };

fn chain_of(facts: &Facts) -> Chain {
    Chain { next_batch: facts.next_batch, last_crc: facts.last_crc, last_recorded_at: facts.last_recorded_at }
}

struct Scanned {
    file: Arc<dyn StoredFile>,
    facts: Facts,
    index: MemoryIndex,
    size: u64,
}

/// A segment before the last: by its index, or read whole if that is missing or not its own.
fn close(
    storage: &Arc<dyn Storage>,
    positions: Range<u64>,
    at: &Start,
    log: u64,
) -> Result<Closed, OpenError> {
    let (name, index_name) = (segment_name(positions.start), index_name(positions.start));
    follows_on(&name, positions.start, at)?;
    let failed = |error| OpenError::io(&name)(error);
    let file = storage.open(&name).map_err(failed)?;
    check_header(&*file, &name, positions.start, at, log)?;
    let closed = |facts, index| Closed { storage: storage.clone(), facts, index };
    match storage.open(&index_name).and_then(|index| Sidecar::read(&*index)) {
        Ok(Some(sidecar)) if sidecar.facts.holds(&positions) => {
            return Ok(closed(sidecar.facts, Index::Stored(sidecar)));
        }
        Ok(_) => tracing::warn!(index = %index_name, "an index is damaged: it is built again"),
        Err(error) => {
            tracing::warn!(index = %index_name, %error, "an index does not read: it is built again");
        }
    }
    let bytes = read_up_to(&*file, 0, u64::MAX).map_err(failed)?;
    let read = read_batches(&bytes, &name, at, log)?;
    if let Some(stop) = read.stop {
        return Err(damaged(&name, read.facts.end, stop));
    }
    if !read.facts.holds(&positions) {
        let end = positions.start + u64::from(read.facts.count);
        return Err(damaged(&name, read.facts.end, &missing(end, positions.end)));
    }
    let (sidecar, bytes) = Sidecar::build(read.facts, &read.index);
    match storage.replace(&index_name, &bytes) {
        Ok(()) => Ok(closed(read.facts, Index::Stored(sidecar))),
        Err(error) => {
            tracing::warn!(index = %index_name, %error, "an index is kept in memory: it cannot be written");
            Ok(closed(read.facts, Index::Memory(read.index)))
        }
    }
}

/// An error if a segment is missing before this one, whose own bytes may be whole.
fn follows_on(name: &str, first: u64, at: &Start) -> Result<(), OpenError> {
    if first <= at.position {
        return Ok(());
    }
    Err(damaged(name, 0, &missing(at.position, first)))
}

fn missing(from: u64, to: u64) -> String {
    format!(
        "no segment holds the events from position {from} to {to}: if it was moved to a cold directory, set \
         log.cold_dir to that and see that it is mounted"
    )
}

fn check_header(
    file: &dyn StoredFile,
    name: &str,
    first: u64,
    at: &Start,
    log: u64,
) -> Result<(), OpenError> {
    let bytes = read_up_to(file, 0, to_u64(SEGMENT_HEADER_BYTES)).map_err(OpenError::io(name))?;
    let header = segment_header(&bytes, name)?;
    if header.log != log {
        return Err(damaged(name, 0, "the segment belongs to another log"));
    }
    let follows = first == at.position
        && header.first_position == at.position
        && header.first_batch == at.chain.next_batch
        && header.previous == at.chain.last_crc;
    if follows { Ok(()) } else { Err(damaged(name, 0, "the segment does not follow the one before it")) }
}

/// The last segment: what of it was acknowledged stays, a torn tail is cut.
fn open_last(storage: &dyn Storage, first: u64, at: &Start, epoch: Epoch) -> Result<Scanned, OpenError> {
    let log = epoch.log();
    let name = segment_name(first);
    follows_on(&name, first, at)?;
    let failed = |error| OpenError::io(&name)(error);
    let file = storage.open(&name).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    let bytes = read_up_to(&*file, 0, size).map_err(failed)?;
    if let Err(error) = check_header(&*file, &name, first, at, log) {
        // A crash while the segment was begun: it holds no batch yet.
        if first == at.position && is_begun(&bytes) {
            return begin(storage, at, epoch);
        }
        return Err(error);
    }
    let read = read_batches(&bytes, &name, at, log)?;
    if let Some(stop) = read.stop {
        let expected = read.facts.next_batch;
        let end = to_usize(read.facts.end);
        if proves_more(bytes.get(end..).unwrap_or_default(), log, expected) {
            return Err(damaged(&name, read.facts.end, stop));
        }
        tracing::warn!(segment = %name, offset = read.facts.end, reason = stop, "a torn tail is cut: it was never acknowledged");
    }
    settle(&*file, &bytes, &read).map_err(failed)?;
    // The process may have ended between making the file and making its name durable.
    storage.sync_names().map_err(OpenError::io(DIRECTORY))?;
    Ok(Scanned { file, facts: read.facts, index: read.index, size })
}

/// Whether a segment's header was never finished. It is durable before the first batch is
/// written, so a bad header with anything behind it is damage.
pub(super) fn is_begun(bytes: &[u8]) -> bool {
    let mut torn = [0; SEGMENT_HEADER_BYTES];
    for (to, from) in torn.iter_mut().zip(bytes) {
        *to = *from;
    }
    let behind = bytes.get(SEGMENT_HEADER_BYTES..).unwrap_or_default();
    matches!(SegmentHeader::decode(&torn), Err(HeaderError::Invalid(_)))
        && behind.iter().all(|byte| *byte == 0)
}

/// Writes the header, all batches that no later one proves durable and zeros behind them again,
/// and syncs: after a failed sync the page cache shows what the disk lacks, and only a new write
/// brings it there.
fn settle(file: &dyn StoredFile, bytes: &[u8], read: &Read) -> io::Result<()> {
    let unproven_at = read.unproven.front().map_or(read.facts.end, |(_, at)| *at);
    let (unproven, end) = (to_usize(unproven_at), to_usize(read.facts.end));
    let tail = bytes.get(end..).unwrap_or_default();
    file.write_all_at(bytes.get(..SEGMENT_HEADER_BYTES).unwrap_or_default(), 0)?;
    file.write_all_at(bytes.get(unproven..end).unwrap_or_default(), unproven_at)?;
    let cut_at = read.facts.end;
    #[cfg(test)]
    let cut_at =
        cut_at - u64::from(bugs::has(Bug::CutOneByteMore)) + u64::from(bugs::has(Bug::CutOneByteLess));
    file.write_all_at(&vec![0; tail.len()], cut_at)?;
    file.sync()
}

/// Begins a segment.
fn begin(storage: &dyn Storage, at: &Start, epoch: Epoch) -> Result<Scanned, OpenError> {
    let name = segment_name(at.position);
    let failed = |error| OpenError::io(&name)(error);
    let file = storage.create(&name).map_err(failed)?;
    let header = SegmentHeader {
        counter: epoch.counter(),
        log: epoch.log(),
        first_position: at.position,
        first_batch: at.chain.next_batch,
        previous: at.chain.last_crc,
    };
    file.write_all_at(&header.encode(), 0).and_then(|()| file.sync()).map_err(failed)?;
    storage.sync_names().map_err(OpenError::io(DIRECTORY))?;
    let size = to_u64(SEGMENT_HEADER_BYTES);
    Ok(Scanned { file, facts: facts_at(at), index: MemoryIndex::default(), size })
}

pub(super) fn facts_at(at: &Start) -> Facts {
    Facts {
        first: at.position,
        count: 0,
        end: to_u64(SEGMENT_HEADER_BYTES),
        next_batch: at.chain.next_batch,
        last_crc: at.chain.last_crc,
        first_recorded_at: at.chain.last_recorded_at,
        last_recorded_at: at.chain.last_recorded_at,
    }
}

/// What a segment's bytes hold up to the first batch that does not read back.
pub(super) struct Read {
    pub(super) facts: Facts,
    index: MemoryIndex,
    /// The numbers and places of the last batches, those that no later one proves durable: mostly
    /// one, in the relaxed mode more.
    unproven: VecDeque<(u64, u64)>,
    /// Why reading ended before the zeros at the end.
    pub(super) stop: Option<&'static str>,
}

/// Reads a segment by itself: that it follows the one before it is not checked.
pub(super) fn read_segment(bytes: &[u8], name: &str, log: u64) -> Result<Read, OpenError> {
    let header = segment_header(bytes, name)?;
    if header.log != log {
        return Err(damaged(name, 0, "the segment belongs to another log"));
    }
    let chain =
        Chain { next_batch: header.first_batch, last_crc: header.previous, last_recorded_at: i64::MIN };
    read_batches(bytes, name, &Start { position: header.first_position, chain }, log)
}

/// The index file of a closed segment.
pub(super) fn index_of(bytes: &[u8], name: &str, log: u64) -> Result<Vec<u8>, OpenError> {
    let read = read_segment(bytes, name, log)?;
    match read.stop {
        Some(stop) => Err(damaged(name, read.facts.end, stop)),
        None => Ok(Sidecar::build(read.facts, &read.index).1),
    }
}

/// A segment's header, if it reads back.
pub(super) fn header(storage: &dyn Storage, first: u64) -> io::Result<Option<SegmentHeader>> {
    let file = storage.open(&segment_name(first))?;
    let bytes = read_up_to(&*file, 0, to_u64(SEGMENT_HEADER_BYTES))?;
    Ok(bytes.first_chunk().and_then(|bytes| SegmentHeader::decode(bytes).ok()))
}

fn segment_header(bytes: &[u8], name: &str) -> Result<SegmentHeader, OpenError> {
    let bytes = bytes
        .first_chunk::<SEGMENT_HEADER_BYTES>()
        .ok_or_else(|| damaged(name, 0, "the segment header is cut short"))?;
    SegmentHeader::decode(bytes).map_err(|error| match error {
        HeaderError::Newer(version) => OpenError::Newer { file: name.to_owned(), version },
        HeaderError::Invalid(reason) => damaged(name, 0, reason),
    })
}

fn read_batches(bytes: &[u8], name: &str, at: &Start, log: u64) -> Result<Read, OpenError> {
    let (facts, index) = (facts_at(at), MemoryIndex::default());
    let mut read = Read { facts, index, unproven: VecDeque::new(), stop: None };
    loop {
        let rest = bytes.get(to_usize(read.facts.end)..).unwrap_or_default();
        if rest.iter().take(BATCH_HEADER_BYTES).all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0) {
            return Ok(read);
        }
        let (header, crc, body) = match take_batch(rest, &read.facts, log) {
            Ok(batch) => batch,
            Err(reason) => {
                read.stop = Some(reason);
                return Ok(read);
            }
        };
        let start = read.facts.end + to_u64(BATCH_HEADER_BYTES);
        // Its checksum is right: what does not fit now was written so.
        index_batch(&mut read, &header, body, start).map_err(|reason| damaged(name, start, reason))?;
        read.unproven.push_back((header.number, read.facts.end));
        while read.unproven.pop_front_if(|(number, _)| *number < header.watermark).is_some() {}
        read.facts.end = start + to_u64(body.len());
        read.facts.next_batch = read.facts.next_batch.saturating_add(1);
        read.facts.last_crc = crc;
        read.facts.last_recorded_at = header.recorded_at;
    }
}

fn take_batch<'a>(
    rest: &'a [u8],
    facts: &Facts,
    log: u64,
) -> Result<(BatchHeader, u32, &'a [u8]), &'static str> {
    let (header, crc) = BatchHeader::decode(rest, log)?;
    if header.number != facts.next_batch || header.previous != facts.last_crc {
        return Err("a batch does not follow the one before it");
    }
    if header.first_position != facts.first + u64::from(facts.count) {
        return Err("a batch does not begin at the next position");
    }
    let body =
        rest.get(BATCH_HEADER_BYTES..).and_then(|rest| rest.get(..to_usize(u64::from(header.body_len))));
    let body = body.ok_or("a batch is cut short")?;
    if crc32c(body) != header.body_crc {
        return Err("a batch's checksum is wrong");
    }
    Ok((header, crc, body))
}

fn index_batch(read: &mut Read, header: &BatchHeader, body: &[u8], start: u64) -> Result<(), &'static str> {
    let mut fields = Fields(body);
    let mut stream: Option<StreamId> = None;
    for _ in 0..header.count {
        let offset = start + to_u64(body.len() - fields.0.len());
        let raw = Raw::read(take_body(&mut fields)?)?;
        index_record(&mut read.facts, &mut read.index, &raw, offset, &mut stream)?;
    }
    if fields.0.is_empty() { Ok(()) } else { Err("a batch holds more than its records") }
}

/// Adds the next record of a segment; `stream` is that of the one before it in the batch.
pub(super) fn index_record(
    facts: &mut Facts,
    index: &mut MemoryIndex,
    raw: &Raw<'_>,
    offset: u64,
    stream: &mut Option<StreamId>,
) -> Result<(), &'static str> {
    if raw.position != facts.first + u64::from(facts.count) {
        return Err("a record does not stand at the next position");
    }
    let stream = match stream {
        Some(stream) if stream.as_str().as_bytes() == raw.stream => stream,
        other => other.insert(parsed(raw.stream, StreamId::parse).ok_or("a stream name is malformed")?),
    };
    let key = match raw.command() {
        Some(id) => Some(command_key(stream, raw.author, id)?),
        None => None,
    };
    let name = if index.knows_name(raw.name) {
        None
    } else {
        Some(parsed(raw.name, EventName::parse).ok_or("an event name is malformed")?)
    };
    let events = Following {
        stream,
        first_revision: raw.revision,
        recorded_at: raw.recorded_at,
        names: name.as_slice(),
    };
    index.push(&events, std::iter::once((to_u32(to_usize(offset)), key)))?;
    if facts.count == 0 {
        facts.first_recorded_at = raw.recorded_at;
    }
    facts.count += 1;
    Ok(())
}

fn command_key(stream: &StreamId, author: &[u8], id: &[u8]) -> Result<[u8; 16], &'static str> {
    let author = parsed(author, MemberId::parse).ok_or("an author is malformed")?;
    let id = parsed(id, CommandId::parse).ok_or("a command id is malformed")?;
    Ok(CommandKey::derive(stream, &author, &id).to_bytes())
}

/// Whether a batch header of this log stands here that proves batch `expected` acknowledged.
pub(super) fn proves_more(mut rest: &[u8], log: u64, expected: u64) -> bool {
    while let Some(skip) = rest.windows(BATCH_MAGIC.len()).position(|window| window == BATCH_MAGIC) {
        let at = rest.get(skip..).unwrap_or_default();
        if BatchHeader::decode(at, log).is_ok_and(|(header, _)| header.watermark > expected) {
            return true;
        }
        rest = at.get(1..).unwrap_or_default();
    }
    false
}

fn damaged(file: &str, offset: u64, reason: &str) -> OpenError {
    OpenError::Damaged { file: file.to_owned(), offset, reason: reason.to_owned() }
}
