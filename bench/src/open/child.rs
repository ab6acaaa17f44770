//! What runs in a process of its own: one open of the log with what is measured after it, so
//! that memory is that process's own; and appends that go on until the process is killed.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use dramatis::log::{CommandRef, EventLog, ReadLimit};
use dramatis_events::{CommandId, Revision};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::shape::Shape;
use super::{READ_EVENTS, cache};
use crate::payload::{Payload, author, command, stream};
use crate::{engine, memory};

/// Options of the child.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[arg(long)]
    task: Task,
    /// The log's directory.
    #[arg(long)]
    log: PathBuf,
    /// The log's shape, JSON.
    #[arg(long)]
    shape: String,
    /// Reads of each kind; none leaves it at the open.
    #[arg(long, default_value_t = 0)]
    samples: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Empty the page cache before the open and each kind of read.
    #[arg(long)]
    cold: bool,
}

/// What the child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Task {
    /// Opens the log and measures.
    Measure,
    /// Appends until killed, and tells how many events were acknowledged.
    Append,
}

/// What [`Task::Measure`] found; durations in nanoseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) open: u64,
    pub(super) resident_before_kib: f64,
    pub(super) resident_kib: f64,
    pub(super) resident_peak_kib: f64,
    pub(super) streams: Vec<u64>,
    pub(super) old_commands: Vec<u64>,
    pub(super) unknown_commands: Vec<u64>,
    pub(super) preads: Vec<u64>,
}

/// Writers of [`Task::Append`].
const WRITERS: u64 = 64;
/// Events of each of its appends.
const APPEND_EVENTS: usize = 10;
/// It tells what was acknowledged after so many events.
const TELL_EVERY: u64 = 10_000;
/// Bytes of a read that is the limit of cold ones.
const PREAD_BYTES: usize = 4_096;

/// Runs one task; what is found goes to standard output.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let shape: Shape = serde_json::from_str(&options.shape).context("the log's shape")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match options.task {
        Task::Measure => {
            let found = measure(options, shape, &runtime)?;
            println!("{}", serde_json::to_string(&found)?);
            Ok(())
        }
        Task::Append => append(options, shape, &runtime),
    }
}

fn measure(options: &Options, shape: Shape, runtime: &Runtime) -> anyhow::Result<Found> {
    let fresh = || -> anyhow::Result<()> {
        if options.cold {
            cache::empty(&options.log).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    };
    let mut found = Found { resident_before_kib: memory::kib("self", "VmRSS")?, ..Found::default() };
    fresh()?;
    let started = Instant::now();
    let log = engine::open(&options.log)?;
    found.open = nanos(started)?;
    found.resident_kib = memory::kib("self", "VmRSS")?;
    found.resident_peak_kib = memory::kib("self", "VmHWM")?;
    if options.samples == 0 {
        return Ok(found);
    }
    let mut random = Random(options.seed);
    fresh()?;
    for stream in random.distinct(shape.streams, options.samples) {
        found.streams.push(read_stream(log.as_ref(), runtime, shape, stream, &mut random)?);
    }
    fresh()?;
    for stream in random.distinct(shape.streams, options.samples) {
        let revision = random.below(shape.events_of(stream));
        let (took, outcome) = find(log.as_ref(), runtime, stream, command(stream, revision)?)?;
        ensure!(outcome == Some(revision), "expected command {revision} of stream {stream}, got {outcome:?}");
        found.old_commands.push(took);
    }
    fresh()?;
    for stream in random.distinct(shape.streams, options.samples) {
        let id = CommandId::parse(&format!("unknown-{}", random.next()))?;
        let (took, outcome) = find(log.as_ref(), runtime, stream, id)?;
        ensure!(outcome.is_none(), "expected an unknown command in stream {stream}, got {outcome:?}");
        found.unknown_commands.push(took);
    }
    fresh()?;
    found.preads = preads(options, &mut random)?;
    Ok(found)
}

/// Reads up to [`READ_EVENTS`] from anywhere in a stream; nanoseconds.
fn read_stream(
    log: &dyn EventLog,
    runtime: &Runtime,
    shape: Shape,
    number: u64,
    random: &mut Random,
) -> anyhow::Result<u64> {
    let (stream, events, most) = (stream(number)?, shape.events_of(number), u64::try_from(READ_EVENTS)?);
    let from = random.below(events.saturating_sub(most) + 1);
    let started = Instant::now();
    let read =
        runtime.block_on(log.read_stream(&stream, Revision::new(from), ReadLimit::events(READ_EVENTS)))?;
    let took = nanos(started)?;
    let (expected, got) = (events.min(most), read.len());
    ensure!(u64::try_from(got)? == expected, "expected {expected} events of {stream:?}, got {got}");
    Ok(took)
}

/// Looks a command up: nanoseconds, and the revision it recorded.
fn find(
    log: &dyn EventLog,
    runtime: &Runtime,
    number: u64,
    id: CommandId,
) -> anyhow::Result<(u64, Option<u64>)> {
    let asked = CommandRef { stream: stream(number)?, author: author(number)?, id };
    let started = Instant::now();
    let outcome = runtime.block_on(log.find_command(asked))?;
    Ok((nanos(started)?, outcome.map(|outcome| outcome.revision.get())))
}

/// The limit: plain reads anywhere in the log's large files; nanoseconds each.
fn preads(options: &Options, random: &mut Random) -> anyhow::Result<Vec<u64>> {
    let mut files = Vec::new();
    for entry in options.log.read_dir()? {
        let file = File::open(entry?.path())?;
        let length = file.metadata()?.len();
        if length > 1024 * 1024 {
            files.push((file, length - u64::try_from(PREAD_BYTES)?));
        }
    }
    ensure!(!files.is_empty(), "expected files of more than 1 MiB in the log: name more --events");
    let (mut samples, mut block) = (Vec::new(), [0; PREAD_BYTES]);
    for _ in 0..options.samples {
        let index = usize::try_from(random.below(u64::try_from(files.len())?))?;
        let (file, length) = files.get(index).context("a file")?;
        let at = random.below(*length);
        let started = Instant::now();
        file.read_exact_at(&mut block, at)?;
        samples.push(nanos(started)?);
        std::hint::black_box(&block);
    }
    Ok(samples)
}

/// Never ends by itself: each writer appends to a stream that is new to the log.
fn append(options: &Options, shape: Shape, runtime: &Runtime) -> anyhow::Result<()> {
    let log = engine::open(Path::new(&options.log))?;
    let payload = Payload::new(shape.event_bytes)?;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let base = u64::try_from(now.as_micros())?;
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let (log, acknowledged) = (log.clone(), acknowledged.clone());
        let mut template = payload.template(base + number, 0)?;
        let writer = async move {
            loop {
                log.append(template.batch(APPEND_EVENTS)?.into_append()).await?;
                let events = u64::try_from(APPEND_EVENTS)?;
                let all = acknowledged.fetch_add(events, Ordering::Relaxed) + events;
                if all.is_multiple_of(TELL_EVERY) {
                    println!("{all}");
                }
            }
        };
        writers.spawn_on(writer, runtime.handle());
    }
    let ended: Option<Result<anyhow::Result<()>, _>> = runtime.block_on(writers.join_next());
    ended.context("a writer")??
}

fn nanos(since: Instant) -> anyhow::Result<u64> {
    Ok(u64::try_from(since.elapsed().as_nanos())?)
}

/// Numbers by chance from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Different numbers below a bound, at most as many as there are.
    fn distinct(&mut self, bound: u64, count: usize) -> Vec<u64> {
        let count = count.min(usize::try_from(bound).unwrap_or(usize::MAX));
        let (mut seen, mut numbers) = (HashSet::new(), Vec::with_capacity(count));
        while numbers.len() < count {
            let number = self.below(bound);
            if seen.insert(number) {
                numbers.push(number);
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_drawn_differ_and_stay_below_the_bound() {
        let numbers = Random(1).distinct(50, 40);
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 40);
        assert!(numbers.iter().all(|number| *number < 50), "{numbers:?}");
        assert_eq!(Random(1).distinct(3, 40).len(), 3);
        assert_ne!(Random(1).distinct(50, 40), Random(2).distinct(50, 40));
    }
}
