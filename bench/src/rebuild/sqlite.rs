//! `SQLite`: the product's store, and a plain connection that writes the same rows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use dramatis::log::EventLog;
use dramatis::read_models::sqlite::SqliteReadModels;
use rusqlite::{Connection, params};

use super::Options;
use super::product::{self, BULK, BulkWrite, Measured, Sorted};

/// Measures in files of this folder.
pub(super) async fn measure(
    options: &Options,
    log: &Arc<dyn EventLog>,
    folder: &Path,
) -> anyhow::Result<Measured> {
    let file = folder.join("read-models.sqlite");
    let store = Arc::new(SqliteReadModels::open(&file)?);
    let limit = folder.join("bulk-write.sqlite");
    product::measure(options, log, store, async |collection| Plain::of(&file, &limit, &collection)).await
}

struct Plain {
    connection: Connection,
    table: String,
    /// The statements that create the table and its indexes.
    create: String,
    by_key: Vec<Row>,
    as_in_the_log: Vec<Row>,
}

type Row = (Arc<str>, i64, Arc<str>);

impl Plain {
    /// Takes tables and rows of a collection of the product's file, to write them into another.
    fn of(file: &Path, limit: &Path, collection: &str) -> anyhow::Result<Self> {
        let (product, table) = (Connection::open(file)?, format!("documents {collection}"));
        let mut create = product.prepare(
            "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC",
        )?;
        let create: Vec<String> = create.query_map([&table], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut rows = product.prepare(&format!(
            "SELECT key, position, body FROM \"{table}\" WHERE body IS NOT NULL ORDER BY key"
        ))?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let by_key = rows.collect::<Result<Vec<Row>, _>>()?;
        let mut as_in_the_log = by_key.clone();
        as_in_the_log.sort_by_key(|(_, position, _)| *position);
        let connection = Connection::open(limit)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        // As the product's: fewer and larger moves out of the write-ahead log.
        connection.pragma_update(None, "wal_autocheckpoint", 4_096)?;
        Ok(Self { connection, table, create: create.join(";\n"), by_key, as_in_the_log })
    }

    fn write_all(&mut self, sorted: Sorted) -> anyhow::Result<Duration> {
        let Self { connection, table, create, by_key, as_in_the_log } = self;
        connection.execute_batch(create)?;
        let rows = if sorted == Sorted::ByKey { by_key } else { as_in_the_log };
        let sql = format!(
            "INSERT INTO \"{table}\" (key, position, body) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE
                SET position = excluded.position, body = excluded.body WHERE excluded.position > position"
        );
        let (started, mut written) = (Instant::now(), 0);
        for some in rows.chunks(BULK) {
            let transaction = connection.transaction()?;
            let mut upsert = transaction.prepare_cached(&sql)?;
            for (key, position, body) in some {
                written += upsert.execute(params![&**key, position, &**body])?;
            }
            drop(upsert);
            transaction.commit()?;
        }
        let took = started.elapsed();
        ensure!(written == rows.len(), "expected {} rows to be written, it were {written}", rows.len());
        connection.execute_batch(&format!("DROP TABLE \"{table}\""))?;
        Ok(took)
    }
}

impl BulkWrite for Plain {
    async fn write(&mut self, sorted: Sorted) -> anyhow::Result<Duration> {
        tokio::task::block_in_place(|| self.write_all(sorted))
    }
}
