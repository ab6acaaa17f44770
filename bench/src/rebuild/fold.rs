//! Decoding and folding alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dramatis::log::{EventLog, Filter, ReadLimit};
use dramatis_events::Recorded;

use super::Options;

/// Decodes and folds everything; events a second.
pub(super) async fn fold(options: &Options, log: &dyn EventLog) -> anyhow::Result<f64> {
    let projection = dramatis_projections::named("timeline").context("there is no timeline")?;
    let mut fold = projection.start(10_000);
    let limit = ReadLimit { events: options.batch, bytes: 16 * 1024 * 1024 };
    let (mut after, mut folded, mut elapsed) = (None, 0, Duration::ZERO);
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
