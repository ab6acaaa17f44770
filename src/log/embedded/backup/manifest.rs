//! What a backup holds, as its manifest says and as its files prove.

use std::fs::File;
use std::path::{Path, PathBuf};

use dramatis_events::{Epoch, Position, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{BackupError, Progress, at};
use crate::log::embedded::chain::{Sum, sum};

const FILE: &str = "manifest.json";
/// The format that this release writes and reads.
const FORMAT: u32 = 1;

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format's version.
    pub format: u32,
    /// Its name.
    pub name: String,
    /// When it was begun.
    pub created_at: UnixMillis,
    /// The epoch of the history.
    pub epoch: Epoch,
    /// Events.
    pub events: u64,
    /// The position of the last event; `None` of an empty log.
    pub last_position: Option<Position>,
    /// Closed segments, in order, then what the open one held.
    pub parts: Vec<Part>,
    /// Bytes that no earlier backup of the store held.
    pub new_bytes: u64,
    /// What was noted of the read models: aliases, builds and dead letters. They are derived,
    /// and built anew after a restore.
    #[serde(default)]
    pub read_models: serde_json::Value,
}

/// One segment's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file, from the store's directory.
    pub file: PathBuf,
    /// The position of its first event.
    pub first: u64,
    /// Events.
    pub events: u64,
    /// Bytes.
    pub bytes: u64,
    /// Their BLAKE3 hash, in hexadecimal.
    pub blake3: String,
    /// When its first event was recorded.
    pub first_recorded_at: UnixMillis,
    /// When its last event was recorded.
    pub last_recorded_at: UnixMillis,
}

impl Manifest {
    pub(super) const FORMAT: u32 = FORMAT;

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// When the first and the last event were recorded.
    pub fn times(&self) -> Option<(UnixMillis, UnixMillis)> {
        let mut filled = self.parts.iter().filter(|part| part.events > 0);
        let first = filled.next()?;
        Some((first.first_recorded_at, filled.next_back().unwrap_or(first).last_recorded_at))
    }

    pub(super) fn write(&self, store: &Path) -> Result<(), BackupError> {
        use std::io::Write as _;
        let path = store.join(&self.name).join(FILE);
        let text = serde_json::to_string_pretty(self).map_err(|error| at(&path)(error.into()))?;
        super::put(&path, |file| writeln!(file, "{text}").map_err(at(&path)))
    }

    fn read(store: &Path, name: &str) -> Result<Self, BackupError> {
        let path = store.join(name).join(FILE);
        let text = std::fs::read(&path).map_err(at(&path))?;
        let damaged = |reason: String| BackupError::Damaged { path: path.clone(), reason };
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.format > FORMAT {
            let format = manifest.format;
            return Err(damaged(format!("it has format {format}, newer than this release reads ({FORMAT})")));
        }
        Ok(manifest)
    }

    /// One backup, by its name; `latest` is the last one made.
    pub(super) fn find(store: &Path, name: &str) -> Result<Self, BackupError> {
        let unknown = || BackupError::Unknown { name: name.to_owned(), store: store.to_owned() };
        if name == "latest" {
            return list(store)?.pop().ok_or_else(unknown);
        }
        if !is_name(name) || !is_there(store, name) {
            return Err(unknown());
        }
        Self::read(store, name)
    }
}

/// Whether a backup of this name is there, whole.
pub(super) fn is_there(store: &Path, name: &str) -> bool {
    store.join(name).join(FILE).exists()
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(name, "segments" | "latest")
}

/// The backups of a store, the oldest first. Unfinished ones are left out.
pub fn list(store: &Path) -> Result<Vec<Manifest>, BackupError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(store).map_err(at(store))? {
        let name = entry.map_err(at(store))?.file_name().to_string_lossy().into_owned();
        if is_there(store, &name) {
            found.push(Manifest::read(store, &name)?);
        }
    }
    found.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    Ok(found)
}

/// Proves that every part of a backup is there, byte for byte as it was put there.
pub fn verify(store: &Path, name: &str, progress: Progress<'_>) -> Result<Manifest, BackupError> {
    let manifest = Manifest::find(store, name)?;
    let (mut done, total) = (0, manifest.bytes());
    for part in &manifest.parts {
        part.check(store)?;
        done += part.bytes;
        progress(done, total);
    }
    Ok(manifest)
}

impl Part {
    pub(super) fn sum(&self) -> Option<Sum> {
        let hash = blake3::Hash::from_hex(&self.blake3).ok()?;
        Some(Sum { bytes: self.bytes, hash })
    }

    /// Whether the file is what the manifest says.
    pub(super) fn check(&self, store: &Path) -> Result<(), BackupError> {
        let path = store.join(&self.file);
        let damaged = |reason: &str| BackupError::Damaged { path: path.clone(), reason: reason.to_owned() };
        let file = File::open(&path).map_err(at(&path))?;
        let size = file.metadata().map_err(at(&path))?.len();
        if size != self.bytes {
            return Err(damaged(&format!("it has {size} bytes, the manifest says {}", self.bytes)));
        }
        let found = sum(&file, size).map_err(at(&path))?;
        if Some(found) == self.sum() {
            Ok(())
        } else {
            Err(damaged("its hash is not the one in the manifest"))
        }
    }
}
