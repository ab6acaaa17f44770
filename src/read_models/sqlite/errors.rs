//! What `SQLite` says, in the words of the port.

use rusqlite::{ErrorCode, ffi};

use crate::read_models::{ReadModelError, text};

pub(super) fn stopped() -> ReadModelError {
    ReadModelError::Failure { reason: "the connection's thread ended".into() }
}

pub(super) fn full(waiting_max: usize) -> ReadModelError {
    ReadModelError::Failure { reason: format!("{waiting_max} such requests wait already; ask again later") }
}

/// An error of a statement on an open store.
pub(super) fn failed(place: &str, error: &rusqlite::Error) -> ReadModelError {
    let reason = error.to_string();
    // A build may be dropped between a look at the alias and the query.
    if let Some((_, table)) = reason.split_once("no such table: documents ") {
        let collection = table.split_whitespace().next().unwrap_or_default().to_owned();
        return ReadModelError::NoBuild { collection };
    }
    if let Some((_, table)) = reason.split_once("no such table: words ") {
        return text::not_searched(table);
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(place, reason),
        // What the system does with a file says nothing of which.
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull,
        ) if !reason.contains(place) => ReadModelError::Failure { reason: format!("{place}: {reason}") },
        _ => ReadModelError::Failure { reason },
    }
}

/// Whether a full disk is what keeps the store from being opened.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    let codes = error.sqlite_error().map(|error| (error.code, error.extended_code));
    codes.is_some_and(|(code, extended)| {
        code == ErrorCode::DiskFull
            || [ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_WRITE].contains(&extended)
    })
}

pub(super) fn damaged(place: &str, reason: impl Into<String>) -> ReadModelError {
    ReadModelError::Damaged { place: place.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_takes_nothing_is_named_once() {
        let told = |said: &str| {
            let error = ffi::Error::new(ffi::SQLITE_READONLY);
            failed("a/read-models.sqlite", &rusqlite::Error::SqliteFailure(error, Some(said.to_owned())))
                .to_string()
        };
        let said = "attempt to write a readonly database";
        assert_eq!(told(said), format!("the read-model store failed: a/read-models.sqlite: {said}"));
        let named = format!("{said}: a/read-models.sqlite");
        assert_eq!(told(&named), format!("the read-model store failed: {named}"));
    }
}
