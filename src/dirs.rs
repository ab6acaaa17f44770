//! Making directories for data: durable, since what is in them counts only if they are there after
//! a power failure, and for their owner alone, since what people say to each other is in them.
//! Files of data that lie in directories of others are for their owner alone as well.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The mode of directories that are made; one that is there keeps its own.
const MODE: u32 = 0o700;
/// The same of files.
const FILE_MODE: u32 = 0o600;

/// Makes a directory and those above it that are missing.
pub fn make(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = above(dir) {
        make(above)?;
    }
    match make_new(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}

/// Makes a directory that must not be there yet.
pub fn make_new(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(MODE).create(dir)?;
    sync(above(dir).unwrap_or(Path::new(".")))
}

fn above(dir: &Path) -> Option<&Path> {
    dir.parent().filter(|above| !above.as_os_str().is_empty())
}

/// Makes an empty file, if it is not there, for a library that would make it readable for all.
pub fn make_file(path: &Path) -> io::Result<()> {
    File::options().write(true).create(true).truncate(false).mode(FILE_MODE).open(path).map(drop)
}

/// Makes a file to be read and written, empty even if it is there.
pub fn create_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Puts a small file in place as a whole, for its owner alone. It is not synced: for what does no harm
/// if an older one is there after a crash.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = path.with_extension("new");
    let put = || {
        make_file(&staged)?;
        std::fs::write(&staged, bytes)?;
        std::fs::rename(&staged, path)
    };
    put().inspect_err(|_| drop(std::fs::remove_file(&staged)))
}

/// Makes the names of a directory durable.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_missing_is_made_for_its_owner_and_what_is_there_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        std::fs::create_dir(&there).unwrap();
        std::fs::set_permissions(&there, std::fs::Permissions::from_mode(0o750)).unwrap();
        let mode = |dir: &Path| std::fs::metadata(dir).unwrap().permissions().mode() & 0o777;
        for _ in 0..2 {
            make(&there.join("a").join("b")).unwrap();
            assert_eq!(
                (mode(&there), mode(&there.join("a")), mode(&there.join("a/b"))),
                (0o750, 0o700, 0o700)
            );
        }
        let file = there.join("made");
        make_file(&file).unwrap();
        std::fs::write(&file, "kept").unwrap();
        make_file(&file).unwrap();
        assert_eq!((mode(&file), std::fs::read(&file).unwrap()), (0o600, b"kept".to_vec()));
        assert_eq!(make_new(&there).unwrap_err().kind(), ErrorKind::AlreadyExists);
        std::fs::write(there.join("file"), "").unwrap();
        assert_eq!(make(&there.join("file")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}
