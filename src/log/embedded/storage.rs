//! The seam under the engine: the few file operations it needs, on real files or simulated.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
}

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
                "the disk has {} bytes free, of which {reserve} are kept in reserve (log.reserve_bytes): free some \
                 space, appends then go on by themselves",
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
}

impl Directory {
    pub(super) fn new(hot: &Path, cold: Option<&Path>) -> Self {
        Self { hot: hot.to_owned(), cold: cold.map(Path::to_owned) }
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

/// Makes the names of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
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
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).clone();
        Ok(Arc::new(options.open(self.hot.join(name))?))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let staged = self.hot.join(format!("{name}.tmp"));
        let mut file = File::create(&staged)?;
        for piece in bytes.chunks(PIECE_BYTES) {
            file.write_all(piece)?;
            file.sync_data()?;
        }
        file.sync_all()?;
        std::fs::rename(&staged, self.hot.join(name))?;
        self.sync_names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match (std::fs::remove_file(self.hot.join(name)), &self.cold) {
            (Err(error), Some(cold)) if error.kind() == ErrorKind::NotFound => {
                std::fs::remove_file(cold.join(name))
            }
            (removed, _) => removed,
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_dir(&self.hot)?;
        self.cold.as_deref().map_or(Ok(()), sync_dir)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.hot)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }

    fn cool(&self, name: &str) -> io::Result<bool> {
        let hot = self.hot.join(name);
        let Some(cold) = self.cold.as_ref().filter(|_| hot.exists()) else { return Ok(false) };
        let (there, staged) = (cold.join(name), cold.join(format!("{name}.tmp")));
        std::fs::copy(&hot, &staged)?;
        File::open(&staged)?.sync_all()?;
        std::fs::rename(&staged, &there)?;
        sync_dir(cold)?;
        std::fs::remove_file(&hot)?;
        sync_dir(&self.hot)?;
        Ok(true)
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
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_size(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Reads at most `len` bytes from `offset`, fewer at the end of the file.
pub(super) fn read_up_to(file: &dyn StoredFile, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let left = file.size()?.saturating_sub(offset).min(len);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
