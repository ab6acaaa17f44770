//! Why a directory does not open as a log.

use std::io;
use std::path::PathBuf;

use super::format;

/// Why a directory does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the log is in use by {owner}: stop that first, or choose another data directory")]
    InUse {
        /// What the owner wrote into the lock file.
        owner: String,
    },
    /// Another process has the cold tier.
    #[error(
        "the cold tier {} is in use by {owner}: stop that first, or set log.cold_dir to this log's own",
        dir.display()
    )]
    TierInUse {
        /// The cold tier's directory.
        dir: PathBuf,
        /// What the owner wrote into the lock file.
        owner: String,
    },
    /// Its file system has no locks, or not here.
    #[error(
        "{} cannot be locked ({error}), and without that two processes might write there: choose a directory on a \
         file system that has locks",
        dir.display()
    )]
    NoLocks {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Acknowledged bytes do not read back.
    #[error(
        "{file} is damaged at byte {offset}: {reason}; what was acknowledged is never cut silently: `dramatis log verify` lists all damage, restore the file from a backup or see `dramatis log repair --help`"
    )]
    Damaged {
        /// The file's name.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer release.
    #[error(
        "{file} has format version {version}, newer than this release reads ({}): upgrade",
        format::VERSION
    )]
    Newer {
        /// The file's name.
        file: String,
        /// Its version.
        version: u8,
    },
    /// The cold tier holds another history.
    #[error(
        "{} is not this log's cold tier: set log.cold_dir to the one it has, or to an empty directory if it has none. A restored log begins with an empty one; of a log and a copy of it only the one that is opened first keeps it, so make a second log by `dramatis backup restore`",
        dir.display()
    )]
    OtherTier {
        /// The cold tier's directory.
        dir: PathBuf,
    },
    /// Segments were moved to a cold tier that is not there.
    #[error(
        "older segments are in the log's cold tier, and {}: set log.cold_dir to it and see that it is mounted",
        dir.as_ref().map_or_else(
            || "log.cold_dir is not set".to_owned(),
            |dir| format!("{} is not it: nothing is there", dir.display()),
        )
    )]
    AwayTier {
        /// Where it was looked for, if anywhere.
        dir: Option<PathBuf>,
    },
    /// The cold tier and the log's own directory are one.
    #[error("{} is the log's own directory, where nothing can move to: set log.cold_dir to another one", dir.display())]
    OwnTier {
        /// The directory.
        dir: PathBuf,
    },
    /// The system does not read or write.
    #[error("{what}: {error}")]
    Io {
        /// The file, or what else was asked of the system.
        what: String,
        /// What it said.
        error: io::Error,
    },
}

impl OpenError {
    /// The system's error over a file or a directory.
    pub(super) fn io(what: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what: what.to_string(), error }
    }
}
