//! The file `epoch`: the log's id and a counter that rises when acknowledged history may have
//! been cut, with a checksum, which files of earlier releases lack; and the file `relaxed`, which
//! is there while such a cut is possible.

use std::io;

use dramatis_events::{Epoch, UnixMillis};

use super::OpenError;
use super::checksum::crc32c;
use super::storage::{DIRECTORY, Storage, read_up_to};

pub(super) const FILE: &str = "epoch";
pub(super) const RELAXED: &str = "relaxed";
/// Counters that stand [`apart`] count seconds from here, 2024-01-01.
const COUNTED_FROM_SECONDS: i64 = 1_704_067_200;
/// By how much more than their seconds such counters differ.
pub(super) const APART_BY_MAX: u32 = 1 << 20;
/// The longest file that is looked at, in bytes.
const BYTES_MAX: u64 = 64;

/// The log's epoch; a new log draws its id.
pub(super) fn of(storage: &dyn Storage) -> Result<Epoch, OpenError> {
    let names = storage.list().map_err(OpenError::io(DIRECTORY))?;
    let damaged = |reason| OpenError::Damaged { file: FILE.to_owned(), offset: 0, reason };
    if let Some(read) = read(storage, &names).map_err(OpenError::io(FILE))? {
        return read.map_err(damaged);
    }
    if let Some(segment) = names.iter().find(|name| name.ends_with(".segment")) {
        return Err(damaged(format!("it is missing, although {segment} is there")));
    }
    let epoch = Epoch::first(uuid::Uuid::new_v4().as_u64_pair().0);
    write(storage, epoch).map_err(OpenError::io(FILE))?;
    Ok(epoch)
}

/// What the file says, if it is among these; the error within is damage.
pub(super) fn read(storage: &dyn Storage, names: &[String]) -> io::Result<Option<Result<Epoch, String>>> {
    if !names.iter().any(|name| name == FILE) {
        return Ok(None);
    }
    let text = read_up_to(&*storage.open(FILE)?, 0, BYTES_MAX)?;
    Ok(Some(parse(&String::from_utf8_lossy(&text))))
}

/// Puts the file in place.
pub(super) fn write(storage: &dyn Storage, epoch: Epoch) -> io::Result<()> {
    let text = epoch.to_string();
    storage.replace(FILE, format!("{text} {}\n", sum(&text)).as_bytes())
}

fn sum(epoch: &str) -> String {
    format!("crc32c={:08x}", crc32c(epoch.as_bytes()))
}

/// What the file says.
pub(super) fn parse(text: &str) -> Result<Epoch, String> {
    let text = text.trim();
    let (epoch, stored) = text.split_once(' ').map_or((text, None), |(epoch, sum)| (epoch, Some(sum)));
    if stored.is_some_and(|stored| stored != sum(epoch)) {
        return Err("its checksum is wrong".to_owned());
    }
    epoch.parse().map_err(|error: dramatis_events::ParseEpochError| error.to_string())
}

/// The next epoch of the same log.
pub(super) fn next(epoch: Epoch) -> Epoch {
    Epoch::new(epoch.log(), epoch.counter().saturating_add(1))
}

/// Another epoch of the same log, further on. Which one was the last need not be certain, nor that no copy goes on
/// too: none that rose one by one reaches it, and what another begins, even within the same second, is
/// another.
pub(super) fn apart(epoch: Epoch, now: UnixMillis) -> Epoch {
    let seconds = u32::try_from(now.get() / 1_000 - COUNTED_FROM_SECONDS).unwrap_or(0);
    let chance = uuid::Uuid::new_v4().as_fields().0 % APART_BY_MAX;
    Epoch::new(epoch.log(), epoch.counter().saturating_add(1).max(seconds).saturating_add(chance))
}

/// Notes that from now on an answer may go out before its sync.
pub(super) fn relax(storage: &dyn Storage) -> io::Result<()> {
    storage.replace(RELAXED, b"answers may have gone out before their sync\n")
}

/// Notes that all that was answered is durable.
pub(super) fn settled(storage: &dyn Storage) -> io::Result<()> {
    storage.remove(RELAXED)?;
    storage.sync_names()
}

/// Whether a process ended while answers may have gone out before their sync.
pub(super) fn is_unsettled(storage: &dyn Storage) -> Result<bool, OpenError> {
    let names = storage.list().map_err(OpenError::io(DIRECTORY))?;
    Ok(names.iter().any(|name| name == RELAXED))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_changed_digit_is_noticed_and_a_file_without_a_checksum_is_read() {
        let epoch = Epoch::first(0x00c0_ffee);
        let text = epoch.to_string();
        let stored = format!("{text} {}", sum(&text));
        assert_eq!(parse(&stored).unwrap(), epoch);
        assert_eq!(parse(&text).unwrap(), epoch);
        for at in 0..stored.len() {
            let mut changed = stored.clone().into_bytes();
            let byte = changed.get_mut(at).unwrap();
            *byte = if *byte == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(changed).unwrap();
            parse(&changed).unwrap_err();
        }
    }
}
