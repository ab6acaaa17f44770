//! Which cold tier is whose: a log's own directory and its cold tier hold a file `tier` with one
//! random id, which is another one each time the log is opened.
//!
//! The names of segments tell positions only, so those of two logs, or of a log and of what was
//! restored or copied of it, would be taken for one history, and one would write over the other. A
//! restored log brings a file of its own that claims an empty cold tier. Of a log and a copy of it
//! the one that is opened first draws a new id for itself and the cold tier, which the other does
//! not know. Releases that knew no such file wrote none: their cold tiers are taken over if their
//! segments are of the same log, and so is one whose file was removed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::OpenError;
use super::epoch;
use super::format::parse_segment_name;
use super::recovery::header;
use super::storage::{Directory, Storage};

const FILE: &str = "tier";
/// Stands behind the id of a log that has had no cold tier yet.
const UNUSED: &str = " unused";
/// The longest file that is looked at, in bytes.
const BYTES_MAX: usize = 128;

/// Says of a new history that whatever lies in a cold tier is not its own.
pub(super) fn begin(storage: &dyn Storage) -> io::Result<()> {
    write(storage, &format!("{}{UNUSED}", draw()))
}

/// Refuses a cold tier that is not this log's own, or a missing one if segments moved there.
pub(super) fn check(hot: &Path, cold: Option<&Path>) -> Result<(), OpenError> {
    let mut mine = read(hot)?;
    loop {
        let its = cold.map(read).transpose()?.flatten();
        // The owner of both may have drawn a new id in between.
        let now = read(hot)?;
        if now == mine {
            return fits(hot, mine.as_deref(), cold, its.as_deref());
        }
        mine = now;
    }
}

/// Refuses to begin a cold tier where there is none if segments moved to one.
pub(super) fn may_be_made(hot: &Path, cold: &Path) -> Result<(), OpenError> {
    match check(hot, None) {
        Err(OpenError::AwayTier { .. }) => Err(OpenError::AwayTier { dir: Some(cold.to_owned()) }),
        checked => checked,
    }
}

/// Takes the cold tier, which is locked, for this log and none of its copies.
pub(super) fn take(hot: &Path, cold: &Path) -> Result<(), OpenError> {
    check(hot, Some(cold))?;
    let its = read(cold)?;
    match renew(hot, cold, its.as_deref()) {
        // They know each other as they did before: a full disk need not keep the log from being read.
        Err(error) if its.is_some() => {
            tracing::warn!(%error, "the cold tier keeps its id: a copy of this log would be let in, too");
            Ok(())
        }
        renewed => renewed,
    }
}

/// Gives both a new id.
fn renew(hot: &Path, cold: &Path, its: Option<&str>) -> Result<(), OpenError> {
    let id = draw();
    let on_its_way = match its {
        Some(its) => format!("{its} {id}"),
        None if firsts(cold)?.0.is_empty() => format!("{id}{UNUSED}"),
        None => id.clone(),
    };
    for (dir, text) in [(hot, &on_its_way), (cold, &id), (hot, &id)] {
        write(&Directory::new(dir, None), text).map_err(OpenError::io(shown(dir)))?;
    }
    Ok(())
}

/// What the log says of its cold tier against what that says of itself.
fn fits(hot: &Path, mine: Option<&str>, cold: Option<&Path>, its: Option<&str>) -> Result<(), OpenError> {
    let unused = mine.is_some_and(|mine| mine.ends_with(UNUSED));
    // The oldest segment moves first.
    let moved = || Ok::<_, OpenError>(mine.is_some() && !unused && !firsts(hot)?.0.contains(&0));
    let Some(cold) = cold else {
        return if moved()? { Err(OpenError::AwayTier { dir: None }) } else { Ok(()) };
    };
    if canonical(hot)? == canonical(cold)? {
        return Err(OpenError::OwnTier { dir: cold.to_owned() });
    }
    let other = || OpenError::OtherTier { dir: cold.to_owned() };
    match (mine, its) {
        (Some(mine), Some(its)) if mine.split(' ').any(|id| id == its) => Ok(()),
        (_, Some(_)) => Err(other()),
        (_, None) => {
            let segments = firsts(cold)?.0;
            if segments.is_empty() {
                let away = moved()?;
                return if away { Err(OpenError::AwayTier { dir: Some(cold.to_owned()) }) } else { Ok(()) };
            }
            if unused || !are_of(hot, cold, &segments)? { Err(other()) } else { Ok(()) }
        }
    }
}

fn draw() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn shown(dir: &Path) -> String {
    dir.join(FILE).display().to_string()
}

fn canonical(dir: &Path) -> Result<PathBuf, OpenError> {
    fs::canonicalize(dir).map_err(OpenError::io(dir.display()))
}

fn write(storage: &dyn Storage, id: &str) -> io::Result<()> {
    storage.replace(FILE, format!("{id}\n").as_bytes())
}

/// What a directory's file says, if there is one.
fn read(dir: &Path) -> Result<Option<String>, OpenError> {
    match fs::read(dir.join(FILE)) {
        Ok(bytes) => {
            let bytes = bytes.get(..BYTES_MAX).unwrap_or(&bytes);
            Ok(Some(String::from_utf8_lossy(bytes).trim().to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io(shown(dir))(error)),
    }
}

/// The segments of a directory, by their first positions, and the names of all its files.
fn firsts(dir: &Path) -> Result<(Vec<u64>, Vec<String>), OpenError> {
    let names = Directory::new(dir, None).list().map_err(OpenError::io(dir.display()))?;
    Ok((names.iter().filter_map(|name| parse_segment_name(name)).collect(), names))
}

/// Whether nothing contradicts that these segments of a cold tier are of the log in this directory.
fn are_of(hot: &Path, cold: &Path, segments: &[u64]) -> Result<bool, OpenError> {
    let (own, names) = firsts(hot)?;
    let log = match epoch::read(&Directory::new(hot, None), &names).map_err(OpenError::io(epoch::FILE))? {
        Some(Ok(epoch)) => epoch.log(),
        // What is wrong with a log is told elsewhere; one that is about to be made has nothing anywhere.
        _ => return Ok(!own.is_empty()),
    };
    let cold = Directory::new(cold, None);
    let is_other = |first: &u64| header(&cold, *first).is_ok_and(|it| it.is_some_and(|it| it.log != log));
    Ok(!segments.iter().any(is_other))
}
