//! Opening a directory: every segment's place in the chain is checked, the last one is read
//! batch by batch, and a torn tail is cut before anything is served.
//!
//! A batch whose number is below a later batch's watermark was acknowledged: if it does not
//! read back, that is damage and an error, never cut. Past that, what does not read back was
//! never answered. **The limit that remains**: the last batch's own acknowledgement stands
//! nowhere until the next batch is written, so damage to exactly the last batch looks like a
//! torn tail.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use dramatis_events::Epoch;

use super::OpenError;
use super::bytes::{to_u64, to_usize};
use super::chain;
use super::end::Chain;
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader, index_name, parse_segment_name, segment_name};
use super::index::MemoryIndex;
use super::scan::{
    LOG_START, Read, Start, chain_of, damaged, facts_at, is_begun, read_batches, segment_header,
};
use super::segment::{Closed, Index, Open};
use super::sidecar::{Facts, Sidecar};
use super::storage::{DIRECTORY, Storage, StoredFile};
#[cfg(test)]
use super::tests::bugs::{self, Bug};
use super::window::Window;

/// Bytes that are written again at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// What a directory holds.
pub(super) struct Recovered {
    pub(super) closed: Vec<Arc<Closed>>,
    pub(super) open: Open,
    pub(super) chain: Chain,
    pub(super) lines: chain::Reading,
    /// Up to where the open segment's file reaches.
    pub(super) allocated: u64,
}

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
    let mut window = Window::new(file);
    check_header(&mut window, &name, positions.start, at, log)?;
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
    let read = read_batches(&mut window, &name, at, log)?;
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
pub(super) fn follows_on(name: &str, first: u64, at: &Start) -> Result<(), OpenError> {
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

fn check_header(window: &mut Window, name: &str, first: u64, at: &Start, log: u64) -> Result<(), OpenError> {
    let header = segment_header(window, name)?;
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
    // It was a closed one if what came after it was cut.
    storage.warm(&name).map_err(failed)?;
    let file = storage.open(&name).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    let mut window = Window::new(file.clone());
    if let Err(error) = check_header(&mut window, &name, first, at, log) {
        // A crash while the segment was begun: it holds no batch yet.
        if first == at.position && is_begun(&mut window).map_err(failed)? {
            return begin(storage, at, epoch);
        }
        return Err(error);
    }
    let read = read_batches(&mut window, &name, at, log)?;
    if let Some(stop) = read.stop {
        if window.proves(read.facts.end, log, read.facts.next_batch).map_err(failed)? {
            return Err(damaged(&name, read.facts.end, stop));
        }
        tracing::warn!(segment = %name, offset = read.facts.end, reason = stop, "a torn tail is cut: it was never acknowledged");
    }
    settle(&*file, &mut window, size, &read).map_err(failed)?;
    // The process may have ended between making the file and making its name durable.
    storage.sync_names().map_err(OpenError::io(DIRECTORY))?;
    Ok(Scanned { file, facts: read.facts, index: read.index, size })
}

/// Writes the header, all batches that no later one proves durable and zeros behind them again,
/// and syncs: after a failed sync the page cache shows what the disk lacks, and only a new write
/// brings it there.
fn settle(file: &dyn StoredFile, window: &mut Window, size: u64, read: &Read) -> io::Result<()> {
    file.write_all_at(window.get(0, SEGMENT_HEADER_BYTES)?, 0)?;
    let (unproven, end) = (read.unproven.front().map_or(read.facts.end, |(_, at)| *at), read.facts.end);
    for (at, len) in pieces(unproven..end) {
        let piece = window.get(at, len)?;
        if piece.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all_at(piece, at)?;
    }
    let cut_at = end;
    #[cfg(test)]
    let cut_at =
        cut_at - u64::from(bugs::has(Bug::CutOneByteMore)) + u64::from(bugs::has(Bug::CutOneByteLess));
    for (at, len) in pieces(cut_at..cut_at + size.saturating_sub(end)) {
        file.write_all_at(&vec![0; len], at)?;
    }
    file.sync()
}

/// A range of a file in pieces of a bounded size: where each begins, and its length.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, usize)> {
    let end = range.end;
    range.step_by(PIECE_BYTES).map(move |at| (at, to_usize(end - at).min(PIECE_BYTES)))
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

/// A segment's header, if it reads back.
pub(super) fn header(storage: &dyn Storage, first: u64) -> io::Result<Option<SegmentHeader>> {
    let mut window = Window::new(storage.open(&segment_name(first))?);
    let bytes = window.get(0, SEGMENT_HEADER_BYTES)?;
    Ok(bytes.first_chunk().and_then(|bytes| SegmentHeader::decode(bytes).ok()))
}
