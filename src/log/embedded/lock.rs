//! The file `LOCK`, held by the one process that owns the directory.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::OpenError;

/// Takes the directory, or says who has it.
pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(OpenError::io(path.display()))?;
    if file.try_lock().is_err() {
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
    Ok(file)
}
