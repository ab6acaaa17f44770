//! A peer: an event table in `SQLite`, as one would set it up to be a durable log.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use rusqlite::{Connection, params};

use super::Peer;
use crate::payload::Batch;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        stream TEXT NOT NULL,
        revision INTEGER NOT NULL,
        recorded_at INTEGER NOT NULL,
        id BLOB NOT NULL,
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        author TEXT NOT NULL,
        command TEXT,
        command_hash BLOB,
        data BLOB NOT NULL
    );
    CREATE UNIQUE INDEX by_stream ON events (stream, revision);
    CREATE INDEX by_command ON events (stream, author, command);
";

const INSERT: &str = "INSERT INTO events
    (position, stream, revision, recorded_at, id, name, version, author, command, command_hash, data)
    VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// See [`super`].
pub(super) struct Sqlite(Mutex<Connection>);

impl Sqlite {
    /// An empty table in a file of the directory.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(dir.join("peer.sqlite"))?;
        connection.execute_batch(SCHEMA).context("the peer's table")?;
        Ok(Self(Mutex::new(connection)))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for Sqlite {
    fn append(&self, position: u64, batch: &Batch) -> anyhow::Result<()> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for (event, index) in batch.envelopes.iter().zip(0..) {
                let command = event.command.as_ref();
                insert.execute(params![
                    i64::try_from(position + index)?,
                    batch.stream.as_str(),
                    i64::try_from(batch.revision + index)?,
                    event.id.to_bytes(),
                    event.name.as_str(),
                    event.version,
                    event.author.as_str(),
                    command.map(|stamp| stamp.id.as_str()),
                    command.map(|stamp| stamp.hash.to_bytes()),
                    event.data.as_ref(),
                ])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn scan(&self) -> anyhow::Result<usize> {
        let connection = self.connection();
        let mut select = connection.prepare_cached("SELECT * FROM events ORDER BY position")?;
        let columns = select.column_count();
        let mut seen = 0;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                std::hint::black_box(row.get_ref(column)?);
            }
            seen += 1;
        }
        Ok(seen)
    }
}
