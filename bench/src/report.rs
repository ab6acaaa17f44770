//! What a run found: one row a variant, as a table for people or as JSON, one object a line.
//!
//! A row's value is the median over the rounds, or, for a percentile, that percentile of all
//! rounds' samples merged. A ratio is taken round by round against a peer of the same round.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value};

/// What was measured, under which conditions, against what.
#[derive(Debug, Serialize)]
struct Row {
    bench: &'static str,
    variant: String,
    value: f64,
    unit: &'static str,
    ratio_to: Option<&'static str>,
    ratio: Option<f64>,
    min: f64,
    max: f64,
    ratio_min: Option<f64>,
    ratio_max: Option<f64>,
    rounds: usize,
    conditions: Map<String, Value>,
}

/// Middle, least and greatest of the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min: *sorted.first()?, max: *sorted.last()? })
    }
}

/// The rows of one subcommand.
#[derive(Debug)]
pub(crate) struct Report {
    bench: &'static str,
    conditions: Map<String, Value>,
    rows: Vec<Row>,
}

/// The conditions that one row adds to those of its subcommand.
pub(crate) type Extra<'a> = &'a [(&'a str, String)];

/// What a row is compared with: the peer's name and its value in each round.
pub(crate) type Peer<'a> = Option<(&'static str, &'a [f64])>;

impl Report {
    /// An empty report; `conditions` hold for all its rows.
    pub(crate) fn new(bench: &'static str, conditions: Extra<'_>) -> Self {
        let mut report = Self { bench, conditions: Map::new(), rows: Vec::new() };
        report.conditions = report.with(conditions);
        report.conditions.insert("cores".to_owned(), cores().to_string().into());
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        report.conditions.insert("build".to_owned(), profile.into());
        report
    }

    fn with(&self, extra: Extra<'_>) -> Map<String, Value> {
        let mut conditions = self.conditions.clone();
        for (name, value) in extra {
            conditions.insert((*name).to_owned(), value.clone().into());
        }
        conditions
    }

    /// A row of one value a round.
    pub(crate) fn values(
        &mut self,
        variant: &str,
        unit: &'static str,
        values: &[f64],
        peer: Peer<'_>,
        extra: Extra<'_>,
    ) {
        let Some(spread) = Spread::of(values) else { return };
        let ratio = peer.and_then(|(_, peers)| {
            let ratios: Vec<f64> = values.iter().zip(peers).map(|(value, peer)| value / peer).collect();
            Spread::of(&ratios)
        });
        self.rows.push(Row {
            bench: self.bench,
            variant: variant.to_owned(),
            value: spread.median,
            unit,
            ratio_to: ratio.and(peer).map(|(name, _)| name),
            ratio: ratio.map(|ratio| ratio.median),
            min: spread.min,
            max: spread.max,
            ratio_min: ratio.map(|ratio| ratio.min),
            ratio_max: ratio.map(|ratio| ratio.max),
            rounds: values.len(),
            conditions: self.with(extra),
        });
    }

    /// A row that tells how many times the best of the peers, by their medians, the values are.
    pub(crate) fn times_the_best(&mut self, variant: &str, values: &[f64], peers: &[(&'static str, &[f64])]) {
        let median = |values: &[f64]| Spread::of(values).map_or(0.0, |spread| spread.median);
        let best = peers.iter().max_by(|(_, a), (_, b)| median(a).total_cmp(&median(b)));
        let Some((name, best)) = best else { return };
        let times: Vec<f64> = values.iter().zip(*best).map(|(value, peer)| value / peer).collect();
        self.values(variant, "times", &times, None, &[("peer", (*name).to_owned())]);
    }

    /// One row a percentile of latencies, of all rounds merged; the spread is that of the rounds.
    pub(crate) fn latencies(
        &mut self,
        variant: &str,
        rounds: &[Latencies],
        wanted: &[Percentile],
        extra: Extra<'_>,
    ) -> anyhow::Result<()> {
        let mut merged = Latencies::new()?;
        for round in rounds {
            merged.merge(round);
        }
        for percentile in wanted {
            let values: Vec<f64> = rounds.iter().map(|round| round.at_ms(*percentile)).collect();
            let Some(spread) = Spread::of(&values) else { return Ok(()) };
            let mut conditions = self.with(extra);
            conditions.insert(SAMPLES.to_owned(), merged.len().to_string().into());
            self.rows.push(Row {
                bench: self.bench,
                variant: format!("{variant}-{}", percentile.name()),
                value: merged.at_ms(*percentile),
                unit: "ms",
                ratio_to: None,
                ratio: None,
                min: spread.min,
                max: spread.max,
                ratio_min: None,
                ratio_max: None,
                rounds: rounds.len(),
                conditions,
            });
        }
        Ok(())
    }

    /// Prints the table, or with `json` the lines.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        ensure!(
            !self.rows.is_empty(),
            "{}: nothing was measured of what was asked for: see above",
            self.bench
        );
        let mut out = std::io::stdout().lock();
        if json {
            for row in &self.rows {
                serde_json::to_writer(&mut out, row).context("a row does not serialize")?;
                writeln!(out)?;
            }
            return Ok(());
        }
        writeln!(out, "{}  ({})", self.bench, pairs(&self.conditions))?;
        writeln!(out, "  {:<34} {:>14} {:<10} {:>28}  ratio", "variant", "value", "unit", "min .. max")?;
        for row in &self.rows {
            let span = format!("{} .. {}", number(row.min), number(row.max));
            let ratio = match (row.ratio_to, row.ratio, row.ratio_min, row.ratio_max) {
                (Some(to), Some(ratio), Some(min), Some(max)) => {
                    format!("{ratio:.2} of {to} ({min:.2} .. {max:.2})")
                }
                _ => String::new(),
            };
            writeln!(
                out,
                "  {:<34} {:>14} {:<10} {span:>28}  {ratio}",
                row.variant,
                number(row.value),
                row.unit
            )?;
        }
        self.print_notes(&mut out)
    }

    /// What rows add to the conditions of all; once where it stays the same from row to row.
    fn print_notes(&self, out: &mut impl std::io::Write) -> anyhow::Result<()> {
        let mut last = String::new();
        for row in &self.rows {
            let is_own = |name: &String| name != SAMPLES && !self.conditions.contains_key(name);
            let own = row.conditions.iter().filter(|(name, _)| is_own(name));
            let own = pairs(&own.map(|(name, value)| (name.clone(), value.clone())).collect());
            if !own.is_empty() && own != last {
                writeln!(out, "  {}: {own}", row.variant)?;
            }
            last = own;
        }
        Ok(())
    }
}

/// The condition that tells how many samples a percentile is of.
const SAMPLES: &str = "samples";

fn pairs(conditions: &Map<String, Value>) -> String {
    let pairs =
        conditions.iter().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join("; ")
}

/// Four significant digits at least, thousands apart.
fn number(value: f64) -> String {
    if value < 1_000.0 {
        let decimals = if value < 10.0 { 3 } else { 1 };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The machine's cores, as they were before this process was pinned to one of them.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// A place in a distribution of latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Percentile {
    P50,
    P99,
    P999,
    Max,
}

impl Percentile {
    fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
        }
    }

    fn quantile(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
            Self::Max => 1.0,
        }
    }
}

/// Raw latency samples, in nanoseconds, to three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// No samples yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new(3).context("a histogram of three significant digits")?))
    }

    /// Counts one sample in nanoseconds.
    pub(crate) fn record(&mut self, nanos: u64) {
        // Fails only where a histogram may not grow; these may.
        let _ = self.0.record(nanos);
    }

    /// Adds all samples of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        // As above.
        let _ = self.0.add(&other.0);
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    fn at_ms(&self, percentile: Percentile) -> f64 {
        let nanos = Duration::from_nanos(self.0.value_at_quantile(percentile.quantile()));
        nanos.as_secs_f64() * 1e3
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let mut report = Report::new("append", &[]);
        report.values("writers-1", "events/s", &[10.0, 90.0], Some(("fdatasync", &[20.0, 100.0])), &[]);
        let row = report.rows.first().unwrap();
        assert_eq!((row.ratio_min, row.ratio_max), (Some(0.5), Some(0.9)));
    }

    #[test]
    fn the_best_peer_is_that_of_the_highest_median() {
        let mut report = Report::new("append", &[]);
        let peers: [(&str, &[f64]); 2] = [("steady", &[4.0, 4.0, 4.0]), ("once", &[1.0, 9.0, 1.0])];
        report.times_the_best("batched-to-best-peer", &[12.0, 8.0, 8.0], &peers);
        let row = report.rows.first().unwrap();
        assert_eq!((row.value, row.max, row.conditions["peer"].as_str()), (2.0, 3.0, Some("steady")));
    }

    #[test]
    fn a_percentile_is_that_of_all_samples_not_of_the_rounds_percentiles() {
        let (mut slow, mut fast) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        slow.record(9_000_000);
        for _ in 0..99 {
            fast.record(1_000_000);
        }
        let mut report = Report::new("latency", &[]);
        report.latencies("ack", &[slow, fast], &[Percentile::P50], &[]).unwrap();
        let row = report.rows.first().unwrap();
        assert!((row.value - 1.0).abs() < 0.01 && row.variant == "ack-p50", "{row:?}");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            (number(1_234_567.2), number(999.96), number(0.5)),
            ("1,234,567".into(), "1000.0".into(), "0.500".into())
        );
    }
}
