//! `replay`: events read back a second.
//!
//! | variant | what is done with each event |
//! |---|---|
//! | `raw` | read by `read_all` from the page cache, checksums on |
//! | `typed` | the same, and its payload decoded to `RoomEvent` |
//! | `raw-sqlite` | the peer: every column of every row, in order |

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Args;
use dramatis::log::{Append, EventLog, Expected, Filter, ReadLimit};
use dramatis_events::Event as _;
use dramatis_events::room::RoomEvent;
use rusqlite::Connection;

use crate::payload::Template;
use crate::report::Report;
use crate::{Common, engine, sqlite};

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
/// Streams that the events are spread over.
const STREAMS: u64 = 64;

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check()?;
    let scratch = options.common.scratch()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let log = engine::open(&scratch.path().join("log"))?;
    runtime.block_on(fill(options, log.as_ref()))?;
    // One unmeasured pass brings all of it into the page cache.
    runtime.block_on(scan(options, log.as_ref(), false))?;
    let peer = fill_peer(options, scratch.path())?;
    let (mut raw, mut typed, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.common.rounds {
        for (variant, rates) in [("raw", &mut raw), ("typed", &mut typed)] {
            if options.common.wants(variant) {
                rates.push(runtime.block_on(scan(options, log.as_ref(), variant == "typed"))?);
            }
        }
        if options.common.wants("raw-sqlite") {
            peers.push(sqlite::scan_rate(&peer, options.events)?);
        }
        eprintln!("replay: round {} of {}", round + 1, options.common.rounds);
    }
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
    report.values("raw-sqlite", "events/s", &peers, None, &[]);
    report.values("raw", "events/s", &raw, Some(("raw-sqlite", peers.as_slice())), &[]);
    report.values("typed", "events/s", &typed, Some(("raw", raw.as_slice())), &[]);
    report.print(options.common.json)
}

async fn fill(options: &Options, log: &dyn EventLog) -> anyhow::Result<()> {
    let mut writers = Vec::new();
    for number in 0..STREAMS {
        writers.push((Template::new(number, options.event_bytes)?, Expected::NoStream));
    }
    let (mut left, mut turn) = (options.events, 0);
    while left > 0 {
        let index = turn % writers.len();
        let (template, expected) = writers.get_mut(index).context("a writer")?;
        let count = left.min(FILL_BATCH);
        let envelopes = (0..count).map(|_| template.next()).collect::<anyhow::Result<_>>()?;
        let append = Append { stream: template.stream(), expected: *expected, envelopes };
        let recorded = log.append(append).await?;
        *expected = Expected::after(recorded.last().map(|event| event.revision));
        left -= count;
        turn += 1;
    }
    Ok(())
}

/// The same number of events in the peer's table; a first pass brings them into memory.
fn fill_peer(options: &Options, dir: &Path) -> anyhow::Result<Connection> {
    let mut peer = sqlite::open(dir)?;
    if !options.common.wants("raw-sqlite") {
        return Ok(peer);
    }
    let (mut template, mut filled) = (Template::new(0, options.event_bytes)?, 0);
    while filled < options.events {
        let count = FILL_BATCH.min(options.events - filled);
        sqlite::append(&mut peer, &mut template, filled, count)?;
        filled += count;
    }
    sqlite::scan_rate(&peer, options.events)?;
    Ok(peer)
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
