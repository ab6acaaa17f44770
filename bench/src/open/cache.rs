//! The system's page cache, emptied where that is permitted.

use std::path::Path;
use std::process::{Command, Stdio};

/// Where the system is told to drop what it caches of files.
const DROP: &str = "/proc/sys/vm/drop_caches";

/// Writes out what the directory's file system holds back, and drops all that is cached of files;
/// the error says why not.
pub(super) fn empty(dir: &Path) -> Result<(), String> {
    // Only what is written out can be dropped. Without `sync` a little stays cached.
    let _ = Command::new("sync").arg("-f").arg(dir).stderr(Stdio::null()).status();
    std::fs::write(DROP, "3").map_err(|error| format!("{DROP} cannot be written: {error}"))
}
