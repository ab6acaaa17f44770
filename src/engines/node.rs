//! The name of a process among those that share a store.
//!
//! It goes with the data directory: who opens that after a crash has the name of who had it before,
//! and need not wait for itself. The log's lock keeps two processes off one directory; a copy of the
//! directory, what was restored from a backup and the same files on another machine are others, so
//! the file tells which directory it was made in, and since when that machine runs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dirs;

/// The file in the data directory.
const FILE: &str = "node.json";
/// What tells one start of a Linux machine from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Serialize, Deserialize)]
struct Node {
    name: String,
    made_in: Place,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    device: u64,
    inode: u64,
    /// Empty where nothing tells it.
    boot: String,
}

impl Place {
    fn of(dir: &Path) -> io::Result<Self> {
        let there = fs::metadata(dir)?;
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        Ok(Self { device: there.dev(), inode: there.ino(), boot: boot.trim().to_owned() })
    }
}

/// The name of the process that has the lock of this data directory. One that cannot be kept is the
/// process's own: the next one waits until its leases have run out.
pub(super) fn name(data: &Path) -> String {
    let kept = Place::of(data).and_then(|place| kept(data, place));
    kept.unwrap_or_else(|error| {
        let name = made_up();
        tracing::warn!(name, %error, "this process's name cannot be kept for the next one on its data");
        name
    })
}

fn kept(data: &Path, place: Place) -> io::Result<String> {
    let path = data.join(FILE);
    let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Node>(&bytes).ok());
    if let Some(known) = known.filter(|known| known.made_in == place) {
        return Ok(known.name);
    }
    let node = Node { name: made_up(), made_in: place };
    dirs::replace(&path, &serde_json::to_vec(&node)?)?;
    Ok(node.name)
}

/// A new name, with that of the machine for whoever looks for the process.
fn made_up() -> String {
    let (id, _) = uuid::Uuid::new_v4().as_u64_pair();
    let machine = rustix::system::uname();
    format!("{id:016x} on {}", machine.nodename().to_string_lossy())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_name_and_a_copy_gets_another() {
        let (one, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = name(one.path());
        assert_eq!(name(one.path()), first);
        fs::copy(one.path().join(FILE), copy.path().join(FILE)).unwrap();
        let second = name(copy.path());
        assert_ne!(second, first);
        assert_eq!((name(copy.path()), name(one.path())), (second, first.clone()));
        // After the machine has started anew it may be another with the same disk.
        let mut node: Node = serde_json::from_slice(&fs::read(one.path().join(FILE)).unwrap()).unwrap();
        node.made_in.boot = "before".to_owned();
        fs::write(one.path().join(FILE), serde_json::to_vec(&node).unwrap()).unwrap();
        assert_ne!(name(one.path()), first);
        // A damaged file is as none.
        fs::write(one.path().join(FILE), "{").unwrap();
        let third = name(one.path());
        assert!(third != first && name(one.path()) == third);
    }
}
