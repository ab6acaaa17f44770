//! `latency`: how long a command's answer and its event take while commands come at a fixed
//! rate, spread over many rooms.
//!
//! Open loop: a thread of its own sends each command at its time and never waits for answers.
//! Every latency counts from the moment the command was due, so a driver or a server that falls
//! behind shows.
//!
//! | variant | from a command's due time until |
//! |---|---|
//! | `ack` | its author has read the answer |
//! | `event` | another client in the room has read the event |
//! | `sent` | it was handed to the socket: the driver's own share |
//! | `fdatasync` | the machine's floor: one bare write and sync, nobody else writing |

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::task::JoinSet;

use crate::limits::{Blocks, Checksum, synced_writes};
use crate::link::{Address, Message};
use crate::pace::{Load, send_for};
use crate::report::{Latencies, Percentile, Report};
use crate::server::ServerOptions;
use crate::stage::{self, Client, Composer, Stopwatch, stamp};
use crate::{Common, NO_VARIANTS};

/// Options of `latency`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Commands a second, over all rooms.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Rooms; one client posts in each.
    #[arg(long, default_value_t = 100)]
    rooms: usize,
    /// Clients that follow a room besides its poster.
    #[arg(long, default_value_t = 3)]
    followers: usize,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
}

/// Commands sent before measuring, as time.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the floor is measured in each round.
const FLOOR_WINDOW: Duration = Duration::from_millis(500);
/// How long the last answers may take.
const REST_WITHIN: Duration = Duration::from_secs(10);
const PERCENTILES: [Percentile; 4] = [Percentile::P50, Percentile::P99, Percentile::P999, Percentile::Max];

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(NO_VARIANTS)?;
    ensure!(options.rate > 0 && options.rooms > 0, "rate and rooms: expected at least 1 each");
    let pinning = options.server.pin();
    let (mut sent, mut acks, mut events, mut floor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.common.rounds {
        let scratch = options.common.scratch()?;
        let (_, syncs) =
            synced_writes(scratch.path(), options.event_bytes, Blocks::Ahead, Checksum::None, FLOOR_WINDOW)?;
        floor.push(syncs);
        let server = options.server.start(pinning, scratch.path())?;
        let found = stage::block_on(measure(options, server.address))?;
        sent.push(found.sent);
        acks.push(found.acks);
        events.push(found.events);
        eprintln!("latency: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "latency",
        &[
            ("durability", "fdatasync before every answer and event".to_owned()),
            ("arrivals", format!("open loop, {} commands/s, evenly spaced", options.rate)),
            ("rooms", options.rooms.to_string()),
            (
                "connections",
                format!("{} (1 poster, {} followers a room)", options.connections(), options.followers),
            ),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("seconds", options.common.seconds.to_string()),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    report.latencies("ack", &acks, &PERCENTILES, &[])?;
    report.latencies("event", &events, &PERCENTILES, &[])?;
    report.latencies("sent", &sent, &PERCENTILES, &[])?;
    report.latencies("fdatasync", &floor, &PERCENTILES, &[("file", "zero-filled ahead".to_owned())])?;
    report.print(options.common.json)
}

impl Options {
    fn connections(&self) -> usize {
        self.rooms * (1 + self.followers)
    }
}

struct Found {
    sent: Latencies,
    acks: Latencies,
    events: Latencies,
}

/// What the readers of a round share.
struct Gauge {
    watch: Stopwatch,
    /// Commands due before this moment are not measured.
    from_nanos: Cell<u64>,
    acks: RefCell<Latencies>,
    events: RefCell<Latencies>,
}

async fn measure(options: &Options, address: Address) -> anyhow::Result<Found> {
    let rooms: Vec<String> = (0..options.rooms).map(|number| format!("room-{number}")).collect();
    stage::open_rooms(address, &rooms).await?;
    let room_of = |number: usize| format!("room-{}", number % options.rooms);
    let clients = Client::enter_all(address, options.connections(), |number| {
        (format!("client-{number}"), vec![room_of(number)])
    })
    .await?;
    let gauge = Rc::new(Gauge {
        watch: Stopwatch::start(),
        from_nanos: Cell::new(u64::MAX),
        acks: RefCell::new(Latencies::new()?),
        events: RefCell::new(Latencies::new()?),
    });
    let (mut readers, mut posters) = (JoinSet::new(), Vec::new());
    for (number, mut client) in clients.into_iter().enumerate() {
        let posts = number < options.rooms;
        if posts {
            client.command(&room_of(number), "join", &serde_json::json!({})).await?;
            posters.push((client.link.clone(), Composer::new(&room_of(number), options.event_bytes)));
        }
        readers.spawn_local(read(client, posts, gauge.clone()));
    }
    let (watch, rate) = (gauge.watch, options.rate);
    let from_nanos = watch.nanos() + u64::try_from(WARM_UP.as_nanos())?;
    gauge.from_nanos.set(from_nanos);
    let load = Load { posters, watch, rate, from_nanos };
    let sent = send_for(load, WARM_UP + options.common.window(), &mut readers).await?;
    await_rest(options, &gauge, sent.len()).await?;
    readers.abort_all();
    let (acks, events) = (gauge.acks.borrow().clone(), gauge.events.borrow().clone());
    Ok(Found { sent, acks, events })
}

/// Waits for the answers that are still out: leaving them away would hide the slowest.
async fn await_rest(options: &Options, gauge: &Gauge, sent: u64) -> anyhow::Result<()> {
    let events = sent * u64::try_from(options.followers)?;
    let is_done = || gauge.acks.borrow().len() >= sent && gauge.events.borrow().len() >= events;
    let rest = async {
        while !is_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(REST_WITHIN, rest).await.with_context(|| {
        format!(
            "expected {sent} acks and {events} events, got {} and {}: try a lower --rate",
            gauge.acks.borrow().len(),
            gauge.events.borrow().len()
        )
    })
}

async fn read(mut client: Client, posts: bool, gauge: Rc<Gauge>) -> anyhow::Result<std::convert::Infallible> {
    loop {
        let on_message = |message: Message<'_>| {
            let (bytes, latencies) = match message {
                Message::Ack(bytes) => (bytes, &gauge.acks),
                Message::Event(bytes) if !posts => (bytes, &gauge.events),
                _ => return Ok(()),
            };
            if let Some(due) = stamp(bytes).filter(|due| *due >= gauge.from_nanos.get()) {
                latencies.borrow_mut().record(gauge.watch.nanos().saturating_sub(due));
            }
            Ok(())
        };
        client.link.read(&mut client.inbox, on_message).await?;
    }
}
