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
        "{} is not this log's cold tier: set log.cold_dir to the one it has, or to an empty directory if it has none; a restored log begins with an empty one",
        dir.display()
    )]
    OtherTier {
        /// The cold tier's directory.
        dir: PathBuf,
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
