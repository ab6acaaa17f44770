//! Read models in one `SQLite` file: the engine of a single node.
//!
//! One connection writes, on its own thread; a few read beside it (write-ahead logging).
//! `synchronous` is NORMAL: after a power cut the last transactions may be gone, whole, and
//! with them their checkpoint, so the projector folds their events again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dramatis_events::Epoch;
use dramatis_projections::{DeadLetter, Stored};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params, params_from_iter};

use super::{
    Answer, Batch, Build, Checkpoint, Document, FIND_MAX, NewBuild, Query, ReadModelError, ReadModels,
};
use errors::{damaged, failed, from_column, to_column};
use worker::Worker;

mod errors;
mod notes;
mod schema;
mod summary;
mod worker;

pub use summary::summary;

/// How many connections read beside the writer.
const READERS: usize = 3;
/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared by each connection.
const STATEMENTS_MAX: usize = 64;

/// The store. Dropping it closes the file.
pub struct SqliteReadModels {
    place: String,
    writer: Worker,
    readers: Vec<Worker>,
    next_reader: AtomicUsize,
}

impl SqliteReadModels {
    /// Opens the file, or creates it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadModelError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let connection = open_writer(path, &place)?;
        let writer = Worker::start("read-models-write", connection)?;
        let readers = (0..READERS).map(|_| {
            let connection = open_reader(path).map_err(|e| failed(&place, &e))?;
            Worker::start("read-models-read", connection)
        });
        let readers = readers.collect::<Result<_, _>>()?;
        Ok(Self { place, writer, readers, next_reader: AtomicUsize::new(0) })
    }

    fn read<T, F>(&self, job: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let turn = self.next_reader.fetch_add(1, Ordering::Relaxed) % READERS;
        let place = self.place.clone();
        let worker = self.readers.get(turn).unwrap_or(&self.writer);
        worker.run(move |connection| job(connection).map_err(|e| failed(&place, &e)))
    }

    fn refuse<T: Send + 'static>(error: ReadModelError) -> Answer<T> {
        Box::pin(async move { Err(error) })
    }
}

fn open_writer(path: &Path, place: &str) -> Result<Connection, ReadModelError> {
    let connection = Connection::open(path).map_err(|e| failed(place, &e))?;
    let prepare = || -> rusqlite::Result<Option<String>> {
        let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        if (application, format) != (schema::APPLICATION_ID, schema::FORMAT)
            && (application != 0 || tables > 0)
        {
            return Ok(Some(format!(
                "expected application id {} and format {}, found {application} and {format}",
                schema::APPLICATION_ID,
                schema::FORMAT
            )));
        }
        tune(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        schema::create(&connection)?;
        Ok(None)
    };
    match prepare() {
        Ok(None) => Ok(connection),
        Ok(Some(foreign)) => Err(damaged(place, foreign)),
        Err(error) => Err(failed(place, &error)),
    }
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

/// A row before its position is checked.
type Row = (String, i64, Option<String>);

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn stored(place: &str, (key, position, body): Row) -> Result<Stored, ReadModelError> {
    Ok(Stored { key, position: from_column(place, position)?, body })
}

fn document(place: &str, row: Row) -> Result<Document, ReadModelError> {
    let Stored { key, position, body } = stored(place, row)?;
    Ok(Document { key, position, body: body.unwrap_or_default() })
}

impl ReadModels for SqliteReadModels {
    fn create(&self, build: NewBuild) -> Answer<()> {
        let sql = match schema::create_collection(&build.collection, build.indexes) {
            Ok(sql) => sql,
            Err(error) => return Self::refuse(error),
        };
        let place = self.place.clone();
        self.writer.run(move |connection| {
            let mut create = || -> rusqlite::Result<()> {
                let transaction = connection.transaction()?;
                transaction.execute_batch(&sql)?;
                transaction.execute(
                    "INSERT INTO builds (collection, projection, version, epoch, position)
                     VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
                    params![build.collection, build.projection, build.version, build.epoch.to_string()],
                )?;
                transaction.commit()
            };
            create().map_err(|e| failed(&place, &e))
        })
    }

    fn builds(&self) -> Answer<Vec<Build>> {
        let place = self.place.clone();
        let rows = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT collection, projection, version, epoch, position FROM builds ORDER BY collection",
            )?;
            let rows = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, String, u32, String, Option<i64>)>>>()
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

    fn drop_build(&self, collection: &str) -> Answer<()> {
        let table = match schema::table(collection) {
            Ok(table) => table,
            Err(error) => return Self::refuse(error),
        };
        let (place, collection) = (self.place.clone(), collection.to_owned());
        self.writer.run(move |connection| {
            let mut drop = || -> rusqlite::Result<()> {
                let transaction = connection.transaction()?;
                transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?;
                transaction.execute("DELETE FROM dead_letters WHERE collection = ?", [&collection])?;
                transaction.execute("DELETE FROM builds WHERE collection = ?", [&collection])?;
                transaction.commit()
            };
            drop().map_err(|e| failed(&place, &e))
        })
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

    fn write(&self, collection: &str, batch: Batch) -> Answer<()> {
        let (place, collection) = (self.place.clone(), collection.to_owned());
        self.writer.run(move |connection| {
            let transaction = connection.transaction().map_err(|e| failed(&place, &e))?;
            write(&transaction, &place, &collection, &batch)?;
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
                Ok(DeadLetter { key, position: from_column(&place, position)?, event, error })
            });
            letters.collect()
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
        let (sql, values) = match schema::select(collection, &query) {
            Ok(select) => select,
            Err(error) => return Self::refuse(error),
        };
        let rows = self.read(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_map(params_from_iter(values), row)?.collect::<rusqlite::Result<Vec<Row>>>()
        });
        let place = self.place.clone();
        Box::pin(async move { rows.await?.into_iter().map(|row| document(&place, row)).collect() })
    }

    fn scan(&self, collection: &str, after: Option<String>, limit: usize) -> Answer<Vec<Document>> {
        let table = match schema::table(collection) {
            Ok(table) => table,
            Err(error) => return Self::refuse(error),
        };
        let limit = limit.min(FIND_MAX);
        let rows = self.read(move |connection| {
            let sql = format!(
                "SELECT key, position, body FROM {table} WHERE key > ? AND body IS NOT NULL ORDER BY key LIMIT {limit}"
            );
            // No key is empty.
            let after = after.unwrap_or_default();
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_map([after], row)?.collect::<rusqlite::Result<Vec<Row>>>()
        });
        let place = self.place.clone();
        Box::pin(async move { rows.await?.into_iter().map(|row| document(&place, row)).collect() })
    }

    fn count(&self, collection: &str) -> Answer<u64> {
        let table = match schema::table(collection) {
            Ok(table) => table,
            Err(error) => return Self::refuse(error),
        };
        let counted = self.read(move |connection| {
            let sql = format!("SELECT count(*) FROM {table} WHERE body IS NOT NULL");
            connection.prepare_cached(&sql)?.query_row([], |row| row.get::<_, i64>(0))
        });
        Box::pin(async move { Ok(u64::try_from(counted.await?).unwrap_or(0)) })
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
        let (place, name) = (self.place.clone(), name.to_owned());
        self.writer.run(move |connection| {
            notes::swap(connection, &name, expected, note).map_err(|e| failed(&place, &e))
        })
    }

    fn swap_alias(&self, projection: &str, expected: Option<String>, collection: &str) -> Answer<bool> {
        let (place, projection, collection) =
            (self.place.clone(), projection.to_owned(), collection.to_owned());
        self.writer.run(move |connection| {
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
            changed.map(|rows| rows == 1).map_err(|e| failed(&place, &e))
        })
    }
}

fn checkpoint(place: &str, epoch: &str, position: Option<i64>) -> Result<Checkpoint, ReadModelError> {
    let epoch: Epoch = epoch.parse().map_err(|e| damaged(place, format!("{e}")))?;
    let position = position.map(|column| from_column(place, column)).transpose()?;
    Ok(Checkpoint { epoch, position })
}

/// Documents, dead letters and checkpoint in one transaction.
fn write(
    transaction: &Transaction<'_>,
    place: &str,
    collection: &str,
    batch: &Batch,
) -> Result<(), ReadModelError> {
    let failed = |e: rusqlite::Error| failed(place, &e);
    let table = schema::table(collection)?;
    let epoch: Option<String> = transaction
        .prepare_cached("SELECT epoch FROM builds WHERE collection = ?")
        .and_then(|mut statement| statement.query_row([collection], |row| row.get(0)).optional())
        .map_err(failed)?;
    let epoch = epoch.ok_or_else(|| ReadModelError::NoBuild { collection: collection.to_owned() })?;
    let stored = checkpoint(place, &epoch, None)?.epoch;
    let got = batch.checkpoint.epoch;
    if stored != got {
        return Err(ReadModelError::OtherEpoch { collection: collection.to_owned(), stored, got });
    }
    let sql = format!(
        "INSERT INTO {table} (key, position, body) VALUES (?, ?, ?)
         ON CONFLICT (key) DO UPDATE SET position = excluded.position, body = excluded.body
         WHERE excluded.position > position"
    );
    let mut upsert = transaction.prepare_cached(&sql).map_err(failed)?;
    for document in &batch.writes {
        let position = to_column(document.position)?;
        upsert.execute(params![document.key, position, document.body]).map_err(failed)?;
    }
    for letter in &batch.parked {
        let position = to_column(letter.position)?;
        let sql = "INSERT INTO dead_letters (collection, key, position, event, error)
                   VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let values = params![collection, letter.key, position, letter.event, letter.error];
        transaction.execute(sql, values).map_err(failed)?;
    }
    if let Some(position) = batch.checkpoint.position {
        let sql = "UPDATE builds SET position = max(coalesce(position, 0), ?) WHERE collection = ?";
        transaction.execute(sql, params![to_column(position)?, collection]).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use super::super::contract;
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteReadModels::open(folder.path().join("read.db")).unwrap();
        contract::run(&store).await;
    }

    #[tokio::test]
    async fn a_store_comes_back_after_it_was_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read.db");
        let store = SqliteReadModels::open(&path).unwrap();
        store.create(contract::new_build("rooms@1")).await.unwrap();
        store.write("rooms@1", contract::batch(&[("a", 3, Some("{}"))], 7)).await.unwrap();
        drop(store);
        let store = SqliteReadModels::open(&path).unwrap();
        assert_eq!(store.count("rooms@1").await.unwrap(), 1);
        assert_eq!(store.builds().await.unwrap()[0].checkpoint, contract::checkpoint(7));
    }

    #[tokio::test]
    async fn lists_of_rooms_walk_an_index() {
        use super::super::{Direction, Place, Value};
        use dramatis_projections::{Projection, Rooms};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read.db");
        let store = SqliteReadModels::open(&path).unwrap();
        store.create(NewBuild { indexes: Rooms::INDEXES, ..contract::new_build("rooms@1") }).await.unwrap();
        for index in Rooms::INDEXES {
            let [tenant, sort] = index.fields else { panic!("{index:?}") };
            let query = Query {
                key_prefix: None,
                equal: vec![(*tenant, Value::Text("main".into()))],
                sort: Some(*sort),
                direction: Direction::Descending,
                after: Some(Place { value: Some(Value::Integer(5)), key: "k".into() }),
                limit: 10,
            };
            let (sql, values) = schema::select("rooms@1", &query).unwrap();
            let reader = open_reader(&path).unwrap();
            let mut plan = reader.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = plan.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
            let steps = steps.map(Result::unwrap).collect::<Vec<_>>().join("; ");
            assert!(steps.contains(&format!("USING INDEX {} rooms@1", index.name)), "{steps}");
            assert!(!steps.contains("TEMP B-TREE"), "{steps}");
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let garbage = folder.path().join("garbage.db");
        std::fs::write(&garbage, "no database ".repeat(1_000)).unwrap();
        let foreign = folder.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE cats (name TEXT)").unwrap();
        for path in [garbage, foreign] {
            let Err(error) = SqliteReadModels::open(&path) else { panic!("{} was opened", path.display()) };
            assert!(matches!(error, ReadModelError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("delete it"), "{error}");
        }
    }
}
