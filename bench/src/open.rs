//! `open`: what a large log costs when it is opened and first read.
//!
//! | variant | what is measured |
//! |---|---|
//! | `clean`, `clean-cold` | opening after the log was closed |
//! | `crashed`, `crashed-cold` | opening after its process was killed (SIGKILL) while it appended |
//! | `resident-clean`, `resident-crashed` | resident memory right after; `-peak`, the most until then; `resident-before`, without a log |
//! | `stream`, `stream-cold` | reading 20 events of a stream that nobody has read since the open |
//! | `command-old`, `command-old-cold` | finding a command of long ago |
//! | `command-unknown`, `command-unknown-cold` | finding out that there is no such command |
//! | `pread`, `pread-cold` | the limit: reading 4 KiB anywhere in the log's files |
//!
//! `-cold` means that the page cache was emptied just before, for opens and for each kind of
//! read; else the log's files are in it as far as they fit. Every open is that of a process of
//! its own. The log is generated first, or found in `--dir` from a run before.

mod cache;
pub(crate) mod child;
mod fill;
mod shape;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use self::child::Found;
use self::shape::Shape;
use crate::report::{Latencies, Percentile, Report};

/// Options of `open`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
    /// How often everything is measured; medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Where the generated log is kept, and found again by the next run; removed at the end if
    /// left out.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Events in the log.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Streams they are spread over.
    #[arg(long, default_value_t = 100_000)]
    streams: u64,
    /// One event in each stream: as many streams as events.
    #[arg(long)]
    streams_only: bool,
    /// Events that a stream gets in a row, as one append, before it is the next one's turn.
    #[arg(long, default_value_t = 10)]
    burst: u64,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
    /// Reads of each kind, in each round.
    #[arg(long, default_value_t = 1_000)]
    samples: usize,
}

/// Events of one read of a stream.
const READ_EVENTS: usize = 20;
/// A process that is to be killed gets this far first, by acknowledged events, and further from
/// round to round, so that the log's end looks different each time.
const KILL_AFTER_EVENTS: u64 = 60_000;
/// By how much further.
const KILL_LATER_BY_EVENTS: u64 = 40_000;

impl Options {
    fn shape(&self) -> anyhow::Result<Shape> {
        let streams = if self.streams_only { self.events } else { self.streams };
        let (events, burst) = (self.events, self.burst);
        ensure!(self.rounds > 0, "rounds: expected at least 1, got 0: leave it out for 5");
        ensure!(self.samples > 0, "samples: expected at least 1, got 0: leave it out for 1000");
        ensure!((1..=events).contains(&streams), "streams: expected 1 to {events}, got {streams}");
        ensure!((1..=4_096).contains(&burst), "burst: expected 1 to 4096, got {burst}");
        // As long as the longest stream at the most: it decides how many appends are in flight.
        let burst = burst.min(events.div_ceil(streams));
        Ok(Shape { events, streams, burst, event_bytes: self.event_bytes })
    }
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let shape = options.shape()?;
    let scratch = match &options.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("dramatis-bench-").tempdir()?),
    };
    let dir = options.dir.as_deref().or(scratch.as_ref().map(tempfile::TempDir::path));
    let dir = dir.context("a directory")?;
    let log = dir.join("log");
    if !shape.is_in(dir)? {
        std::fs::create_dir_all(&log)?;
        fill::fill(shape, &log)?;
        shape.mark(dir)?;
    }
    let cold = cache::empty(dir);
    if let Err(why) = &cold {
        eprintln!("open: no cold variants, since {why}");
    }
    let measurer = Measurer { shape, log, samples: options.samples };
    let mut rounds = Vec::new();
    for round in 0..options.rounds {
        rounds.push(measurer.round(round, cold.is_ok())?);
        eprintln!("open: round {} of {}", round + 1, options.rounds);
    }
    report(options, shape, &rounds)?.print(options.json)
}

/// What one round found in each state of the log and the page cache.
struct Round {
    clean_cold: Option<Found>,
    clean: Found,
    crashed: Found,
    crashed_cold: Option<Found>,
}

struct Measurer {
    shape: Shape,
    log: PathBuf,
    samples: usize,
}

impl Measurer {
    fn round(&self, round: u32, can_be_cold: bool) -> anyhow::Result<Round> {
        let seed = u64::from(round);
        let kill_after = KILL_AFTER_EVENTS + seed * KILL_LATER_BY_EVENTS;
        let cold = |samples| can_be_cold.then(|| self.measure(samples, 2 * seed, true)).transpose();
        let clean_cold = cold(self.samples)?;
        warm(&self.log)?;
        let clean = self.measure(self.samples, 2 * seed + 1, false)?;
        self.crash(kill_after)?;
        let crashed = self.measure(0, 0, false)?;
        let crashed_cold = if can_be_cold {
            self.crash(kill_after)?;
            cold(0)?
        } else {
            None
        };
        Ok(Round { clean_cold, clean, crashed, crashed_cold })
    }

    fn child(&self, task: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["open-child", "--task", task, "--log"]).arg(&self.log);
        command.args(["--shape", &serde_json::to_string(&self.shape)?]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(command)
    }

    /// Opens the log in a process of its own, which then closes it.
    fn measure(&self, samples: usize, seed: u64, cold: bool) -> anyhow::Result<Found> {
        let mut command = self.child("measure")?;
        command.args(["--samples", &samples.to_string(), "--seed", &seed.to_string()]);
        if cold {
            command.arg("--cold");
        }
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "the process that opens the log ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("the process that opens the log told something else")
    }

    /// Appends in a process of its own, and kills it while it does.
    fn crash(&self, after: u64) -> anyhow::Result<()> {
        let mut child = self.child("append")?.spawn()?;
        let stdout = child.stdout.take().context("the process has no output")?;
        let lines = BufReader::new(stdout).lines();
        let acknowledged =
            lines.map_while(|line| line.ok()?.parse::<u64>().ok()).find(|count| *count >= after);
        child.kill()?;
        child.wait()?;
        ensure!(
            acknowledged.is_some(),
            "expected {after} events from the process that appends, it ended before"
        );
        Ok(())
    }
}

/// Reads the log's files, so that they are in the page cache as far as they fit.
fn warm(log: &Path) -> anyhow::Result<()> {
    for entry in log.read_dir()? {
        std::io::copy(&mut std::fs::File::open(entry?.path())?, &mut std::io::sink())?;
    }
    Ok(())
}

fn report(options: &Options, shape: Shape, rounds: &[Round]) -> anyhow::Result<Report> {
    let mut report = Report::new(
        "open",
        &[
            ("engine", "embedded".to_owned()),
            ("event_bytes", format!("{} payload", shape.event_bytes)),
            (
                "events",
                format!(
                    "{} in {} streams, {} in a row, and those of the crashes",
                    shape.events, shape.streams, shape.burst
                ),
            ),
            ("process", "one for each open".to_owned()),
        ],
    );
    let states = [
        ("clean", "cached", each(rounds, |round| Some(&round.clean))),
        ("clean-cold", "emptied", each(rounds, |round| round.clean_cold.as_ref())),
        ("crashed", "cached", each(rounds, |round| Some(&round.crashed))),
        ("crashed-cold", "emptied", each(rounds, |round| round.crashed_cold.as_ref())),
    ];
    for (state, cache, found) in &states {
        let opens: Vec<f64> =
            found.iter().map(|found| Duration::from_nanos(found.open).as_secs_f64() * 1e3).collect();
        let mut extra = vec![("page_cache", (*cache).to_owned())];
        if state.starts_with("crashed") {
            let last = KILL_AFTER_EVENTS + u64::from(options.rounds - 1) * KILL_LATER_BY_EVENTS;
            extra.push(("killed", format!("after {KILL_AFTER_EVENTS} to {last} events more")));
        }
        report.values(state, "ms", &opens, None, &extra);
    }
    let [(_, _, clean), (_, _, clean_cold), (_, _, crashed), _] = &states;
    resident(&mut report, "resident-before", clean, |found| found.resident_before_kib);
    resident(&mut report, "resident-clean", clean, |found| found.resident_kib);
    resident(&mut report, "resident-clean-peak", clean, |found| found.resident_peak_kib);
    resident(&mut report, "resident-crashed", crashed, |found| found.resident_kib);
    resident(&mut report, "resident-crashed-peak", crashed, |found| found.resident_peak_kib);
    for (cold, cache, found) in [("", "cached", clean), ("-cold", "emptied", clean_cold)] {
        let mut reads = |name: &str, samples: fn(&Found) -> &[u64]| {
            let extra = [("page_cache", cache.to_owned()), ("reader", "1, 1 in flight".to_owned())];
            let rounds: anyhow::Result<Vec<_>> = found.iter().map(|found| merged(samples(found))).collect();
            report.latencies(&format!("{name}{cold}"), &rounds?, &[Percentile::P50, Percentile::P99], &extra)
        };
        reads("stream", |found| &found.streams)?;
        reads("command-old", |found| &found.old_commands)?;
        reads("command-unknown", |found| &found.unknown_commands)?;
        reads("pread", |found| &found.preads)?;
    }
    Ok(report)
}

fn each(rounds: &[Round], of: fn(&Round) -> Option<&Found>) -> Vec<&Found> {
    rounds.iter().filter_map(of).collect()
}

fn resident(report: &mut Report, variant: &str, found: &[&Found], kib: fn(&Found) -> f64) {
    let mebibytes: Vec<f64> = found.iter().map(|found| kib(found) / 1024.0).collect();
    report.values(variant, "MiB", &mebibytes, None, &[("page_cache", "cached".to_owned())]);
}

fn merged(nanos: &[u64]) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new()?;
    for sample in nanos {
        latencies.record(*sample);
    }
    Ok(latencies)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn streams_only_means_as_many_streams_as_events() {
        let options = Options {
            json: false,
            rounds: 1,
            dir: None,
            events: 70,
            streams: 7,
            streams_only: false,
            burst: 3,
            event_bytes: 300,
            samples: 1,
        };
        assert_eq!(options.shape().unwrap().events_of(0), 10);
        let streams_only = Options { streams_only: true, ..options.clone() };
        let shape = streams_only.shape().unwrap();
        assert_eq!((shape.events_of(69), shape.burst), (1, 1));
        Options { streams: 71, ..options }.shape().unwrap_err();
    }
}
