//! `replay`: events read back a second.
//!
//! | variant | what is done with each event |
//! |---|---|
//! | `raw` | every record read from the page cache by `read_all`, its checksum checked, its header filtered: one in 32,768 passes |
//! | `decoded` | every event handed out by `read_all`, all of its fields made |
//! | `typed` | the same, and its payload decoded to `RoomEvent` |
//! | `raw-sqlite`, `-fjall`, `-redb`, `-sierradb` | the peers: every event in order, its fields told apart |
//! | `raw-plain-file` | the limit: a plain file of records, a CRC32C over each checked |
//! | `raw-to-best-peer` | how many times the best of the peers `raw` is |

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use dramatis::log::{EventLog, Filter, ReadLimit};
use dramatis_events::room::{RoomEvent, RoomRenamed};
use dramatis_events::{Envelope, Event as _, EventName};

use crate::payload::{Batch, Payload};
use crate::peers::{self, Peer};
use crate::report::Report;
use crate::{Common, engine};

/// Options of `replay`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
    /// Events in the log that is read.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Events of one page.
    #[arg(long, default_value_t = 4_096)]
    page: usize,
}

/// Events of one append while the log is filled.
const FILL_BATCH: usize = 2_048;
/// One event of another name in so many.
const RARE_EVERY: u64 = 32_768;
/// Streams that the events are spread over.
const STREAMS: u64 = 64;
/// The peers.
const PEERS: &[&str] = &[
    "raw-sqlite",
    "raw-fjall",
    "raw-redb",
    #[cfg(feature = "sierradb")]
    "raw-sierradb",
];
/// The limit.
const PLAIN_FILE: &str = "raw-plain-file";

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(&[&["raw", "decoded", "typed", PLAIN_FILE][..], PEERS].concat())?;
    let scratch = options.common.scratch()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let log = engine::open(&scratch.path().join("log"))?;
    fill(options, |position, batch| {
        let mut append = batch.into_append();
        if position % RARE_EVERY == 0 {
            append.envelopes.last_mut().map_or(Ok(()), make_rare)?;
        }
        runtime.block_on(log.append(append))?;
        Ok(())
    })?;
    // One unmeasured pass over each brings it into the page cache.
    runtime.block_on(scan(options, log.as_ref(), false))?;
    let peers = fill_peers(options, scratch.path())?;
    let mut rates = BTreeMap::<&str, Vec<f64>>::new();
    for round in 0..options.common.rounds {
        let ours = ["raw", "decoded", "typed"];
        for variant in ours.into_iter().filter(|variant| options.common.wants(variant)) {
            let rate = match variant {
                "raw" => runtime.block_on(search(options, log.as_ref()))?,
                _ => runtime.block_on(scan(options, log.as_ref(), variant == "typed"))?,
            };
            rates.entry(variant).or_default().push(rate);
        }
        for (name, peer) in &peers {
            rates.entry(name).or_default().push(peers::scan_rate(peer.as_ref(), options.events)?);
        }
        eprintln!("replay: round {} of {}", round + 1, options.common.rounds);
    }
    report(options, &rates).print(options.common.json)
}

fn report(options: &Options, rates: &BTreeMap<&'static str, Vec<f64>>) -> Report {
    let mut report = Report::new(
        "replay",
        &[
            ("engine", "embedded".to_owned()),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("events", format!("{} in {STREAMS} streams", options.events)),
            ("page", format!("{} events", options.page)),
            ("cache", "page cache, warm".to_owned()),
            ("readers", "1".to_owned()),
        ],
    );
    let of = |name| rates.get(name).map(Vec::as_slice);
    let limit = of(PLAIN_FILE).map(|rates| (PLAIN_FILE, rates));
    for name in PEERS.iter().copied().chain([PLAIN_FILE, "raw"]) {
        let limit = if name == PLAIN_FILE { None } else { limit };
        let checksums = match name {
            "raw-sqlite" => "none, as by default",
            "raw-fjall" => "checked when a block comes into its cache",
            "raw-redb" => "not checked by reads",
            _ => "checked for every event",
        };
        let extra = [("checksums", checksums.to_owned())];
        report.values(name, "events/s", of(name).unwrap_or_default(), limit, &extra);
    }
    let peers: Vec<_> = PEERS.iter().copied().filter_map(|name| Some((name, of(name)?))).collect();
    report.times_the_best("raw-to-best-peer", of("raw").unwrap_or_default(), &peers);
    for name in ["decoded", "typed"] {
        report.values(name, "events/s", of(name).unwrap_or_default(), limit, &[]);
    }
    report
}

/// Gives the events to be read in batches, stream after stream, each with its first position.
fn fill(options: &Options, mut append: impl FnMut(u64, Batch) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let payload = Payload::new(options.event_bytes)?;
    let streams = (0..STREAMS).map(|number| payload.template(number, 0));
    let mut streams = streams.collect::<anyhow::Result<Vec<_>>>()?;
    let mut filled = 0;
    while filled < options.events {
        for stream in &mut streams {
            let count = FILL_BATCH.min(options.events - filled);
            if count > 0 {
                append(u64::try_from(filled)?, stream.batch(count)?)?;
            }
            filled += count;
        }
    }
    Ok(())
}

/// The same events in each of the peers and in a plain file.
fn fill_peers(options: &Options, dir: &Path) -> anyhow::Result<Vec<(&'static str, Box<dyn Peer>)>> {
    let mut filled = Vec::new();
    let wanted = |name: &&str| options.common.wants("raw") || options.common.wants(name);
    for name in PEERS.iter().copied().chain([PLAIN_FILE]).filter(wanted) {
        let peer = peers::open(name, dir)?;
        fill(options, |position, batch| peer.append(position, &batch))?;
        peers::scan_rate(peer.as_ref(), options.events)?;
        eprintln!("replay: {name} is filled");
        filled.push((name, peer));
    }
    Ok(filled)
}

/// Makes an event one of another name, so that a search by name has something to find and no
/// segment can be skipped.
fn make_rare(envelope: &mut Envelope) -> anyhow::Result<()> {
    let event = RoomEvent::from(RoomRenamed { title: "another name".to_owned() });
    (envelope.name, envelope.version, envelope.data) = (event.event_name(), event.version(), event.encode()?);
    Ok(())
}

/// Looks for the rare events among all; events looked at a second.
async fn search(options: &Options, log: &dyn EventLog) -> anyhow::Result<f64> {
    let limit = ReadLimit { events: options.page, bytes: 16 * 1024 * 1024 };
    let filter = Filter { names: vec![EventName::parse("RoomRenamed")?], ..Filter::default() };
    let (head, mut after, mut found) = (*log.head().borrow(), None, 0);
    let started = Instant::now();
    while after < head {
        let page = log.read_all(after, filter.clone(), limit).await?;
        found += page.events.len();
        after = page.scanned;
    }
    let elapsed = started.elapsed();
    let expected = options.events.div_ceil(usize::try_from(RARE_EVERY)?);
    ensure!(found == expected, "expected {expected} rare events, found {found}");
    Ok(f64::from(u32::try_from(options.events)?) / elapsed.as_secs_f64())
}

/// Reads everything once; events a second.
async fn scan(options: &Options, log: &dyn EventLog, typed: bool) -> anyhow::Result<f64> {
    let limit = ReadLimit { events: options.page, bytes: 16 * 1024 * 1024 };
    let (mut after, mut events) = (None, 0_usize);
    let started = Instant::now();
    while events < options.events {
        let page = log.read_all(after, Filter::default(), limit).await?;
        ensure!(!page.events.is_empty(), "expected {} events, the log ended after {events}", options.events);
        if typed {
            for event in &page.events {
                std::hint::black_box(RoomEvent::from_envelope(&event.envelope)?);
            }
        }
        events += page.events.len();
        after = page.scanned;
    }
    Ok(f64::from(u32::try_from(events)?) / started.elapsed().as_secs_f64())
}
