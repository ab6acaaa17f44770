//! `info`: what a log holds. The quick form reads the indexes of closed segments and walks
//! only what has none, the open segment mostly; the full form walks all and counts.

use std::collections::BTreeMap;

use dramatis_events::{Epoch, UnixMillis};

use super::walk::{Files, each_segment, walk};
use super::{Damage, Findings, Observer, OfflineError, Place, survey, unread};
use crate::log::Header;
use crate::log::embedded::format::{index_name, segment_name};
use crate::log::embedded::sidecar::Sidecar;
use crate::log::embedded::table::TableError;

/// What a log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// The epoch, if its file reads back.
    pub epoch: Option<Epoch>,
    /// Segments.
    pub segments: u64,
    /// Those of them that lie in the cold tier.
    pub cold: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Events.
    pub events: u64,
    /// Distinct streams, counted by their first events; `None` where an index does not tell.
    pub streams: Option<u64>,
    /// The position after the last event.
    pub next_position: u64,
    /// When the first event was recorded, and when the last.
    pub recorded: Option<(UnixMillis, UnixMillis)>,
    /// The events of each name: how many, where they were counted.
    pub names: BTreeMap<String, Option<u64>>,
    /// The events of streams of each category: how many, where they were counted.
    pub categories: BTreeMap<String, Option<u64>>,
    /// Whether some segment has too many kinds of events for its index to name them.
    pub more_kinds: bool,
    /// Places that are damaged, as far as was looked.
    pub damaged: u64,
}

/// Says what the log holds; with `full` it walks all of it and counts.
pub fn info(place: &Place, full: bool, observer: &mut dyn Observer) -> Result<Info, OfflineError> {
    let mut tally = Tally { observer, info: Info { streams: Some(0), ..Info::default() } };
    let mut findings = Findings::new(&mut tally);
    let (files, epoch) = survey(place, &mut findings)?;
    let mut known = Vec::new();
    if full {
        each_segment(&files, &mut findings, |_, _| Ok(()))?;
    } else {
        known = quick(&files, &mut findings)?;
    }
    let damaged = findings.damaged;
    let mut info = tally.info;
    for (sidecar, begun) in known {
        add(&mut info, &sidecar, begun);
    }
    // A name that also stands in a segment that was not walked is not counted.
    if !full {
        info.names.values_mut().chain(info.categories.values_mut()).for_each(|count| *count = None);
    }
    info.epoch = epoch;
    info.damaged = damaged;
    for first in &files.firsts {
        let name = segment_name(*first);
        let size = files.storage.open(&name).and_then(|file| file.size());
        info.segments += 1;
        info.bytes += size.map_err(OfflineError::io(&name))?;
        info.cold += u64::from(place.is_cold(&name));
    }
    Ok(info)
}

/// Reads the indexes there are, and walks the segments without.
fn quick(files: &Files, findings: &mut Findings<'_>) -> Result<Vec<(Sidecar, Option<u64>)>, OfflineError> {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let nexts = files.firsts.iter().skip(1).map(|first| Some(*first)).chain([None]);
    for (first, next) in files.firsts.iter().copied().zip(nexts) {
        match next.map_or(Ok(None), |next| read_index(files, first, next, findings))? {
            Some(index) => known.push(index),
            None => unknown.push((first, next)),
        }
    }
    let mut bytes = 0;
    for (first, _) in &unknown {
        let name = segment_name(*first);
        let size = files.storage.open(&name).and_then(|file| file.size());
        bytes += size.map_err(OfflineError::io(&name))?;
    }
    findings.observer.begin(bytes);
    for (first, next) in unknown {
        walk(files, first, next, None, findings)?;
    }
    Ok(known)
}

/// The index of a closed segment and how many streams it says begin there, if it has one.
fn read_index(
    files: &Files,
    first: u64,
    next: u64,
    findings: &mut Findings<'_>,
) -> Result<Option<(Sidecar, Option<u64>)>, OfflineError> {
    let name = index_name(first);
    let failed = OfflineError::io(&name);
    if !files.names.contains(&name) {
        return Ok(None);
    }
    let opened = files.storage.open(&name);
    let (file, read) = match opened.and_then(|file| Sidecar::read(&*file).map(|read| (file, read))) {
        Ok(opened) => opened,
        Err(error) => {
            let reason = unread(&name, error)?;
            findings.damage(&name, 0, format!("{reason}: `dramatis log reindex` builds it again"));
            return Ok(None);
        }
    };
    let Some(sidecar) = read.filter(|sidecar| sidecar.facts.holds(&(first..next))) else {
        return Ok(None);
    };
    let begun = match sidecar.begun(&*file) {
        Ok(begun) => Some(begun),
        Err(TableError::Io(error)) => return Err(failed(error)),
        Err(TableError::Damaged(offset)) => {
            findings.damage(
                &name,
                offset,
                "a block's checksum is wrong: `dramatis log reindex` builds it again",
            );
            None
        }
    };
    Ok(Some((sidecar, begun)))
}

/// Adds what an index tells of its segment.
fn add(info: &mut Info, sidecar: &Sidecar, begun: Option<u64>) {
    let facts = &sidecar.facts;
    info.events += u64::from(facts.count);
    info.next_position = info.next_position.max(facts.first + u64::from(facts.count));
    info.streams = info.streams.zip(begun).map(|(streams, begun)| streams + begun);
    info.saw(UnixMillis::new(facts.first_recorded_at));
    info.saw(UnixMillis::new(facts.last_recorded_at));
    let Some(kinds) = sidecar.kinds() else {
        info.more_kinds = true;
        return;
    };
    info.names.extend(kinds.names.iter().map(|name| (name.clone(), None)));
    info.categories.extend(kinds.categories.iter().map(|category| (category.clone(), None)));
}

impl Info {
    fn saw(&mut self, at: UnixMillis) {
        let (first, last) = self.recorded.unwrap_or((at, at));
        self.recorded = Some((first.min(at), last.max(at)));
    }
}

/// Counts what is walked, and passes on the rest.
struct Tally<'a> {
    observer: &'a mut dyn Observer,
    info: Info,
}

impl Observer for Tally<'_> {
    fn begin(&mut self, bytes: u64) {
        self.observer.begin(bytes);
    }

    fn advance(&mut self, bytes: u64) {
        self.observer.advance(bytes);
    }

    fn damage(&mut self, damage: &Damage) {
        self.observer.damage(damage);
    }

    fn note(&mut self, note: &str) {
        self.observer.note(note);
    }

    fn event(&mut self, header: &Header<'_>, position: u64, revision: u64) {
        let info = &mut self.info;
        info.events += 1;
        info.next_position = info.next_position.max(position.saturating_add(1));
        info.streams = info.streams.map(|streams| streams + u64::from(revision == 0));
        info.saw(header.recorded_at);
        count(&mut info.names, header.name);
        count(&mut info.categories, header.category());
    }
}

fn count(counts: &mut BTreeMap<String, Option<u64>>, name: &[u8]) {
    let name = String::from_utf8_lossy(name);
    match counts.get_mut(&*name) {
        Some(count) => *count = count.map(|count| count + 1),
        None => {
            counts.insert(name.into_owned(), Some(1));
        }
    }
}
