//! What tests of actors share, and the suites over several of them at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod deaf;
mod hellos;
mod large;
mod notes;
mod race;
mod removed;
mod renewals;
mod rest;
mod talker;
mod turns;
mod unread;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;

use super::Stage;
use super::directory::Directory;
use super::drain::Drain;
use super::entity::Surroundings;
use super::hub::Rooms;
use super::meters::Meters;
use super::outbox::Outbox;
use super::presence::Presence;
use super::read_markers::ReadMarkers;
use super::registry::{EntityOptions, Registry};
use super::relay::Relay;
use super::session::{Inbound, Origin, Session};
use super::session_notes::SessionNotes;
use super::unfinished::Budget;
use crate::config::{Config, SocketConfig};
use crate::domain::Decider;
use crate::domain::room::RoomLimits;
use crate::domain::user::UserLimits;
use crate::log::EventLog;
use crate::snapshots::NoSnapshots;
use crate::telemetry::metrics::Metrics;

/// A stage over this log, whose entities live on the calling thread.
pub(super) fn stage_over(log: Arc<dyn EventLog>, limits: SocketConfig) -> Arc<Stage> {
    let (metrics, config) = (Metrics::default(), Config::defaults().unwrap());
    let options = || EntityOptions { pending_max: 64, idle_timeout: Duration::from_mins(1) };
    let threads = || vec![Arbiter::current()];
    let of_rooms = around(&log, &metrics, RoomLimits::default());
    let users = Registry::new(around(&log, &metrics, UserLimits::default()), options(), threads());
    Arc::new(Stage {
        log,
        rooms: Registry::new(of_rooms, options(), threads()),
        read_markers: ReadMarkers::new(users.clone(), Duration::from_secs(5), 16),
        users,
        session_notes: SessionNotes::default(),
        directory: Directory::default(),
        presence: Presence::new(&limits.presence),
        relay: Relay::new(metrics.ephemerals.clone()),
        unfinished: Arc::new(Budget::new(metrics.unfinished_bytes.clone(), limits.unfinished_bytes_max)),
        limits,
        meters: Meters::new(config.limits),
        drain: Drain::new(config.drain),
        keys: None,
        auth: config.auth,
        metrics,
    })
}

/// Starts the session of a connection that is written to by this outbox.
pub(super) fn start_session<S>(stage: &Arc<Stage>, rooms: &Rc<Rooms>, outbox: &Rc<Outbox>, inbound: S)
where
    S: futures_util::Stream<Item = Inbound> + 'static,
{
    let (arrival, origin) = (stage.directory.arrive(), Origin::default());
    let (stage, rooms, outbox) = (stage.clone(), rooms.clone(), outbox.clone());
    Session::start_here(stage, rooms, outbox, connection_id(), arrival, origin, inbound);
}

/// A number no two connections share.
fn connection_id() -> u64 {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
    CONNECTIONS.fetch_add(1, Ordering::Relaxed)
}

fn around<D: Decider>(log: &Arc<dyn EventLog>, metrics: &Metrics, limits: D::Limits) -> Surroundings<D> {
    Surroundings {
        log: log.clone(),
        snapshots: Arc::new(NoSnapshots),
        snapshot_every_events: 0,
        limits,
        metrics: metrics.entity(),
    }
}

/// What a socket holds by default.
pub(super) fn limits() -> SocketConfig {
    Config::defaults().unwrap().socket
}
