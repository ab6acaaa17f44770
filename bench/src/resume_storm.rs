//! `resume-storm`: everybody comes back at once, each with a cursor some events behind.
//!
//! | variant | what |
//! |---|---|
//! | `all-live` | seconds from the first connect until the last client is live again |
//! | `caught-up` | missed events delivered a second, over that time |
//! | `client-p50` and so on | from a client's own connect until it is live |
//! | `bystander-p50` and so on | from when an event is due to when a follower of another room has read it, meanwhile |
//!
//! A missed event that does not come, comes twice or out of order is an error. The bystanders are
//! read by a thread of their own: what they wait for is the server, and not those who come back.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::oneshot;

use crate::link::{Address, Inbox, Link, Message};
use crate::offered::{Offered, Outcome};
use crate::report::{Latencies, Percentile, Report};
use crate::server::ServerOptions;
use crate::stage::{self, Client, Composer, Stopwatch, stamp};
use crate::{Common, NO_VARIANTS};

/// Options of `resume-storm`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Clients that come back.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Rooms they are spread over.
    #[arg(long, default_value_t = 100)]
    rooms: usize,
    /// Events that each has missed.
    #[arg(long, default_value_t = 20)]
    missed: usize,
    /// Clients in a room of their own that gets 100 events a second.
    #[arg(long, default_value_t = 100)]
    bystanders: usize,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
}

/// Events a second in the bystanders' room.
const BYSTANDER_EVENTS: u64 = 100;
/// Clients that may be on their way at a time; the listener's queue is not much longer.
const AT_ONCE: usize = 2_048;
/// The last revision of a room that its owner has opened and the poster has joined.
const AFTER_JOIN: u64 = 2;
const PERCENTILES: [Percentile; 3] = [Percentile::P50, Percentile::P99, Percentile::Max];

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(NO_VARIANTS)?;
    ensure!(options.connections > 0 && options.rooms > 0, "connections and rooms: expected at least 1 each");
    let pinning = options.server.pin();
    let (mut seconds, mut rates, mut clients, mut bystanders) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let events = f64::from(u32::try_from(options.connections * options.missed)?);
    for round in 0..options.common.rounds {
        let scratch = options.common.scratch()?;
        let server = options.server.start(pinning, scratch.path())?;
        let (took, latencies, of_bystanders) = stage::block_on(measure(options, server.address))?;
        seconds.push(took.as_secs_f64());
        rates.push(events / took.as_secs_f64());
        clients.push(latencies);
        bystanders.push(of_bystanders);
        eprintln!("resume-storm: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "resume-storm",
        &[
            ("connections", options.connections.to_string()),
            ("rooms", options.rooms.to_string()),
            ("missed", format!("{} events each, of {} bytes payload", options.missed, options.event_bytes)),
            (
                "bystanders",
                format!("{} in a room with {BYSTANDER_EVENTS} events a second", options.bystanders),
            ),
            ("cache", "page cache, warm".to_owned()),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    report.values("all-live", "s", &seconds, None, &[]);
    report.values("caught-up", "events/s", &rates, None, &[]);
    report.latencies("client", &clients, &PERCENTILES, &[])?;
    report.latencies("bystander", &bystanders, &PERCENTILES, &[])?;
    report.print(options.common.json)
}

async fn measure(options: &Options, address: Address) -> anyhow::Result<(Duration, Latencies, Latencies)> {
    let rooms: Vec<String> = (0..options.rooms).map(|number| format!("room-{number}")).collect();
    stage::open_rooms(address, &rooms).await?;
    for room in &rooms {
        fill(options, address, room).await?;
    }
    let latencies = RefCell::new(Latencies::new()?);
    let bystanders = Bystanders::enter(options, address).await?;
    let took = storm(options, address, &latencies).await;
    let outcome = bystanders.leave().await?;
    ensure!(outcome.missing == 0, "{} events did not reach the bystanders", outcome.missing);
    Ok((took?, latencies.into_inner(), outcome.latencies))
}

/// Clients on a thread of their own, who are in their room until they are told to leave.
struct Bystanders {
    leave: oneshot::Sender<()>,
    outcome: oneshot::Receiver<anyhow::Result<Outcome>>,
}

impl Bystanders {
    /// Returns once they are all there and the first events have come.
    async fn enter(options: &Options, address: Address) -> anyhow::Result<Self> {
        let (members, event_bytes) = (options.bystanders.max(1), options.event_bytes);
        let (are_there, there) = oneshot::channel();
        let (leave, is_over) = oneshot::channel();
        let (done, mut outcome) = oneshot::channel();
        std::thread::spawn(move || {
            let offered = Offered {
                prefix: "bystanders",
                rooms: 1,
                members,
                events_per_second: BYSTANDER_EVENTS,
                event_bytes,
            };
            let meanwhile = async {
                let _ = are_there.send(());
                let _ = is_over.await;
                Ok(())
            };
            let _ = done.send(stage::block_on(offered.deliver(address, meanwhile)));
        });
        if there.await.is_err() {
            (&mut outcome).await??;
            bail!("the bystanders left before anybody came");
        }
        Ok(Self { leave, outcome })
    }

    async fn leave(self) -> anyhow::Result<Outcome> {
        let _ = self.leave.send(());
        self.outcome.await.context("the bystanders' thread broke")?
    }
}

/// Everybody comes back; how long it took until the last one was live.
async fn storm(
    options: &Options,
    address: Address,
    latencies: &RefCell<Latencies>,
) -> anyhow::Result<Duration> {
    let watch = Stopwatch::start();
    let comings = (0..options.connections).map(|number| {
        let user = format!("client-{number}");
        let room = format!("room-{}", number % options.rooms);
        async move {
            let from = watch.nanos();
            let link = come_back(options, address, &user, &room).await?;
            latencies.borrow_mut().record(watch.nanos() - from);
            anyhow::Ok(link)
        }
    });
    let back: Vec<Link> = stream::iter(comings).buffer_unordered(AT_ONCE).try_collect().await?;
    let took = Duration::from_nanos(watch.nanos());
    // Nobody leaves before the last one is back.
    drop(back);
    Ok(took)
}

/// Posts what the clients will have missed.
async fn fill(options: &Options, address: Address, room: &str) -> anyhow::Result<()> {
    let mut poster = Client::enter(address, &format!("poster-of-{room}"), &[]).await?;
    poster.command(room, "join", &serde_json::json!({})).await?;
    let mut composer = Composer::new(room, options.event_bytes);
    for number in 0..u64::try_from(options.missed)? {
        let mut frame = Vec::new();
        // Its number in place of a time.
        composer.post(&mut frame, number);
        poster.link.send(&frame).await?;
        poster.wait(1, |message| matches!(message, Message::Ack(_))).await?;
    }
    Ok(())
}

/// Connects with a cursor and reads until live; every missed event must have come by then.
async fn come_back(options: &Options, address: Address, user: &str, room: &str) -> anyhow::Result<Link> {
    let (link, mut inbox) = (Link::open(address).await?, Inbox::default());
    let cursors = serde_json::json!([{ "room": room, "after": AFTER_JOIN }]);
    let hello = serde_json::json!({"type": "hello", "user": user, "session": user, "rooms": cursors});
    link.send(hello.to_string().as_bytes()).await?;
    let (mut live, mut seen) = (false, 0);
    let mut last = None;
    while !live {
        link.read(&mut inbox, |message| {
            match message {
                Message::Live => live = true,
                Message::Event(event) => {
                    if let Some(number) = stamp(event) {
                        ensure!(last < Some(number), "{user} got an event twice or out of order");
                        last = Some(number);
                        seen += 1;
                    }
                }
                Message::Ack(_) | Message::Other => {}
            }
            Ok(())
        })
        .await?;
    }
    ensure!(seen == options.missed, "{user} expected {} missed events, got {seen}", options.missed);
    Ok(link)
}
