//! `slow-client`: what clients that never read cost the others, and the server's memory.
//!
//! | variant | room |
//! |---|---|
//! | `alone` | only members that read |
//! | `beside-slow` | the same members, and some that follow and never read |
//! | `alone-rss`, `beside-slow-rss` | the server's resident memory after each |

use clap::Args;

use crate::Common;
use crate::load::Load;
use crate::pinning::Pinning;
use crate::report::{Latencies, Percentile, Report};
use crate::server::ServerOptions;
use crate::stage;

/// Options of `slow-client`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Clients that read.
    #[arg(long, default_value_t = 100)]
    members: usize,
    /// Clients that never read.
    #[arg(long, default_value_t = 10)]
    slow: usize,
    /// Events in flight; enough to fill the sockets of those who do not read.
    #[arg(long, default_value_t = 64)]
    in_flight: u64,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
}

const PERCENTILES: [Percentile; 3] = [Percentile::P50, Percentile::P99, Percentile::Max];

#[derive(Debug, Default)]
struct Measured {
    rates: Vec<f64>,
    latencies: Vec<Latencies>,
    resident_mib: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check()?;
    anyhow::ensure!(options.members > 0, "members: expected at least 1, got 0");
    let pinning = options.server.pin();
    let (mut alone, mut beside) = (Measured::default(), Measured::default());
    for round in 0..options.common.rounds {
        one(options, pinning, 0, &mut alone)?;
        one(options, pinning, options.slow, &mut beside)?;
        eprintln!("slow-client: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "slow-client",
        &[
            ("durability", "fdatasync before every delivery".to_owned()),
            ("connections", format!("{} that read", options.members)),
            ("in_flight", format!("{} events", options.in_flight)),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("seconds", options.common.seconds.to_string()),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    let slow = [("slow", format!("{} that follow and never read", options.slow))];
    report.values("alone", "deliveries/s", &alone.rates, None, &[]);
    report.values("beside-slow", "deliveries/s", &beside.rates, Some(("alone", &alone.rates)), &slow);
    report.latencies("alone", &alone.latencies, &PERCENTILES, &[])?;
    report.latencies("beside-slow", &beside.latencies, &PERCENTILES, &slow)?;
    report.values("alone-rss", "MiB", &alone.resident_mib, None, &[]);
    report.values(
        "beside-slow-rss",
        "MiB",
        &beside.resident_mib,
        Some(("alone-rss", &alone.resident_mib)),
        &slow,
    );
    report.print(options.common.json)
}

fn one(options: &Options, pinning: Pinning, stuck: usize, measured: &mut Measured) -> anyhow::Result<()> {
    let scratch = options.common.scratch()?;
    let server = options.server.start(pinning, scratch.path())?;
    let load = Load {
        room: "busy",
        members: options.members,
        stuck,
        in_flight: options.in_flight,
        event_bytes: options.event_bytes,
        window: options.common.window(),
    };
    let (rate, latencies) = stage::block_on(load.deliver(server.address))?;
    measured.rates.push(rate);
    measured.latencies.push(latencies);
    measured.resident_mib.push(server.resident_kib()? / 1_024.0);
    Ok(())
}
