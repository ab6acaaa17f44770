//! Walking one segment byte by byte: its header, every batch, every record. What does not read
//! back is told, and the walk goes on at the next batch or record that does.
//!
//! The last segment is the one that is written to: what does not read back at its end is an
//! unfinished batch, unless a later batch proves that it was acknowledged.

use std::sync::Arc;

use dramatis_events::{StreamId, UnixMillis};

use super::within::{Within, record_len};
use super::{Findings, OfflineError};
use crate::log::Header;
use crate::log::embedded::OpenError;
use crate::log::embedded::bytes::{to_u64, to_usize};
use crate::log::embedded::checksum::crc32c;
use crate::log::embedded::end::Chain;
use crate::log::embedded::format::{
    BATCH_HEADER_BYTES, BatchHeader, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name,
};
use crate::log::embedded::index::MemoryIndex;
use crate::log::embedded::scan::{LOG_START, Start, facts_at, index_record, is_begun};
use crate::log::embedded::sidecar::Facts;
use crate::log::embedded::storage::Storage;
use crate::log::embedded::window::Window;

/// The files of a log as they were listed.
pub(super) struct Files {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) names: Vec<String>,
    /// The segments by their first positions, ascending.
    pub(super) firsts: Vec<u64>,
    pub(super) log: u64,
}

/// How a segment ends, behind its last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// With zeros, or there.
    Clean,
    /// With what was being written: this is where it begins. No damage.
    Unfinished(u64),
    /// With bytes that belong to nothing, though the next segment goes on where this one ends.
    Stray,
}

/// What a segment holds.
pub(super) struct Walked {
    pub(super) first: u64,
    pub(super) name: String,
    pub(super) is_last: bool,
    pub(super) size: u64,
    /// Whether its header is its own and follows.
    pub(super) header: bool,
    /// What is wrong with its history first, if anything is.
    pub(super) broken: Option<String>,
    /// What reads back up to there.
    pub(super) facts: Facts,
    pub(super) index: MemoryIndex,
    pub(super) tail: Tail,
    /// Batches and events that read back, wherever they stand.
    pub(super) batches: u64,
    pub(super) events: u64,
    /// What would come after the last batch that is known.
    pub(super) next: Option<Start>,
}

/// Walks every segment in order.
pub(super) fn each_segment(
    files: &Files,
    findings: &mut Findings<'_>,
    mut visit: impl FnMut(Walked, &mut Findings<'_>) -> Result<(), OfflineError>,
) -> Result<(), OfflineError> {
    let mut bytes = 0;
    for first in &files.firsts {
        let name = segment_name(*first);
        let size = files.storage.open(&name).and_then(|file| file.size());
        bytes += size.map_err(OfflineError::io(&name))?;
    }
    findings.observer.begin(bytes);
    let mut before = Some(LOG_START);
    let nexts = files.firsts.iter().skip(1).map(|first| Some(*first)).chain([None]);
    for (first, next) in files.firsts.iter().zip(nexts) {
        let walked = walk(files, *first, next, before, findings)?;
        // Once it broke, the next segment's own header says where it begins.
        before = walked.next.filter(|_| walked.broken.is_none());
        visit(walked, findings)?;
    }
    Ok(())
}

/// Walks one segment.
pub(super) fn walk(
    files: &Files,
    first: u64,
    next_first: Option<u64>,
    before: Option<Start>,
    findings: &mut Findings<'_>,
) -> Result<Walked, OfflineError> {
    let name = segment_name(first);
    let failed = OfflineError::io(&name);
    let file = files.storage.open(&name).map_err(&failed)?;
    let mut window = Window::patient(file);
    let size = window.size().map_err(&failed)?;
    let at = Start { position: first, ..LOG_START };
    let walked = Walked {
        first,
        name,
        is_last: next_first.is_none(),
        size,
        header: true,
        broken: None,
        facts: facts_at(&at),
        index: MemoryIndex::default(),
        tail: Tail::Clean,
        batches: 0,
        events: 0,
        next: before,
    };
    let placed = before.is_some();
    let mut walk =
        Walk { log: files.log, next_first, findings, at: 0, told: 0, read_again: None, placed, walked };
    if walk.header(&mut window)? {
        while walk.step(&mut window).map_err(&failed)? {
            walk.advance();
        }
    }
    for (offset, error) in window.unread() {
        walk.findings.damage(&walk.walked.name, offset, format!("the disk does not give it back: {error}"));
    }
    Ok(walk.end())
}

/// What stands at a place in a segment.
enum Look {
    /// Zeros up to the end.
    End,
    /// A header that reads back, and what is wrong with the batch all the same.
    Batch(BatchHeader, u32, Option<Wrong>),
    Unreadable(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Follows,
    CutShort,
    Body,
}

/// What to do about bytes that do not read back.
enum Gate {
    Damage,
    ReadAgain,
    End,
}

struct Walk<'f, 'o> {
    log: u64,
    next_first: Option<u64>,
    findings: &'f mut Findings<'o>,
    at: u64,
    /// Up to where the observer knows.
    told: u64,
    /// Where a batch did not read back at the first look.
    read_again: Option<u64>,
    /// Whether it is known which batch must come next: after lost ones the next says it itself.
    placed: bool,
    walked: Walked,
}

impl Walk<'_, '_> {
    fn damage(&mut self, offset: u64, reason: &str) {
        self.findings.damage(&self.walked.name, offset, reason);
        self.broken(reason);
    }

    fn broken(&mut self, reason: &str) {
        if self.walked.broken.is_none() {
            self.walked.broken = Some(reason.to_owned());
            self.walked.index = MemoryIndex::default();
        }
    }

    fn is_intact(&self) -> bool {
        self.walked.broken.is_none()
    }

    fn advance(&mut self) {
        self.findings.observer.advance(self.at.saturating_sub(self.told));
        self.told = self.told.max(self.at);
    }

    /// Checks the header; `false` if the segment was only about to be begun.
    fn header(&mut self, window: &mut Window) -> Result<bool, OfflineError> {
        let failed = OfflineError::io(&self.walked.name);
        let bytes = window.get(0, SEGMENT_HEADER_BYTES).map_err(&failed)?.to_vec();
        self.at = to_u64(SEGMENT_HEADER_BYTES);
        let found = match <&[u8; SEGMENT_HEADER_BYTES]>::try_from(bytes.as_slice()) {
            Ok(whole) => match SegmentHeader::decode(whole) {
                Ok(header) => self.follows(&header).map_or(Ok(header), Err),
                Err(HeaderError::Newer(version)) => {
                    return Err(OpenError::Newer { file: self.walked.name.clone(), version }.into());
                }
                Err(HeaderError::Invalid(reason)) => Err(reason),
            },
            Err(_) => Err("the segment header is cut short"),
        };
        match found {
            Ok(header) => {
                let last_recorded_at = self.walked.next.map_or(i64::MIN, |next| next.chain.last_recorded_at);
                let chain =
                    Chain { next_batch: header.first_batch, last_crc: header.previous, last_recorded_at };
                self.walked.next = Some(Start { position: header.first_position, chain });
                self.placed = true;
            }
            Err(reason) => {
                if self.walked.is_last && is_begun(window).map_err(&failed)? {
                    self.walked.tail = Tail::Unfinished(0);
                    return Ok(false);
                }
                self.damage(0, reason);
                self.walked.header = false;
            }
        }
        if let (Some(next), true) = (self.walked.next, self.is_intact()) {
            self.walked.facts = facts_at(&next);
        }
        Ok(true)
    }

    /// What keeps the segment with this header from standing here.
    fn follows(&self, header: &SegmentHeader) -> Option<&'static str> {
        let follows = |before: Start| {
            header.first_position == before.position
                && header.first_batch == before.chain.next_batch
                && header.previous == before.chain.last_crc
        };
        if header.log != self.log {
            Some("the segment belongs to another log")
        } else if header.first_position != self.walked.first {
            Some("the segment's header and its name tell two positions")
        } else if !self.walked.next.is_none_or(follows) {
            Some("the segment does not follow the one before it")
        } else {
            None
        }
    }

    /// Walks the next batch; `false` at the end.
    fn step(&mut self, window: &mut Window) -> std::io::Result<bool> {
        let look = self.look(window)?;
        if matches!(look, Look::End) {
            return Ok(false);
        }
        if !matches!(look, Look::Batch(_, _, None)) {
            match self.gate(window)? {
                Gate::Damage => {}
                Gate::ReadAgain => return Ok(true),
                Gate::End => return Ok(false),
            }
        }
        match look {
            Look::End => return Ok(false),
            Look::Unreadable(reason) => self.skip(window, reason)?,
            Look::Batch(_, _, Some(Wrong::CutShort)) => self.skip(window, "a batch is cut short")?,
            Look::Batch(header, crc, wrong) => {
                if !self.is_next(&header) {
                    self.damage(self.at, "a batch does not follow the one before it");
                }
                let body = window.get(self.at + to_u64(BATCH_HEADER_BYTES), body_len(&header))?;
                self.batch(&header, crc, body, wrong != Some(Wrong::Body));
            }
        }
        Ok(true)
    }

    fn look(&self, window: &mut Window) -> std::io::Result<Look> {
        let head = window.get(self.at, BATCH_HEADER_BYTES)?;
        if head.iter().all(|byte| *byte == 0) && window.first_other(self.at)?.is_none() {
            return Ok(Look::End);
        }
        let head = window.get(self.at, BATCH_HEADER_BYTES)?;
        let (header, crc) = match BatchHeader::decode(head, self.log) {
            Ok(found) => found,
            Err(reason) => return Ok(Look::Unreadable(reason)),
        };
        let body = window.get(self.at + to_u64(BATCH_HEADER_BYTES), body_len(&header))?;
        let wrong = if body.len() < body_len(&header) {
            Some(Wrong::CutShort)
        } else if crc32c(body) != header.body_crc {
            Some(Wrong::Body)
        } else if !self.is_next(&header) {
            Some(Wrong::Follows)
        } else {
            None
        };
        Ok(Look::Batch(header, crc, wrong))
    }

    /// Whether a batch is the next one; after damage it says itself where it stands.
    fn is_next(&self, header: &BatchHeader) -> bool {
        self.expected().is_none_or(|next| {
            header.number == next.chain.next_batch
                && header.previous == next.chain.last_crc
                && header.first_position == next.position
                && header.recorded_at >= next.chain.last_recorded_at
                && header.watermark <= header.number
        })
    }

    /// What must come next, where that is known.
    fn expected(&self) -> Option<Start> {
        self.walked.next.filter(|_| self.placed)
    }

    /// Whether what does not read back here is damage.
    fn gate(&mut self, window: &mut Window) -> std::io::Result<Gate> {
        if let Some(next_first) = self.next_first {
            if self.expected().is_some_and(|next| next.position == next_first) {
                let stray = window.first_other(self.at)?.unwrap_or(self.at);
                self.findings.damage(&self.walked.name, stray, "bytes stand behind the end of the segment");
                self.walked.tail = Tail::Stray;
                return Ok(Gate::End);
            }
            return Ok(Gate::Damage);
        }
        let expected = self.expected().map_or(0, |next| next.chain.next_batch);
        // What stands here may itself prove it: the batch that was to come is gone then.
        if !window.proves(self.at, self.log, expected)? {
            self.walked.tail = Tail::Unfinished(self.at);
            return Ok(Gate::End);
        }
        // A server may have finished it after the first look; now it is proven to be finished.
        if self.read_again != Some(self.at) {
            self.read_again = Some(self.at);
            window.forget();
            return Ok(Gate::ReadAgain);
        }
        Ok(Gate::Damage)
    }

    /// Goes on at the next batch that reads back.
    fn skip(&mut self, window: &mut Window, reason: &str) -> std::io::Result<()> {
        let found = window.find(self.at + 1, self.log, |_| true)?;
        let from = self.expected().map(|next| next.position);
        let until = found.map_or(self.next_first, |(_, header)| Some(header.first_position));
        let lost = match (from, until) {
            (Some(from), Some(until)) if until > from => format!(", events {from} to {} are lost", until - 1),
            (Some(from), None) => format!(", events from {from} on are lost"),
            _ => String::new(),
        };
        let far = found.map_or_else(
            || "nothing behind it reads back".to_owned(),
            |(offset, _)| format!("the next batch that reads back begins at byte {offset}"),
        );
        self.damage(self.at, &format!("{reason}; {far}{lost}"));
        self.at = found.map_or(self.walked.size.max(self.at + 1), |(offset, _)| offset);
        self.placed = false;
        Ok(())
    }

    /// Takes a batch whose header reads back; its records may not.
    fn batch(&mut self, header: &BatchHeader, crc: u32, body: &[u8], sound: bool) {
        let start = self.at + to_u64(BATCH_HEADER_BYTES);
        let before = self.walked.facts;
        let damaged = self.findings.damaged;
        let events = self.records(header, body, start);
        if !sound && self.findings.damaged == damaged {
            self.damage(self.at, "a batch's checksum is wrong");
        }
        if self.findings.damaged == damaged {
            self.walked.batches += 1;
        }
        self.walked.events += events;
        self.at = start + to_u64(body.len());
        let chain = Chain {
            next_batch: header.number.saturating_add(1),
            last_crc: crc,
            last_recorded_at: header.recorded_at,
        };
        let next = Start { position: header.first_position.saturating_add(u64::from(header.count)), chain };
        self.walked.next = Some(next);
        self.placed = true;
        if self.is_intact() {
            self.walked.facts.end = self.at;
            self.walked.facts.next_batch = chain.next_batch;
            self.walked.facts.last_crc = crc;
            self.walked.facts.last_recorded_at = header.recorded_at;
        } else {
            self.walked.facts = before;
        }
    }

    /// Reads a batch's records, gives how many read back.
    fn records(&mut self, header: &BatchHeader, body: &[u8], start: u64) -> u64 {
        let mut stream: Option<StreamId> = None;
        let (mut at, mut good) = (0, 0);
        let mut place = Within {
            position: header.first_position,
            end: header.first_position.saturating_add(u64::from(header.count)),
            recorded_at: header.recorded_at,
        };
        while at < body.len() {
            let rest = body.get(at..).unwrap_or_default();
            let offset = start + to_u64(at);
            let read = place.read(rest).and_then(|raw| {
                if self.walked.broken.is_none() {
                    index_record(&mut self.walked.facts, &mut self.walked.index, &raw, offset, &mut stream)?;
                }
                Ok(raw)
            });
            match read {
                Ok(raw) => {
                    let (name, recorded_at) = (raw.name, UnixMillis::new(raw.recorded_at));
                    let header = Header { stream: raw.stream, name, recorded_at };
                    self.findings.observer.event(&header, raw.position, raw.revision);
                    good += 1;
                    place.position += 1;
                    at += record_len(rest);
                }
                Err(reason) => {
                    self.damage(offset, reason);
                    let Some((skip, position)) = place.find(rest.get(1..).unwrap_or_default()) else {
                        return good;
                    };
                    at += 1 + skip;
                    place.position = position;
                }
            }
        }
        if place.position != place.end {
            self.damage(self.at, "a batch holds fewer records than it says");
        }
        good
    }

    /// Checks that a closed segment ends where the next one begins.
    fn end(mut self) -> Walked {
        if let (Some(next_first), Some(next)) = (self.next_first, self.expected())
            && next.position != next_first
        {
            let position = next.position;
            self.damage(
                self.at,
                &format!(
                    "the segment ends before position {position}, but the next one begins at {next_first}"
                ),
            );
        }
        self.at = self.walked.size;
        self.advance();
        self.walked
    }
}

fn body_len(header: &BatchHeader) -> usize {
    to_usize(u64::from(header.body_len))
}
