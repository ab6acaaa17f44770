//! `fanout`: how fast events reach all who follow a room.
//!
//! | variant | load |
//! |---|---|
//! | `single-N` | a room of N; the next event is posted when all N have read the last |
//! | `coalesced-N` | rooms of N, events at a fixed rate: what waits for a socket goes in one write |
//! | `saturated-N` | a room of N; 64 events in flight |
//! | `send-N` | the limit: a bare process that sends as many bytes to each of N sockets, one send each |
//! | `send-in-turn-N` | the same in the rhythm of `single`: the next to each once all N have read the last |
//! | `ws-…`, `socketio-…`, `nchan-…` | the peers under the same load: they sync nothing |
//!
//! The value is deliveries a second; `…-cpu` is the time that the server was on a processor for each,
//! which a driver or another process that takes the cores' time changes less; latencies run from just before the post, or from when it
//! was due at a fixed rate, until a follower has read the event. In `coalesced` an event that
//! comes out of order or twice ends the run, and so does one of ours that does not come.

pub(crate) mod raw_send;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::ensure;
use clap::Args;
use tokio::task::JoinSet;

use crate::Common;
use crate::link::Link;
use crate::load::{Load, Sent, measure_while};
use crate::offered::Offered;
use crate::pinning::Pinning;
use crate::report::{Latencies, Percentile, Report};
use crate::server::{Server, ServerOptions, Who};
use crate::stage;

/// Options of `fanout`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Sizes of rooms, comma-separated.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    members: Vec<usize>,
    /// Deliveries a second offered by `coalesced` to rooms of up to a hundred; to larger ones a
    /// tenth of that.
    #[arg(long, default_value_t = 1_000_000)]
    offered: usize,
    /// Events in flight in `saturated`.
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
    /// Of a closed loop alone.
    busy_us: Vec<f64>,
    latencies: Vec<Latencies>,
}

impl Measured {
    fn take(&mut self, sent: Sent) {
        self.rates.push(sent.rate);
        self.busy_us.push(sent.busy_us);
    }
}

/// By members, kind and who serves.
type Results = BTreeMap<(usize, &'static str, Who), Measured>;

/// Followers of all rooms of `coalesced`, if a room has fewer.
const FOLLOWERS: usize = 1_000;
/// Rooms of more members are measured by `coalesced` alone.
const CLOSED_LOOP_MEMBERS_MAX: usize = 1_000;

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(&variants(&options.members))?;
    ensure!(options.members.iter().all(|members| *members > 0), "members: expected at least 1 each");
    let pinning = options.server.pin();
    let (mut results, who) = (Results::new(), options.server.who());
    for round in 0..options.common.rounds {
        for members in options.members.iter().copied() {
            one_size(options, pinning, members, &who, &mut results)?;
        }
        eprintln!("fanout: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "fanout",
        &[
            ("durability", "fdatasync before every delivery".to_owned()),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("posters", "1 connection a room, which does not follow".to_owned()),
            ("seconds", options.common.seconds.to_string()),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    for (of, measured) in &results {
        tell(&mut report, options, *of, measured, &results)?;
    }
    report.print(options.common.json)
}

/// The rows of one size, kind and server.
fn tell(
    report: &mut Report,
    options: &Options,
    (members, kind, who): (usize, &'static str, Who),
    measured: &Measured,
    results: &Results,
) -> anyhow::Result<()> {
    let offered = vec![rate_of(options, members)?; measured.rates.len()];
    let send = results.get(&(members, "send", Who::Dramatis)).filter(|_| kind != "send");
    let (peer, peer_busy) = match send {
        _ if kind == "coalesced" => (Some(("offered", offered.as_slice())), None),
        Some(send) => (Some(("send", send.rates.as_slice())), Some(("send", send.busy_us.as_slice()))),
        None => (None, None),
    };
    let in_flight = match kind {
        "single" | "send-in-turn" => "1 event".to_owned(),
        "saturated" => format!("{} events", options.in_flight),
        "coalesced" => format!("{:.0} deliveries/s offered", rate_of(options, members)?),
        _ => "as the sockets take it".to_owned(),
    };
    let followers = if kind == "coalesced" { rooms_of(members) * members } else { members };
    let extra = [("connections", followers.to_string()), ("in_flight", in_flight)];
    let variant = variant(who, kind, members);
    report.values(&variant, "deliveries/s", &measured.rates, peer, &extra);
    report.values(&format!("{variant}-cpu"), "us/delivery", &measured.busy_us, peer_busy, &extra);
    if !measured.latencies.is_empty() {
        report.latencies(&variant, &measured.latencies, &PERCENTILES, &extra)?;
    }
    Ok(())
}

/// The kinds of load on a room of so many.
fn kinds(members: usize) -> Vec<&'static str> {
    let closed = ["single", "saturated"].into_iter().filter(|_| members <= CLOSED_LOOP_MEMBERS_MAX);
    closed.chain(["coalesced"]).collect()
}

fn variant(who: Who, kind: &str, members: usize) -> String {
    format!("{}{kind}-{members}", who.prefix())
}

fn variants(members: &[usize]) -> Vec<String> {
    let of =
        |members: usize, who: Who| kinds(members).into_iter().map(move |kind| variant(who, kind, members));
    members.iter().flat_map(|members| Who::ALL.into_iter().flat_map(move |who| of(*members, who))).collect()
}

/// One round of a room's size: the limit, then every kind of load on every server.
fn one_size(
    options: &Options,
    pinning: Pinning,
    members: usize,
    who: &[Who],
    results: &mut Results,
) -> anyhow::Result<()> {
    let kinds = kinds(members);
    let wanted = |who: Who, kind: &str| options.common.wants(&variant(who, kind, members));
    if kinds.iter().any(|kind| *kind != "coalesced" && wanted(Who::Dramatis, kind)) {
        for (kind, in_turn) in [("send", false), ("send-in-turn", true)] {
            let sent = stage::block_on(send_rate(options, pinning, members, in_turn))?;
            results.entry((members, kind, Who::Dramatis)).or_default().take(sent);
        }
    }
    for kind in kinds {
        for who in who.iter().copied().filter(|who| wanted(*who, kind)) {
            let scratch = options.common.scratch()?;
            let server = options.server.start_one(who, pinning, scratch.path())?;
            let measured = results.entry((members, kind, who)).or_default();
            stage::block_on(load(options, kind, members, who, &server, measured))?;
        }
    }
    Ok(())
}

/// Rooms of `coalesced`.
fn rooms_of(members: usize) -> usize {
    (FOLLOWERS / members).max(1)
}

/// Deliveries a second that `coalesced` offers.
fn rate_of(options: &Options, members: usize) -> anyhow::Result<f64> {
    let small = members <= 100;
    Ok(f64::from(u32::try_from(if small { options.offered } else { options.offered / 10 })?))
}

async fn load(
    options: &Options,
    kind: &str,
    members: usize,
    who: Who,
    server: &Server,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let (event_bytes, window) = (options.event_bytes, options.common.window());
    if kind != "coalesced" {
        let in_flight = if kind == "single" { 1 } else { options.in_flight };
        let load = Load { room: kind, members, stuck: 0, in_flight, event_bytes, window };
        let (sent, latencies) = load.deliver(server).await?;
        measured.take(sent);
        measured.latencies.push(latencies);
        return Ok(());
    }
    let deliveries = if members <= 100 { options.offered } else { options.offered / 10 };
    let offered = Offered {
        prefix: kind,
        rooms: rooms_of(members),
        members,
        events_per_second: u64::try_from(deliveries.div_ceil(members))?,
        event_bytes,
    };
    let meanwhile = async {
        tokio::time::sleep(window).await;
        Ok(())
    };
    let outcome = offered.deliver(server.address, meanwhile).await?;
    if outcome.missing > 0 {
        ensure!(who != Who::Dramatis, "{} deliveries did not come", outcome.missing);
        let variant = variant(who, kind, members);
        eprintln!("{variant}: {} deliveries had not come 10 s later", outcome.missing);
    }
    measured.rates.push(outcome.rate);
    measured.latencies.push(outcome.latencies);
    Ok(())
}

/// Messages a second that the bare sender gets through as many sockets: as fast as they take it, or
/// `in_turn`, the next to each once all have read the last, as in `single`.
async fn send_rate(
    options: &Options,
    pinning: Pinning,
    members: usize,
    in_turn: bool,
) -> anyhow::Result<Sent> {
    let scratch = options.common.scratch()?;
    let bytes = options.event_bytes + FRAME_BYTES;
    let arguments = ["raw-send", "--connections", &members.to_string(), "--bytes", &bytes.to_string()];
    let arguments = arguments.into_iter().chain(in_turn.then_some("--in-turn")).map(str::to_owned);
    let sender = Server::start_own(pinning, &arguments.collect::<Vec<_>>(), scratch.path())?;
    let mut links = Vec::new();
    for _ in 0..members {
        links.push(Link::raw(sender.address).await?);
    }
    let turns = if in_turn { Some(Link::raw(sender.address).await?) } else { None };
    let round = u64::try_from(members * bytes)?;
    let (counting, read) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0_u64)));
    // What has come of a round.
    let come = Rc::new(Cell::new(round));
    let mut clients = JoinSet::new();
    for link in links {
        let (counting, read, come, turns) = (counting.clone(), read.clone(), come.clone(), turns.clone());
        clients.spawn_local(async move {
            loop {
                if let Some(turns) = &turns
                    && come.get() == round
                {
                    come.set(0);
                    turns.write(b"!").await?;
                }
                let count = link.read_raw().await?;
                ensure!(count > 0, "the bare sender ended before the round did");
                come.set(come.get() + u64::try_from(count)?);
                if counting.get() {
                    read.set(read.get() + u64::try_from(count)?);
                }
            }
        });
    }
    let window = measure_while(clients, &counting, options.common.window(), &sender).await?;
    Ok(window.sent(u32::try_from(read.get() / u64::try_from(bytes)?)?))
}
