//! `[read_models]` and `[read_models.mongodb]`.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// `[read_models]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadModelsConfig {
    /// What keeps the documents.
    pub engine: ReadModelsEngine,
    /// The id of the log whose read models make way for those of this one; empty for none.
    pub take_over: String,
    /// How the server is reached, if it is one.
    pub mongodb: MongodbConfig,
}

impl ReadModelsConfig {
    /// The log whose read models make way, if one is named.
    pub fn take_over(&self) -> Option<u64> {
        u64::from_str_radix(&self.take_over, 16).ok().filter(|_| self.take_over.len() == 16)
    }
}

/// What keeps the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadModelsEngine {
    /// A file in the data directory.
    Sqlite,
    /// A server.
    Mongodb,
}

/// `[read_models.mongodb]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MongodbConfig {
    /// The connection string.
    pub uri: Secret,
    /// The database.
    pub database: String,
    /// Connections kept open.
    pub pool_min: u32,
    /// Connections at the most.
    pub pool_max: u32,
    /// For opening a connection, milliseconds.
    pub connect_timeout_ms: u64,
    /// For one operation, milliseconds.
    pub operation_timeout_ms: u64,
    /// Tries after the first.
    pub retries_max: u32,
    /// Between two questions whether the server is there, milliseconds.
    pub health_interval_ms: u64,
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("…")
    }
}
