//! The seam under the engine: the few file operations it needs, on real files or simulated.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;

use crate::dirs;

/// A directory of files, of which closed segments may lie in a second one, the cold tier.
pub(super) trait Storage: Send + Sync + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that exists, to read it and, if that is allowed, to write it.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Creates a file, empty; its name is durable after [`Storage::sync_names`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Puts a whole small file in place, atomically and durably.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file; whether it is gone for good is certain after [`Storage::sync_names`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created and removed names durable.
    fn sync_names(&self) -> io::Result<()>;
    /// How full the disk is.
    fn space(&self) -> io::Result<Space>;
    /// Moves a file that never changes to the cold tier, durably; it can be opened all the while.
    /// `false` if there is no cold tier or it lies there already.
    fn cool(&self, name: &str) -> io::Result<bool>;
    /// Brings a file back from the cold tier, durably, if it lies there: it is to be written to.
    fn warm(&self, name: &str) -> io::Result<()>;
}

/// What an error names if the names of files cannot be read or made durable.
pub(super) const DIRECTORY: &str = "the log's directory";
/// Bytes of a whole file that are synced at a time: a file system may hold up the sync of one
/// file, such as the open segment, by all that another has yet to write.
const PIECE_BYTES: usize = 512 * 1024;

/// How full a disk is, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub(super) free: u64,
    pub(super) total: u64,
}

impl Space {
    /// Why so many bytes must not be written, if they must not: a reserve would be touched. On a
    /// small disk it is a twentieth of that.
    pub(super) fn refuses(self, bytes: u64, reserve: u64) -> Option<String> {
        let reserve = reserve.min(self.total / 20);
        (self.free < reserve.saturating_add(bytes)).then(|| {
            format!(
                "the disk has {} bytes free, but {reserve} are kept in reserve (log.reserve_bytes) and {bytes} more \
                 are needed: free some space, appends then go on by themselves",
                self.free
            )
        })
    }
}

/// One file, written and read by offset.
pub(super) trait StoredFile: Send + Sync + 'static {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of it; durable only after a sync.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends it to this length; durable only after a sync.
    fn set_size(&self, len: u64) -> io::Result<()>;
    /// Makes what was written durable, with the length that reading it needs.
    fn sync(&self) -> io::Result<()>;
}

/// Real files in one directory, and in a second one if there is a cold tier.
pub(super) struct Directory {
    hot: PathBuf,
    cold: Option<PathBuf>,
    /// Held from the first time on: a file that took the last one that the process may have open is
    /// made durable all the same.
    names: OnceLock<File>,
    /// Whether names in the cold tier changed that are not durable yet.
    is_cold_changed: AtomicBool,
}

impl Directory {
    pub(super) fn new(hot: &Path, cold: Option<&Path>) -> Self {
        let (names, is_cold_changed) = (OnceLock::new(), AtomicBool::new(false));
        Self { hot: hot.to_owned(), cold: cold.map(Path::to_owned), names, is_cold_changed }
    }

    /// What is synced for names in the log's own directory.
    fn names(&self) -> io::Result<&File> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let opened = File::open(&self.hot)?;
        Ok(self.names.get_or_init(|| opened))
    }

    fn try_open(path: &Path) -> io::Result<File> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error)
                if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) =>
            {
                File::open(path)
            }
            opened => opened,
        }
    }
}

fn names_in(dir: &Path, names: &mut Vec<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(())
}

/// Puts a file in place by way of this one, which is not left behind: on a full disk it would take
/// the room that is lacking.
fn staging(staged: &Path, put: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    put().inspect_err(|_| {
        // What cannot be removed either is written over next time.
        let _ = std::fs::remove_file(staged);
    })
}

/// Moves a file between file systems: it is there, whole, before it is gone here.
fn move_over(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    let (here, there, staged) = (from.join(name), to.join(name), to.join(format!("{name}.tmp")));
    staging(&staged, || {
        let mut copied = dirs::create_file(&staged)?;
        io::copy(&mut File::open(&here)?, &mut copied)?;
        copied.sync_all()?;
        std::fs::rename(&staged, &there)
    })?;
    dirs::sync(to)?;
    std::fs::remove_file(&here)?;
    dirs::sync(from)
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut all = Vec::new();
        names_in(&self.hot, &mut all)?;
        if let Some(cold) = &self.cold {
            names_in(cold, &mut all)?;
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        match (Self::try_open(&self.hot.join(name)), &self.cold) {
            (Err(error), Some(cold)) if error.kind() == ErrorKind::NotFound => {
                Ok(Arc::new(Self::try_open(&cold.join(name))?))
            }
            (opened, _) => Ok(Arc::new(opened?)),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        // What cannot be made durable is not begun.
        self.names()?;
        Ok(Arc::new(dirs::create_file(&self.hot.join(name))?))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let staged = self.hot.join(format!("{name}.tmp"));
        staging(&staged, || {
            let mut file = dirs::create_file(&staged)?;
            for piece in bytes.chunks(PIECE_BYTES) {
                file.write_all(piece)?;
                file.sync_data()?;
            }
            file.sync_all()?;
            std::fs::rename(&staged, self.hot.join(name))
        })?;
        self.sync_names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match (std::fs::remove_file(self.hot.join(name)), &self.cold) {
            (Err(error), Some(cold)) if error.kind() == ErrorKind::NotFound => {
                std::fs::remove_file(cold.join(name))?;
                self.is_cold_changed.store(true, Ordering::Relaxed);
                Ok(())
            }
            (removed, _) => removed,
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        self.names()?.sync_all()?;
        match &self.cold {
            Some(cold) if self.is_cold_changed.load(Ordering::Relaxed) => {
                dirs::sync(cold)?;
                self.is_cold_changed.store(false, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.hot)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }

    fn cool(&self, name: &str) -> io::Result<bool> {
        let Some(cold) = self.cold.as_ref().filter(|_| self.hot.join(name).exists()) else {
            return Ok(false);
        };
        move_over(&self.hot, cold, name).map(|()| true)
    }

    fn warm(&self, name: &str) -> io::Result<()> {
        match &self.cold {
            Some(cold) if !self.hot.join(name).exists() && cold.join(name).exists() => {
                move_over(cold, &self.hot, name)
            }
            _ => Ok(()),
        }
    }
}

impl StoredFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset).map_err(read_only)
    }

    fn set_size(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// What a write to a file came to that could be opened for reading only, see [`Directory::try_open`].
fn read_only(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) {
        let reason =
            "this process may read it, but not write it: see its owner and mode, and how its disk is mounted";
        return io::Error::new(ErrorKind::PermissionDenied, reason);
    }
    error
}

/// Reads at most `len` bytes from `offset`, fewer at the end of the file, which may be cut to its
/// batches meanwhile.
pub(super) fn read_up_to(file: &dyn StoredFile, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut size = file.size()?;
    loop {
        let left = size.saturating_sub(offset).min(len);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX)];
        let Err(error) = file.read_exact_at(&mut bytes, offset) else { return Ok(bytes) };
        let before = std::mem::replace(&mut size, file.size()?);
        if error.kind() != ErrorKind::UnexpectedEof || size >= before {
            return Err(error);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    /// A file that is cut to this length between the look at its size and the first read.
    struct Cut(File, u64);

    impl StoredFile for Cut {
        fn size(&self) -> io::Result<u64> {
            self.0.size()
        }
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.set_len(self.1)?;
            StoredFile::read_exact_at(&self.0, buffer, offset)
        }
        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            panic!("nothing is written")
        }
        fn set_size(&self, _: u64) -> io::Result<()> {
            panic!("it is cut by another")
        }
        fn sync(&self) -> io::Result<()> {
            panic!("nothing is synced")
        }
    }

    #[test]
    fn a_file_that_may_only_be_read_says_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "read").unwrap();
        let file = File::open(dir.path().join("file")).unwrap();
        let error = StoredFile::write_all_at(&file, b"written", 0).unwrap_err();
        assert!(
            error.kind() == ErrorKind::PermissionDenied && error.to_string().contains("mounted"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_cut_meanwhile_is_read_as_it_is_then() {
        for (offset, len, read) in [(0, 100, 40), (30, 100, 10), (50, 100, 0), (10, 20, 20)] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[7; 60]).unwrap();
            assert_eq!(read_up_to(&Cut(file, 40), offset, len).unwrap(), vec![7; read]);
        }
    }

    #[test]
    fn files_are_their_owners_alone_wherever_they_are_made() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let dir = tempfile::tempdir().unwrap();
        let (hot, cold) = (dir.path().join("hot"), dir.path().join("cold"));
        for path in [&hot, &cold] {
            std::fs::create_dir(path).unwrap();
        }
        // As earlier releases made them.
        std::fs::write(hot.join("old"), "bytes").unwrap();
        std::fs::set_permissions(hot.join("old"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let storage = Directory::new(&hot, Some(&cold));
        storage.create("segment").unwrap();
        storage.replace("chain", b"lines").unwrap();
        storage.cool("old").unwrap();
        for path in [hot.join("segment"), hot.join("chain"), cold.join("old")] {
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{path:?}");
        }
        assert_eq!(std::fs::read(cold.join("old")).unwrap(), b"bytes");
    }

    #[test]
    fn what_could_not_be_put_in_place_is_not_left_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let (hot, cold) = (dir.path().join("hot"), dir.path().join("cold"));
        for path in [&hot, &cold, &hot.join("chain"), &cold.join("segment")] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(hot.join("segment"), "bytes").unwrap();
        let storage = Directory::new(&hot, Some(&cold));
        storage.replace("chain", b"lines").unwrap_err();
        storage.cool("segment").unwrap_err();
        assert_eq!(storage.list().unwrap(), ["chain", "segment"]);
        assert_eq!(std::fs::read(hot.join("segment")).unwrap(), b"bytes");
    }
}
