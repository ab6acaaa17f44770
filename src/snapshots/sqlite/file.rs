//! The file: rows, their checksums, and what is done when it cannot be used.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dramatis_events::{Epoch, EventId, Revision, UnixMillis};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};

use crate::dirs;
use crate::snapshots::{Key, LastEvent, Snapshot};

/// Says that a file is ours: `drsn` in ASCII.
const APPLICATION_ID: i64 = 0x6472_736e;
/// Raised with every change of the tables or the checksum.
const FORMAT: i64 = 1;
/// How long a statement waits for a lock that another process holds. Entities wait behind it.
const BUSY_TIMEOUT: Duration = Duration::from_millis(50);
/// The file of changes is cut to this when a large state has made it longer, bytes.
const JOURNAL_BYTES_MAX: i64 = 8 * 1024 * 1024;
/// The largest state that is kept, bytes.
const STATE_BYTES_MAX: usize = 64 * 1024 * 1024;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS epoch (epoch TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS snapshots (
        stream TEXT PRIMARY KEY, decider TEXT NOT NULL, state_version INTEGER NOT NULL,
        epoch TEXT NOT NULL, revision INTEGER NOT NULL, event BLOB NOT NULL,
        recorded_at INTEGER NOT NULL, checksum BLOB NOT NULL, state BLOB NOT NULL);";

/// See the module.
pub(super) struct SnapshotFile {
    path: PathBuf,
    epoch: Epoch,
    retry_after: Duration,
    connection: Option<Connection>,
    failed: Option<Instant>,
}

/// Why a file is not used.
enum Unfit {
    /// It is to be removed and begun anew.
    Remove(String),
    /// It is to be left alone for a while.
    Leave(String),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Remove(error.to_string()),
            _ => Self::Leave(error.to_string()),
        }
    }
}

impl SnapshotFile {
    pub(super) fn new(path: PathBuf, epoch: Epoch, retry_after: Duration) -> Self {
        let mut file = Self { path, epoch, retry_after, connection: None, failed: None };
        file.connect();
        file
    }

    /// A row is served only whole; one that is not is removed.
    pub(super) fn load(&mut self, key: &Key) -> Option<Snapshot> {
        let stream = key.stream.as_str();
        let row = self.with(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT decider, state_version, epoch, revision, event, recorded_at, checksum, state
                 FROM snapshots WHERE stream = ?",
            )?;
            let read = select.query_row([stream], |row| Stored::read(stream, row)).optional();
            match read {
                // Columns of other types than we write: no more than damage.
                Err(error) if error.sqlite_error_code().is_none() => Ok(Some(None)),
                read => read.map(|found| found.map(Stored::verified)),
            }
        });
        if let Some(stored) = row?? {
            return stored.matching(key);
        }
        tracing::warn!(%stream, "a snapshot is damaged: it is removed, the stream is read instead");
        self.with(|connection| connection.execute("DELETE FROM snapshots WHERE stream = ?", [stream]));
        None
    }

    pub(super) fn save(&mut self, key: &Key, snapshot: Snapshot) -> bool {
        let bytes = snapshot.state.len();
        if bytes > STATE_BYTES_MAX {
            tracing::warn!(stream = %key.stream, bytes, max = STATE_BYTES_MAX, "a state is too large to be kept");
            return false;
        }
        let Some(stored) = Stored::new(key, snapshot) else { return false };
        let kept = self.with(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?
                .execute(params![
                    stored.stream,
                    stored.decider,
                    stored.state_version,
                    stored.epoch,
                    stored.revision,
                    stored.event,
                    stored.recorded_at,
                    stored.checksum().as_slice(),
                    stored.state,
                ])
        });
        kept.is_some()
    }

    /// Runs statements on the file, if it can be used now.
    fn with<T>(&mut self, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        if self.connection.is_none() && self.failed.is_none_or(|at| at.elapsed() >= self.retry_after) {
            self.connect();
        }
        match job(self.connection.as_ref()?) {
            Ok(done) => Some(done),
            Err(error) => {
                self.connection = None;
                match error.into() {
                    Unfit::Remove(reason) => self.begin_anew(&reason),
                    Unfit::Leave(reason) => self.leave(&reason),
                }
                None
            }
        }
    }

    fn connect(&mut self) {
        match self.open() {
            Ok(connection) => self.connection = Some(connection),
            Err(Unfit::Remove(reason)) => self.begin_anew(&reason),
            Err(Unfit::Leave(reason)) => self.leave(&reason),
        }
    }

    fn begin_anew(&mut self, reason: &str) {
        tracing::warn!(file = %self.path.display(), reason, "the entity snapshots are removed and begun anew");
        if let Err(error) = self.remove() {
            return self.leave(&format!("it cannot be removed: {error}"));
        }
        match self.open() {
            Ok(connection) => self.connection = Some(connection),
            Err(Unfit::Remove(reason) | Unfit::Leave(reason)) => self.leave(&reason),
        }
    }

    fn leave(&mut self, reason: &str) {
        tracing::warn!(
            file = %self.path.display(), reason, retry_after = ?self.retry_after,
            "there are no entity snapshots for a while: rooms are read from the log"
        );
        self.failed = Some(Instant::now());
    }

    fn open(&self) -> Result<Connection, Unfit> {
        // Files of changes get the mode of this one. If it cannot be made, opening says why.
        let _ = dirs::make_file(&self.path);
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        let is_new = tables == 0 && application == 0;
        if !is_new && (application, format) != (APPLICATION_ID, FORMAT) {
            let expected = format!("expected application id {APPLICATION_ID} and format {FORMAT}");
            return Err(Unfit::Remove(format!("{expected}, found {application} and {format}")));
        }
        // The log file of changes keeps the database whole when the process is killed.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES_MAX)?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", FORMAT)?;
        connection.execute_batch(TABLES)?;
        let (ours, of) = (self.epoch.to_string(), "SELECT epoch FROM epoch");
        match connection.query_row(of, [], |row| row.get::<_, String>(0)).optional()? {
            Some(epoch) if epoch != ours => {
                return Err(Unfit::Remove(format!("they are of epoch {epoch}, the log is of {ours}")));
            }
            Some(_) => {}
            None => drop(connection.execute("INSERT INTO epoch VALUES (?)", [ours])?),
        }
        Ok(connection)
    }

    fn remove(&self) -> std::io::Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A row as it stands in the file.
struct Stored {
    stream: String,
    decider: String,
    state_version: u32,
    epoch: String,
    revision: i64,
    event: [u8; 16],
    recorded_at: i64,
    state: Vec<u8>,
    /// What the row says; a new one has none yet.
    checksum: [u8; 32],
}

impl Stored {
    /// `None` if the revision is past what a column holds.
    fn new(key: &Key, snapshot: Snapshot) -> Option<Self> {
        Some(Self {
            stream: key.stream.as_str().to_owned(),
            decider: key.decider.to_owned(),
            state_version: key.state_version,
            epoch: key.epoch.to_string(),
            revision: i64::try_from(snapshot.last.revision.get()).ok()?,
            event: snapshot.last.id.to_bytes(),
            recorded_at: snapshot.last.recorded_at.get(),
            state: snapshot.state,
            checksum: [0; 32],
        })
    }

    fn read(stream: &str, row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            stream: stream.to_owned(),
            decider: row.get(0)?,
            state_version: row.get(1)?,
            epoch: row.get(2)?,
            revision: row.get(3)?,
            event: row.get(4)?,
            recorded_at: row.get(5)?,
            checksum: row.get(6)?,
            state: row.get(7)?,
        })
    }

    /// The row, if it is as it was written.
    fn verified(self) -> Option<Self> {
        (self.checksum() == self.checksum).then_some(self)
    }

    /// Of all columns, each with its length.
    fn checksum(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(bytes);
        };
        add(self.stream.as_bytes());
        add(self.decider.as_bytes());
        add(&self.state_version.to_le_bytes());
        add(self.epoch.as_bytes());
        add(&self.revision.to_le_bytes());
        add(&self.event);
        add(&self.recorded_at.to_le_bytes());
        add(&self.state);
        *hasher.finalize().as_bytes()
    }

    /// The snapshot, if it was saved under this key.
    fn matching(self, key: &Key) -> Option<Snapshot> {
        let same = self.stream == key.stream.as_str()
            && self.decider == key.decider
            && self.state_version == key.state_version
            && self.epoch == key.epoch.to_string();
        let revision = u64::try_from(self.revision).ok().filter(|_| same)?;
        let last = LastEvent {
            revision: Revision::new(revision),
            id: EventId::from_bytes(self.event),
            recorded_at: UnixMillis::new(self.recorded_at),
        };
        Some(Snapshot { last, state: self.state })
    }
}
