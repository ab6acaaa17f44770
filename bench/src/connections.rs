//! `connections`: resident memory of the server for each idle connection.
//!
//! | variant | when |
//! |---|---|
//! | `idle` | all clients have said hello and are live in their rooms |
//! | `after-burst` | then every client has been sent a burst of events |

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::Common;
use crate::link::Message;
use crate::report::Report;
use crate::server::{Server, ServerOptions};
use crate::stage::{self, Client, Composer, stamp};

/// Options of `connections`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Connections to open.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Rooms each connection follows: 1, the room of all, or 2, with a room of a hundred besides.
    #[arg(long, default_value_t = 2)]
    rooms: usize,
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

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check()?;
    ensure!(options.connections > 0, "connections: expected at least 1, got 0");
    ensure!((1..=2).contains(&options.rooms), "rooms: expected 1 or 2, got {}", options.rooms);
    let pinning = options.server.pin();
    let (mut idle, mut after) = (Vec::new(), Vec::new());
    for round in 0..options.common.rounds {
        let scratch = options.common.scratch()?;
        let server = options.server.start(pinning, scratch.path())?;
        let found = stage::block_on(measure(options, &server))?;
        idle.push(found.idle);
        after.push(found.after_burst);
        eprintln!("connections: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "connections",
        &[
            ("connections", options.connections.to_string()),
            ("rooms", format!("{} a connection", options.rooms)),
            ("counted", "growth of the server's VmRSS over one with its rooms open".to_owned()),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    let burst = format!("{} events of {EVENT_BYTES} bytes to every connection", options.burst);
    report.values("idle", "KiB/connection", &idle, None, &[]);
    report.values("after-burst", "KiB/connection", &after, Some(("idle", &idle)), &[("burst", burst)]);
    report.print(options.common.json)
}

struct Found {
    idle: f64,
    after_burst: f64,
}

async fn measure(options: &Options, server: &Server) -> anyhow::Result<Found> {
    let address: SocketAddr = server.address;
    let mut rooms = vec![COMMON_ROOM.to_owned()];
    rooms.extend((0..options.connections.div_ceil(ROOM_FOLLOWERS)).map(|number| format!("room-{number}")));
    stage::open_rooms(address, &rooms).await?;
    let mut poster = Client::enter(address, "poster", &[]).await?;
    poster.command(COMMON_ROOM, "join", &serde_json::json!({})).await?;
    let before = server.resident_kib()?;
    let mut clients = Client::enter_all(address, options.connections, |number| {
        let mut follows = vec![COMMON_ROOM.to_owned(), format!("room-{}", number / ROOM_FOLLOWERS)];
        follows.truncate(options.rooms);
        (format!("client-{number}"), follows)
    })
    .await?;
    let connections = f64::from(u32::try_from(options.connections)?);
    let idle = (server.resident_kib()? - before) / connections;
    burst(options, &mut poster, &mut clients).await?;
    let after_burst = (server.resident_kib()? - before) / connections;
    Ok(Found { idle, after_burst })
}

/// Posts to the room of all and waits until all have read it.
async fn burst(options: &Options, poster: &mut Client, clients: &mut [Client]) -> anyhow::Result<()> {
    let (mut composer, mut frame) = (Composer::new(COMMON_ROOM, EVENT_BYTES), Vec::new());
    for _ in 0..options.burst {
        composer.post(&mut frame, 0);
    }
    poster.link.send(&frame).await.context("the burst")?;
    for client in clients {
        let mut missing = options.burst;
        while missing > 0 {
            let on_message = |message: Message<'_>| {
                if let Message::Event(event) = message {
                    missing = missing.saturating_sub(usize::from(stamp(event).is_some()));
                }
                Ok(())
            };
            client.link.read(&mut client.inbox, on_message).await?;
        }
    }
    Ok(())
}
