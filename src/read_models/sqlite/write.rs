//! What a batch does to the tables.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::Value;

use super::errors::failed;
use super::{checkpoint, schema};
use crate::read_models::{Batch, Checkpoint, ReadModelError, names, text};

/// Documents, dead letters and checkpoint in one transaction.
pub(super) fn batch(
    transaction: &Transaction<'_>,
    place: &str,
    collection: &str,
    batch: &Batch,
) -> Result<(), ReadModelError> {
    let failed = |e: rusqlite::Error| failed(place, &e);
    let table = schema::table(collection)?;
    let build: Option<(String, Option<i64>)> = transaction
        .prepare_cached("SELECT epoch, position FROM builds WHERE collection = ?")
        .and_then(|mut statement| {
            statement.query_row([collection], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(failed)?;
    let (epoch, position) =
        build.ok_or_else(|| ReadModelError::NoBuild { collection: collection.to_owned() })?;
    goes_on_from(collection, checkpoint(place, &epoch, position)?, batch)?;
    let words = fields_searched(transaction, collection).map_err(failed)?;
    let words = words.map(|fields| Words::new(collection, fields)).transpose()?;
    let sql = format!(
        "INSERT INTO {table} (key, position, body) VALUES (?, ?, ?)
         ON CONFLICT (key) DO UPDATE SET position = excluded.position, body = excluded.body
         WHERE excluded.position > position{}",
        if words.is_some() { " RETURNING id" } else { "" }
    );
    let mut upsert = transaction.prepare_cached(&sql).map_err(failed)?;
    let mut applied = Vec::new();
    for document in &batch.writes {
        let values = params![document.key, names::to_stored(document.position)?, document.body];
        if words.is_some() {
            let id = upsert.query_row(values, |row| row.get::<_, i64>(0)).optional().map_err(failed)?;
            applied.extend(id.map(|id| (id, document.body.as_deref())));
        } else {
            upsert.execute(values).map_err(failed)?;
        }
    }
    // After all documents, and not each after its own: a statement that returns something begins a
    // savepoint, for which the full-text index writes down what it has gathered.
    if let Some(words) = &words {
        let index = |(id, body)| words.index(transaction, id, body);
        applied.into_iter().try_for_each(index).map_err(failed)?;
    }
    for letter in &batch.parked {
        let position = names::to_stored(letter.position)?;
        let sql = "INSERT INTO dead_letters (collection, key, position, event, error)
                   VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
                   SET position = excluded.position, event = excluded.event, error = excluded.error
                   WHERE excluded.position > position";
        let values = params![collection, letter.key, position, letter.event, letter.error];
        transaction.execute(sql, values).map_err(failed)?;
    }
    if let Some(position) = batch.checkpoint.position {
        let sql = "UPDATE builds SET position = max(coalesce(position, 0), ?) WHERE collection = ?";
        transaction.execute(sql, params![names::to_stored(position)?, collection]).map_err(failed)?;
    }
    Ok(())
}

/// Whether a batch was folded from what is stored.
fn goes_on_from(collection: &str, stored: Checkpoint, batch: &Batch) -> Result<(), ReadModelError> {
    let collection = collection.to_owned();
    let Checkpoint { epoch: stored, position } = stored;
    let got = batch.checkpoint.epoch;
    match batch.after {
        _ if stored != got => Err(ReadModelError::OtherEpoch { collection, stored, got }),
        Some(acknowledged) if position < Some(acknowledged) => {
            Err(ReadModelError::SetBack { collection, acknowledged })
        }
        _ => Ok(()),
    }
}

/// The fields whose words a collection indexes; `None` if it is not searched.
pub(super) fn fields_searched(
    connection: &Connection,
    collection: &str,
) -> rusqlite::Result<Option<Vec<String>>> {
    let mut columns = connection.prepare_cached("SELECT name FROM pragma_table_info('words ' || ?)")?;
    let columns = columns.query_map([collection], |row| row.get::<_, String>(0))?;
    let columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
    let fields = columns.iter().filter_map(|column| column.strip_prefix(schema::WORDS_OF));
    let fields: Vec<_> = fields.map(str::to_owned).collect();
    Ok((!fields.is_empty()).then_some(fields))
}

/// The full-text index of a collection.
struct Words {
    fields: Vec<String>,
    put: String,
    remove: String,
}

impl Words {
    fn new(collection: &str, fields: Vec<String>) -> Result<Self, ReadModelError> {
        let table = schema::words_table(collection)?;
        let columns = fields.iter().map(|field| format!("{}{field}", schema::WORDS_OF));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let places = ", ?".repeat(fields.len());
        Ok(Self {
            fields,
            put: format!("INSERT OR REPLACE INTO {table} (rowid, {columns}) VALUES (?{places})"),
            remove: format!("DELETE FROM {table} WHERE rowid = ?"),
        })
    }

    fn index(&self, transaction: &Transaction<'_>, id: i64, body: Option<&str>) -> rusqlite::Result<()> {
        let Some(body) = body else {
            return transaction.prepare_cached(&self.remove)?.execute([id]).map(drop);
        };
        // What is no object has no fields.
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let mut put = transaction.prepare_cached(&self.put)?;
        put.raw_bind_parameter(1, id)?;
        for (place, field) in (2..).zip(&self.fields) {
            let text = body.get(field).and_then(Value::as_str).unwrap_or_default();
            put.raw_bind_parameter(place, text::words(text))?;
        }
        put.raw_execute().map(drop)
    }
}
