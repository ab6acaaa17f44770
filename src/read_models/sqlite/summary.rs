//! What a backup notes of the read models: which builds are live and what is parked. The
//! documents themselves are derived and not noted.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use super::errors::failed;
use super::open_reader;
use crate::read_models::ReadModelError;

/// Aliases, builds and dead letters as JSON arrays, read beside the process that writes them;
/// `null` if there is no file.
pub fn summary(file: &Path) -> Result<Value, ReadModelError> {
    if !file.exists() {
        return Ok(Value::Null);
    }
    let read = || -> rusqlite::Result<Value> {
        let connection = open_reader(file)?;
        Ok(json!({
            "aliases": rows(&connection, "SELECT * FROM aliases ORDER BY 1")?,
            "builds": rows(&connection, "SELECT * FROM builds ORDER BY 1")?,
            "dead_letters": rows(&connection, "SELECT * FROM dead_letters ORDER BY 1, 2")?,
        }))
    };
    read().map_err(|error| failed(&file.display().to_string(), &error))
}

fn rows(connection: &Connection, query: &str) -> rusqlite::Result<Vec<Value>> {
    let mut statement = connection.prepare(query)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let rows = statement.query_map([], |row| {
        let mut object = serde_json::Map::new();
        for (index, column) in columns.iter().enumerate() {
            let value = match row.get_ref(index)? {
                ValueRef::Integer(number) => number.into(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
                _ => Value::Null,
            };
            object.insert(column.clone(), value);
        }
        Ok(Value::Object(object))
    })?;
    rows.collect()
}
