//! `dramatis serve`: the composition root. It opens the engines, starts the actors, the
//! projector and the listener, and ends them in the reverse order.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::actors::Stage;
use crate::actors::directory::Directory;
use crate::actors::entity::Surroundings;
use crate::actors::presence::Presence;
use crate::actors::read_markers::ReadMarkers;
use crate::actors::registry::{EntityOptions, Registry};
use crate::actors::relay::Relay;
use crate::config::{Config, RoomConfig};
use crate::domain::Decider;
use crate::domain::room::RoomLimits;
use crate::domain::user::UserLimits;
use crate::engines::{self, Engines};
use crate::log::embedded::EmbeddedLog;
use crate::log::{EventLog as _, ReadLimit};
use crate::projector::{self, Projector};
use crate::reactors::{Checkpoint, Invitations};
use crate::snapshots::Snapshots;
use crate::telemetry::metrics::Metrics;
use crate::web::api::Api;
use crate::web::guard::Guard;
use crate::web::server;

/// Sockets have this long to take their goodbye when the process ends.
const GOODBYE: Duration = Duration::from_millis(300);

/// Runs the server until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
    let engines = engines::open(&config)?;
    System::new().block_on(serve(config, engines))
}

async fn serve(config: Config, engines: Engines) -> anyhow::Result<()> {
    let Engines { log, read_models, snapshots } = engines;
    let workers = workers(config.server.workers);
    let entity_threads = EntityThreads::start(workers);
    let metrics = Metrics::default();
    let stage = Arc::new(stage(&config, log.clone(), &snapshots, &entity_threads, metrics));
    let options = projector::Options { node: log.epoch().log(), ..projector_options(&config) };
    let projector = Arc::new(Projector::start(log.clone(), read_models.clone(), options));
    let (ending, ended) = watch::channel(false);
    let checkpoint = Checkpoint::at(config.data.dir.join("reactors").join("invitations.json"));
    let invitations = Invitations::new(log.clone(), stage.users.clone(), checkpoint)?;
    let reacting = actix_rt::spawn(invitations.run(ended.clone()));
    let server_options = server::Options {
        workers,
        connections_max: config.server.connections_max,
        guard: guard(&config),
        ending: ended,
    };
    let api = Api { stage: stage.clone(), read_models, projector: projector.clone() };
    let (server, address) =
        server::serve(config.server.listen, &stage, &api, &server_options).with_context(|| {
            format!("cannot listen on {}: choose another address with --listen", config.server.listen)
        })?;
    let handle = server.handle();
    let serving = actix_rt::spawn(server);
    println!("dramatis listens on http://{address}");
    wait_for_end().await?;
    tracing::info!("ending: sockets are closed, appends in flight are finished");
    ending.send_replace(true);
    actix_rt::time::sleep(GOODBYE).await;
    handle.stop(true).await;
    serving.await.context("the listener broke")?.context("the listener failed")?;
    stage.read_markers.flush_all().await;
    reacting.await.context("the reactor to invitations broke")?;
    projector.stop().await;
    entity_threads.stop();
    log.close();
    Ok(())
}

/// What sessions share, with the entities of rooms and users on these threads.
fn stage(
    config: &Config,
    log: Arc<EmbeddedLog>,
    snapshots: &Arc<dyn Snapshots>,
    threads: &EntityThreads,
    metrics: Metrics,
) -> Stage {
    let options = |idle_timeout_ms| EntityOptions {
        pending_max: config.entity.pending_commands_max,
        idle_timeout: Duration::from_millis(idle_timeout_ms),
    };
    let of_rooms = surroundings(config, &log, snapshots, &metrics, room_limits(&config.room));
    let of_users = surroundings(config, &log, snapshots, &metrics, user_limits(config));
    let users = Registry::new(of_users, options(config.user.idle_timeout_ms), threads.handles());
    let seen_every = Duration::from_millis(config.user.seen_every_ms);
    let rooms_max = config.socket.rooms_per_session_max;
    Stage {
        rooms: Registry::new(of_rooms, options(config.entity.idle_timeout_ms), threads.handles()),
        read_markers: ReadMarkers::new(users.clone(), seen_every, rooms_max),
        users,
        log,
        directory: Directory::default(),
        presence: Presence::new(&config.socket.presence),
        relay: Relay::new(metrics.ephemerals.clone()),
        limits: config.socket.clone(),
        metrics,
    }
}

fn surroundings<D: Decider>(
    config: &Config,
    log: &Arc<EmbeddedLog>,
    snapshots: &Arc<dyn Snapshots>,
    metrics: &Metrics,
    limits: D::Limits,
) -> Surroundings<D> {
    Surroundings {
        log: log.clone(),
        snapshots: snapshots.clone(),
        snapshot_every_events: config.entity.snapshot_every_events,
        limits,
        metrics: metrics.entity(),
    }
}

fn user_limits(config: &Config) -> UserLimits {
    UserLimits {
        display_name_chars_max: config.room.display_name_chars_max,
        avatar_chars_max: config.user.avatar_chars_max,
        device_chars_max: config.user.device_chars_max,
        invitations_max: config.user.invitations_max,
    }
}

fn projector_options(config: &Config) -> projector::Options {
    let defaults = projector::Options::default();
    let page = ReadLimit { events: config.projections.batch_events, ..defaults.page };
    let settings = &config.projections;
    projector::Options {
        page,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        warm: Duration::from_millis(settings.warm_ms),
        retention: Duration::from_millis(settings.retention_ms),
        rebuild_share_percent: settings.rebuild_share_percent,
        accept_new_versions: settings.accept_new_versions,
        lease: Duration::from_millis(settings.lease_ms),
        ..defaults
    }
}

fn workers(configured: usize) -> usize {
    if configured > 0 { configured } else { std::thread::available_parallelism().map_or(1, NonZero::get) }
}

fn guard(config: &Config) -> Guard {
    let server = &config.server;
    let host = match server.listen {
        std::net::SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        std::net::SocketAddr::V4(v4) => v4.ip().to_string(),
    };
    let open = !server.listen.ip().is_loopback();
    Guard::new(&host, &server.allowed_hosts, &server.allowed_origins, open)
}

fn room_limits(config: &RoomConfig) -> RoomLimits {
    let RoomConfig {
        text_chars_max,
        title_chars_max,
        display_name_chars_max,
        emoji_chars_max,
        reason_chars_max,
        members_max,
        invitations_max,
    } = *config;
    RoomLimits {
        text_chars_max,
        title_chars_max,
        display_name_chars_max,
        emoji_chars_max,
        reason_chars_max,
        members_max,
        invitations_max,
    }
}

/// The threads that entities run on, apart from those that serve sockets.
struct EntityThreads(Vec<Arbiter>);

impl EntityThreads {
    /// One for every two workers: an entity decides, a worker parses, encodes and writes.
    fn start(workers: usize) -> Self {
        Self((0..(workers / 2).max(1)).map(|_| Arbiter::new()).collect())
    }

    fn handles(&self) -> Vec<ArbiterHandle> {
        self.0.iter().map(Arbiter::handle).collect()
    }

    fn stop(self) {
        for thread in self.0 {
            thread.stop();
            let _ = thread.join();
        }
    }
}

async fn wait_for_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
