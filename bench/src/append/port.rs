//! The variants at the log's port: tasks call `EventLog::append` in this process.
//!
//! What is appended is composed before the clock starts, for the log and its peers alike; when
//! it runs out, the round ends early.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::ensure;
use dramatis::log::EventLog;
use tokio::task::JoinSet;

use super::{Options, PEERS, Results};
use crate::limits::{Blocks, Checksum, settle, synced_writes};
use crate::payload::{Batch, Payload, lanes};
use crate::report::Latencies;
use crate::{engine, peers};

/// Measuring starts after this long.
const WARM_UP: Duration = Duration::from_millis(300);

/// How the writers of a variant append.
#[derive(Debug, Clone, Copy)]
struct Shape {
    writers: u64,
    batch: usize,
    /// Events that are composed ahead for each second of the round.
    ahead_per_second: u128,
}

impl Shape {
    fn ahead(self, window: Duration) -> anyhow::Result<usize> {
        let events = self.ahead_per_second * (window + WARM_UP).as_millis() / 1_000;
        Ok(usize::try_from(events.min(AHEAD_EVENTS_MAX))?)
    }
}

/// The most events that are composed ahead, about 1 GiB, however long the window.
const AHEAD_EVENTS_MAX: u128 = 4_000_000;

/// One round of everything at the port, variants and limits in turn.
pub(super) fn round(options: &Options, results: &mut Results) -> anyhow::Result<()> {
    let shapes = [
        ("writers-512", Shape { writers: 512, batch: 1, ahead_per_second: 1_500_000 }),
        ("writers-1", Shape { writers: 1, batch: 1, ahead_per_second: 200_000 }),
        ("batched", Shape { writers: 2, batch: options.batch, ahead_per_second: 1_500_000 }),
    ];
    let payload = Payload::new(options.event_bytes)?;
    for (variant, shape) in shapes.into_iter().filter(|(variant, _)| options.common.wants(variant)) {
        let scratch = options.common.scratch()?;
        let lanes = lanes(&payload, shape.writers, shape.ahead(options.common.window())?, shape.batch)?;
        limits(variant, options, &lanes, scratch.path(), results)?;
        settle(scratch.path())?;
        let (rate, latencies) = measure(options, lanes, scratch.path())?;
        let measured = results.entry(variant).or_default();
        measured.rates.push(rate);
        measured.latencies.push(latencies);
    }
    Ok(())
}

/// The limits and peers of a variant, just before it, on the same disk.
fn limits(
    variant: &str,
    options: &Options,
    lanes: &[Vec<Batch>],
    dir: &Path,
    results: &mut Results,
) -> anyhow::Result<()> {
    let bytes = Payload::new(options.event_bytes)?.template(0, 0)?.stored_bytes();
    let (window, batch) = (options.common.window(), options.batch);
    let mut add = |name, (rate, latencies): (f64, Latencies), events: f64| {
        let measured = results.entry(name).or_default();
        measured.rates.push(rate * events);
        measured.latencies.push(latencies);
    };
    match variant {
        "writers-1" => {
            settle(dir)?;
            add("fdatasync", synced_writes(dir, bytes, Blocks::Ahead, Checksum::None, window)?, 1.0);
        }
        "batched" => {
            let events = f64::from(u32::try_from(batch)?);
            let plain = |blocks| {
                settle(dir)?;
                synced_writes(dir, bytes * batch, blocks, Checksum::Crc32c, window)
            };
            add("plain-file", plain(Blocks::Grown)?, events);
            add("plain-file-ahead", plain(Blocks::Ahead)?, events);
            for name in PEERS.iter().copied() {
                // Each is gone before the next: none pays for another's background work.
                let dir = tempfile::tempdir_in(dir)?;
                settle(dir.path())?;
                let peer = peers::open(name, dir.path())?;
                add(name, peers::append_rate(peer.as_ref(), lanes, window)?, 1.0);
            }
        }
        _ => {}
    }
    Ok(())
}

fn measure(options: &Options, lanes: Vec<Vec<Batch>>, dir: &Path) -> anyhow::Result<(f64, Latencies)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let log = engine::open(&dir.join("log"))?;
    let (counting, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (ended, first_ended) = mpsc::channel();
    let mut writers = JoinSet::new();
    for batches in lanes {
        let (log, counting, stop) = (log.clone(), counting.clone(), stop.clone());
        let writer = Writer { log, counting, stop, ended: ended.clone() };
        writers.spawn_on(writer.run(batches), runtime.handle());
    }
    drop(ended);
    // The clock is outside the runtime, where no busy task can hold it up.
    let whole = first_ended.recv_timeout(WARM_UP).is_err_and(|why| why == mpsc::RecvTimeoutError::Timeout);
    let started = Instant::now();
    counting.store(whole, Ordering::Relaxed);
    if whole {
        let _ = first_ended.recv_timeout(options.common.window());
    }
    counting.store(false, Ordering::Relaxed);
    let took = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (mut latencies, mut events) = (Latencies::new()?, 0_u32);
    while let Some(ended) = runtime.block_on(writers.join_next()) {
        for (nanos, count) in ended?? {
            latencies.record(nanos);
            events += count;
        }
    }
    ensure!(whole, "the events composed ahead ran out before measuring began: name a smaller --batch");
    Ok((f64::from(events) / took.as_secs_f64(), latencies))
}

/// Appends to its own stream, one append after the other.
struct Writer {
    log: Arc<dyn EventLog>,
    counting: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Told when it has no more to append, and when it fails.
    ended: mpsc::Sender<()>,
}

impl Writer {
    /// Runs until stopped; returns nanoseconds and events of each append answered while counting.
    async fn run(self, batches: Vec<Batch>) -> anyhow::Result<Vec<(u64, u32)>> {
        let mut samples = Vec::with_capacity(batches.len());
        let mut last = Ok(Vec::new());
        for batch in batches {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(samples);
            }
            let count = u32::try_from(batch.envelopes.len())?;
            let asked = Instant::now();
            // What came back before is let go of while the log is at work.
            let before = std::mem::replace(&mut last, Ok(Vec::new()));
            (last, ()) = tokio::join!(self.log.append(batch.into_append()), async { drop(before) });
            if last.is_err() {
                let _ = self.ended.send(());
                last?;
                break;
            }
            if self.counting.load(Ordering::Relaxed) {
                samples.push((u64::try_from(asked.elapsed().as_nanos())?, count));
            }
        }
        let _ = self.ended.send(());
        Ok(samples)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn what_is_composed_ahead_grows_with_the_window_up_to_a_bound() {
        let shape = Shape { writers: 2, batch: 2_048, ahead_per_second: 1_000_000 };
        assert_eq!(shape.ahead(Duration::from_millis(700)).unwrap(), 1_000_000);
        assert_eq!(shape.ahead(Duration::from_hours(1)).unwrap(), 4_000_000);
    }
}
