//! Configuration: read once, checked as a whole, and then only values.
//!
//! Four layers, the later over the earlier: the built-in `config/default.toml`, a file, the
//! environment (`DRAMATIS__SECTION__KEY`), flags. The built-in file names every key there is;
//! any other key, and any value out of its range, is refused with the key, the value, where it
//! came from and what is allowed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod allowed;
mod directives;
mod door;
mod layers;
mod names;
mod read_models;

pub use directives::directives;
pub use door::{
    AddressLimitsConfig, AuthConfig, DrainConfig, ForwardedHeader, LimitsConfig, Network, ProxiesConfig,
    RateConfig, UserLimitsConfig,
};
use layers::Layers;
pub(crate) use layers::is_meant_for_settings;
pub use layers::{ConfigError, Flag, Origin};
pub use names::{HostName, WebOrigin};
pub use read_models::{MongodbConfig, ReadModelsConfig, ReadModelsEngine, Secret};

/// The built-in file: every key, its default, unit and range.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// Every setting. `config/default.toml` documents each with its range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener.
    pub server: ServerConfig,
    /// Where data is kept.
    pub data: DataConfig,
    /// The embedded log.
    pub log: LogConfig,
    /// Who may come in.
    pub auth: AuthConfig,
    /// Client connections.
    pub socket: SocketConfig,
    /// How fast clients may be.
    pub limits: LimitsConfig,
    /// How clients are told that the process ends.
    pub drain: DrainConfig,
    /// What a room takes.
    pub room: RoomConfig,
    /// Users.
    pub user: UserConfig,
    /// Entities.
    pub entity: EntityConfig,
    /// Projections.
    pub projections: ProjectionsConfig,
    /// Where their documents are.
    pub read_models: ReadModelsConfig,
    /// Logging.
    pub telemetry: TelemetryConfig,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Whether an address other than loopback is taken although there is no key for tokens.
    pub insecure_listen_anywhere: bool,
    /// Worker threads; 0 is one for each core.
    pub workers: usize,
    /// Sockets open at once, with what stands in for them, and HTTP connections of each worker.
    pub connections_max: usize,
    /// Web origins besides the server's own host.
    pub allowed_origins: Vec<WebOrigin>,
    /// Host names besides the local ones.
    pub allowed_hosts: Vec<HostName>,
    /// Proxies before the server.
    pub proxies: ProxiesConfig,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The directory of the log and the read models.
    pub dir: PathBuf,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Bytes at which a segment is closed.
    pub segment_bytes: u64,
    /// Appends that may wait for the writer.
    pub append_queue_len_max: usize,
    /// Bytes of recent events kept in memory.
    pub live_bytes_max: usize,
    /// Bytes of lookup filters kept in memory.
    pub filter_bytes_max: u64,
    /// When an append is answered.
    pub durability: Durability,
    /// Between two syncs of the relaxed mode, milliseconds.
    pub sync_interval_ms: u64,
    /// Free bytes of the disk below which appends that take more of it are refused.
    pub reserve_bytes: u64,
    /// Where old segments move; empty for nowhere.
    pub cold_dir: PathBuf,
    /// Closed segments that stay if there is a `cold_dir`.
    pub hot_segments_max: usize,
}

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// After its bytes are on the disk.
    Sync,
    /// Before that: the relaxed mode.
    Interval,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketConfig {
    /// From opening to hello, and then for what is asked for it, milliseconds.
    pub hello_timeout_ms: u64,
    /// Silence before a ping, milliseconds.
    pub heartbeat_ms: u64,
    /// Silence after it before the close, milliseconds.
    pub heartbeat_grace_ms: u64,
    /// One message from a client, bytes.
    pub message_bytes_max: usize,
    /// One frame from a client, bytes.
    pub frame_bytes_max: usize,
    /// Bytes of messages that are not handled yet, of all clients together.
    pub unfinished_bytes_max: usize,
    /// Bytes that wait for a slow client.
    pub outbox_bytes_max: usize,
    /// Bytes that wait for all clients together.
    pub outboxes_bytes_max: usize,
    /// Bytes the kernel keeps for a slow client; 0 leaves it to the kernel.
    pub send_buffer_bytes: usize,
    /// Time without one byte drained before the close, milliseconds.
    pub write_timeout_ms: u64,
    /// Time in which a request's head has to come, milliseconds.
    pub head_timeout_ms: u64,
    /// Time in which a request's body, or a message on a socket, has to come, milliseconds.
    pub body_timeout_ms: u64,
    /// Malformed messages a minute before the close.
    pub malformed_per_minute_max: u32,
    /// Unanswered commands of one connection.
    pub in_flight_commands_max: usize,
    /// Rooms one session may follow.
    pub rooms_per_session_max: usize,
    /// What clients are told about reconnecting.
    pub reconnect: ReconnectConfig,
    /// What is broadcast and never recorded.
    pub ephemeral: EphemeralConfig,
    /// Who is in a room.
    pub presence: PresenceConfig,
}

/// `[socket.ephemeral]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EphemeralConfig {
    /// Data of one, bytes.
    pub data_bytes_max: usize,
    /// Of one session, a second.
    pub per_second_max: u32,
    /// Of one session, at once after a pause.
    pub burst_max: u32,
    /// Handed to followers by one worker thread, a second.
    pub deliveries_per_second_max: u32,
}

/// `[socket.presence]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceConfig {
    /// How long somebody whose connections are gone is still present, milliseconds.
    pub grace_ms: u64,
    /// How long changes are put together, milliseconds.
    pub interval_ms: u64,
    /// The same in rooms with more present than are listed, milliseconds.
    pub large_interval_ms: u64,
    /// Members named in a room.
    pub listed_max: usize,
    /// Messages about it handed to followers by one worker thread, a second.
    pub deliveries_per_second_max: u32,
}

/// `[socket.reconnect]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconnectConfig {
    /// The first step of the backoff, milliseconds.
    pub base_ms: u64,
    /// The longest step, milliseconds.
    pub cap_ms: u64,
}

/// `[room]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomConfig {
    /// A text, characters.
    pub text_chars_max: usize,
    /// A title, characters.
    pub title_chars_max: usize,
    /// A display name, characters.
    pub display_name_chars_max: usize,
    /// A reaction, characters.
    pub emoji_chars_max: usize,
    /// A reason, characters.
    pub reason_chars_max: usize,
    /// Members of one room.
    pub members_max: usize,
    /// Invitations to one room that wait for an answer.
    pub invitations_max: usize,
}

/// `[user]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// A reference to a picture, characters.
    pub avatar_chars_max: usize,
    /// A device's name, characters.
    pub device_chars_max: usize,
    /// Invitations of one user that wait for an answer.
    pub invitations_max: usize,
    /// Those of them that come from one person.
    pub invitations_per_inviter_max: usize,
    /// How long reading is gathered before it is recorded, milliseconds.
    pub seen_every_ms: u64,
    /// Time without a command before a user leaves memory, milliseconds.
    pub idle_timeout_ms: u64,
}

/// `[entity]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntityConfig {
    /// Commands that wait for one entity.
    pub pending_commands_max: usize,
    /// Time without a command before an entity leaves memory, milliseconds.
    pub idle_timeout_ms: u64,
    /// Events between two snapshots of a small state; 0 makes none.
    pub snapshot_every_events: u64,
}

/// `[projections]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionsConfig {
    /// Events between two checkpoints.
    pub batch_events: usize,
    /// How long the build before is kept up after a switch, milliseconds.
    pub warm_ms: u64,
    /// How long it stays, if it is one of the latest four, milliseconds.
    pub retention_ms: u64,
    /// How much of the time a rebuild works while live traffic goes on.
    pub rebuild_share_percent: u32,
    /// Whether a new version of a fold goes live although its documents differ.
    pub accept_new_versions: bool,
    /// How long another process waits for a projector gone silent, milliseconds.
    pub lease_ms: u64,
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// A level, or directives by target.
    pub level: String,
    /// How lines look.
    pub format: TelemetryFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TelemetryFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Lays the file, the environment and the flags over the defaults and checks the whole.
    pub fn load<I>(file: Option<&Path>, environment: I, flags: Vec<Flag>) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item = (String, String)>,
    {
        let mut layers = Layers::defaults()?;
        if let Some(file) = file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| ConfigError::Read { file: file.to_owned(), reason: error.to_string() })?;
            layers.file(file, &text)?;
        }
        layers.environment(environment)?;
        layers.flags(flags)?;
        let config: Self = layers.finish()?;
        config.check(&layers)?;
        Ok(config)
    }

    /// The built-in settings.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::load(None, [], Vec::new())
    }

    /// Rules between several keys.
    fn check(&self, layers: &Layers) -> Result<(), ConfigError> {
        let server = &self.server;
        let guarded = self.auth.token_key_file().is_some() || server.insecure_listen_anywhere;
        if !server.listen.ip().is_loopback() && !guarded {
            return Err(layers.bad(
                "server.listen",
                "a loopback address such as 127.0.0.1:7400 unless auth.token_key_file is set, since without \
                 tokens whoever reaches the port may act as anyone; --insecure-listen-anywhere takes this \
                 address all the same",
            ));
        }
        for (section, rate) in self.limits.rates() {
            let burst = u64::from(rate.bytes_per_s) * u64::from(self.limits.burst_s);
            if rate.bytes_per_s > 0 && burst < self.socket.message_bytes_max as u64 {
                let key = format!("limits.{section}.bytes_per_s");
                let allowed = "0, or enough that limits.burst_s seconds of it hold a message of socket.message_bytes_max";
                return Err(layers.bad(&key, allowed));
            }
        }
        if self.socket.frame_bytes_max < self.socket.message_bytes_max {
            return Err(layers.bad("socket.frame_bytes_max", "at least socket.message_bytes_max"));
        }
        if !self.read_models.take_over.is_empty() && self.read_models.take_over().is_none() {
            let allowed = "the 16 hexadecimal digits of a log's id, as health names it, or nothing";
            return Err(layers.bad("read_models.take_over", allowed));
        }
        if self.read_models.mongodb.pool_max < self.read_models.mongodb.pool_min {
            return Err(layers.bad("read_models.mongodb.pool_max", "at least read_models.mongodb.pool_min"));
        }
        if self.socket.reconnect.cap_ms < self.socket.reconnect.base_ms {
            return Err(layers.bad("socket.reconnect.cap_ms", "at least socket.reconnect.base_ms"));
        }
        Ok(())
    }
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
