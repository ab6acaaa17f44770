//! Small texts under names, changed by compare-and-set.

use rusqlite::{Connection, params};

/// Keeps another note if the present one is as expected; tells whether it did.
pub(super) fn swap(
    connection: &Connection,
    name: &str,
    expected: Option<String>,
    note: Option<String>,
) -> rusqlite::Result<bool> {
    let changed = match (expected, note) {
        (None, None) => {
            let there = connection.prepare_cached("SELECT 1 FROM notes WHERE name = ?")?.exists([name])?;
            return Ok(!there);
        }
        (None, Some(note)) => connection.execute(
            "INSERT INTO notes (name, note) VALUES (?, ?) ON CONFLICT DO NOTHING",
            params![name, note],
        )?,
        (Some(expected), Some(note)) => connection.execute(
            "UPDATE notes SET note = ? WHERE name = ? AND note = ?",
            params![note, name, expected],
        )?,
        (Some(expected), None) => {
            connection.execute("DELETE FROM notes WHERE name = ? AND note = ?", params![name, expected])?
        }
    };
    Ok(changed == 1)
}
