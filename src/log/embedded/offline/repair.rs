//! `repair`: cuts history at its first damage, so that the log opens and serves what is whole.
//!
//! Nothing is deleted: what is cut lies in a folder beside the log. Every step is durable
//! before the next, in an order in which a run that was stopped can be made again: the epoch
//! rises first, then the chain gives up the lines, then segments go, the newest first, so that
//! what is left is always a beginning of the history.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use dramatis_events::{Epoch, UnixMillis};

use super::check::{CHAIN, read_chain};
use super::walk::{Files, Tail, each_segment};
use super::{Findings, Observer, OfflineError, Place, Quiet, last_header, parse_index_name, survey};
use crate::dirs;
use crate::log::embedded::OpenError;
use crate::log::embedded::epoch;
use crate::log::embedded::format::{parse_segment_name, segment_name};
use crate::log::embedded::recovery::{MISSING_AFTER, lost_after, recover};
use crate::log::embedded::storage::read_up_to;

/// What a repair would do, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The epoch of the history that is left.
    pub epoch: Epoch,
    /// Whether its file did not read back: the segments tell the log's id and an earlier counter, so
    /// a new epoch begins even if nothing is cut.
    pub epoch_lost: bool,
    /// The first position that is not kept: so many events are.
    pub kept: u64,
    /// Where history is cut; `None` if all of it reads back.
    pub cut: Option<Cut>,
    /// Segments behind whose end, here, stand bytes that belong to nothing: these are cut off.
    pub stray: Vec<(String, u64)>,
    /// Whether the last segment has an unfinished tail, which opening the log cuts by itself.
    pub unfinished: bool,
    /// Whether the chain is broken; it is left so.
    pub chain_broken: bool,
}

/// Where history is cut, and what is behind that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment that holds the first damage.
    pub file: String,
    /// Where its last whole batch ends: it is cut here, or moved aside whole if this is 0.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
    /// The position after the last event that is known of.
    pub next_position: u64,
    /// Batches behind the cut that read back and are lost all the same.
    pub whole_batches: u64,
    /// Events behind the cut that read back and are lost all the same.
    pub whole_events: u64,
    /// Bytes behind the cut.
    pub bytes: u64,
    /// The segments behind that one, which are moved aside whole.
    pub later: Vec<String>,
}

impl Repair {
    /// Whether the log does not open without it.
    pub fn is_needed(&self) -> bool {
        self.cut.is_some() || self.epoch_lost
    }
}

/// Says what a repair would do. It takes the lock, but changes nothing.
pub fn plan(place: &Place, observer: &mut dyn Observer) -> Result<Repair, OfflineError> {
    let _lock = match place.lock() {
        // What a dying disk still holds may be looked at: nobody writes there any more.
        Err(OfflineError::Open(OpenError::Io { error, .. }))
            if error.kind() == io::ErrorKind::ReadOnlyFilesystem =>
        {
            Vec::new()
        }
        lock => lock?,
    };
    Ok(look(place, observer)?.1)
}

/// Cuts history at its first damage and moves what is cut into this new folder of the log's
/// directory, and of the cold tier's. Afterwards the log opens.
pub fn cut(
    place: &Place,
    folder: &str,
    now: UnixMillis,
    observer: &mut dyn Observer,
) -> Result<Repair, OfflineError> {
    let _lock = place.lock()?;
    let (files, mut repair) = look(place, observer)?;
    for (name, end) in &repair.stray {
        let file = files.storage.open(name).map_err(OfflineError::io(name))?;
        file.set_size(*end).and_then(|()| file.sync()).map_err(OfflineError::io(name))?;
    }
    let make = || Folders::make(place, folder).map_err(OfflineError::io(folder));
    let folders = repair.cut.is_some().then(make).transpose()?;
    if repair.is_needed() {
        // A copy of this log may be repaired as well, and keep something else.
        repair.epoch = epoch::apart(repair.epoch, now);
        epoch::write(&*files.storage, repair.epoch).map_err(OfflineError::io(epoch::FILE))?;
        void_lines(&files, repair.cut.as_ref(), repair.epoch)?;
    }
    if let (Some(cut), Some(folders)) = (&repair.cut, folders) {
        folders.take_indexes(&files, cut)?;
        for name in cut.later.iter().rev() {
            folders.take(name).map_err(OfflineError::io(name))?;
        }
        folders.shorten(&files, cut).map_err(OfflineError::io(&cut.file))?;
    }
    recover(&files.storage, repair.epoch, u64::MAX)?;
    Ok(repair)
}

/// Walks the log up to its first damage, and on to count what is lost.
fn look(place: &Place, observer: &mut dyn Observer) -> Result<(Files, Repair), OfflineError> {
    let mut findings = Findings::new(observer);
    let (files, epoch) = survey(place, &mut findings)?;
    let chain = read_chain(&*files.storage, &mut Findings::new(&mut Quiet))?;
    let mut repair = Repair {
        epoch: epoch.map_or_else(|| last_known(&files), Ok)?,
        epoch_lost: epoch.is_none(),
        kept: 0,
        cut: None,
        stray: Vec::new(),
        unfinished: false,
        chain_broken: !chain.whole,
    };
    // Batches are numbered from 1.
    let (mut kept_batches, mut end) = (0, 0);
    each_segment(&files, &mut findings, |walked, _| {
        let next_position = walked.next.map_or(0, |next| next.position);
        if let Some(cut) = &mut repair.cut {
            cut.whole_batches += walked.batches;
            cut.whole_events += walked.events;
            cut.next_position = cut.next_position.max(next_position);
            cut.bytes += walked.size;
            cut.later.push(walked.name);
            return Ok(());
        }
        let (mut offset, mut batches, mut events) = (0, 0, 0);
        if walked.header {
            offset = walked.facts.end;
            batches = walked.facts.next_batch.saturating_sub(kept_batches + 1);
            events = u64::from(walked.facts.count);
        }
        repair.kept += events;
        kept_batches += batches;
        end = offset;
        match walked.tail {
            Tail::Stray if walked.broken.is_none() => repair.stray.push((walked.name.clone(), offset)),
            Tail::Unfinished(_) => repair.unfinished = true,
            _ => {}
        }
        if let Some(reason) = walked.broken {
            repair.cut = Some(Cut {
                file: walked.name,
                offset,
                reason,
                next_position: next_position.max(repair.kept),
                whole_batches: walked.batches.saturating_sub(batches),
                whole_events: walked.events.saturating_sub(events),
                bytes: walked.size.saturating_sub(offset),
                later: Vec::new(),
            });
        }
        Ok(())
    })?;
    let last = files.firsts.last().copied();
    if repair.cut.is_none() && chain.whole && lost_after(&chain.lines, last).is_some() {
        repair.cut = Some(Cut {
            file: segment_name(last.unwrap_or(0)),
            offset: end,
            reason: MISSING_AFTER.to_owned(),
            next_position: repair.kept,
            whole_batches: 0,
            whole_events: 0,
            bytes: 0,
            later: Vec::new(),
        });
    }
    Ok((files, repair))
}

/// The last epoch that segments tell of.
fn last_known(files: &Files) -> Result<Epoch, OfflineError> {
    let header = last_header(&*files.storage, &files.firsts)?.ok_or_else(|| OpenError::Damaged {
        file: epoch::FILE.to_owned(),
        offset: 0,
        reason: "it names the log, and no segment's header is left to tell it".to_owned(),
    })?;
    Ok(Epoch::new(header.log, header.counter))
}

/// Notes the epoch in the chain, and the cut before anything is cut: lines that are then missing are
/// added when the log is opened, while lines of segments that are gone would be damage.
fn void_lines(files: &Files, cut: Option<&Cut>, epoch: Epoch) -> Result<(), OfflineError> {
    let chain = read_chain(&*files.storage, &mut Findings::new(&mut Quiet))?;
    if !chain.whole {
        return Ok(());
    }
    let open_first = cut.map_or(files.firsts.last().copied(), |cut| {
        let cut_first = parse_segment_name(&cut.file).unwrap_or(0);
        let before = || files.firsts.iter().copied().filter(|first| *first < cut_first).max();
        if cut.offset == 0 { before() } else { Some(cut_first) }
    });
    let mut lines = chain.lines;
    lines.add_anchor("repair", epoch, open_first.unwrap_or(0));
    lines.write(&*files.storage).map_err(OfflineError::io(CHAIN))
}

/// Where what is cut lies afterwards: beside where it was, so that a rename brings it there.
struct Folders(Vec<(PathBuf, PathBuf)>);

impl Folders {
    fn make(place: &Place, folder: &str) -> io::Result<Self> {
        let mut folders = Vec::new();
        for dir in [Some(&place.dir), place.cold.as_ref()].into_iter().flatten() {
            let aside = dir.join(folder);
            dirs::make_new(&aside)?;
            folders.push((dir.clone(), aside));
        }
        Ok(Self(folders))
    }

    /// Moves a file aside, wherever it lies; there may be none.
    fn take(&self, name: &str) -> io::Result<()> {
        for (dir, aside) in &self.0 {
            if dir.join(name).exists() {
                std::fs::rename(dir.join(name), aside.join(name))?;
                dirs::sync(aside)?;
                dirs::sync(dir)?;
            }
        }
        Ok(())
    }

    /// Moves the indexes of the cut segments aside: positions will be used again, and an index must
    /// not wait for a segment that is not its own.
    fn take_indexes(&self, files: &Files, cut: &Cut) -> Result<(), OfflineError> {
        let first = parse_segment_name(&cut.file).unwrap_or(0);
        let is_cut = |name: &&String| parse_index_name(name).is_some_and(|index| index >= first);
        for name in files.names.iter().rev().filter(is_cut) {
            self.take(name).map_err(OfflineError::io(name))?;
        }
        Ok(())
    }

    /// Leaves of the damaged segment what is whole, in the log's own directory, since it is the open
    /// one from now on.
    fn shorten(&self, files: &Files, cut: &Cut) -> io::Result<()> {
        let name = &cut.file;
        if cut.offset == 0 {
            return self.take(name);
        }
        let file = files.storage.open(name)?;
        let whole = read_up_to(&*file, 0, cut.offset)?;
        for (dir, aside) in &self.0 {
            if dir.join(name).exists() {
                // A second name needs no room and no reading; the first one is given to the new file.
                let (old, kept) = (dir.join(name), aside.join(name));
                std::fs::hard_link(&old, &kept).or_else(|_| std::fs::copy(&old, &kept).map(|_| ()))?;
                File::open(kept)?.sync_all()?;
                dirs::sync(aside)?;
            }
        }
        files.storage.replace(name, &whole)?;
        for (dir, _) in self.0.iter().skip(1).filter(|(dir, _)| dir.join(name).exists()) {
            std::fs::remove_file(dir.join(name))?;
            dirs::sync(dir)?;
        }
        Ok(())
    }
}
