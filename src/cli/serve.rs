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
use crate::actors::registry::{EntityOptions, Registry};
use crate::config::{Config, RoomConfig};
use crate::domain::room::RoomLimits;
use crate::engines::{self, Engines};
use crate::log::ReadLimit;
use crate::projector::{self, Projector};
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
    let around = Surroundings {
        log: log.clone(),
        snapshots,
        snapshot_every_events: config.entity.snapshot_every_events,
        limits: room_limits(&config.room),
        metrics: metrics.entity(),
    };
    let entity_options = EntityOptions {
        pending_max: config.entity.pending_commands_max,
        idle_timeout: Duration::from_millis(config.entity.idle_timeout_ms),
    };
    let rooms = Registry::new(around, entity_options, entity_threads.handles());
    let stage = Arc::new(Stage {
        log: log.clone(),
        rooms,
        directory: Directory::default(),
        limits: config.socket.clone(),
        metrics,
    });
    let projector = Arc::new(Projector::start(log.clone(), read_models.clone(), projector_options(&config)));
    let (ending, ended) = watch::channel(false);
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
    projector.stop().await;
    entity_threads.stop();
    log.close();
    Ok(())
}

fn projector_options(config: &Config) -> projector::Options {
    let defaults = projector::Options::default();
    let page = ReadLimit { events: config.projections.batch_events, ..defaults.page };
    projector::Options { page, seed: uuid::Uuid::new_v4().as_u64_pair().0, ..defaults }
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
