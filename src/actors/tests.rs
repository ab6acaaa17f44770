//! What tests of actors share, and the suites over several of them at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod large;
mod race;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::Stage;
use super::directory::Directory;
use super::entity::Surroundings;
use super::presence::Presence;
use super::registry::{EntityOptions, Registry};
use super::relay::Relay;
use crate::config::{Config, SocketConfig};
use crate::domain::room::RoomLimits;
use crate::log::EventLog;
use crate::snapshots::NoSnapshots;
use crate::telemetry::metrics::Metrics;

/// A stage over this log, whose entities live on the calling thread.
pub(super) fn stage_over(log: Arc<dyn EventLog>, limits: SocketConfig) -> Arc<Stage> {
    let metrics = Metrics::default();
    let around = Surroundings {
        log: log.clone(),
        snapshots: Arc::new(NoSnapshots),
        snapshot_every_events: 0,
        limits: RoomLimits::default(),
        metrics: metrics.entity(),
    };
    let options = EntityOptions { pending_max: 64, idle_timeout: Duration::from_mins(1) };
    Arc::new(Stage {
        log,
        rooms: Registry::new(around, options, vec![Arbiter::current()]),
        directory: Directory::default(),
        presence: Presence::new(&limits.presence),
        relay: Relay::new(metrics.ephemerals.clone()),
        limits,
        metrics,
    })
}

/// What a socket holds by default.
pub(super) fn limits() -> SocketConfig {
    Config::defaults().unwrap().socket
}
