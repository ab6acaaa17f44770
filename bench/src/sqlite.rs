//! A peer: an event table in `SQLite`, as one would set it up to be a durable log (WAL,
//! `synchronous = FULL`), with the two indexes that the log keeps too: by stream and revision,
//! and by command.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rusqlite::{Connection, params};

use crate::payload::Template;
use crate::report::Latencies;

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
    (stream, revision, recorded_at, id, name, version, author, command, command_hash, data)
    VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// An empty table in a file of the directory.
pub(crate) fn open(dir: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(dir.join("peer.sqlite"))?;
    connection.execute_batch(SCHEMA).context("the peer's table")?;
    Ok(connection)
}

/// Records one batch as one transaction, from this revision on.
pub(crate) fn append(
    connection: &mut Connection,
    template: &mut Template,
    revision: usize,
    batch: usize,
) -> anyhow::Result<()> {
    let stream = template.stream();
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(INSERT)?;
        for number in revision..revision + batch {
            let event = template.next()?;
            let command = event.command.as_ref();
            insert.execute(params![
                stream.as_str(),
                i64::try_from(number)?,
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
    transaction.commit()?;
    Ok(())
}

/// Appends batches for the window: events a second, and how long each batch took.
pub(crate) fn append_rate(
    dir: &Path,
    event_bytes: usize,
    batch: usize,
    window: Duration,
) -> anyhow::Result<(f64, Latencies)> {
    let mut connection = open(dir)?;
    let (mut template, mut latencies) = (Template::new(0, event_bytes)?, Latencies::new()?);
    let (mut events, started) = (0, Instant::now());
    while started.elapsed() < window {
        let asked = Instant::now();
        append(&mut connection, &mut template, events, batch)?;
        latencies.record(u64::try_from(asked.elapsed().as_nanos())?);
        events += batch;
    }
    Ok((f64::from(u32::try_from(events)?) / started.elapsed().as_secs_f64(), latencies))
}

/// Reads every row once in order, all columns: events a second.
pub(crate) fn scan_rate(connection: &Connection, events: usize) -> anyhow::Result<f64> {
    let mut select = connection.prepare_cached("SELECT * FROM events ORDER BY position")?;
    let columns = select.column_count();
    let (mut seen, started) = (0, Instant::now());
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            std::hint::black_box(row.get_ref(column)?);
        }
        seen += 1;
    }
    ensure!(seen == events, "expected {events} rows in the peer's table, got {seen}");
    Ok(f64::from(u32::try_from(seen)?) / started.elapsed().as_secs_f64())
}
