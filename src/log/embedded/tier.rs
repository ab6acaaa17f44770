//! Which cold tier is whose: a log's own directory and its cold tier hold a file `tier` with one
//! random id.
//!
//! The names of segments tell positions only, so those of two logs, or of a log and of what was
//! restored of it, would be taken for one history. A restored log brings a file of its own that
//! claims an empty cold tier; releases before this one wrote none, and their cold tiers are taken
//! over if their segments are of the same log.

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
    write(storage, &format!("{}{UNUSED}", uuid::Uuid::new_v4().simple()))
}

/// Refuses a cold tier that is not this log's own. With `bind`, which the owner of both asks for,
/// they belong together from now on.
pub(super) fn pair(hot: &Path, cold: Option<&Path>, bind: bool) -> Result<(), OpenError> {
    let Some(cold) = cold else { return Ok(()) };
    if canonical(hot)? == canonical(cold)? {
        return Err(OpenError::OwnTier { dir: cold.to_owned() });
    }
    let other = || OpenError::OtherTier { dir: cold.to_owned() };
    let (mine, its) = (read(hot)?, read(cold)?);
    let unused = mine.as_deref().is_some_and(|mine| mine.ends_with(UNUSED));
    let id = mine.as_deref().map(|mine| mine.trim_end_matches(UNUSED));
    match (id, its.as_deref()) {
        (Some(mine), Some(its)) if mine == its => {}
        (_, Some(_)) => return Err(other()),
        (_, None) => {
            let segments = firsts(cold)?.0;
            if !segments.is_empty() && (unused || !are_of(hot, cold, &segments)?) {
                return Err(other());
            }
        }
    }
    if bind && (unused || its.is_none()) {
        let id = id.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned);
        // The log's own first, unless that would give up that the tier begins empty.
        let order = if unused { [cold, hot] } else { [hot, cold] };
        for dir in order {
            write(&Directory::new(dir, None), &id).map_err(OpenError::io(shown(dir)))?;
        }
    }
    Ok(())
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
