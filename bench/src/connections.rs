//! `connections`: what an idle connection costs the server.
//!
//! | variant | what |
//! |---|---|
//! | `entered` | resident memory each, as soon as all clients have said hello and are live in their rooms |
//! | `idle-cpu` | processor time each, while nothing happens but heartbeats |
//! | `idle` | resident memory each after that time: what entering took and needs no more is gone |
//! | `after-burst` | resident memory each, after every client has been sent a burst of events |
//! | `ws-…`, `socketio-…`, `nchan-…` | the peers |

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use dramatis::auth::Keys;
use tokio::task::JoinSet;

use crate::Common;
use crate::link::Message;
use crate::pinning::Pinning;
use crate::report::Report;
use crate::server::{Server, ServerOptions, Who};
use crate::stage::{self, Client, Composer, stamp};

/// Options of `connections`: one round takes most of a minute for each server.
#[derive(Debug, Clone, Args)]
#[command(mut_arg("rounds", |rounds| rounds.default_value("1")))]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Connections to open.
    #[arg(long, default_value_t = 18_000)]
    connections: usize,
    /// Rooms each connection follows: 1, the room of all, or 2, with a room of a hundred besides.
    #[arg(long, default_value_t = 2)]
    rooms: usize,
    /// Seconds of idling; a heartbeat of each server falls into 30.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u32,
    /// Events of the burst.
    #[arg(long, default_value_t = 100)]
    burst: usize,
}

/// The room of all.
const COMMON_ROOM: &str = "everyone";
/// Followers of each smaller room.
const ROOM_FOLLOWERS: usize = 100;
/// Bytes of an event's payload.
const EVENT_BYTES: usize = 300;

/// What tokens are signed with: no secret, since nobody else reaches the server.
const TOKEN_KEY: &str = "the key of a benchmark, and of nothing else";

/// What entering set off, such as read models, is done by then: processor time counts from there.
const SETTLE: Duration = Duration::from_secs(8);

/// How long a burst may take.
const READ_WITHIN: Duration = Duration::from_mins(1);

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(&Who::ALL.map(|who| format!("{}idle", who.prefix())))?;
    ensure!(options.connections > 0, "connections: expected at least 1, got 0");
    ensure!((1..=2).contains(&options.rooms), "rooms: expected 1 or 2, got {}", options.rooms);
    ensure!(options.idle_seconds > 0, "idle-seconds: expected at least 1, got 0");
    let pinning = options.server.pin();
    let who = options.server.who();
    let mut results = vec![Found::default(); who.len()];
    for round in 0..options.common.rounds {
        for (who, found) in who.iter().zip(&mut results) {
            if options.common.wants(&format!("{}idle", who.prefix())) {
                let scratch = options.common.scratch()?;
                let server = start(options, *who, pinning, scratch.path())?;
                stage::block_on(measure(options, &server, found))?;
            }
        }
        eprintln!("connections: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "connections",
        &[
            ("connections", options.connections.to_string()),
            ("rooms", format!("{} a connection", options.rooms)),
            ("tokens", "one each, of an hour; the peers' clients have none".to_owned()),
            ("counted", "growth of the server's VmRSS over one with its rooms open".to_owned()),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    let idling = [("seconds", options.idle_seconds.to_string())];
    let burst = [("burst", format!("{} events of {EVENT_BYTES} bytes to every connection", options.burst))];
    for (who, found) in who.iter().zip(&results) {
        let named = |variant: &str| format!("{}{variant}", who.prefix());
        report.values(&named("entered"), "KiB/connection", &found.entered, None, &[]);
        report.values(&named("idle"), "KiB/connection", &found.idle, None, &idling);
        report.values(&named("idle-cpu"), "us/s/connection", &found.cpu, None, &idling);
        let idle = Some(("idle", found.idle.as_slice()));
        report.values(&named("after-burst"), "KiB/connection", &found.after_burst, idle, &burst);
    }
    report.print(options.common.json)
}

/// Starts a server; ours takes clients with tokens only.
fn start(options: &Options, who: Who, pinning: Pinning, dir: &Path) -> anyhow::Result<Server> {
    if who != Who::Dramatis {
        return options.server.start_one(who, pinning, dir);
    }
    let file = dir.join("token.key");
    std::fs::write(&file, TOKEN_KEY)?;
    let settings = [("DRAMATIS__AUTH__TOKEN_KEY_FILE", file.to_str().context("a path that is no text")?)];
    let mut server = options.server.start_with(pinning, dir, &settings)?;
    // It lives as long as the measuring does.
    server.address.keys = Some(Box::leak(Box::new(Keys::read(&file)?)));
    Ok(server)
}

#[derive(Debug, Clone, Default)]
struct Found {
    entered: Vec<f64>,
    idle: Vec<f64>,
    cpu: Vec<f64>,
    after_burst: Vec<f64>,
}

async fn measure(options: &Options, server: &Server, found: &mut Found) -> anyhow::Result<()> {
    let address = server.address;
    let mut rooms = vec![COMMON_ROOM.to_owned()];
    rooms.extend((0..options.connections.div_ceil(ROOM_FOLLOWERS)).map(|number| format!("room-{number}")));
    stage::open_rooms(address, &rooms).await?;
    let poster = async || Client::enter(address, "poster", &[]).await;
    poster().await?.command(COMMON_ROOM, "join", &serde_json::json!({})).await?;
    let before = server.resident_kib()?;
    let clients = Client::enter_all(address, options.connections, |number| {
        let mut follows = vec![COMMON_ROOM.to_owned(), format!("room-{}", number / ROOM_FOLLOWERS)];
        follows.truncate(options.rooms);
        (format!("client-{number}"), follows)
    })
    .await?;
    let connections = f64::from(u32::try_from(options.connections)?);
    found.entered.push((server.resident_kib()? - before) / connections);
    let clients = idle(clients, SETTLE).await?;
    let from = server.busy()?;
    let mut clients = idle(clients, Duration::from_secs(options.idle_seconds.into())).await?;
    let busy = server.busy()?.saturating_sub(from).as_secs_f64() * 1e6;
    found.cpu.push(busy / f64::from(options.idle_seconds) / connections);
    found.idle.push((server.resident_kib()? - before) / connections);
    // Anew: whoever waits so long without a word is closed.
    burst(options, &poster().await?, &mut clients).await?;
    found.after_burst.push((server.resident_kib()? - before) / connections);
    Ok(())
}

/// Lets time pass while all clients answer pings.
async fn idle(clients: Vec<Client>, time: Duration) -> anyhow::Result<Vec<Client>> {
    let over = tokio::sync::watch::Sender::new(false);
    let mut idling = JoinSet::new();
    for mut client in clients {
        let mut over = over.subscribe();
        idling.spawn_local(async move {
            loop {
                tokio::select! {
                    _ = over.changed() => return anyhow::Ok(client),
                    read = client.link.read(&mut client.inbox, |_| Ok(())) => read?,
                }
            }
        });
    }
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        Some(ended) = idling.join_next() => {
            ended??;
            anyhow::bail!("a client ended before the others");
        }
    }
    over.send_replace(true);
    let mut clients = Vec::new();
    while let Some(ended) = idling.join_next().await {
        clients.push(ended??);
    }
    Ok(clients)
}

/// Posts to the room of all and waits until all have read it.
async fn burst(options: &Options, poster: &Client, clients: &mut [Client]) -> anyhow::Result<()> {
    let (mut composer, mut frame) = (Composer::new(COMMON_ROOM, EVENT_BYTES), Vec::new());
    for _ in 0..options.burst {
        composer.post(&mut frame, 0);
    }
    poster.link.send(&frame).await.context("the burst")?;
    // All at once: who is not read from answers no ping.
    let reading = clients.iter_mut().map(|client| read_burst(client, options.burst));
    tokio::time::timeout(READ_WITHIN, futures_util::future::try_join_all(reading))
        .await
        .context("expected that all had read the burst within a minute")??;
    Ok(())
}

async fn read_burst(client: &mut Client, mut missing: usize) -> anyhow::Result<()> {
    while missing > 0 {
        let on_message = |message: Message<'_>| {
            if let Message::Event(event) = message {
                missing = missing.saturating_sub(usize::from(stamp(event).is_some()));
            }
            Ok(())
        };
        client.link.read(&mut client.inbox, on_message).await?;
    }
    Ok(())
}
