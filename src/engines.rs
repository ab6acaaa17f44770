//! Turns configuration into concrete engines, for the server and for offline commands alike.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::config::{self, Config};
use crate::dirs;
use crate::log::EventLog as _;
use crate::log::embedded::backup::UNFINISHED;
use crate::log::embedded::{Durability, EmbeddedLog, OpenError, Options};
use crate::read_models::mongodb::{self, MongoReadModels, MongoUri};
use crate::read_models::sqlite::SqliteReadModels;
use crate::read_models::{ReadModelError, ReadModels};
use crate::snapshots::sqlite::SqliteSnapshots;
use crate::snapshots::{NoSnapshots, Snapshots};

mod node;

/// The engines of a process.
pub struct Engines {
    /// The log.
    pub log: Arc<EmbeddedLog>,
    /// The read models.
    pub read_models: Arc<dyn ReadModels>,
    /// The entities' snapshots.
    pub snapshots: Arc<dyn Snapshots>,
    /// This process's name among those that share the store of read models.
    pub node: String,
}

/// The name of whoever has the store that lies in a data directory: who has the log's lock has it.
const ITS_OWN: &str = "the data directory's own";

/// Why the engines do not open.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The log does not.
    #[error("the log in {dir} does not open: {error}")]
    Log {
        /// Its directory.
        dir: String,
        /// Why.
        error: OpenError,
    },
    /// A restore into this directory was stopped on its way.
    #[error(
        "{dir} holds a restore that was not finished: run `dramatis backup restore` into it once more, or remove \
         {UNFINISHED} there to begin an empty log"
    )]
    Unfinished {
        /// The data directory.
        dir: String,
    },
    /// The log's directory is empty, though there was a log.
    #[error(
        "there is no log in {log}, though there was one, which {file} was made from: if it lies on a disk of its \
         own, mount that; to begin an empty log, remove the file too"
    )]
    Away {
        /// The log's directory.
        log: String,
        /// What is left of it.
        file: String,
    },
    /// The read models do not.
    #[error("the read models do not open: {0}")]
    ReadModels(ReadModelError),
    /// The data directory cannot be made.
    #[error("the data directory {dir} cannot be made: {error}")]
    Directory {
        /// The directory.
        dir: String,
        /// Why.
        error: std::io::Error,
    },
}

/// Where the log of a configuration is: its directory, and its cold tier if it has one.
pub fn log_dirs(config: &Config) -> (PathBuf, Option<PathBuf>) {
    let cold = &config.log.cold_dir;
    (config.data.dir.join("log"), (!cold.as_os_str().is_empty()).then(|| cold.clone()))
}

/// Where the embedded read models of a configuration are.
pub fn read_models_file(config: &Config) -> PathBuf {
    config.data.dir.join("read-models.sqlite")
}

/// Where the embedded snapshots of a configuration are. No backup needs them.
fn snapshots_file(config: &Config) -> PathBuf {
    config.data.dir.join("snapshots.sqlite")
}

/// Opens the engines that the configuration names.
pub fn open(config: &Config) -> Result<Engines, EngineError> {
    let shown = |path: &Path| path.display().to_string();
    let dir = &config.data.dir;
    dirs::make(dir).map_err(|error| EngineError::Directory { dir: shown(dir), error })?;
    let (log_dir, cold_dir) = log_dirs(config);
    if dir.join(UNFINISHED).exists() && !log_dir.exists() {
        return Err(EngineError::Unfinished { dir: shown(dir) });
    }
    let leftovers = [read_models_file(config), snapshots_file(config)];
    if let Some(file) = leftovers.iter().find(|file| is_sqlite(file)).filter(|_| !holds_a_log(&log_dir)) {
        return Err(EngineError::Away { log: shown(&log_dir), file: shown(file) });
    }
    let options = Options {
        segment_bytes: config.log.segment_bytes,
        append_queue_len_max: config.log.append_queue_len_max,
        live_bytes_max: config.log.live_bytes_max,
        filter_bytes_max: config.log.filter_bytes_max,
        durability: match config.log.durability {
            config::Durability::Sync => Durability::Sync,
            config::Durability::Interval => {
                Durability::Interval(Duration::from_millis(config.log.sync_interval_ms))
            }
        },
        reserve_bytes: config.log.reserve_bytes,
        cold_dir,
        hot_segments_max: config.log.hot_segments_max,
        moving_patience: Duration::from_millis(config.drain.patience_ms),
    };
    let log = EmbeddedLog::open(&log_dir, options, Arc::new(SystemClock))
        .map_err(|error| EngineError::Log { dir: shown(&log_dir), error })?;
    let read_models = read_models(config).map_err(EngineError::ReadModels)?;
    let snapshots: Arc<dyn Snapshots> = match config.entity.snapshot_every_events {
        0 => Arc::new(NoSnapshots),
        _ => Arc::new(SqliteSnapshots::open(snapshots_file(config), log.epoch())),
    };
    let node = match config.read_models.engine {
        config::ReadModelsEngine::Sqlite => ITS_OWN.to_owned(),
        config::ReadModelsEngine::Mongodb => node::name(dir),
    };
    Ok(Engines { log: Arc::new(log), read_models, snapshots, node })
}

/// Whether a file is an embedded database, as its first bytes say (<https://sqlite.org/fileformat.html>).
fn is_sqlite(file: &Path) -> bool {
    let mut first = [0; 16];
    File::open(file).and_then(|mut file| file.read_exact(&mut first)).is_ok()
        && &first == b"SQLite format 3\0"
}

/// Whether a log was ever begun in a directory; one that cannot be looked into says so when it is opened.
fn holds_a_log(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "lost+found")),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

fn read_models(config: &Config) -> Result<Arc<dyn ReadModels>, ReadModelError> {
    Ok(match config.read_models.engine {
        config::ReadModelsEngine::Sqlite => Arc::new(SqliteReadModels::open(read_models_file(config))?),
        config::ReadModelsEngine::Mongodb => {
            Arc::new(MongoReadModels::open(mongodb_options(&config.read_models.mongodb)?)?)
        }
    })
}

fn mongodb_options(config: &config::MongodbConfig) -> Result<mongodb::Options, ReadModelError> {
    Ok(mongodb::Options {
        uri: MongoUri::parse(config.uri.reveal())?,
        database: config.database.clone(),
        pool_min: config.pool_min,
        pool_max: config.pool_max,
        connect_timeout: Duration::from_millis(config.connect_timeout_ms),
        operation_timeout: Duration::from_millis(config.operation_timeout_ms),
        retries_max: config.retries_max,
        health_interval: Duration::from_millis(config.health_interval_ms),
    })
}
