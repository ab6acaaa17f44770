//! What each key may hold. The comments of `config/default.toml` say the same to people; a test
//! compares the two.

use std::fmt;
use std::net::SocketAddr;

use toml::Value;

use super::directives::directives;
use super::door::Network;
use super::names::{HostName, WebOrigin};

/// What a key may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// A whole number in a range, both ends included.
    Integer(i64, i64),
    /// true or false.
    Boolean,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Address and port.
    Address,
    /// Any text that is not empty.
    Text,
    /// A name that every server of documents takes for a database.
    Database,
    /// A text that is not empty and shown nowhere.
    Secret,
    /// A text that may be empty.
    TextOrNone,
    /// Web origins.
    Origins,
    /// Hosts without ports.
    Hosts,
    /// Addresses and networks.
    Networks,
    /// A level or directives of the logger.
    Level,
}

/// In bytes.
const MEBIBYTE: i64 = 1_048_576;
const TEBIBYTE: i64 = 1_099_511_627_776;
/// A database's name, bytes.
const DATABASE_BYTES_MAX: usize = 63;
/// What is in no database's name.
const DATABASE_REFUSED: [char; 13] = ['/', '\\', '.', '"', '$', '*', '<', '>', ':', '|', '?', ' ', '\0'];

impl Allowed {
    #[expect(clippy::match_same_arms, reason = "keys stand by their section, not by their bounds")]
    pub(super) fn of(key: &str) -> Option<Self> {
        Some(match key {
            "server.listen" => Self::Address,
            "server.insecure_listen_anywhere"
            | "limits.address.loopback"
            | "projections.accept_new_versions" => Self::Boolean,
            "server.workers" => Self::Integer(0, 1_024),
            "server.connections_max" | "room.members_max" | "limits.refused_per_minute_max" => {
                Self::Integer(1, 1_000_000)
            }
            "data.dir" => Self::Text,
            "log.segment_bytes" => Self::Integer(65_536, 1_073_741_824),
            "log.append_queue_len_max" | "entity.pending_commands_max" => Self::Integer(1, 1_048_576),
            "entity.idle_timeout_ms" | "user.idle_timeout_ms" => Self::Integer(1_000, 86_400_000),
            "entity.snapshot_every_events" | "log.hot_segments_max" => Self::Integer(0, 1_000_000),
            "log.live_bytes_max" => Self::Integer(65_536, 4_294_967_296),
            "log.durability" => Self::Word(&["sync", "interval"]),
            "log.reserve_bytes" | "log.filter_bytes_max" => Self::Integer(0, TEBIBYTE),
            "log.cold_dir" | "auth.token_key_file" | "read_models.take_over" => Self::TextOrNone,
            "socket.hello_timeout_ms" | "socket.heartbeat_ms" | "socket.heartbeat_grace_ms" => {
                Self::Integer(100, 600_000)
            }
            "socket.message_bytes_max" => Self::Integer(1_024, 1_048_576),
            "socket.frame_bytes_max" => Self::Integer(1_024, 16_777_216),
            "socket.outboxes_bytes_max" | "socket.unfinished_bytes_max" => Self::Integer(MEBIBYTE, TEBIBYTE),
            "socket.send_buffer_bytes" => Self::Integer(0, 16_777_216),
            "socket.ephemeral.data_bytes_max" => Self::Integer(16, 65_536),
            word if word.ends_with(".deliveries_per_second_max") => Self::Integer(100, 10_000_000),
            "socket.presence.grace_ms" => Self::Integer(0, 600_000),
            "socket.presence.interval_ms" | "socket.presence.large_interval_ms" => Self::Integer(10, 60_000),
            "socket.presence.listed_max" => Self::Integer(0, 1_000),
            "socket.outbox_bytes_max" => Self::Integer(16_384, 67_108_864),
            "socket.write_timeout_ms" | "socket.body_timeout_ms" => Self::Integer(1_000, 600_000),
            "socket.in_flight_commands_max" => Self::Integer(1, 65_536),
            "socket.reconnect.base_ms" | "log.sync_interval_ms" => Self::Integer(1, 60_000),
            "socket.reconnect.cap_ms" | "user.seen_every_ms" => Self::Integer(1, 600_000),
            "projections.lease_ms" | "socket.head_timeout_ms" => Self::Integer(1_000, 600_000),
            "projections.warm_ms" => Self::Integer(0, 86_400_000),
            "projections.retention_ms" => Self::Integer(0, 31_536_000_000),
            "projections.rebuild_share_percent" => Self::Integer(1, 100),
            "room.text_chars_max"
            | "room.invitations_max"
            | "user.invitations_max"
            | "user.invitations_per_inviter_max"
            | "socket.rooms_per_session_max"
            | "projections.batch_events" => Self::Integer(1, 100_000),
            "room.title_chars_max"
            | "room.reason_chars_max"
            | "user.avatar_chars_max"
            | "socket.ephemeral.per_second_max"
            | "socket.ephemeral.burst_max"
            | "socket.malformed_per_minute_max" => Self::Integer(1, 10_000),
            "room.display_name_chars_max" | "room.emoji_chars_max" | "user.device_chars_max" => {
                Self::Integer(1, 1_000)
            }
            "read_models.engine" => Self::Word(&["sqlite", "mongodb"]),
            "read_models.mongodb.uri" => Self::Secret,
            "read_models.mongodb.database" => Self::Database,
            "read_models.mongodb.pool_min" => Self::Integer(0, 1_000),
            "read_models.mongodb.pool_max" => Self::Integer(1, 1_000),
            "read_models.mongodb.connect_timeout_ms" | "read_models.mongodb.operation_timeout_ms" => {
                Self::Integer(100, 600_000)
            }
            "read_models.mongodb.retries_max" => Self::Integer(0, 10),
            "read_models.mongodb.health_interval_ms" => Self::Integer(1_000, 3_600_000),
            "telemetry.level" => Self::Level,
            "telemetry.format" => Self::Word(&["auto", "text", "json"]),
            _ => return Self::of_door(key),
        })
    }

    /// What the keys of origins, proxies, tokens, limits and the end may hold.
    fn of_door(key: &str) -> Option<Self> {
        Some(match key {
            "server.allowed_origins" => Self::Origins,
            "server.allowed_hosts" => Self::Hosts,
            "server.proxies.trusted" => Self::Networks,
            "server.proxies.header" => Self::Word(&["x-forwarded-for", "forwarded"]),
            "auth.audience" => Self::TextOrNone,
            "auth.open_metrics" => Self::Boolean,
            "auth.refresh_ahead_ms" | "auth.expired_grace_ms" => Self::Integer(0, 3_600_000),
            "limits.burst_s" => Self::Integer(1, 3_600),
            "limits.accounts_max" => Self::Integer(100, 10_000_000),
            "drain.notice_ms" | "drain.successor_ms" | "drain.patience_ms" => Self::Integer(0, 60_000),
            "drain.reconnects_per_s" => Self::Integer(1, 100_000),
            key if key.starts_with("limits.") => Self::Integer(0, 1_000_000_000),
            _ => return None,
        })
    }

    /// Whether the value may stand.
    pub(super) fn admits(self, value: &Value) -> bool {
        let filled = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
        match self {
            Self::Integer(min, max) => value.as_integer().is_some_and(|number| (min..=max).contains(&number)),
            Self::Boolean => value.is_bool(),
            Self::Word(words) => value.as_str().is_some_and(|text| words.contains(&text)),
            Self::Address => value.as_str().is_some_and(|text| text.parse::<SocketAddr>().is_ok()),
            Self::Text | Self::Secret => filled(value),
            Self::Database => value.as_str().is_some_and(is_database),
            Self::TextOrNone => value.is_str(),
            Self::Origins => all_are::<WebOrigin>(value),
            Self::Hosts => all_are::<HostName>(value),
            Self::Networks => all_are::<Network>(value),
            Self::Level => value.as_str().is_some_and(|text| directives(text).is_some()),
        }
    }

    /// Reads an environment variable's text as the kind of value this key holds; text that is
    /// no such value comes back as text, which [`Allowed::admits`] then refuses.
    pub(super) fn parse(self, text: &str) -> Value {
        let as_text = || Value::String(text.to_owned());
        match self {
            Self::Integer(..) => text.trim().parse().map_or_else(|_| as_text(), Value::Integer),
            Self::Boolean => text.trim().parse().map_or_else(|_| as_text(), Value::Boolean),
            Self::Origins | Self::Hosts | Self::Networks if text.trim().is_empty() => {
                Value::Array(Vec::new())
            }
            Self::Origins | Self::Hosts | Self::Networks => {
                Value::Array(text.split(',').map(|part| Value::String(part.trim().to_owned())).collect())
            }
            Self::Word(_)
            | Self::Address
            | Self::Text
            | Self::Database
            | Self::Secret
            | Self::TextOrNone
            | Self::Level => as_text(),
        }
    }
}

/// Servers on Windows refuse more than others do; which one it is nobody knows here.
fn is_database(name: &str) -> bool {
    (1..=DATABASE_BYTES_MAX).contains(&name.len()) && !name.contains(DATABASE_REFUSED)
}

/// Whether it is a list of texts that can be read so.
fn all_are<T: TryFrom<String>>(value: &Value) -> bool {
    let is_one = |value: &Value| value.as_str().is_some_and(|text| T::try_from(text.to_owned()).is_ok());
    value.as_array().is_some_and(|values| values.iter().all(is_one))
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Boolean => f.write_str("true or false"),
            Self::Word(words) => write!(f, "one of {}", words.join(", ")),
            Self::Address => f.write_str("an IP address and a port, such as 127.0.0.1:7400"),
            Self::Text | Self::Secret => f.write_str("a text that is not empty"),
            Self::Database => write!(
                f,
                "a name of 1 to {DATABASE_BYTES_MAX} bytes with no blank, NUL or any of / \\ . \" $ * < > : | ? in it"
            ),
            Self::TextOrNone => f.write_str("a text; an empty one is none"),
            Self::Origins => f.write_str(
                "a list of web origins such as https://app.example.org or http://localhost:3000, without paths \
                 and wildcards",
            ),
            Self::Hosts => f.write_str(
                "a list of host names such as dramatis.example.org, without schemes, ports, paths and wildcards",
            ),
            Self::Networks => f.write_str("a list of IP addresses and networks such as 10.0.0.0/8"),
            Self::Level => {
                f.write_str("error, warn, info, debug, trace or directives such as info,dramatis::log=debug")
            }
        }
    }
}
