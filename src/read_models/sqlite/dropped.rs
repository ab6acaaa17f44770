//! Builds that are dropped: out of sight at once, and emptied little by little.
//!
//! To free a table the file is read where the table stands, page by page, and for so long nothing else is
//! written. So a drop only gives what the build is kept in other names, under which nothing is looked for; between
//! the jobs of the writer these tables are emptied, slice by slice, and then dropped. What a process that ends
//! leaves of them is gone on with at the next start.

use rusqlite::{Connection, OptionalExtension, params};

use super::worker::Chore;

/// What the names of tables begin with that are to be emptied.
const DROPPED: &str = "dropped ";
/// The most rows that are removed at once.
pub(super) const SLICE_ROWS_MAX: usize = 1_000;
/// And about how many bytes of documents.
const SLICE_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// Takes a build away, in one transaction: from here on there is none.
pub(super) fn set_aside(connection: &mut Connection, collection: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for table in ["builds", "dead_letters"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE collection = ?"), [collection])?;
    }
    // A number of its own: a build of this name may be made anew, and dropped, before this one is gone.
    let number: i64 = transaction.pragma_query_value(None, "schema_version", |row| row.get(0))?;
    for table in ["documents", "words"] {
        let name = format!("{table} {collection}");
        let known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?";
        if transaction.query_row(known, [&name], |_| Ok(())).optional()?.is_some() {
            let renamed = format!("ALTER TABLE \"{name}\" RENAME TO \"{DROPPED}{number} {name}\"");
            transaction.execute_batch(&renamed)?;
        }
    }
    // It would keep its name, and is small. The others are made anew with another table.
    transaction.execute_batch(&format!("DROP INDEX IF EXISTS \"tombstones {collection}\""))?;
    transaction.commit()
}

/// Empties what was set aside, a slice each time. After a failure it rests until there was a job.
pub(super) fn chore(place: String) -> Chore {
    let mut failed = false;
    Box::new(move |connection| {
        let emptied = slice(connection);
        if let (Err(error), false) = (&emptied, failed) {
            tracing::warn!(%place, %error, "dropped builds still take space in the file: it is tried again");
        }
        failed = emptied.is_err();
        emptied.unwrap_or(false)
    })
}

/// Removes some rows, or the tables once they are empty; tells whether there is more.
pub(super) fn slice(connection: &mut Connection) -> rusqlite::Result<bool> {
    let any = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name LIKE ? || '%'";
    if !connection.prepare_cached(any)?.exists([DROPPED])? {
        return Ok(false);
    }
    let tables = tables(connection)?;
    for (name, kind) in &tables {
        if emptied_a_little(connection, name, kind)? {
            return Ok(true);
        }
    }
    let transaction = connection.transaction()?;
    // A full-text index takes its own tables with it.
    for (name, _) in tables.iter().filter(|(_, kind)| kind != "shadow") {
        transaction.execute_batch(&format!("DROP TABLE \"{name}\""))?;
    }
    transaction.commit().map(|()| false)
}

/// The tables that are to be emptied, and what they are to `SQLite`.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = "SELECT name, type FROM pragma_table_list WHERE name LIKE ? || '%'";
    let mut tables = connection.prepare(sql)?;
    tables.query_map([DROPPED], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Removes the first rows of a table; tells whether there were any.
fn emptied_a_little(connection: &Connection, name: &str, kind: &str) -> rusqlite::Result<bool> {
    // Row by row a full-text index without a copy of the text would only grow: it is nobody's any more, and its own
    // tables are emptied. What it is like stands in the one that is left, which dropping it reads.
    let key = match (kind, name.rsplit_once('_')) {
        ("table", _) => return emptied_of_documents(connection, name),
        ("shadow", Some((_, "idx"))) => "segid, term",
        ("shadow", Some((_, "data" | "docsize"))) => "id",
        _ => return Ok(false),
    };
    let first = format!("SELECT {key} FROM \"{name}\" LIMIT {SLICE_ROWS_MAX}");
    Ok(connection.execute(&format!("DELETE FROM \"{name}\" WHERE ({key}) IN ({first})"), [])? > 0)
}

fn emptied_of_documents(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let (mut last, mut bytes) = (None::<String>, 0_i64);
    {
        let sql = format!(
            "SELECT key, coalesce(octet_length(body), 0) FROM \"{name}\" ORDER BY key LIMIT {SLICE_ROWS_MAX}"
        );
        let mut first = connection.prepare(&sql)?;
        let mut rows = first.query([])?;
        while bytes < SLICE_BYTES_MAX
            && let Some(row) = rows.next()?
        {
            last = Some(row.get(0)?);
            bytes = bytes.saturating_add(row.get(1)?);
        }
    }
    let Some(last) = last else { return Ok(false) };
    connection.execute(&format!("DELETE FROM \"{name}\" WHERE key <= ?"), params![last])?;
    Ok(true)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests;
