//! Looking after a log's files without serving them: `verify` and `info` read only and may run
//! beside a server; `reindex` and `repair` take the directory's lock.
//!
//! Nothing here trusts an index or what an earlier run found: it is the segments' own bytes
//! that are walked. What is found is told as it is found, so that a stopped run has told all
//! it saw. Memory is bounded by one segment's index and its longest batch.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use dramatis_events::Epoch;
use rustix::io::Errno;

use self::walk::Files;
use super::OpenError;
use super::epoch;
use super::format::{SegmentHeader, parse_segment_name, segment_name};
use super::lock::{Lock, lock_both};
use super::recovery;
use super::storage::{DIRECTORY, Directory, Storage};
use super::tier;
use crate::log::Header;

mod check;
mod info;
mod reindex;
mod repair;
mod walk;
mod within;

pub use self::check::{Verified, verify};
pub use self::info::{Info, info};
pub use self::reindex::{Reindexed, reindex};
pub use self::repair::{Cut, Repair, cut, plan};

/// Where a log's files are.
#[derive(Debug, Clone)]
pub struct Place {
    /// The log's own directory.
    pub dir: PathBuf,
    /// The cold tier, if there is one.
    pub cold: Option<PathBuf>,
}

/// Stored bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Where in the file: the record, header or line that holds it begins there.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Follows a walk while it goes on.
pub trait Observer {
    /// So many bytes of segments will be walked.
    fn begin(&mut self, bytes: u64);
    /// So many more of them are.
    fn advance(&mut self, bytes: u64);
    /// Damage was found.
    fn damage(&mut self, damage: &Damage);
    /// Something worth knowing that is no damage.
    fn note(&mut self, note: &str);
    /// An event read back.
    fn event(&mut self, _header: &Header<'_>, _position: u64, _revision: u64) {}
}

/// Why an offline command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is nothing to look after.
    #[error("there is no log in {dir}: name the data directory of `dramatis serve` with --data or --config")]
    NoLog {
        /// The directory.
        dir: PathBuf,
    },
    /// A part of the log is out of reach.
    #[error("the cold tier {dir} (log.cold_dir) is not there: mount it, or correct the setting")]
    NoColdTier {
        /// The directory.
        dir: PathBuf,
    },
    /// The files are another process's, or a newer release's.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system does not read or write.
    #[error("{file}: {error}")]
    Io {
        /// The file's name.
        file: String,
        /// What the system said.
        error: io::Error,
    },
}

impl OfflineError {
    fn io(file: &str) -> impl Fn(io::Error) -> Self + use<> {
        let file = file.to_owned();
        move |error| Self::Io { file: file.clone(), error }
    }
}

impl Place {
    fn storage(&self) -> Result<Arc<dyn Storage>, OfflineError> {
        match std::fs::read_dir(&self.dir) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(OfflineError::io(&self.dir.display().to_string())(error));
            }
            Err(_) => return Err(OfflineError::NoLog { dir: self.dir.clone() }),
            Ok(_) => {}
        }
        if let Some(cold) = self.cold.as_ref().filter(|cold| !cold.is_dir()) {
            return Err(OfflineError::NoColdTier { dir: cold.clone() });
        }
        tier::check(&self.dir, self.cold.as_deref())?;
        Ok(Arc::new(Directory::new(&self.dir, self.cold.as_deref())))
    }

    fn is_cold(&self, name: &str) -> bool {
        self.cold.is_some() && !self.dir.join(name).exists()
    }

    /// Takes the directories from every server until the locks are dropped.
    fn lock(&self) -> Result<Vec<Lock>, OfflineError> {
        // A directory without a log gets no lock file.
        survey(self, &mut Findings::new(&mut Quiet))?;
        Ok(lock_both(&self.dir, self.cold.as_deref())?)
    }
}

/// Follows a walk without a word: what it finds is told elsewhere.
struct Quiet;

impl Observer for Quiet {
    fn begin(&mut self, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn damage(&mut self, _: &Damage) {}
    fn note(&mut self, _: &str) {}
}

/// Tells what is found and counts it.
struct Findings<'a> {
    observer: &'a mut dyn Observer,
    damaged: u64,
}

impl<'a> Findings<'a> {
    fn new(observer: &'a mut dyn Observer) -> Self {
        Self { observer, damaged: 0 }
    }

    fn damage(&mut self, file: &str, offset: u64, reason: impl Into<String>) {
        self.damaged += 1;
        self.observer.damage(&Damage { file: file.to_owned(), offset, reason: reason.into() });
    }
}

/// What is to be walked, and the epoch if its file reads back; damage to that is told.
fn survey(place: &Place, findings: &mut Findings<'_>) -> Result<(Files, Option<Epoch>), OfflineError> {
    let storage = place.storage()?;
    let names = storage.list().map_err(OfflineError::io(DIRECTORY))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    firsts.sort_unstable();
    let epoch = match epoch::read(&*storage, &names) {
        Ok(None) if firsts.is_empty() => return Err(OfflineError::NoLog { dir: place.dir.clone() }),
        Ok(None) => Err("it is missing, although there are segments".to_owned()),
        Ok(Some(read)) => read,
        Err(error) => Err(unread(epoch::FILE, error)?),
    };
    let epoch = epoch.map_err(|reason| findings.damage(epoch::FILE, 0, reason)).ok();
    let log = match epoch {
        Some(epoch) => epoch.log(),
        None => last_header(&*storage, &firsts)?.map_or(0, |header| header.log),
    };
    Ok((Files { storage, names, firsts, log }, epoch))
}

/// Why a file that is not walked byte by byte is damaged, if it is for the disk, or for what stands in
/// its place, that it does not read. Whatever else is in the way, such as a permission, says nothing of
/// what was written.
fn unread(file: &str, error: io::Error) -> Result<String, OfflineError> {
    if [Errno::IO, Errno::ISDIR].iter().any(|gone| error.raw_os_error() == Some(gone.raw_os_error())) {
        return Ok(format!("the disk does not give it back: {error}"));
    }
    Err(OfflineError::io(file)(error))
}

/// The header with the highest counter of the log that the first header is of which reads back.
fn last_header(storage: &dyn Storage, firsts: &[u64]) -> Result<Option<SegmentHeader>, OfflineError> {
    let mut last: Option<SegmentHeader> = None;
    for first in firsts {
        let found = recovery::header(storage, *first).map_err(OfflineError::io(&segment_name(*first)))?;
        let is_later = |found: &SegmentHeader| {
            last.is_none_or(|last| found.log == last.log && found.counter > last.counter)
        };
        last = found.filter(is_later).or(last);
    }
    Ok(last)
}

/// The first position that an index's file name tells.
fn parse_index_name(name: &str) -> Option<u64> {
    parse_segment_name(&format!("{}.segment", name.strip_suffix(".index")?))
}
