//! `append`: events recorded durably a second, at the log's port and through sockets.
//!
//! | variant | who appends | limit |
//! |---|---|---|
//! | `writers-512` | 512 tasks on 512 streams, one event each, one append in flight each | |
//! | `writers-1` | one task, one event at a time | `fdatasync`: writes of as many bytes, each synced |
//! | `batched` | appends of 2,048 events, two in flight, on two streams | `plain-file`: as many bytes, a CRC32C over them, one write and one sync a batch |
//! | `batched-sqlite`, `-fjall`, `-redb`, `-sierradb` | the peers: the same batches and indexes, one transaction a batch | the same |
//! | `batched-to-best-peer` | how many times the best of them `batched` is | |
//! | `sockets-512` | 512 sockets, each in a room of its own, one command in flight each | |
//! | `hot-room-64` | 64 sockets that post into one room, up to 64 commands in flight each | |
//!
//! Every append expects an exact revision and carries a command, as those of the server do.
//! Events are composed before the clock starts.

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

/// The peers of `batched`.
const PEERS: &[&str] = &[
    "batched-sqlite",
    "batched-fjall",
    "batched-redb",
    #[cfg(feature = "sierradb")]
    "batched-sierradb",
];

type Results = BTreeMap<&'static str, Measured>;

const PERCENTILES: [Percentile; 4] = [Percentile::P50, Percentile::P99, Percentile::P999, Percentile::Max];

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(&["writers-512", "writers-1", "batched", "sockets-512", "hot-room-64"])?;
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
    for (variant, measured) in results {
        let peer = match *variant {
            "writers-1" => Some("fdatasync"),
            "batched" | "plain-file-ahead" => Some("plain-file"),
            peer if PEERS.contains(&peer) => Some("plain-file"),
            _ => None,
        };
        let peer = peer.and_then(|name| Some((name, results.get(name)?.rates.as_slice())));
        let extra = extra(options, pinning, variant);
        let unit = if *variant == "fdatasync" { "syncs/s" } else { "events/s" };
        report.values(variant, unit, &measured.rates, peer, &extra);
        if !measured.latencies.is_empty() {
            report.latencies(variant, &measured.latencies, &PERCENTILES, &extra)?;
        }
    }
    if let Some(batched) = results.get("batched") {
        let rates = |peer: &'static str| Some((peer, results.get(peer)?.rates.as_slice()));
        let peers: Vec<_> = PEERS.iter().copied().filter_map(rates).collect();
        report.times_the_best("batched-to-best-peer", &batched.rates, &peers);
    }
    Ok(report)
}

/// The conditions of one variant.
fn extra(options: &Options, pinning: &str, variant: &str) -> Vec<(&'static str, String)> {
    let at_port = ("place", "tasks and log in one process, not pinned; events composed ahead".to_owned());
    let sockets = |connections: &str| {
        vec![
            ("connections", connections.to_owned()),
            ("pinning", pinning.to_owned()),
            ("server_workers", options.server.describe_workers()),
        ]
    };
    let batch = options.batch;
    let peer = |how: &str| vec![("batch", format!("{batch} events a transaction, {how}"))];
    match variant {
        "writers-512" => vec![("writers", "512 on 512 streams, 1 in flight each".to_owned()), at_port],
        "writers-1" => vec![("writers", "1, 1 in flight".to_owned()), at_port],
        "batched" => vec![("batch", format!("{batch} events, 2 in flight")), at_port],
        "batched-sqlite" => peer("WAL, synchronous = FULL, 1 in flight"),
        "batched-fjall" => peer("SyncData, LZ4 in its tables, 2 in flight"),
        "batched-redb" => peer("Durability::Immediate, 1 in flight"),
        "batched-sierradb" => peer("no compression, no order of the whole log, 2 in flight"),
        "sockets-512" => sockets("512, 512 rooms, each followed by its poster, 1 in flight each"),
        "hot-room-64" => sockets("64, 1 room, nobody follows it, up to 64 in flight each"),
        "fdatasync" => vec![("file", "zero-filled ahead".to_owned())],
        "plain-file" => vec![("file", "growing; CRC32C, one write and one fdatasync a batch".to_owned())],
        "plain-file-ahead" => {
            vec![("file", "zero-filled ahead; CRC32C, one write and one fdatasync a batch".to_owned())]
        }
        _ => Vec::new(),
    }
}
