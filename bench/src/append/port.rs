//! The variants at the log's port: tasks call `EventLog::append` in this process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dramatis::log::{Append, EventLog, Expected};
use tokio::task::JoinSet;

use super::{Options, Results};
use crate::limits::{Blocks, synced_writes};
use crate::payload::Template;
use crate::report::Latencies;
use crate::{engine, sqlite};

/// Measuring starts after this long.
const WARM_UP: Duration = Duration::from_millis(300);

/// How the writers of a variant append.
#[derive(Debug, Clone, Copy)]
struct Shape {
    writers: u64,
    batch: usize,
}

/// One round of everything at the port, variants and limits in turn.
pub(super) fn round(options: &Options, results: &mut Results) -> anyhow::Result<()> {
    let shapes = [
        ("writers-512", Shape { writers: 512, batch: 1 }),
        ("writers-1", Shape { writers: 1, batch: 1 }),
        ("batched", Shape { writers: 2, batch: options.batch }),
    ];
    for (variant, shape) in shapes.into_iter().filter(|(variant, _)| options.common.wants(variant)) {
        let scratch = options.common.scratch()?;
        limits(variant, options, scratch.path(), results)?;
        let (rate, latencies) = measure(options, shape, scratch.path())?;
        let measured = results.entry(variant).or_default();
        measured.rates.push(rate);
        measured.latencies.push(latencies);
    }
    Ok(())
}

/// The limits of a variant, just before it, on the same disk.
fn limits(variant: &str, options: &Options, dir: &Path, results: &mut Results) -> anyhow::Result<()> {
    let bytes = Template::new(0, options.event_bytes)?.stored_bytes();
    let (window, batch) = (options.common.window(), options.batch);
    let mut add = |name, (rate, latencies): (f64, Latencies), events: f64| {
        let measured = results.entry(name).or_default();
        measured.rates.push(rate * events);
        measured.latencies.push(latencies);
    };
    match variant {
        "writers-1" => add("fdatasync", synced_writes(dir, bytes, Blocks::Ahead, window)?, 1.0),
        "batched" => {
            let events = f64::from(u32::try_from(batch)?);
            add("plain-file", synced_writes(dir, bytes * batch, Blocks::Grown, window)?, events);
            add("batched-sqlite", sqlite::append_rate(dir, options.event_bytes, batch, window)?, 1.0);
            add("plain-file-ahead", synced_writes(dir, bytes * batch, Blocks::Ahead, window)?, events);
        }
        _ => {}
    }
    Ok(())
}

fn measure(options: &Options, shape: Shape, dir: &Path) -> anyhow::Result<(f64, Latencies)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let log = engine::open(&dir.join("log"))?;
    let (counting, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut writers = JoinSet::new();
    for number in 0..shape.writers {
        let writer = Writer {
            log: log.clone(),
            template: Template::new(number, options.event_bytes)?,
            batch: shape.batch,
            counting: counting.clone(),
            stop: stop.clone(),
        };
        writers.spawn_on(writer.run(), runtime.handle());
    }
    // The clock is outside the runtime, where no busy task can hold it up.
    std::thread::sleep(WARM_UP);
    let started = Instant::now();
    counting.store(true, Ordering::Relaxed);
    std::thread::sleep(options.common.window());
    counting.store(false, Ordering::Relaxed);
    let took = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (mut latencies, mut events) = (Latencies::new()?, 0_u32);
    while let Some(ended) = runtime.block_on(writers.join_next()) {
        for nanos in ended?? {
            latencies.record(nanos);
            events += u32::try_from(shape.batch)?;
        }
    }
    Ok((f64::from(events) / took.as_secs_f64(), latencies))
}

/// Appends to its own stream, one append after the other.
struct Writer {
    log: Arc<dyn EventLog>,
    template: Template,
    batch: usize,
    counting: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Writer {
    /// Runs until stopped; returns the nanoseconds of each append answered while counting.
    async fn run(mut self) -> anyhow::Result<Vec<u64>> {
        let stream = self.template.stream();
        let (mut expected, mut samples) = (Expected::NoStream, Vec::new());
        while !self.stop.load(Ordering::Relaxed) {
            let mut envelopes = Vec::with_capacity(self.batch);
            for _ in 0..self.batch {
                envelopes.push(self.template.next()?);
            }
            let asked = Instant::now();
            let recorded = self.log.append(Append { stream: stream.clone(), expected, envelopes }).await?;
            if self.counting.load(Ordering::Relaxed) {
                samples.push(u64::try_from(asked.elapsed().as_nanos())?);
            }
            let last = recorded.last().context("expected the recorded events, got none")?;
            expected = Expected::Exact(last.revision);
        }
        Ok(samples)
    }
}
