//! What `SQLite` says, in the words of the port.

use dramatis_events::Position;
use rusqlite::ErrorCode;

use crate::read_models::ReadModelError;

pub(super) fn stopped() -> ReadModelError {
    ReadModelError::Failure { reason: "the connection's thread ended".into() }
}

/// An error of a statement on an open store.
pub(super) fn failed(place: &str, error: &rusqlite::Error) -> ReadModelError {
    let reason = error.to_string();
    // A build may be dropped between a look at the alias and the query.
    if let Some((_, table)) = reason.split_once("no such table: documents ") {
        let collection = table.split_whitespace().next().unwrap_or_default().to_owned();
        return ReadModelError::NoBuild { collection };
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(place, reason),
        _ => ReadModelError::Failure { reason },
    }
}

pub(super) fn damaged(place: &str, reason: impl Into<String>) -> ReadModelError {
    ReadModelError::Damaged { place: place.to_owned(), reason: reason.into() }
}

/// Positions are unsigned, the integers of `SQLite` are not.
pub(super) fn to_column(position: Position) -> Result<i64, ReadModelError> {
    i64::try_from(position.to_engine()).map_err(|_| ReadModelError::Unfit {
        what: "a position",
        expected: "a number below 2^63",
        got: position.to_string(),
    })
}

pub(super) fn from_column(place: &str, column: i64) -> Result<Position, ReadModelError> {
    u64::try_from(column)
        .map(Position::from_engine)
        .map_err(|_| damaged(place, format!("the position {column} is negative")))
}
