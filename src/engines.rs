//! Turns configuration into concrete engines, for the server and for offline commands alike.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::config::{self, Config};
use crate::log::embedded::offline::Place;
use crate::log::embedded::{Durability, EmbeddedLog, OpenError, Options};
use crate::read_models::ReadModelError;
use crate::read_models::sqlite::SqliteReadModels;

/// The engines of a process.
pub struct Engines {
    /// The log.
    pub log: Arc<EmbeddedLog>,
    /// The read models.
    pub read_models: Arc<SqliteReadModels>,
}

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
    /// The read models do not.
    #[error("the read models do not open: {0}")]
    ReadModels(#[from] ReadModelError),
    /// The data directory cannot be made.
    #[error("the data directory {dir} cannot be made: {error}")]
    Directory {
        /// The directory.
        dir: String,
        /// Why.
        error: std::io::Error,
    },
}

/// Where the embedded log's files are.
pub fn log_place(config: &Config) -> Place {
    let cold = &config.log.cold_dir;
    let cold = (!cold.as_os_str().is_empty()).then(|| cold.clone());
    Place { dir: config.data.dir.join("log"), cold }
}

/// Opens the engines that the configuration names.
pub fn open(config: &Config) -> Result<Engines, EngineError> {
    let shown = |path: &std::path::Path| path.display().to_string();
    let dir = &config.data.dir;
    std::fs::create_dir_all(dir).map_err(|error| EngineError::Directory { dir: shown(dir), error })?;
    let Place { dir: log_dir, cold: cold_dir } = log_place(config);
    let options = Options {
        segment_bytes: config.log.segment_bytes,
        append_queue_len_max: config.log.append_queue_len_max,
        live_bytes_max: config.log.live_bytes_max,
        durability: match config.log.durability {
            config::Durability::Sync => Durability::Sync,
            config::Durability::Interval => {
                Durability::Interval(Duration::from_millis(config.log.sync_interval_ms))
            }
        },
        reserve_bytes: config.log.reserve_bytes,
        cold_dir,
        hot_segments_max: config.log.hot_segments_max,
    };
    let log = EmbeddedLog::open(&log_dir, options, Arc::new(SystemClock))
        .map_err(|error| EngineError::Log { dir: shown(&log_dir), error })?;
    let read_models = SqliteReadModels::open(dir.join("read-models.sqlite"))?;
    Ok(Engines { log: Arc::new(log), read_models: Arc::new(read_models) })
}
