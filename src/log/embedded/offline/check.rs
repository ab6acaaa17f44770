//! `verify`: every byte of the segments, every index against its segment, every link and hash
//! of the chain. It reads only, so it may run beside a server that appends.

use dramatis_events::Epoch;

use super::walk::{Files, Tail, Walked, each_segment};
use super::{Findings, Observer, OfflineError, Place, parse_index_name, survey, unread};
use crate::log::embedded::bytes::to_u64;
use crate::log::embedded::chain::{self, Chain};
use crate::log::embedded::format::{index_name, segment_name};
use crate::log::embedded::recovery::MISSING_AFTER;
use crate::log::embedded::sidecar::Sidecar;
use crate::log::embedded::storage::{Storage, read_up_to};

/// What a walk over the whole log found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The log's epoch, if its file reads back.
    pub epoch: Option<Epoch>,
    /// Segments.
    pub segments: u64,
    /// Those of them that lie in the cold tier.
    pub cold: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Batches that read back.
    pub batches: u64,
    /// Events that read back.
    pub events: u64,
    /// The position after the last event that reads back.
    pub next_position: u64,
    /// Closed segments whose index was built again and is the same.
    pub indexes: u64,
    /// Closed segments whose hash is the one in the chain.
    pub hashes: u64,
    /// The chain's last link: who keeps it can prove later that nothing before it was changed.
    pub link: Option<String>,
    /// Places that are damaged.
    pub damaged: u64,
}

/// What mends an index.
const REINDEX: &str = "`dramatis log reindex` builds it again";
/// The chain's file.
pub(super) const CHAIN: &str = "chain";

/// Walks the whole log and tells the observer all damage there is.
pub fn verify(place: &Place, observer: &mut dyn Observer) -> Result<Verified, OfflineError> {
    let mut findings = Findings::new(observer);
    // Before the segments are listed: what the chain names was closed by then.
    let chain = read_chain(&*place.storage()?, &mut findings)?;
    let (files, epoch) = survey(place, &mut findings)?;
    let mut verified = Verified { epoch, ..Verified::default() };
    verified.link = chain.whole.then(|| chain.lines.link().to_hex().to_string());
    missing_files(&files, &chain, &mut findings);
    each_segment(&files, &mut findings, |walked, findings| {
        verified.segments += 1;
        verified.cold += u64::from(place.is_cold(&walked.name));
        verified.bytes += walked.size;
        verified.batches += walked.batches;
        verified.events += walked.events;
        verified.next_position =
            walked.next.map_or(verified.next_position, |next| next.position.max(verified.next_position));
        tail(&walked, findings);
        if !walked.is_last {
            verified.indexes += u64::from(index(&files, &walked, findings)?);
            verified.hashes += u64::from(hash(&files, &chain, &walked, findings)?);
        }
        Ok(())
    })?;
    verified.damaged = findings.damaged;
    Ok(verified)
}

/// The chain as far as it reads back.
pub(super) struct Lines {
    pub(super) lines: Chain,
    pub(super) whole: bool,
}

/// Reads the chain's file and tells where it is broken.
pub(super) fn read_chain(storage: &dyn Storage, findings: &mut Findings<'_>) -> Result<Lines, OfflineError> {
    let failed = OfflineError::io(CHAIN);
    let broken = match Chain::read(storage) {
        Ok(Ok(lines)) => return Ok(Lines { lines, whole: true }),
        Ok(Err(broken)) => broken,
        Err(error) => {
            findings.damage(CHAIN, 0, unread(CHAIN, error)?);
            return Ok(Lines { lines: Chain::default(), whole: false });
        }
    };
    findings.damage(CHAIN, broken.offset, broken.reason);
    let sound = storage.open(CHAIN).and_then(|file| read_up_to(&*file, 0, broken.offset)).map_err(&failed)?;
    findings.observer.note("the chain's lines behind its damage are not compared with their segments");
    Ok(Lines { lines: Chain::parse(&sound).unwrap_or_default(), whole: false })
}

/// Segments that the chain names, and index files without a segment.
fn missing_files(files: &Files, chain: &Lines, findings: &mut Findings<'_>) {
    for first in chain.lines.firsts().filter(|first| files.firsts.binary_search(first).is_err()) {
        findings.damage(&segment_name(first), 0, "the chain names it, but it is missing");
    }
    if let Some(last) = files.firsts.last().filter(|last| chain.lines.sum(**last).is_some()) {
        findings.damage(&segment_name(*last), 0, MISSING_AFTER);
    }
    for name in orphans(files) {
        findings.observer.note(&format!("{name} belongs to no closed segment"));
    }
}

/// Index files that belong to no closed segment.
pub(super) fn orphans(files: &Files) -> impl Iterator<Item = &String> {
    let closed = files.firsts.split_last().map_or(&[][..], |(_, closed)| closed);
    files
        .names
        .iter()
        .filter(move |name| parse_index_name(name).is_some_and(|first| closed.binary_search(&first).is_err()))
}

fn tail(walked: &Walked, findings: &mut Findings<'_>) {
    if let Tail::Unfinished(offset) = walked.tail {
        findings.observer.note(&format!(
            "{} has an unfinished tail from byte {offset} on: not damage, it was never acknowledged and is cut when \
             the log is opened",
            walked.name
        ));
    }
}

/// Whether the index file of a closed segment is what its segment gives.
fn index(files: &Files, walked: &Walked, findings: &mut Findings<'_>) -> Result<bool, OfflineError> {
    let name = index_name(walked.first);
    if !files.names.contains(&name) {
        findings.observer.note(&format!("{name} is not there yet: it is built when the log is opened"));
        return Ok(false);
    }
    if walked.broken.is_some() {
        findings.observer.note(&format!("{name} is not compared, since its segment is damaged"));
        return Ok(false);
    }
    let read = files.storage.open(&name).and_then(|file| read_up_to(&*file, 0, u64::MAX));
    let stored = match read {
        Ok(stored) => stored,
        Err(error) => {
            findings.damage(&name, 0, format!("{}; {REINDEX}", unread(&name, error)?));
            return Ok(false);
        }
    };
    let (_, built) = Sidecar::build(walked.facts, &walked.index);
    if stored == built {
        return Ok(true);
    }
    let same = stored.iter().zip(&built).take_while(|(stored, built)| stored == built).count();
    findings.damage(&name, to_u64(same), format!("it does not agree with its segment: {REINDEX}"));
    Ok(false)
}

/// Whether a closed segment's hash is the one in the chain.
fn hash(
    files: &Files,
    chain: &Lines,
    walked: &Walked,
    findings: &mut Findings<'_>,
) -> Result<bool, OfflineError> {
    let name = &walked.name;
    let Some(known) = chain.lines.sum(walked.first) else {
        if chain.whole && chain.lines.last().is_some_and(|last| walked.first < last) {
            let end = to_u64(chain.lines.text().len());
            findings.damage(CHAIN, end, format!("it names segments after {name}, but not that"));
        } else if chain.whole {
            findings
                .observer
                .note(&format!("{name} is not in the chain yet: it is added when the log is opened"));
        }
        return Ok(false);
    };
    // Damage that was told already explains why it differs.
    if walked.broken.is_some() {
        return Ok(false);
    }
    if walked.facts.end != known.bytes {
        let reason = format!("it ends at byte {}, but the chain says {}", walked.facts.end, known.bytes);
        findings.damage(name, walked.facts.end.min(known.bytes), reason);
        return Ok(false);
    }
    let file = files.storage.open(name).map_err(OfflineError::io(name))?;
    let now = chain::sum(&*file, known.bytes).map_err(OfflineError::io(name))?;
    if now.hash != known.hash {
        findings.damage(name, 0, "its checksums are right, but its hash is not the one in the chain");
        return Ok(false);
    }
    Ok(true)
}
