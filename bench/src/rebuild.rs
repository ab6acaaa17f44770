//! `rebuild`: how fast documents are made of events.
//!
//! | variant | what | limit |
//! |---|---|---|
//! | `fold` | the timeline's events, read before, decoded and folded into documents on one core | |

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Args;
use dramatis::log::{EventLog, Filter, ReadLimit};
use dramatis_events::Recorded;

use crate::Common;
use crate::report::Report;

mod history;

/// Options of `rebuild`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Events of the log.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Rooms that they lie in, one after the other in turn.
    #[arg(long, default_value_t = 100)]
    rooms: u64,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
    /// Events folded between two writes.
    #[arg(long, default_value_t = 2_000)]
    batch: usize,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check()?;
    ensure!(options.rooms > 0, "rooms: expected at least 1, got 0");
    let scratch = options.common.scratch()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let log = crate::engine::open(scratch.path())?;
        history::fill(&*log, options).await?;
        let mut folds = Vec::new();
        for round in 0..options.common.rounds {
            folds.push(fold(options, &*log).await?);
            eprintln!("rebuild: round {} of {}", round + 1, options.common.rounds);
        }
        report(options, &folds).print(options.common.json)
    })
}

fn report(options: &Options, folds: &[f64]) -> Report {
    let mut report = Report::new(
        "rebuild",
        &[
            ("engine", "embedded".to_owned()),
            ("projection", "timeline".to_owned()),
            ("events", format!("{} in {} rooms", options.events, options.rooms)),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("batch", format!("{} events", options.batch)),
        ],
    );
    report.values("fold", "events/s", folds, None, &[("cores", "1".to_owned())]);
    report
}

/// Decodes and folds everything; events a second.
async fn fold(options: &Options, log: &dyn EventLog) -> anyhow::Result<f64> {
    let projection = dramatis_projections::named("timeline").context("there is no timeline")?;
    let mut fold = projection.start(10_000);
    let limit = ReadLimit { events: options.batch, bytes: 16 * 1024 * 1024 };
    let (mut after, mut folded, mut elapsed) = (None, 0, std::time::Duration::ZERO);
    while after < *log.head().borrow() {
        let page = log.read_all(after, Filter::default(), limit).await?;
        let events: &[Arc<Recorded>] = &page.events;
        let started = Instant::now();
        let missing = fold.begin(events);
        std::hint::black_box(missing);
        let made = fold.finish()?;
        elapsed += started.elapsed();
        folded += made.events;
        std::hint::black_box(made);
        after = page.scanned;
    }
    ensure!(folded > 0, "expected events of the timeline, found none");
    Ok(f64::from(u32::try_from(folded)?) / elapsed.as_secs_f64())
}
