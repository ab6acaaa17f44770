//! Tables and statements, as text.
//!
//! `builds` holds checkpoints, `aliases` the live builds, `dead_letters` the parked keys, `notes`
//! what the projector keeps about its work; each build has a table of documents named after its collection. Fields are indexed by
//! expression, so that a document is stored once.

use dramatis_projections::{Field, Index};
use rusqlite::Connection;

use crate::read_models::{Direction, FIND_MAX, Place, Query, ReadModelError, Value};

/// Says that a file is ours: `dram` in ASCII.
pub(super) const APPLICATION_ID: i64 = 0x6472_616d;
/// Raised with every change of these tables.
pub(super) const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS builds (
        collection TEXT PRIMARY KEY, projection TEXT NOT NULL, version INTEGER NOT NULL,
        epoch TEXT NOT NULL, position INTEGER) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS aliases (
        projection TEXT PRIMARY KEY, collection TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS notes (
        name TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS dead_letters (
        collection TEXT NOT NULL, key TEXT NOT NULL, position INTEGER NOT NULL,
        event TEXT NOT NULL, error TEXT NOT NULL, PRIMARY KEY (collection, key)) WITHOUT ROWID;";

/// Marks a new file as ours and creates the tables that every store has.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.execute_batch(TABLES)
}

/// The table of a collection, quoted. The name's form is checked: it stands in statements.
pub(super) fn table(collection: &str) -> Result<String, ReadModelError> {
    let well_formed = collection.split_once('@').is_some_and(|(name, number)| {
        let letters = |b: u8| b.is_ascii_lowercase() || b == b'_';
        (1..=64).contains(&name.len())
            && name.bytes().all(letters)
            && (1..=9).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_digit())
    });
    if well_formed {
        Ok(format!("\"documents {collection}\""))
    } else {
        Err(ReadModelError::Unfit {
            what: "a collection",
            expected: "a projection's name, @ and a number, as rooms@1",
            got: collection.to_owned(),
        })
    }
}

/// Creates the documents of a collection and their indexes.
pub(super) fn create_collection(collection: &str, indexes: &[Index]) -> Result<String, ReadModelError> {
    let table = table(collection)?;
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS {table} (
            key TEXT PRIMARY KEY, position INTEGER NOT NULL, body TEXT) WITHOUT ROWID"
    )];
    for index in indexes {
        let columns: Result<Vec<_>, _> = index.fields.iter().map(|field| column(*field)).collect();
        let columns = columns?.join(", ");
        let name = field_name(index.name)?;
        statements.push(format!(
            "CREATE INDEX IF NOT EXISTS \"{name} {collection}\" ON {table} ({columns}, key)
                WHERE body IS NOT NULL"
        ));
    }
    Ok(statements.join(";\n"))
}

fn column(field: Field) -> Result<String, ReadModelError> {
    Ok(format!("json_extract(body, '$.{}')", field_name(field.name)?))
}

fn field_name(name: &'static str) -> Result<&'static str, ReadModelError> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        Ok(name)
    } else {
        let expected = "lower-case letters and underscores";
        Err(ReadModelError::Unfit { what: "a field's name", expected, got: name.to_owned() })
    }
}

/// A query as a statement and its parameters.
pub(super) fn select(
    collection: &str,
    query: &Query,
) -> Result<(String, Vec<rusqlite::types::Value>), ReadModelError> {
    let table = table(collection)?;
    let mut conditions = vec!["body IS NOT NULL".to_owned()];
    let mut values = Vec::new();
    if let Some(prefix) = &query.key_prefix {
        conditions.push("key >= ? AND key < ?".to_owned());
        values.extend([prefix.clone().into(), past_prefix(prefix)?.into()]);
    }
    for (field, value) in &query.equal {
        conditions.push(format!("{} = ?", column(*field)?));
        values.push(parameter(value));
    }
    let (order, comparison) = match query.direction {
        Direction::Ascending => ("ASC", ">"),
        Direction::Descending => ("DESC", "<"),
    };
    let sort = query.sort.map(column).transpose()?;
    match (&query.after, &sort) {
        (Some(Place { value: Some(value), key }), Some(sort)) => {
            conditions.push(format!("({sort}, key) {comparison} (?, ?)"));
            values.extend([parameter(value), key.clone().into()]);
        }
        (Some(Place { value: None, key }), None) => {
            conditions.push(format!("key {comparison} ?"));
            values.push(key.clone().into());
        }
        (Some(place), _) => {
            let expected = "a value exactly where the query sorts by a field";
            return Err(ReadModelError::Unfit { what: "a place", expected, got: format!("{place:?}") });
        }
        (None, _) => {}
    }
    let sort = sort.map_or_else(String::new, |sort| format!("{sort} {order}, "));
    let (conditions, limit) = (conditions.join(" AND "), query.limit.min(FIND_MAX));
    let sql = format!(
        "SELECT key, position, body FROM {table} WHERE {conditions} ORDER BY {sort}key {order} LIMIT {limit}"
    );
    Ok((sql, values))
}

fn parameter(value: &Value) -> rusqlite::types::Value {
    match value {
        Value::Text(text) => text.clone().into(),
        Value::Integer(integer) => (*integer).into(),
    }
}

/// The first text past all that begin with the prefix.
fn past_prefix(prefix: &str) -> Result<String, ReadModelError> {
    let mut chars = prefix.chars();
    let next = chars.next_back().filter(char::is_ascii).and_then(|last| char::from_u32(u32::from(last) + 1));
    let next = next.ok_or_else(|| ReadModelError::Unfit {
        what: "a key's prefix",
        expected: "text that ends in an ASCII character",
        got: prefix.to_owned(),
    })?;
    Ok(format!("{}{next}", chars.as_str()))
}
