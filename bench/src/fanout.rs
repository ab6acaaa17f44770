//! `fanout`: how fast events reach all who follow a room.
//!
//! | variant | load |
//! |---|---|
//! | `single-N` | a room of N; the next event is posted when all N have read the last |
//! | `coalesced-N` | a room of N; 64 events in flight, so that a write may carry several |
//! | `send-N` | the limit: a bare process that sends as many bytes to each of N sockets, one send each |
//!
//! The value is deliveries a second; latencies run from just before the post until a follower
//! has read the event.

pub(crate) mod raw_send;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::ensure;
use clap::Args;
use tokio::task::JoinSet;

use crate::Common;
use crate::link::Link;
use crate::load::{Load, measure_while};
use crate::pinning::Pinning;
use crate::report::{Latencies, Percentile, Report};
use crate::server::{Server, ServerOptions};
use crate::stage;

/// Options of `fanout`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Sizes of rooms, comma-separated.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000])]
    members: Vec<usize>,
    /// Events in flight in `coalesced`.
    #[arg(long, default_value_t = 64)]
    in_flight: u64,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
}

const PERCENTILES: [Percentile; 3] = [Percentile::P50, Percentile::P99, Percentile::Max];
/// Bytes that an event frame has besides the payload, about.
const FRAME_BYTES: usize = 190;

#[derive(Debug, Default)]
struct Measured {
    rates: Vec<f64>,
    latencies: Vec<Latencies>,
}

/// By members and kind.
type Results = BTreeMap<(usize, &'static str), Measured>;

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check()?;
    ensure!(options.members.iter().all(|members| *members > 0), "members: expected at least 1 each");
    let pinning = options.server.pin();
    let mut results = Results::new();
    for round in 0..options.common.rounds {
        for members in options.members.iter().copied() {
            one_size(options, pinning, members, round, &mut results)?;
        }
        eprintln!("fanout: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "fanout",
        &[
            ("durability", "fdatasync before every delivery".to_owned()),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("posters", "1 connection, which does not follow".to_owned()),
            ("seconds", options.common.seconds.to_string()),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    for ((members, kind), measured) in &results {
        let peers = results.get(&(*members, "send")).filter(|_| *kind != "send");
        let peer = peers.map(|peers| ("send", peers.rates.as_slice()));
        let in_flight = match *kind {
            "single" => "1 event".to_owned(),
            "coalesced" => format!("{} events", options.in_flight),
            _ => "as the sockets take it".to_owned(),
        };
        let extra = [("connections", members.to_string()), ("in_flight", in_flight)];
        let variant = format!("{kind}-{members}");
        report.values(&variant, "deliveries/s", &measured.rates, peer, &extra);
        if !measured.latencies.is_empty() {
            report.latencies(&variant, &measured.latencies, &PERCENTILES, &extra)?;
        }
    }
    report.print(options.common.json)
}

/// One round of a room's size: the limit, then both kinds of load.
fn one_size(
    options: &Options,
    pinning: Pinning,
    members: usize,
    round: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    let kinds = [("single", 1), ("coalesced", options.in_flight)];
    let wanted = kinds.into_iter().filter(|(kind, _)| options.common.wants(&format!("{kind}-{members}")));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let rate = stage::block_on(send_rate(options, pinning, members))?;
    results.entry((members, "send")).or_default().rates.push(rate);
    let scratch = options.common.scratch()?;
    let server = options.server.start(pinning, scratch.path())?;
    for (kind, in_flight) in wanted {
        let room = format!("{kind}-{members}-{round}");
        let (event_bytes, window) = (options.event_bytes, options.common.window());
        let load = Load { room: &room, members, stuck: 0, in_flight, event_bytes, window };
        let (rate, latencies) = stage::block_on(load.deliver(server.address))?;
        let measured = results.entry((members, kind)).or_default();
        measured.rates.push(rate);
        measured.latencies.push(latencies);
    }
    Ok(())
}

/// Messages a second that the bare sender gets through as many sockets.
async fn send_rate(options: &Options, pinning: Pinning, members: usize) -> anyhow::Result<f64> {
    let scratch = options.common.scratch()?;
    let bytes = options.event_bytes + FRAME_BYTES;
    let arguments = ["raw-send", "--connections", &members.to_string(), "--bytes", &bytes.to_string()];
    let sender = Server::start_own(pinning, &arguments.map(str::to_owned), scratch.path())?;
    let (counting, read) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0_u64)));
    let mut clients = JoinSet::new();
    for _ in 0..members {
        let link = Link::raw(sender.address).await?;
        let (counting, read) = (counting.clone(), read.clone());
        clients.spawn_local(async move {
            loop {
                let count = link.read_raw().await?;
                ensure!(count > 0, "the bare sender ended before the round did");
                if counting.get() {
                    read.set(read.get() + u64::try_from(count)?);
                }
            }
        });
    }
    let took = measure_while(clients, &counting, options.common.window()).await?;
    let messages = u32::try_from(read.get() / u64::try_from(bytes)?)?;
    Ok(f64::from(messages) / took.as_secs_f64())
}
