//! The actors: one entity a stream, one session a connection, one hub a worker thread.
//!
//! They are thin: they read, call the pure core, and send. Queues between them are bounded by
//! counters of their own, since actix mailboxes are not: a room's by [`registry`], a session's
//! by the commands it may have in flight and the bytes of its [`outbox`].

pub mod answer;
pub mod closing;
pub mod directory;
pub mod drain;
pub mod entity;
pub mod hub;
pub mod line;
pub mod meters;
pub mod newcomers;
pub mod outbox;
pub mod pending_count;
pub mod places;
pub mod presence;
pub mod read_markers;
pub mod registry;
pub mod relay;
pub mod rights;
pub mod session;
pub mod session_notes;
pub mod share;
mod shrink;
#[cfg(test)]
mod tests;
pub mod unfinished;

use std::sync::Arc;

use crate::auth::Keys;
use crate::config::{AuthConfig, SocketConfig};
use crate::domain::room::Room;
use crate::domain::user::User;
use crate::log::EventLog;
use crate::telemetry::metrics::Metrics;

/// What the sessions of a process share.
pub struct Stage {
    /// The one truth.
    pub log: Arc<dyn EventLog>,
    /// The rooms' entities.
    pub rooms: registry::Registry<Room>,
    /// The users' entities.
    pub users: registry::Registry<User>,
    /// How far people have read, before it is recorded.
    pub read_markers: read_markers::ReadMarkers,
    /// New sessions that are not noted yet.
    pub session_notes: session_notes::SessionNotes,
    /// Which session is on which connection.
    pub directory: directory::Directory,
    /// Who is present in which room.
    pub presence: presence::Presence,
    /// The way of ephemerals from thread to thread.
    pub relay: relay::Relay,
    /// What a connection may hold.
    pub limits: SocketConfig,
    /// What of clients' messages is not handled yet.
    pub unfinished: Arc<unfinished::Budget>,
    /// How fast clients may be.
    pub meters: meters::Meters,
    /// How the process ends.
    pub drain: drain::Drain,
    /// What tokens are verified with; `None` in local mode.
    pub keys: Option<Keys>,
    /// When a token is renewed.
    pub auth: AuthConfig,
    /// What is counted.
    pub metrics: Metrics,
}
