//! `reindex`: makes what is derived from closed segments again, their index files and their
//! lines in the chain. It never touches a segment.
//!
//! The chain proves that nothing was changed, so lines that contradict the segments are only
//! replaced when that is accepted; an anchor in the chain then says so.

use std::io::ErrorKind;

use dramatis_events::Epoch;

use super::check::{CHAIN, Lines, orphans, read_chain};
use super::walk::{Files, Walked, each_segment};
use super::{Findings, Observer, OfflineError, Place, Quiet, survey, unread};
use crate::log::embedded::chain::{self, Chain, Sum};
use crate::log::embedded::format::{index_name, segment_name};
use crate::log::embedded::sidecar::Sidecar;
use crate::log::embedded::storage::read_up_to;

/// What was made again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reindexed {
    /// Closed segments.
    pub closed: u64,
    /// Index files that were built again.
    pub indexes: Vec<String>,
    /// Index files that belonged to no closed segment and are gone.
    pub removed: Vec<String>,
    /// Segments whose line was added to the chain.
    pub lines: Vec<String>,
    /// From which position on the chain's lines were replaced.
    pub accepted: Option<u64>,
    /// Where the file with the lines that were replaced is kept, if there was one that reads.
    pub kept: Option<String>,
    /// Why the chain was left as it is, if it contradicts the segments.
    pub refused: Option<String>,
    /// Places that are damaged, in segments and thus beyond this command.
    pub damaged: u64,
}

/// The word of the anchor that says that earlier lines were given up.
const ACCEPTED: &str = "accepted";
/// Where the chain that was given up is kept.
const BROKEN_CHAIN: &str = "chain.broken";

/// Builds again what closed segments lack or what does not agree with them.
pub fn reindex(
    place: &Place,
    accept_chain: bool,
    observer: &mut dyn Observer,
) -> Result<Reindexed, OfflineError> {
    let mut findings = Findings::new(observer);
    let _lock = place.lock()?;
    let (files, epoch) = survey(place, &mut findings)?;
    let mut done = Reindexed::default();
    for name in orphans(&files) {
        files.storage.remove(name).map_err(OfflineError::io(name))?;
        done.removed.push(name.clone());
    }
    let (mut sums, mut all_sound) = (Vec::new(), true);
    each_segment(&files, &mut findings, |walked, _| {
        if walked.is_last {
            return Ok(());
        }
        done.closed += 1;
        all_sound &= walked.broken.is_none();
        if walked.broken.is_none() {
            if index(place, &files, &walked)? {
                done.indexes.push(index_name(walked.first));
            }
            let file = files.storage.open(&walked.name).map_err(OfflineError::io(&walked.name))?;
            let sum = chain::sum(&*file, walked.facts.end).map_err(OfflineError::io(&walked.name))?;
            sums.push((walked.first, sum));
        }
        Ok(())
    })?;
    done.damaged = findings.damaged;
    let lines = read_chain(&*files.storage, &mut Findings::new(&mut Quiet))?;
    // The lines of segments that do not read back are the last that is known of them.
    mend(&files, lines, &sums, epoch.filter(|_| accept_chain && all_sound), &mut done)?;
    Ok(done)
}

/// Writes the index file of a closed segment, unless it is right; says whether it did.
fn index(place: &Place, files: &Files, walked: &Walked) -> Result<bool, OfflineError> {
    let name = index_name(walked.first);
    let failed = OfflineError::io(&name);
    let (_, built) = Sidecar::build(walked.facts, &walked.index);
    if files.names.contains(&name) {
        match files.storage.open(&name).and_then(|file| read_up_to(&*file, 0, u64::MAX)) {
            Ok(stored) if stored == built => return Ok(false),
            Ok(_) => {}
            // What the disk does not give back is not right either.
            Err(error) => drop(unread(&name, error)?),
        }
    }
    files.storage.replace(&name, &built).map_err(&failed)?;
    if place.is_cold(&walked.name) {
        files.storage.cool(&name).map_err(&failed)?;
    }
    Ok(true)
}

/// Adds the lines that are missing; with an epoch it also replaces those that contradict.
fn mend(
    files: &Files,
    Lines { lines: mut chain, whole }: Lines,
    sums: &[(u64, Sum)],
    accept: Option<Epoch>,
    done: &mut Reindexed,
) -> Result<(), OfflineError> {
    let failed = OfflineError::io(CHAIN);
    let wrong = |chain: &Chain| {
        let missing = chain.firsts().find(|first| files.firsts.binary_search(first).is_err());
        let differs = |(first, sum): &&(u64, Sum)| chain.sum(*first).is_some_and(|known| known != *sum);
        missing.into_iter().chain(sums.iter().find(differs).map(|(first, _)| *first)).min()
    };
    let wrong = wrong(&chain);
    if !whole || wrong.is_some() {
        let Some(epoch) = accept else {
            let what = wrong.map_or_else(
                || "it is broken".to_owned(),
                |first| format!("it does not agree with {}", segment_name(first)),
            );
            done.refused = Some(what);
            return Ok(());
        };
        match files.storage.open(CHAIN).and_then(|old| read_up_to(&*old, 0, u64::MAX)) {
            Ok(old) => {
                files.storage.replace(BROKEN_CHAIN, &old).map_err(OfflineError::io(BROKEN_CHAIN))?;
                done.kept = Some(BROKEN_CHAIN.to_owned());
            }
            // There may be none, and of what the disk does not give back there is nothing to keep.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => drop(unread(CHAIN, error)?),
        }
        let unnamed = sums.iter().map(|(first, _)| *first).find(|first| chain.sum(*first).is_none());
        let from = wrong.into_iter().chain(unnamed).min();
        let from = from.or(files.firsts.last().copied()).unwrap_or(0);
        chain.add_anchor(ACCEPTED, epoch, from);
        done.accepted = Some(from);
    }
    for (first, sum) in sums {
        if chain.sum(*first).is_none() {
            chain.add_segment(*first, *sum);
            done.lines.push(segment_name(*first));
        }
    }
    if done.accepted.is_some() || !done.lines.is_empty() {
        chain.write(&*files.storage).map_err(&failed)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::log::contract::{fill, stream};
    use crate::log::embedded::storage::Storage;
    use crate::log::embedded::tests::wrapped::Wrapped;
    use crate::log::embedded::{EmbeddedLog, Options};

    #[tokio::test]
    async fn an_index_that_does_not_read_is_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { segment_bytes: 4 * 1024, ..Options::default() };
        let log = EmbeddedLog::open(dir.path(), options, Arc::new(ManualClock::default())).unwrap();
        fill(&log, &stream("room-main.lobby"), 12, &"long data ".repeat(80)).await;
        drop(log);
        let place = Place { dir: dir.path().to_owned(), cold: None };
        let (mut files, _) = survey(&place, &mut Findings::new(&mut Quiet)).unwrap();
        let unread = index_name(0);
        let storage = Arc::new(Wrapped::new(dir.path(), None).without(&unread));
        files.storage = storage.clone();
        let mut built = Vec::new();
        each_segment(&files, &mut Findings::new(&mut Quiet), |walked, _| {
            if !walked.is_last && index(&place, &files, &walked)? {
                built.push(index_name(walked.first));
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(built, [unread]);
        assert!(Sidecar::read(&*storage.open(&index_name(0)).unwrap()).unwrap().is_some());
    }
}
