//! Backups of the embedded log: taken while it is in use, restored into an empty directory.
//!
//! A *store* is a directory of backups. Closed segments never change, so each is kept once,
//! named by its first position and the hash of its bytes, and shared by all backups that hold
//! it; what the open segment holds is copied each time. A backup is whole once its manifest is
//! there, which is written last.
//!
//! ```text
//! <store>/segments/<first position>-<hash>.segment
//! <store>/<name>/tail.segment     what the open segment held
//! <store>/<name>/chain            the chain of segment hashes
//! <store>/<name>/b3sums           the hashes of the chain and of the manifest, as `b3sum` has them
//! <store>/<name>/manifest.json    what belongs to the backup, and the hash of each part
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::dirs;

mod create;
mod manifest;
mod restore;

pub use create::{Source, Wanted, create};
pub use manifest::{Listed, Manifest, Part, list, verify};
pub use restore::{Restored, UNFINISHED, Until, restore};

/// Why a backup is not made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log's own bytes do not read back.
    #[error("the log cannot be backed up: {0}")]
    Log(OpenError),
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A part of a backup is not what was put there.
    #[error("{path} is damaged: {reason}; restore another backup, and make a new one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A segment that backups share is not what was put there.
    #[error(
        "{path} is damaged: {reason}; remove that file if it is there and make another backup: if the log has the segment still \
         it is copied again, for all backups that hold it"
    )]
    DamagedSegment {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer release.
    #[error("{path} has format {format}, newer than this release reads ({}): upgrade", Manifest::FORMAT)]
    Newer {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// There is nothing to restore.
    #[error("there are no backups in {dir}, which is not there: name their directory with --store")]
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// There is nothing to back up.
    #[error("{dir} holds no log: name the server's data directory with --data")]
    NoLog {
        /// The directory.
        dir: PathBuf,
    },
    /// Backups would be made among the log's own files.
    #[error("{store} lies in {log}, where the log itself is: name another directory with --store")]
    InLog {
        /// The store.
        store: PathBuf,
        /// The log's directory.
        log: PathBuf,
    },
    /// There is no such backup.
    #[error("there is no backup {name} in {store}: `dramatis backup list` shows what there is")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where.
        store: PathBuf,
    },
    /// Something is where a restore would write.
    #[error(
        "{dir} is not empty, {found}: restore into a directory that is empty or not there, then point the server at it"
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
    /// A backup would be made where something else is.
    #[error(
        "{dir} is there and no backup, {} is in it: choose another name, or another store",
        found.display()
    )]
    Occupied {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: std::ffi::OsString,
    },
    /// `latest` could be of another log.
    #[error(
        "{store} has backups of {logs} logs, `latest` does not say of which: name the backup, see `dramatis backup list`"
    )]
    Ambiguous {
        /// The store.
        store: PathBuf,
        /// How many.
        logs: usize,
    },
    /// Which history `latest` is of is not certain.
    #[error(
        "by its time {by_time} is the latest backup in {store}, but {by_epoch} is of a history that was begun later: \
         a clock was set back, or both go on. Name the backup, see `dramatis backup list`"
    )]
    Uncertain {
        /// The store.
        store: PathBuf,
        /// The one that was made last.
        by_time: String,
        /// One of the history that was begun last.
        by_epoch: String,
    },
    /// A backup of this name is there already, or on its way.
    #[error("there is a backup {name} already, or it is being made: choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// The backup ends before the point that was asked for, or begins after it.
    #[error("the backup does not reach {asked}: it holds {holds}")]
    OutOfReach {
        /// The point.
        asked: String,
        /// What there is.
        holds: String,
    },
    /// A name that cannot be a directory's.
    #[error(
        "a backup's name must have 1 to 64 of a-z A-Z 0-9 . _ -, begin with a letter or digit and be neither `latest` \
         nor `segments`; got {0:?}"
    )]
    Name(String),
}

/// Told how many bytes are done, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |error| BackupError::Io { path, error }
}

// Not by `#[from]`: its text would be told once more as the source.
impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        Self::Log(error)
    }
}

impl BackupError {
    /// Whether bytes are not what they were.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::DamagedSegment { .. })
    }
}

fn make_dir(dir: &Path) -> Result<(), BackupError> {
    dirs::make(dir).map_err(at(dir))
}

fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    dirs::sync(dir).map_err(at(dir))
}

/// Writes a file beside its place, syncs it, and puts it there.
fn put(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    use std::io::Write as _;
    let staged = path.with_extension("tmp");
    let mut file = dirs::create_file(&staged).map_err(at(&staged))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(&staged))?;
    std::fs::rename(&staged, path).map_err(at(path))
}
