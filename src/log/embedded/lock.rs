//! The one process that owns a directory holds its file `LOCK`, which names it, and the directory
//! itself: somebody may remove the file, taking it for what a crash left behind.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

use super::{OpenError, tier};
use crate::dirs;

/// What is locked until this is dropped.
pub(super) struct Lock {
    _file: File,
    _dir: Option<File>,
}

/// Takes the directory, or says who has it.
fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let path = dir.join("LOCK");
    let made = dirs::make_file(&path);
    let file = made.and_then(|()| File::options().read(true).write(true).open(&path));
    take(dir, file.map_err(OpenError::io(path.display()))?)
}

/// Takes a cold tier. It is read from for the most part, so a disk that became read-only, as they do
/// after an error, keeps nobody from that.
fn lock_cold(dir: &Path) -> Result<Lock, OpenError> {
    match lock(dir) {
        Err(OpenError::Io { error, .. })
            if error.kind() == ErrorKind::ReadOnlyFilesystem
                && let Ok(file) = File::open(dir.join("LOCK")) =>
        {
            tracing::warn!(%error, "the cold tier takes no more segments");
            take(dir, file)
        }
        locked => locked,
    }
}

fn take(dir: &Path, mut file: File) -> Result<Lock, OpenError> {
    let held = match file.try_lock() {
        Ok(()) => hold(dir),
        Err(TryLockError::WouldBlock) => Err(in_use()),
        Err(TryLockError::Error(error)) => return Err(OpenError::NoLocks { dir: dir.to_owned(), error }),
    };
    if held.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        let mut owner = String::new();
        let _ = file.read_to_string(&mut owner);
        let owner =
            owner.lines().next().filter(|line| !line.is_empty()).unwrap_or("another process").to_owned();
        return Err(OpenError::InUse { owner });
    }
    // It is held all the same if a full disk has no room for who does.
    if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id())) {
        tracing::warn!(%error, "the lock file does not name this process");
    }
    // Not every file system locks directories.
    Ok(Lock { _file: file, _dir: held.ok() })
}

/// Takes the log's own directory and its cold tier: each has a lock, for a log and a copy of it would
/// have two of the one and share the other.
pub(super) fn lock_both(dir: &Path, cold: Option<&Path>) -> Result<Vec<Lock>, OpenError> {
    let mut locks = vec![lock(dir)?];
    // Another log's cold tier gets no lock file.
    tier::check(dir, cold)?;
    if let Some(cold) = cold {
        locks.push(lock_cold(cold).map_err(|error| match error {
            OpenError::InUse { owner } => OpenError::TierInUse { dir: cold.to_owned(), owner },
            other => other,
        })?);
    }
    Ok(locks)
}

fn hold(dir: &Path) -> io::Result<File> {
    let dir = File::open(dir)?;
    match dir.try_lock() {
        Ok(()) => Ok(dir),
        Err(TryLockError::WouldBlock) => Err(in_use()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn in_use() -> io::Error {
    ErrorKind::WouldBlock.into()
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::OFlags;

    use super::*;

    #[test]
    fn what_cannot_be_locked_is_not_said_to_be_in_use() {
        let dir = tempfile::tempdir().unwrap();
        // Names a file and nothing more: it takes a lock as little as one of some file systems.
        let flags = i32::try_from(OFlags::PATH.bits()).unwrap();
        let file = File::options().read(true).custom_flags(flags).open(dir.path()).unwrap();
        let Err(error) = take(dir.path(), file) else { panic!("it was locked") };
        let told = error.to_string();
        assert!(matches!(error, OpenError::NoLocks { .. }) && told.contains("cannot be locked"), "{told}");
    }
}
