//! Making builds and their indexes.

use rusqlite::{Connection, OptionalExtension, params};

use super::errors::failed;
use super::schema;
use crate::read_models::{NewBuild, ReadModelError};

/// Creates a build with its indexes, in one transaction.
pub(super) fn build(
    connection: &mut Connection,
    place: &str,
    build: &NewBuild,
) -> Result<(), ReadModelError> {
    let failed = |e: rusqlite::Error| failed(place, &e);
    let (sql, indexes) = (schema::create_collection(build)?, schema::indexes(build)?);
    let transaction = connection.transaction().map_err(failed)?;
    transaction.execute_batch(&sql).map_err(failed)?;
    transaction
        .execute(
            "INSERT INTO builds (collection, projection, version, epoch, position)
             VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
            params![build.collection, build.projection, build.version, build.epoch.to_string()],
        )
        .map_err(failed)?;
    make(&transaction, &indexes).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// Brings the indexes of a build that is there up to what they are now.
pub(super) fn index(
    connection: &mut Connection,
    place: &str,
    build: &NewBuild,
) -> Result<(), ReadModelError> {
    let failed = |e: rusqlite::Error| failed(place, &e);
    let indexes = schema::indexes(build)?;
    let transaction = connection.transaction().map_err(failed)?;
    let known = "SELECT 1 FROM builds WHERE collection = ?";
    let known = transaction.query_row(known, [&build.collection], |_| Ok(())).optional().map_err(failed)?;
    known.ok_or_else(|| ReadModelError::NoBuild { collection: build.collection.clone() })?;
    make(&transaction, &indexes).map_err(failed)?;
    transaction.commit().map_err(failed)
}

fn make(connection: &Connection, indexes: &[(String, String)]) -> rusqlite::Result<()> {
    for (name, sql) in indexes {
        let there = "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?";
        let there: Option<String> = connection.query_row(there, [name], |row| row.get(0)).optional()?;
        match there {
            Some(there) if there == *sql => {}
            _ => connection.execute_batch(&format!("DROP INDEX IF EXISTS \"{name}\"; {sql}"))?,
        }
    }
    Ok(())
}
