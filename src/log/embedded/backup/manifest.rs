//! What a backup holds, as its manifest says and as its files prove.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use dramatis_events::{Epoch, Position, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{BackupError, Progress, at, put, sync_dir};
use crate::dirs;
use crate::log::embedded::chain::{Chain, Sum, sum};
use crate::log::embedded::epoch::APART_BY_MAX;

const FILE: &str = "manifest.json";
/// The same on its way.
pub(super) const STAGED: &str = "manifest.tmp";
const CHAIN: &str = "chain";
/// Where the segments are that backups share.
pub(super) const SEGMENTS: &str = "segments";
/// The hashes of those two. Backups of earlier releases have none.
const SUMS: &str = "b3sums";
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

    /// Writes it and the chain; with that the backup is there.
    pub(super) fn write(&self, store: &Path, chain: &Chain) -> Result<(), BackupError> {
        let own = store.join(&self.name);
        let text = serde_json::to_string_pretty(self).map_err(|error| at(&own.join(FILE))(error.into()))?;
        let text = text + "\n";
        let sums: String =
            [(CHAIN, chain.text()), (FILE, &text)].map(|(file, text)| line(text.as_bytes(), file)).concat();
        // Whoever finds the sums without it or the manifest knows that one was there.
        let staged = own.join(STAGED);
        dirs::create_file(&staged).map_err(at(&staged))?;
        put(&own.join(CHAIN), chain.text().as_bytes())?;
        put(&own.join(SUMS), sums.as_bytes())?;
        sync_dir(&own)?;
        put(&own.join(FILE), text.as_bytes())?;
        sync_dir(&own)
    }

    fn read(store: &Path, name: &str) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let (path, text) = read(store, name, FILE)?;
        let damaged =
            |error: serde_json::Error| BackupError::Damaged { path: path.clone(), reason: error.to_string() };
        let Format { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format > FORMAT {
            return Err(BackupError::Newer { path, format });
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(damaged)?;
        match manifest.flaw(name) {
            Some(reason) => Err(BackupError::Damaged { path, reason }),
            None => Ok(manifest),
        }
    }

    /// What keeps this from being the backup of that name, and whole.
    fn flaw(&self, name: &str) -> Option<String> {
        if self.name != name {
            return Some(format!("it was made as {}: give its directory that name again", self.name));
        }
        let mut next = 0;
        for part in &self.parts {
            if part.first != next {
                return Some(format!("it lacks the events from position {next} to {}", part.first));
            }
            next = part.first.saturating_add(part.events);
        }
        (next != self.events).then(|| format!("it tells of {} events, its parts of {next}", self.events))
    }

    /// The chain that came with the backup.
    pub(super) fn chain(&self, store: &Path) -> Result<Chain, BackupError> {
        let (path, text) = read(store, &self.name, CHAIN)?;
        Chain::parse(&text).map_err(|broken| BackupError::Damaged { path, reason: broken.reason.to_owned() })
    }

    /// One backup, by its name; `latest` is the last one made, which of one history holds the most.
    pub(super) fn find(store: &Path, name: &str) -> Result<Self, BackupError> {
        let unknown = || BackupError::Unknown { name: name.to_owned(), store: store.to_owned() };
        if name == "latest" {
            let Listed { backups, unread } = list(store)?;
            // It may be the latest.
            if let Some(error) = unread.into_iter().next() {
                return Err(error);
            }
            let logs = backups.iter().map(|backup| backup.epoch.log()).collect::<BTreeSet<_>>().len();
            if logs > 1 {
                return Err(BackupError::Ambiguous { store: store.to_owned(), logs });
            }
            let last = backups.last().ok_or_else(unknown)?;
            // Clocks go back, counters of epochs do not: by how much they differ beyond chance is time.
            let begun = |backup: &Self| backup.epoch.counter();
            let newest = backups.iter().max_by_key(|backup| begun(backup)).unwrap_or(last);
            if begun(newest).saturating_sub(begun(last)) > APART_BY_MAX {
                let (by_time, by_epoch) = (last.name.clone(), newest.name.clone());
                return Err(BackupError::Uncertain { store: store.to_owned(), by_time, by_epoch });
            }
            // Nor does a history.
            let last = last.epoch;
            let of_its_history = backups.into_iter().filter(|backup| backup.epoch == last);
            return of_its_history.max_by_key(|backup| backup.events).ok_or_else(unknown);
        }
        if !is_name(name) || !is_there(store, name) {
            return Err(if is_lost(store, name) { lost(store, name) } else { unknown() });
        }
        Self::read(store, name)
    }
}

/// A line of the sums.
fn line(bytes: &[u8], file: &str) -> String {
    format!("{}  {file}\n", blake3::hash(bytes).to_hex())
}

/// A file of a backup, which is what was put there.
fn read(store: &Path, name: &str, file: &str) -> Result<(PathBuf, Vec<u8>), BackupError> {
    let (path, sums) = (store.join(name).join(file), store.join(name).join(SUMS));
    let damaged = |reason: String| BackupError::Damaged { path: path.clone(), reason };
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(MISSING.to_owned())),
        read => read.map_err(at(&path))?,
    };
    let lines = match std::fs::read(&sums) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((path, bytes)),
        read => read.map_err(at(&sums))?,
    };
    let is_right =
        String::from_utf8_lossy(&lines).split_inclusive('\n').any(|said| said == line(&bytes, file));
    if is_right { Ok((path, bytes)) } else { Err(damaged(format!("its hash is not the one in {SUMS}"))) }
}

/// What is wrong with a file that is not there.
pub(super) const MISSING: &str = "it is missing";

/// Whether a backup of this name is there, whole.
pub(super) fn is_there(store: &Path, name: &str) -> bool {
    store.join(name).join(FILE).exists()
}

/// Whether a backup of this name was there, and its manifest is gone. Of one that is being made, or that was
/// stopped, this does not hold.
fn is_lost(store: &Path, name: &str) -> bool {
    let own = store.join(name);
    // Looked at once it is held: until then it may be finished.
    let Ok(held) = File::open(&own) else { return false };
    let is_being_made = matches!(held.try_lock_shared(), Err(TryLockError::WouldBlock));
    is_name(name) && !is_being_made && !is_there(store, name) && lacks_its_manifest(&own)
}

/// Whether all is there that is written before a manifest, and no trace of one on its way.
pub(super) fn lacks_its_manifest(own: &Path) -> bool {
    let has = |file: &str| own.join(file).exists();
    has(CHAIN) && has(SUMS) && !has(STAGED)
}

fn lost(store: &Path, name: &str) -> BackupError {
    BackupError::Damaged { path: store.join(name).join(FILE), reason: MISSING.to_owned() }
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(name, SEGMENTS | "latest")
}

/// The backups of a store.
#[derive(Debug, Default)]
pub struct Listed {
    /// Those that tell what they hold, the oldest first.
    pub backups: Vec<Manifest>,
    /// Why others do not.
    pub unread: Vec<BackupError>,
}

/// The backups of a store. Unfinished ones are left out; one that has lost its manifest is damaged.
pub fn list(store: &Path) -> Result<Listed, BackupError> {
    let mut listed = Listed::default();
    let entries = match std::fs::read_dir(store) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(BackupError::NoStore { dir: store.to_owned() });
        }
        entries => entries.map_err(at(store))?,
    };
    for entry in entries {
        let name = entry.map_err(at(store))?.file_name().to_string_lossy().into_owned();
        if is_there(store, &name) {
            match Manifest::read(store, &name) {
                Ok(manifest) => listed.backups.push(manifest),
                Err(error) => listed.unread.push(error),
            }
        } else if is_lost(store, &name) {
            listed.unread.push(lost(store, &name));
        }
    }
    listed.backups.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    Ok(listed)
}

/// Proves that every part of a backup is there, byte for byte as it was put there.
pub fn verify(store: &Path, name: &str, progress: Progress<'_>) -> Result<Manifest, BackupError> {
    let manifest = Manifest::find(store, name)?;
    manifest.chain(store)?;
    let (mut done, total) = (0, manifest.bytes());
    for part in &manifest.parts {
        part.check(store)?;
        done += part.bytes;
        progress(done, total);
    }
    Ok(manifest)
}

impl Part {
    pub(super) fn damaged(&self, path: &Path, reason: &str) -> BackupError {
        let (path, reason) = (path.to_owned(), reason.to_owned());
        if self.file.starts_with(SEGMENTS) {
            BackupError::DamagedSegment { path, reason }
        } else {
            BackupError::Damaged { path, reason }
        }
    }

    pub(super) fn sum(&self) -> Option<Sum> {
        let hash = blake3::Hash::from_hex(&self.blake3).ok()?;
        Some(Sum { bytes: self.bytes, hash })
    }

    /// Whether the file is what the manifest says.
    pub(super) fn check(&self, store: &Path) -> Result<(), BackupError> {
        let path = store.join(&self.file);
        let damaged = |reason: &str| self.damaged(&path, reason);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(MISSING)),
            opened => opened.map_err(at(&path))?,
        };
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
