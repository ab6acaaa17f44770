//! What a connection may hold and how long it may be silent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of one connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketLimits {
    /// `hello` is due this long after opening, in milliseconds.
    pub hello_timeout_ms: u64,
    /// After this much silence the server pings, in milliseconds.
    pub heartbeat_ms: u64,
    /// After this much more the connection is closed, in milliseconds.
    pub heartbeat_grace_ms: u64,
    /// Bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of one frame, or of one message in several frames.
    pub frame_bytes_max: usize,
    /// Bytes that may wait for the client.
    pub outbox_bytes_max: usize,
    /// A connection that takes no byte for this long is closed, in milliseconds.
    pub write_timeout_ms: u64,
    /// The malformed message of this number within a minute closes the connection.
    pub malformed_per_minute_max: u32,
    /// Commands sent and not yet answered.
    pub in_flight_commands_max: usize,
    /// Rooms one connection may follow.
    pub rooms_per_session_max: usize,
    /// Events of one history page.
    pub history_events_max: u32,
    /// How clients are asked to come back.
    pub reconnect: ReconnectLimits,
}

/// Exponential backoff with full jitter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconnectLimits {
    /// The first delay's upper bound, in milliseconds.
    pub base_ms: u64,
    /// No delay's upper bound is above this, in milliseconds.
    pub cap_ms: u64,
}

impl SocketLimits {
    /// How long a connection may take no byte.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }
}
