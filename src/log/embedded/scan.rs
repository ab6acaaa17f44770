//! Reading one segment from its start to where it stops reading back, a piece at a time: its header,
//! every batch, every record's place.

use std::collections::VecDeque;
use std::io;

use dramatis_events::{CommandId, CommandKey, EventName, MemberId, StreamId};

use super::OpenError;
use super::bytes::{Fields, to_u32, to_u64, to_usize};
use super::checksum::crc32c;
use super::end::Chain;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::index::{Following, MemoryIndex};
use super::record::{Raw, parsed, take_body};
use super::sidecar::{Facts, Sidecar};
use super::window::Window;

/// The first batch's number.
const FIRST_BATCH: u64 = 1;

/// Where a segment must go on.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) position: u64,
    pub(super) chain: Chain,
}

/// Where the first segment of a log begins.
pub(super) const LOG_START: Start =
    Start { position: 0, chain: Chain { next_batch: FIRST_BATCH, last_crc: 0, last_recorded_at: 0 } };

pub(super) fn chain_of(facts: &Facts) -> Chain {
    Chain { next_batch: facts.next_batch, last_crc: facts.last_crc, last_recorded_at: facts.last_recorded_at }
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

/// Whether a segment's header was never finished. It is durable before the first batch is
/// written, so a bad header with anything behind it is damage.
pub(super) fn is_begun(window: &mut Window) -> io::Result<bool> {
    let mut torn = [0; SEGMENT_HEADER_BYTES];
    for (to, from) in torn.iter_mut().zip(window.get(0, SEGMENT_HEADER_BYTES)?) {
        *to = *from;
    }
    let is_torn = matches!(SegmentHeader::decode(&torn), Err(HeaderError::Invalid(_)));
    Ok(is_torn && window.first_other(to_u64(SEGMENT_HEADER_BYTES))?.is_none())
}

/// What a segment's bytes hold up to the first batch that does not read back.
pub(super) struct Read {
    pub(super) facts: Facts,
    pub(super) index: MemoryIndex,
    /// The numbers and places of the last batches, those that no later one proves durable: mostly
    /// one, in the relaxed mode more.
    pub(super) unproven: VecDeque<(u64, u64)>,
    /// Why reading ended before the zeros at the end.
    pub(super) stop: Option<&'static str>,
}

/// Reads a segment by itself: that it follows the one before it is not checked.
pub(super) fn read_segment(window: &mut Window, name: &str, log: u64) -> Result<Read, OpenError> {
    let header = segment_header(window, name)?;
    if header.log != log {
        return Err(damaged(name, 0, "the segment belongs to another log"));
    }
    let chain =
        Chain { next_batch: header.first_batch, last_crc: header.previous, last_recorded_at: i64::MIN };
    read_batches(window, name, &Start { position: header.first_position, chain }, log)
}

/// The index file of a closed segment.
pub(super) fn index_of(window: &mut Window, name: &str, log: u64) -> Result<Vec<u8>, OpenError> {
    let read = read_segment(window, name, log)?;
    match read.stop {
        Some(stop) => Err(damaged(name, read.facts.end, stop)),
        None => Ok(Sidecar::build(read.facts, &read.index).1),
    }
}

/// The header of a segment.
pub(super) fn segment_header(window: &mut Window, name: &str) -> Result<SegmentHeader, OpenError> {
    let bytes = window
        .get(0, SEGMENT_HEADER_BYTES)
        .map_err(OpenError::io(name))?
        .first_chunk::<SEGMENT_HEADER_BYTES>()
        .ok_or_else(|| damaged(name, 0, "the segment header is cut short"))?;
    SegmentHeader::decode(bytes).map_err(|error| match error {
        HeaderError::Newer(version) => OpenError::Newer { file: name.to_owned(), version },
        HeaderError::Invalid(reason) => damaged(name, 0, reason),
    })
}

/// Reads the batches of a segment that goes on there, up to the first that does not read back.
pub(super) fn read_batches(window: &mut Window, name: &str, at: &Start, log: u64) -> Result<Read, OpenError> {
    let (facts, index) = (facts_at(at), MemoryIndex::default());
    let mut read = Read { facts, index, unproven: VecDeque::new(), stop: None };
    let failed = |error| OpenError::io(name)(error);
    while !is_end(window, read.facts.end).map_err(failed)? {
        let (header, crc, body) = match take_batch(window, &read.facts, log).map_err(failed)? {
            Ok(batch) => batch,
            Err(reason) => {
                read.stop = Some(reason);
                break;
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
    Ok(read)
}

/// Whether nothing but zeros stands from there on.
fn is_end(window: &mut Window, at: u64) -> io::Result<bool> {
    let head = window.get(at, BATCH_HEADER_BYTES)?;
    Ok(head.iter().all(|byte| *byte == 0) && window.first_other(at)?.is_none())
}

/// The next batch, its checksum and its body; or why there is none.
type Taken<'a> = Result<(BatchHeader, u32, &'a [u8]), &'static str>;

fn take_batch<'a>(window: &'a mut Window, facts: &Facts, log: u64) -> io::Result<Taken<'a>> {
    let (header, crc) = match BatchHeader::decode(window.get(facts.end, BATCH_HEADER_BYTES)?, log) {
        Ok(decoded) => decoded,
        Err(reason) => return Ok(Err(reason)),
    };
    if header.number != facts.next_batch || header.previous != facts.last_crc {
        return Ok(Err("a batch does not follow the one before it"));
    }
    if header.first_position != facts.first + u64::from(facts.count) {
        return Ok(Err("a batch does not begin at the next position"));
    }
    let len = to_usize(u64::from(header.body_len));
    let body = window.get(facts.end + to_u64(BATCH_HEADER_BYTES), len)?;
    Ok(if body.len() < len {
        Err("a batch is cut short")
    } else if crc32c(body) != header.body_crc {
        Err("a batch's checksum is wrong")
    } else {
        Ok((header, crc, body))
    })
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

/// What a segment's bytes are not.
pub(super) fn damaged(file: &str, offset: u64, reason: &str) -> OpenError {
    OpenError::Damaged { file: file.to_owned(), offset, reason: reason.to_owned() }
}
