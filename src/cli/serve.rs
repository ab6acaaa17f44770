//! `dramatis serve`: the composition root. It opens the engines, starts the actors, the
//! projector and the listener, and ends them in the reverse order.

mod files;
mod signals;

use std::io::{ErrorKind, Write as _};
use std::net::TcpListener;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use tokio::sync::watch;

use self::signals::Signals;
use crate::actors::Stage;
use crate::actors::directory::Directory;
use crate::actors::drain::Drain;
use crate::actors::entity::Surroundings;
use crate::actors::meters::Meters;
use crate::actors::places::Places;
use crate::actors::presence::Presence;
use crate::actors::read_markers::ReadMarkers;
use crate::actors::registry::{EntityOptions, Registry};
use crate::actors::relay::Relay;
use crate::actors::session_notes::SessionNotes;
use crate::actors::unfinished::Budget;
use crate::auth::Keys;
use crate::config::{Config, RoomConfig};
use crate::domain::Decider;
use crate::domain::room::RoomLimits;
use crate::domain::user::UserLimits;
use crate::engines::{self, EngineError, Engines};
use crate::log::ReadLimit;
use crate::log::embedded::{EmbeddedLog, OpenError};
use crate::projector::{self, Projector};
use crate::reactors::{Checkpoint, Invitations};
use crate::snapshots::Snapshots;
use crate::telemetry::metrics::Metrics;
use crate::web::api::Api;
use crate::web::guard::Guard;
use crate::web::peer::Proxies;
use crate::web::server;

/// How often a successor looks whether its predecessor has gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the thread that accepts connections has to stop that.
const PAUSED_WITHIN: Duration = Duration::from_millis(50);
/// What is done once clients have gone and segments have moved takes no longer, unless something hangs.
const REST_MAX: Duration = Duration::from_secs(10);
/// What the process exits with when its end is cut short, by another signal or because it hangs.
const EXIT_CUT_SHORT: i32 = 1;

/// Runs the server until SIGTERM or SIGINT. With `wait_for_lock` it is the successor of a server
/// that has the data still: it waits until that has gone, and takes its place.
pub fn run(config: Config, wait_for_lock: bool) -> anyhow::Result<()> {
    // A huge page stays while one object in it does: what many clients need for a moment, when they
    // come, would be kept for as long as they are there.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    files::raise_limit()?;
    let keys = config.auth.token_key_file().map(Keys::read).transpose()?;
    let keys = keys.map(|keys| keys.for_audience(&config.auth.audience));
    if let Some(file) = config.auth.token_key_file() {
        warn_if_anyone_reads(file);
    }
    let projecting = projector::Threads::start().context("the projector's threads do not start")?;
    System::new().block_on(async {
        let mut signals = Signals::new()?;
        let Some(engines) = open(&config, wait_for_lock, &mut signals).await? else { return Ok(()) };
        let log = engines.log.clone();
        if let Some(listener) = bind(&config, wait_for_lock, &mut signals).await? {
            return serve(config, engines, keys, listener, signals, &projecting).await;
        }
        log.close();
        Ok(())
    })
}

/// Whoever reads the key can make tokens of anyone.
fn warn_if_anyone_reads(key: &Path) {
    let mode = std::fs::metadata(key).map_or(0, |file| file.permissions().mode() & 0o777);
    if mode & 0o004 != 0 {
        tracing::warn!(
            file = %key.display(),
            mode = format!("{mode:04o}"),
            "the key of tokens may be read by every user of this machine, who may then act as anyone: chmod 600"
        );
    }
}

/// Opens the engines; `None` if the process is to end before they are open.
async fn open(
    config: &Config,
    wait_for_lock: bool,
    signals: &mut Signals,
) -> anyhow::Result<Option<Engines>> {
    let mut told = false;
    while !signals.came() {
        let settings = config.clone();
        let opening = actix_rt::task::spawn_blocking(move || engines::open(&settings));
        match signals.during(opening).await.context("the thread that opens the log broke")? {
            // Both are given back when a process has gone, but not in one moment.
            Err(EngineError::Log {
                error: OpenError::InUse { owner } | OpenError::TierInUse { owner, .. },
                dir,
            }) if wait_for_lock => {
                if !told {
                    tracing::info!(%owner, %dir, "waiting for the log's lock");
                    told = true;
                }
                signals.during(actix_rt::time::sleep(LOOK_EVERY)).await;
            }
            opened => return Ok(Some(opened?)),
        }
    }
    Ok(None)
}

/// Takes the address; `None` if the process is to end before it is free.
async fn bind(
    config: &Config,
    wait_for_lock: bool,
    signals: &mut Signals,
) -> anyhow::Result<Option<TcpListener>> {
    let listen = config.server.listen;
    let mut told = false;
    while !signals.came() {
        match server::bind(listen) {
            Err(error) if wait_for_lock && error.kind() == ErrorKind::AddrInUse => {
                if !told {
                    tracing::info!(%listen, "waiting for the address: another process listens on it");
                    told = true;
                }
                signals.during(actix_rt::time::sleep(LOOK_EVERY)).await;
            }
            bound => {
                let unbound = || format!("cannot listen on {listen}: choose another address with --listen");
                return bound.map(Some).with_context(unbound);
            }
        }
    }
    Ok(None)
}

async fn serve(
    config: Config,
    engines: Engines,
    keys: Option<Keys>,
    listener: TcpListener,
    mut signals: Signals,
    projecting: &projector::Threads,
) -> anyhow::Result<()> {
    let Engines { log, read_models, snapshots, node } = engines;
    let workers = workers(config.server.workers);
    let entity_threads = EntityThreads::start(workers);
    let metrics = Metrics::default();
    let stage = Arc::new(stage(&config, log.clone(), &snapshots, &entity_threads, metrics, keys));
    let options = projector::Options { holder: node.into(), ..projector_options(&config) };
    let projector = Projector::start_on(projecting, log.clone(), read_models.clone(), options);
    let projector = Arc::new(projector);
    let (ending, ended) = watch::channel(false);
    let checkpoint = Checkpoint::at(config.data.dir.join("reactors").join("invitations.json"));
    let invitations = Invitations::new(log.clone(), stage.users.clone(), checkpoint)?;
    let of_invitations = invitations.trouble();
    let reacting = actix_rt::spawn(invitations.run(ended));
    let connections_max = config.server.connections_max;
    let left = files::left_for(connections_max);
    let connections = Arc::new(Places::new(connections_max.min(left)));
    let server_options = server::Options {
        workers,
        connections_per_worker_max: connections_max.min(left / workers).max(1),
        connections: connections.clone(),
        guard: guard(&config),
        proxies: Proxies::new(&config.server.proxies),
    };
    let api =
        Api { stage: stage.clone(), read_models, projector: projector.clone(), invitations: of_invitations };
    let listening = listener.try_clone().context("the listener cannot be held twice")?;
    let (server, address) = server::serve(listener, &stage, &api, &server_options)?;
    let handle = server.handle();
    let serving = actix_rt::spawn(server);
    // Whoever started the process may not listen to it.
    let _ = writeln!(std::io::stdout(), "dramatis listens on http://{address}");
    signals.first().await;
    tracing::info!("ending: clients are told, appends in flight are finished, sockets are closed");
    actix_rt::spawn(async move { signals.during(std::future::pending::<()>()).await });
    end_within(stage.drain.notice() + 2 * stage.drain.patience() + REST_MAX)?;
    handle.pause().await;
    // The thread that accepts is asked to stop, and does not say when it has: it would report an error.
    actix_rt::time::sleep(PAUSED_WITHIN).await;
    server::unbind(&listening);
    drop(listening);
    drain(&stage.drain, &connections).await;
    ending.send_replace(true);
    handle.stop(true).await;
    serving.await.context("the listener broke")?.context("the listener failed")?;
    stage.read_markers.flush_all().await;
    reacting.await.context("the reactor to invitations broke")?;
    projector.stop().await;
    entity_threads.stop();
    log.close();
    Ok(())
}

/// Ends the process after that all the same: what waits for a disk that does not answer may wait for
/// ever, and neither threads nor a runtime end before it.
fn end_within(within: Duration) -> std::io::Result<()> {
    let wait = move || {
        std::thread::sleep(within);
        tracing::warn!(
            ?within,
            "ending as a crash would: something hangs, such as a read of a disk that does not answer"
        );
        std::process::exit(EXIT_CUT_SHORT);
    };
    std::thread::Builder::new().name("end".to_owned()).spawn(wait).map(drop)
}

/// Tells clients to go, and waits until they have, within bounds.
async fn drain(drain: &Drain, connections: &Places) {
    drain.begin();
    let within = drain.notice().saturating_add(drain.patience());
    if actix_rt::time::timeout(within, connections.empty()).await.is_err() {
        tracing::warn!("connections are left open: drain.patience_ms has passed");
    }
}

/// What sessions share, with the entities of rooms and users on these threads.
fn stage(
    config: &Config,
    log: Arc<EmbeddedLog>,
    snapshots: &Arc<dyn Snapshots>,
    threads: &EntityThreads,
    metrics: Metrics,
    keys: Option<Keys>,
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
        session_notes: SessionNotes::default(),
        log,
        directory: Directory::default(),
        presence: Presence::new(&config.socket.presence),
        relay: Relay::new(metrics.ephemerals.clone()),
        limits: config.socket.clone(),
        unfinished: Arc::new(Budget::new(
            metrics.unfinished_bytes.clone(),
            config.socket.unfinished_bytes_max,
        )),
        meters: Meters::new(config.limits.clone()),
        drain: Drain::new(config.drain.clone()),
        keys,
        auth: config.auth.clone(),
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
        invitations_per_inviter_max: config.user.invitations_per_inviter_max,
    }
}

fn projector_options(config: &Config) -> projector::Options {
    let defaults = projector::Options::default();
    let page = ReadLimit { events: config.projections.batch_events, ..defaults.page };
    let settings = &config.projections;
    let rebuild_page = ReadLimit {
        events: defaults.rebuild_page.events.max(settings.batch_events),
        ..defaults.rebuild_page
    };
    projector::Options {
        page,
        rebuild_page,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        warm: Duration::from_millis(settings.warm_ms),
        retention: Duration::from_millis(settings.retention_ms),
        rebuild_share_percent: settings.rebuild_share_percent,
        accept_new_versions: settings.accept_new_versions,
        lease: Duration::from_millis(settings.lease_ms),
        take_over: config.read_models.take_over(),
        ..defaults
    }
}

fn workers(configured: usize) -> usize {
    if configured > 0 { configured } else { std::thread::available_parallelism().map_or(1, NonZero::get) }
}

fn guard(config: &Config) -> Guard {
    let server = &config.server;
    Guard::new(server.listen.ip(), &server.allowed_hosts, &server.allowed_origins)
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
