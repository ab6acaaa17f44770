//! The file `epoch`: the log's id and a counter that rises when acknowledged history may have
//! been cut; and the file `relaxed`, which is there while such a cut is possible.

use std::io;

use dramatis_events::Epoch;

use super::OpenError;
use super::storage::{Storage, read_up_to};

const FILE: &str = "epoch";
const RELAXED: &str = "relaxed";

/// The log's epoch; a new log draws its id.
pub(super) fn of(storage: &dyn Storage) -> Result<Epoch, OpenError> {
    let names = storage.list()?;
    if names.iter().any(|name| name == FILE) {
        let text = read_up_to(&*storage.open(FILE)?, 0, 64)?;
        let text = String::from_utf8_lossy(&text);
        return text.trim().parse().map_err(|error: dramatis_events::ParseEpochError| OpenError::Damaged {
            file: FILE.to_owned(),
            offset: 0,
            reason: error.to_string(),
        });
    }
    if let Some(segment) = names.iter().find(|name| name.ends_with(".segment")) {
        let reason = format!("it is missing, although {segment} is there");
        return Err(OpenError::Damaged { file: FILE.to_owned(), offset: 0, reason });
    }
    let epoch = Epoch::first(uuid::Uuid::new_v4().as_u64_pair().0);
    write(storage, epoch)?;
    Ok(epoch)
}

/// Puts the file in place.
pub(super) fn write(storage: &dyn Storage, epoch: Epoch) -> io::Result<()> {
    storage.replace(FILE, format!("{epoch}\n").as_bytes())
}

/// The next epoch of the same log.
pub(super) fn next(epoch: Epoch) -> Epoch {
    Epoch::new(epoch.log(), epoch.counter().saturating_add(1))
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
pub(super) fn is_unsettled(storage: &dyn Storage) -> io::Result<bool> {
    Ok(storage.list()?.iter().any(|name| name == RELAXED))
}
