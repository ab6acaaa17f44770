//! Counting documents. Every one of them is looked at, so it is given up after a while.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::errors::failed;
use crate::read_models::ReadModelError;

/// How long documents are counted.
pub(super) const WITHIN: Duration = Duration::from_secs(2);
/// Steps of the statement between two looks at the time; a document takes a few.
const STEPS: i32 = 10_000;

/// The documents of a table.
pub(super) fn count(
    connection: &mut Connection,
    place: &str,
    table: &str,
    within: Duration,
) -> Result<u64, ReadModelError> {
    let until = Instant::now() + within;
    let counted = counted(connection, table, move || Instant::now() >= until);
    match counted {
        Ok(count) => Ok(u64::try_from(count).unwrap_or(0)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            let reason = format!("counting took longer than {} ms", within.as_millis());
            Err(ReadModelError::Failure { reason })
        }
        Err(error) => Err(failed(place, &error)),
    }
}

fn counted(
    connection: &mut Connection,
    table: &str,
    is_late: impl FnMut() -> bool + Send + 'static,
) -> rusqlite::Result<i64> {
    connection.progress_handler(STEPS, Some(is_late))?;
    let sql = format!("SELECT count(*) FROM {table} WHERE body IS NOT NULL");
    let counted = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    counted
}
