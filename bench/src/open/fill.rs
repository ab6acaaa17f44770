//! Generates a log, at about the speed of the engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dramatis::log::EventLog;
use tokio::task::JoinSet;

use super::shape::Shape;
use crate::engine;
use crate::payload::Payload;

/// Events that wait for their durability at a time.
const EVENTS_IN_FLIGHT: u64 = 4_096;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Fills a new log in the directory and closes it.
pub(super) fn fill(shape: Shape, log: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let log = engine::open(log)?;
    let payload = Payload::new(shape.event_bytes)?;
    let recorded = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    let count = (EVENTS_IN_FLIGHT / shape.burst).clamp(2, shape.streams.max(2));
    for number in 0..count {
        let writer = Writer { log: log.clone(), payload: payload.clone(), recorded: recorded.clone() };
        writers.spawn_on(writer.run(shape, number, count), runtime.handle());
    }
    let started = Instant::now();
    loop {
        let next = async { tokio::time::timeout(TELL_EVERY, writers.join_next()).await };
        match runtime.block_on(next) {
            Ok(Some(ended)) => ended??,
            Ok(None) => break,
            Err(_) => eprintln!(
                "open: {}",
                progress(recorded.load(Ordering::Relaxed), shape.events, started.elapsed())
            ),
        }
    }
    drop(log);
    eprintln!("open: {}", progress(shape.events, shape.events, started.elapsed()));
    Ok(())
}

/// Appends to its share of the streams, one append after the other.
struct Writer {
    log: Arc<dyn EventLog>,
    payload: Payload,
    recorded: Arc<AtomicU64>,
}

impl Writer {
    async fn run(self, shape: Shape, number: u64, writers: u64) -> anyhow::Result<()> {
        let step = usize::try_from(writers)?;
        for turn in 0..shape.turns() {
            for stream in (number..shape.streams).step_by(step) {
                let (first, events) = shape.turn(stream, turn);
                if events == 0 {
                    continue;
                }
                let batch = self.payload.template(stream, first)?.batch(usize::try_from(events)?)?;
                self.log.append(batch.into_append()).await?;
                self.recorded.fetch_add(events, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// How far it is, how fast, and how long it will take yet.
fn progress(done: u64, all: u64, took: Duration) -> String {
    let took = took.as_millis().max(1);
    let rate = (u128::from(done) * 1_000 / took).max(1);
    let left = u128::from(all.saturating_sub(done)).div_ceil(rate);
    format!("{done} of {all} events recorded, {rate} a second, {left} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_rate_and_time_left() {
        assert_eq!(
            progress(2_000, 10_000, Duration::from_secs(4)),
            "2000 of 10000 events recorded, 500 a second, 16 s left"
        );
        assert_eq!(progress(0, 10, Duration::ZERO), "0 of 10 events recorded, 1 a second, 10 s left");
    }
}
