//! Read models in one `SQLite` file: the engine of a single node.
//!
//! One connection writes, on its own thread; a few read beside it (write-ahead logging), one searches
//! and one counts: a word that stands in every message takes long, as counting many documents does,
//! and only other searches, and counts, wait for that. A count is given up after a while. One more moves
//! what was written from the write-ahead log into the file.
//! `synchronous` is NORMAL: after a power cut the last transactions may be gone, whole, and
//! with them their checkpoint, so the projector folds their events again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dramatis_events::{Epoch, Position};
use dramatis_projections::{DeadLetter, Stored};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params, params_from_iter};

use super::{
    Answer, Batch, Build, Checkpoint, Document, FIND_BYTES_MAX, Lease, NewBuild, Query, ReadModelError,
    ReadModels, SCAN_BYTES_MAX, Search, StoreHealth, names,
};
use crate::dirs;
use crate::priority::READ_MODELS;
use errors::{damaged, failed, is_full};
use mover::{Calls, Mover};
use worker::Worker;

mod best;
mod count;
mod create;
mod dropped;
mod errors;
mod lease;
mod mover;
mod notes;
mod schema;
mod summary;
mod worker;
mod write;

pub use summary::summary;

/// How many connections read beside the writer.
const READERS: usize = 3;
/// The most jobs that wait for the writer, or for a reader.
const WAITING_MAX: usize = 4_096;
/// The most searches that wait.
const SEARCHES_MAX: usize = 64;
/// The most counts that wait.
const COUNTS_MAX: usize = 64;
/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared by each connection.
const STATEMENTS_MAX: usize = 64;

/// The store. Dropping it closes the file.
pub struct SqliteReadModels {
    place: String,
    writer: Worker,
    readers: Vec<Worker>,
    searcher: Worker,
    counter: Worker,
    next_reader: AtomicUsize,
    /// The last to close the file: it ends after the connection that calls it.
    _mover: Mover,
}

impl SqliteReadModels {
    /// Opens the file, or creates it. On a full disk there is a store all the same: it answers with
    /// failures until there is room, since the log's reads need none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadModelError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let mover = Mover::start(path.to_owned());
        let (mover, calls) = mover.map_err(|e| ReadModelError::Failure { reason: e.to_string() })?;
        let connection = match open_writer(path, calls.clone()) {
            Err(error) if is_full(&error) => {
                tracing::warn!(%place, %error, "read models are not opened until there is room");
                None
            }
            opened => Some(ours(&place, opened)?),
        };
        let is_open = connection.is_some();
        let (again, named) = (path.to_owned(), place.clone());
        let open = Box::new(move || ours(&named, open_writer(&again, calls.clone())));
        let chore = dropped::chore(place.clone());
        let writer = Worker::start("read-models-write", READ_MODELS, connection, open, WAITING_MAX, chore)?;
        let reader = |name: &str, waiting_max: usize| {
            let (path, place) = (path.to_owned(), place.clone());
            let open = Box::new(move || open_reader(&path).map_err(|e| failed(&place, &e)));
            Worker::start(name, 0, is_open.then(&open).transpose()?, open, waiting_max, Box::new(|_| false))
        };
        let readers = (0..READERS).map(|_| reader("read-models-read", WAITING_MAX));
        let readers = readers.collect::<Result<_, _>>()?;
        let searcher = reader("read-models-find", SEARCHES_MAX)?;
        let counter = reader("read-models-count", COUNTS_MAX)?;
        Ok(Self {
            place,
            writer,
            readers,
            searcher,
            counter,
            next_reader: AtomicUsize::new(0),
            _mover: mover,
        })
    }

    fn read<T, F>(&self, job: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let place = self.place.clone();
        self.reader().ask(move |connection| job(connection).map_err(|e| failed(&place, &e)))
    }

    /// One after the other.
    fn reader(&self) -> &Worker {
        let turn = self.next_reader.fetch_add(1, Ordering::Relaxed) % READERS;
        self.readers.get(turn).unwrap_or(&self.writer)
    }

    fn change<T, F>(&self, job: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let place = self.place.clone();
        self.writer.run(move |connection| job(connection).map_err(|e| failed(&place, &e)))
    }

    fn documents(
        &self,
        worker: &Worker,
        sql: String,
        values: Vec<rusqlite::types::Value>,
        is_enough: fn(usize, usize) -> bool,
    ) -> Answer<Vec<Document>> {
        let place = self.place.clone();
        worker.ask(move |connection| {
            let found = || -> rusqlite::Result<Vec<Row>> {
                let mut statement = connection.prepare_cached(&sql)?;
                let mut found = statement.query_map(params_from_iter(values), row)?;
                let (mut rows, mut bytes) = (Vec::new(), 0_usize);
                while !is_enough(rows.len(), bytes)
                    && let Some(row) = found.next().transpose()?
                {
                    bytes = bytes.saturating_add(row.2.as_ref().map_or(0, String::len));
                    rows.push(row);
                }
                Ok(rows)
            };
            let rows = found().map_err(|e| failed(&place, &e))?;
            rows.into_iter().map(|row| document(&place, row)).collect()
        })
    }

    fn refuse<T: Send + 'static>(error: ReadModelError) -> Answer<T> {
        Box::pin(async move { Err(error) })
    }
}

/// The connection that writes; the error within is whose file it is if it is not ours.
fn open_writer(path: &Path, calls: Calls) -> rusqlite::Result<Result<Connection, String>> {
    // The write-ahead log gets the mode of this file. If it cannot be made, opening says why.
    let _ = dirs::make_file(path);
    let mut connection = Connection::open(path)?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if (application, format) != (schema::APPLICATION_ID, schema::FORMAT) && (application != 0 || tables > 0) {
        return Ok(Err(format!(
            "expected application id {} and format {}, found {application} and {format}",
            schema::APPLICATION_ID,
            schema::FORMAT
        )));
    }
    tune(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    calls.follow(&mut connection)?;
    schema::create(&connection)?;
    Ok(Ok(connection))
}

fn ours(
    place: &str,
    opened: rusqlite::Result<Result<Connection, String>>,
) -> Result<Connection, ReadModelError> {
    opened.map_err(|error| failed(place, &error))?.map_err(|foreign| damaged(place, foreign))
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(PathBuf::from(path), flags)?;
    tune(&connection)?;
    Ok(connection)
}

fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Kibibytes, as the minus sign says: 16 MiB a connection.
    connection.pragma_update(None, "cache_size", -16_384)
}

/// Whether so many documents of so many bytes are more than a page shows.
fn is_past_a_page(documents: usize, bytes: usize) -> bool {
    documents > 1 && bytes > FIND_BYTES_MAX
}

/// A row before its position is checked.
type Row = (String, i64, Option<String>);

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn stored(place: &str, (key, position, body): Row) -> Result<Stored, ReadModelError> {
    Ok(Stored { key, position: names::from_stored(place, position)?, body })
}

fn document(place: &str, row: Row) -> Result<Document, ReadModelError> {
    let Stored { key, position, body } = stored(place, row)?;
    Ok(Document { key, position, body: body.unwrap_or_default() })
}

impl ReadModels for SqliteReadModels {
    fn create(&self, build: NewBuild) -> Answer<()> {
        let place = self.place.clone();
        self.writer.run(move |connection| create::build(connection, &place, &build))
    }

    fn index_build(&self, build: NewBuild) -> Answer<()> {
        let place = self.place.clone();
        self.writer.run(move |connection| create::index(connection, &place, &build))
    }

    fn builds(&self) -> Answer<Vec<Build>> {
        let place = self.place.clone();
        let rows = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT collection, projection, version, epoch, position FROM builds ORDER BY collection",
            )?;
            let rows = statement.query_map([], |row| {
                let (epoch, position): (String, Option<i64>) = (row.get(3)?, row.get(4)?);
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, epoch, position))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        Box::pin(async move {
            let rows = rows.await?.into_iter();
            let builds = rows.map(|(collection, projection, version, epoch, position)| {
                let checkpoint = checkpoint(&place, &epoch, position)?;
                Ok(Build { collection, projection, version, checkpoint })
            });
            builds.collect()
        })
    }

    fn is_whole(&self, collection: &str) -> Answer<bool> {
        let table = match schema::table(collection) {
            Ok(table) => table,
            Err(error) => return Self::refuse(error),
        };
        self.read(move |connection| {
            let mut named = connection.prepare_cached("SELECT 1 FROM sqlite_master WHERE name = ?")?;
            named.exists([table.trim_matches('"')])
        })
    }

    fn drop_build(&self, collection: &str) -> Answer<()> {
        if let Err(error) = names::collection(collection) {
            return Self::refuse(error);
        }
        let collection = collection.to_owned();
        self.change(move |connection| dropped::set_aside(connection, &collection))
    }

    fn load(&self, collection: &str, keys: Vec<String>) -> Answer<Vec<Stored>> {
        let table = match schema::table(collection) {
            Ok(table) => table,
            Err(error) => return Self::refuse(error),
        };
        let rows = self.read(move |connection| {
            // One snapshot for all keys.
            let transaction = connection.transaction()?;
            let sql = format!("SELECT key, position, body FROM {table} WHERE key = ?");
            let mut statement = transaction.prepare_cached(&sql)?;
            let mut rows = Vec::new();
            for key in keys {
                rows.extend(statement.query_row([key], row).optional()?);
            }
            Ok(rows)
        });
        let place = self.place.clone();
        Box::pin(async move { rows.await?.into_iter().map(|row| stored(&place, row)).collect() })
    }

    fn write(&self, collection: &str, batch: Arc<Batch>) -> Answer<()> {
        let (place, collection) = (self.place.clone(), collection.to_owned());
        self.writer.run(move |connection| {
            let transaction = connection.transaction().map_err(|e| failed(&place, &e))?;
            write::batch(&transaction, &place, &collection, &batch)?;
            transaction.commit().map_err(|e| failed(&place, &e))
        })
    }

    fn dead_letters(&self, collection: &str) -> Answer<Vec<DeadLetter>> {
        let collection = collection.to_owned();
        let rows = self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, position, event, error FROM dead_letters WHERE collection = ? ORDER BY position, key",
            )?;
            let rows = statement
                .query_map([collection], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, i64, String, String)>>>()
        });
        let place = self.place.clone();
        Box::pin(async move {
            let letters = rows.await?.into_iter().map(|(key, position, event, error)| {
                Ok(DeadLetter { key, position: names::from_stored(&place, position)?, event, error })
            });
            letters.collect()
        })
    }

    fn remove_dead_letter(&self, collection: &str, key: &str, position: Position) -> Answer<bool> {
        let (collection, key) = (collection.to_owned(), key.to_owned());
        let position = match names::to_stored(position) {
            Ok(position) => position,
            Err(error) => return Self::refuse(error),
        };
        self.change(move |connection| {
            let sql = "DELETE FROM dead_letters WHERE collection = ? AND key = ? AND position = ?";
            Ok(connection.execute(sql, params![collection, key, position])? == 1)
        })
    }

    fn purge_tombstones(&self, collection: &str, up_to: Position) -> Answer<u64> {
        let purge = schema::purge(collection).and_then(|sql| Ok((sql, names::to_stored(up_to)?)));
        let (sql, up_to) = match purge {
            Ok(purge) => purge,
            Err(error) => return Self::refuse(error),
        };
        let collection = collection.to_owned();
        self.change(move |connection| {
            Ok(u64::try_from(connection.execute(&sql, params![up_to, collection])?).unwrap_or(u64::MAX))
        })
    }

    fn get(&self, collection: &str, key: &str) -> Answer<Option<Document>> {
        let table = match schema::table(collection) {
            Ok(table) => table,
            Err(error) => return Self::refuse(error),
        };
        let key = key.to_owned();
        let found = self.read(move |connection| {
            let sql = format!("SELECT key, position, body FROM {table} WHERE key = ? AND body IS NOT NULL");
            connection.prepare_cached(&sql)?.query_row([key], row).optional()
        });
        let place = self.place.clone();
        Box::pin(async move { found.await?.map(|row| document(&place, row)).transpose() })
    }

    fn find(&self, collection: &str, query: Query) -> Answer<Vec<Document>> {
        match schema::select(collection, &query) {
            Ok((sql, values)) => self.documents(self.reader(), sql, values, is_past_a_page),
            Err(error) => Self::refuse(error),
        }
    }

    fn search(&self, collection: &str, search: Search) -> Answer<Vec<Document>> {
        if search.sort.is_none() && search.key_prefix.is_some() {
            let (place, collection) = (self.place.clone(), collection.to_owned());
            let best =
                move |connection: &mut Connection| best::documents(connection, &place, &collection, &search);
            return self.searcher.ask(best);
        }
        match schema::search(collection, &search) {
            Ok(Some((sql, values))) => self.documents(&self.searcher, sql, values, is_past_a_page),
            Ok(None) => Box::pin(async { Ok(Vec::new()) }),
            Err(error) => Self::refuse(error),
        }
    }

    fn scan(&self, collection: &str, after: Option<String>, limit: usize) -> Answer<Vec<Document>> {
        match schema::scan(collection, limit) {
            Ok(sql) => {
                // No key is empty.
                let after = vec![after.unwrap_or_default().into()];
                self.documents(self.reader(), sql, after, |_, bytes| bytes >= SCAN_BYTES_MAX)
            }
            Err(error) => Self::refuse(error),
        }
    }

    fn count(&self, collection: &str) -> Answer<u64> {
        let table = match schema::table(collection) {
            Ok(table) => table,
            Err(error) => return Self::refuse(error),
        };
        let place = self.place.clone();
        self.counter.ask(move |connection| count::count(connection, &place, &table, count::WITHIN))
    }

    fn alias(&self, projection: &str) -> Answer<Option<String>> {
        let projection = projection.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT collection FROM aliases WHERE projection = ?")?
                .query_row([projection], |row| row.get(0))
                .optional()
        })
    }

    fn note(&self, name: &str) -> Answer<Option<String>> {
        let name = name.to_owned();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached("SELECT note FROM notes WHERE name = ?")?;
            statement.query_row([name], |row| row.get(0)).optional()
        })
    }

    fn swap_note(&self, name: &str, expected: Option<String>, note: Option<String>) -> Answer<bool> {
        let name = name.to_owned();
        self.change(move |connection| notes::swap(connection, &name, expected, note))
    }

    fn swap_alias(&self, projection: &str, expected: Option<String>, collection: &str) -> Answer<bool> {
        let (projection, collection) = (projection.to_owned(), collection.to_owned());
        self.change(move |connection| {
            let changed = match expected {
                None => connection.execute(
                    "INSERT INTO aliases (projection, collection) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    [projection, collection],
                ),
                Some(expected) => connection.execute(
                    "UPDATE aliases SET collection = ? WHERE projection = ? AND collection = ?",
                    [collection, projection, expected],
                ),
            };
            Ok(changed? == 1)
        })
    }

    fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Answer<Lease> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.change(move |connection| lease::take(connection, &name, &holder, ttl))
    }

    fn release(&self, name: &str, holder: &str) -> Answer<()> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.change(move |connection| lease::give_back(connection, &name, &holder))
    }

    fn health(&self) -> StoreHealth {
        // It is a part of this process.
        StoreHealth { latency: None, trouble: None }
    }
}

fn checkpoint(place: &str, epoch: &str, position: Option<i64>) -> Result<Checkpoint, ReadModelError> {
    let epoch: Epoch = epoch.parse().map_err(|e| damaged(place, format!("{e}")))?;
    let position = position.map(|column| names::from_stored(place, column)).transpose()?;
    Ok(Checkpoint { epoch, position })
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
