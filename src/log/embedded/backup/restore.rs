//! Restoring a backup, whole or up to a point, as a log of its own epoch.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use dramatis_events::{Epoch, Position, UnixMillis};

use super::manifest::MISSING;
use super::{BackupError, Manifest, Part, Progress, at, make_dir};
use crate::clock::time_text;
use crate::log::embedded::bytes::{Fields, to_u32, to_u64, to_usize};
use crate::log::embedded::checksum::crc32c;
use crate::log::embedded::epoch;
use crate::log::embedded::format::{
    BATCH_HEADER_BYTES, BatchHeader, SEGMENT_HEADER_BYTES, index_name, segment_name,
};
use crate::log::embedded::record::{Raw, take_body};
use crate::log::embedded::scan::index_of;
use crate::log::embedded::storage::{Directory, Storage};
use crate::log::embedded::tier;
use crate::log::embedded::window::Window;

/// How far a backup is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All of it.
    Latest,
    /// The event at this position is the last; the rest of its command's events come with it.
    Position(Position),
    /// The last event recorded at this time or before it is the last.
    Time(UnixMillis),
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// The new epoch.
    pub epoch: Epoch,
    /// The last event; `None` if there is none.
    pub last_position: Option<Position>,
}

/// Where the log lies in a data directory until it is whole.
pub const UNFINISHED: &str = "log.unfinished";

/// Restores a backup into a directory that is empty or not there. It is whole once this returns:
/// before that the log lies in `log.unfinished`, which no server opens, and which is gone after an error.
/// What a restore left of it that was stopped makes room for this one.
pub fn restore(
    store: &Path,
    name: &str,
    data: &Path,
    until: Until,
    now: UnixMillis,
    progress: Progress<'_>,
) -> Result<Restored, BackupError> {
    let manifest = Manifest::find(store, name)?;
    reach(&manifest, until)?;
    make_dir(data)?;
    let _alone = alone(data)?;
    let unfinished = data.join(UNFINISHED);
    match std::fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&unfinished)(error)),
        _ => {}
    }
    make_dir(&unfinished)?;
    let restored = restore_into(&unfinished, store, manifest, until, now, progress);
    let moved = restored.and_then(|restored| {
        let log = data.join("log");
        std::fs::rename(&unfinished, &log).map_err(at(&log))?;
        super::sync_dir(data)?;
        Ok(restored)
    });
    moved.inspect_err(|_| {
        // If that fails too, the next restore does it.
        let _ = std::fs::remove_dir_all(&unfinished);
    })
}

/// Holds the directory, in which nothing is but what a restore may have left that was stopped.
fn alone(data: &Path) -> Result<File, BackupError> {
    let refused = |found| Err(BackupError::NotEmpty { dir: data.to_owned(), found });
    let held = File::open(data).map_err(at(data))?;
    if matches!(held.try_lock(), Err(TryLockError::WouldBlock)) {
        return refused("another restore is at work there".to_owned());
    }
    // Not every file system locks directories.
    for found in std::fs::read_dir(data).map_err(at(data))? {
        let found = found.map_err(at(data))?.file_name();
        if found != UNFINISHED {
            return refused(format!("{} is there", found.to_string_lossy()));
        }
    }
    Ok(held)
}

/// Makes the log in an empty directory.
fn restore_into(
    unfinished: &Path,
    store: &Path,
    manifest: Manifest,
    until: Until,
    now: UnixMillis,
    progress: Progress<'_>,
) -> Result<Restored, BackupError> {
    let storage: Arc<dyn Storage> = Arc::new(Directory::new(unfinished, None));
    let mut chain = manifest.chain(store)?;
    let (mut done, total, mut next, mut open) = (0, manifest.bytes(), 0, 0);
    let mut closed = None;
    for part in &manifest.parts {
        let kept = take_part(store, part, manifest.epoch.log(), until)?;
        (next, open) = (part.first + kept.events, part.first);
        write(&*storage, part.first, &kept.bytes).map_err(at(unfinished))?;
        if let Some(first) = closed.replace(part.first) {
            let name = segment_name(first);
            let mut window = Window::new(storage.open(&name).map_err(at(&unfinished.join(&name)))?);
            let index = index_of(&mut window, &name, manifest.epoch.log())?;
            storage.replace(&index_name(first), &index).map_err(at(unfinished))?;
        }
        done += part.bytes;
        progress(done, total);
        if kept.events < part.events {
            break;
        }
    }
    // Two restores of one backup go different ways, so they must not share an epoch.
    let epoch = epoch::apart(manifest.epoch, now);
    chain.add_anchor("restore", epoch, open);
    chain.write(&*storage).map_err(at(unfinished))?;
    epoch::write(&*storage, epoch).map_err(at(unfinished))?;
    tier::begin(&*storage).map_err(at(unfinished))?;
    storage.sync_names().map_err(at(unfinished))?;
    Ok(Restored { manifest, epoch, last_position: next.checked_sub(1).map(Position::from_engine) })
}

/// Whether the point lies within the backup.
fn reach(manifest: &Manifest, until: Until) -> Result<(), BackupError> {
    let holds = || match (manifest.last_position, manifest.times()) {
        (Some(last), Some((from, to))) => {
            format!("positions 0 to {last}, recorded from {} to {}", time_text(from), time_text(to))
        }
        _ => "no event".to_owned(),
    };
    // What was recorded while the backup was made is in it too.
    let end = manifest.times().map_or(manifest.created_at, |(_, last)| last.max(manifest.created_at));
    let asked = match until {
        Until::Position(asked) if manifest.last_position.is_none_or(|last| asked > last) => {
            format!("position {asked}")
        }
        Until::Time(time) if time > end || manifest.times().is_some_and(|(first, _)| time < first) => {
            format!("the time {}", time_text(time))
        }
        _ => return Ok(()),
    };
    Err(BackupError::OutOfReach { asked, holds: holds() })
}

fn write(storage: &dyn Storage, first: u64, bytes: &[u8]) -> std::io::Result<()> {
    let file = storage.create(&segment_name(first))?;
    file.write_all_at(bytes, 0)?;
    file.sync()
}

/// What of a part is restored.
struct Kept {
    bytes: Vec<u8>,
    events: u64,
}

fn take_part(store: &Path, part: &Part, log: u64, until: Until) -> Result<Kept, BackupError> {
    let path = store.join(&part.file);
    let damaged = |reason: &str| part.damaged(&path, reason);
    let mut bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(MISSING)),
        read => read.map_err(at(&path))?,
    };
    let sum = part.sum().ok_or_else(|| damaged("the manifest's hash of it is malformed"))?;
    if to_u64(bytes.len()) != sum.bytes || blake3::hash(&bytes) != sum.hash {
        return Err(damaged("its bytes are not those that the manifest names"));
    }
    let whole = match until {
        Until::Latest => true,
        Until::Position(last) => part.first + part.events <= last.to_engine(),
        Until::Time(time) => part.last_recorded_at <= time,
    };
    let mut events = part.events;
    if !whole {
        events = cut(&mut bytes, log, until).map_err(damaged)?;
    }
    Ok(Kept { bytes, events })
}

/// Cuts a segment after the last event that is to stay; gives how many stay.
fn cut(bytes: &mut Vec<u8>, log: u64, until: Until) -> Result<u64, &'static str> {
    let (mut at, mut events) = (SEGMENT_HEADER_BYTES, 0_u64);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (header, _) = BatchHeader::decode(rest, log)?;
        let len = BATCH_HEADER_BYTES + to_usize(u64::from(header.body_len));
        let body = rest.get(BATCH_HEADER_BYTES..len).ok_or("a batch is cut short")?;
        let kept = keep(body, header.count, until)?;
        events += u64::from(kept.events);
        if kept.events == header.count {
            at += len;
            continue;
        }
        let front = if kept.events > 0 { shortened(header, &kept, log) } else { Vec::new() };
        bytes.truncate(at);
        bytes.extend_from_slice(&front);
        return Ok(events);
    }
    Ok(events)
}

/// What is left of a batch, with a header of its own.
fn shortened(header: BatchHeader, kept: &Shortened<'_>, log: u64) -> Vec<u8> {
    let header = BatchHeader {
        recorded_at: kept.recorded_at,
        count: kept.events,
        body_len: to_u32(kept.body.len()),
        body_crc: crc32c(kept.body),
        ..header
    };
    let mut bytes = header.encode(log).0;
    bytes.extend_from_slice(kept.body);
    bytes
}

/// The front of a batch.
struct Shortened<'a> {
    body: &'a [u8],
    events: u32,
    recorded_at: i64,
}

fn keep(body: &[u8], count: u32, until: Until) -> Result<Shortened<'_>, &'static str> {
    let mut fields = Fields(body);
    let mut kept = Shortened { body: &[], events: 0, recorded_at: 0 };
    let mut last: Option<Raw<'_>> = None;
    for _ in 0..count {
        let raw = Raw::read(take_body(&mut fields)?)?;
        let stays = match until {
            Until::Latest => true,
            Until::Position(position) => {
                raw.position <= position.to_engine() || goes_with(&raw, last.as_ref())
            }
            Until::Time(time) => raw.recorded_at <= time.get(),
        };
        if !stays {
            break;
        }
        kept.body = body.get(..body.len() - fields.0.len()).unwrap_or_default();
        (kept.events, kept.recorded_at) = (kept.events + 1, raw.recorded_at);
        last = Some(raw);
    }
    Ok(kept)
}

/// Whether an event came from the same command as the one before it.
fn goes_with(raw: &Raw<'_>, last: Option<&Raw<'_>>) -> bool {
    last.is_some_and(|last| {
        raw.command().is_some()
            && (raw.stream, raw.author, raw.command()) == (last.stream, last.author, last.command())
    })
}
