//! Making directories for data: durable, since what is in them counts only if they are there after
//! a power failure, and for their owner alone, since what people say to each other is in them.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The mode of directories that are made; one that is there keeps its own.
const MODE: u32 = 0o700;

/// Makes a directory and those above it that are missing.
pub fn make(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make(above)?;
    }
    match DirBuilder::new().mode(MODE).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync(above.unwrap_or(Path::new("."))),
    }
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
        std::fs::write(there.join("file"), "").unwrap();
        assert_eq!(make(&there.join("file")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}
