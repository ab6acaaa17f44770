//! `append`: events recorded durably a second, at the log's port and through sockets.
//!
//! | variant | who appends | limit |
//! |---|---|---|
//! | `writers-512` | 512 tasks on 512 streams, one event each, one append in flight each | |
//! | `writers-1` | one task, one event at a time | `fdatasync`: writes of as many bytes, each synced |
//! | `batched` | appends of 2,048 events, two in flight, on two streams | `plain-file`: the same bytes and syncs |
//! | `batched-sqlite` | the peer: transactions of 2,048 rows | the same |
//! | `sockets-512` | 512 sockets, each in a room of its own, one command in flight each | |
//! | `hot-room-64` | 64 sockets that post into one room, up to 64 commands in flight each | |
//!
//! Every append expects an exact revision and carries a command, as those of the server do.

mod port;
mod sockets;

use std::collections::BTreeMap;

use clap::Args;

use crate::Common;
use crate::report::{Latencies, Percentile, Report};
use crate::server::ServerOptions;

/// Options of `append`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
    /// Events of one append of `batched`.
    #[arg(long, default_value_t = 2_048)]
    batch: usize,
}

/// What one variant or limit gave in every round.
#[derive(Debug, Default)]
struct Measured {
    rates: Vec<f64>,
    latencies: Vec<Latencies>,
}

type Results = BTreeMap<&'static str, Measured>;

const PERCENTILES: [Percentile; 4] = [Percentile::P50, Percentile::P99, Percentile::P999, Percentile::Max];

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check()?;
    let mut results = Results::new();
    for round in 0..options.common.rounds {
        port::round(options, &mut results)?;
        eprintln!("append, at the port: round {} of {}", round + 1, options.common.rounds);
    }
    // Pinning cannot be undone, so whoever needs all cores comes first.
    let sockets = ["sockets-512", "hot-room-64"].into_iter().any(|variant| options.common.wants(variant));
    let pinning = if sockets { options.server.pin() } else { crate::pinning::Pinning::None };
    for round in 0..options.common.rounds {
        if sockets {
            sockets::round(options, pinning, &mut results)?;
            eprintln!("append, through sockets: round {} of {}", round + 1, options.common.rounds);
        }
    }
    report(options, &pinning.describe(), &results)?.print(options.common.json)
}

fn report(options: &Options, pinning: &str, results: &Results) -> anyhow::Result<Report> {
    let mut report = Report::new(
        "append",
        &[
            ("durability", "fdatasync before every answer".to_owned()),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("engine", "embedded".to_owned()),
            ("seconds", options.common.seconds.to_string()),
        ],
    );
    let at_port = "tasks and log in one process, not pinned".to_owned();
    for (variant, measured) in results {
        let peer = match *variant {
            "writers-1" => Some("fdatasync"),
            "batched" | "batched-sqlite" | "plain-file-ahead" => Some("plain-file"),
            _ => None,
        };
        let peer = peer.and_then(|name| Some((name, results.get(name)?.rates.as_slice())));
        let extra: Vec<(&str, String)> = match *variant {
            "writers-512" => {
                vec![
                    ("writers", "512 on 512 streams, 1 in flight each".to_owned()),
                    ("place", at_port.clone()),
                ]
            }
            "writers-1" => vec![("writers", "1, 1 in flight".to_owned()), ("place", at_port.clone())],
            "batched" => {
                vec![("batch", format!("{} events, 2 in flight", options.batch)), ("place", at_port.clone())]
            }
            "sockets-512" => vec![
                ("connections", "512, 512 rooms, each followed by its poster, 1 in flight each".to_owned()),
                ("pinning", pinning.to_owned()),
                ("server_workers", options.server.describe_workers()),
            ],
            "hot-room-64" => vec![
                ("connections", "64, 1 room, nobody follows it, up to 64 in flight each".to_owned()),
                ("pinning", pinning.to_owned()),
                ("server_workers", options.server.describe_workers()),
            ],
            "fdatasync" => vec![("file", "zero-filled ahead".to_owned())],
            "plain-file" => vec![("file", "growing, one write and one fdatasync a batch".to_owned())],
            "batched-sqlite" => {
                vec![(
                    "batch",
                    format!("{} events a transaction, WAL, synchronous = FULL, 1 in flight", options.batch),
                )]
            }
            "plain-file-ahead" => {
                vec![("file", "zero-filled ahead, one write and one fdatasync a batch".to_owned())]
            }
            _ => Vec::new(),
        };
        let unit = if *variant == "fdatasync" { "syncs/s" } else { "events/s" };
        report.values(variant, unit, &measured.rates, peer, &extra);
        if !measured.latencies.is_empty() {
            report.latencies(variant, &measured.latencies, &PERCENTILES, &extra)?;
        }
    }
    Ok(report)
}
