//! `connect`: clients that connect, say hello and are greeted, a second.
//!
//! | variant | what |
//! |---|---|
//! | `hello` | connects a second, from the first to the last client that is live in its two rooms |
//! | `hello-p50` and so on | from a client's own connect until then |
//! | `ws-…`, `socketio-…`, `nchan-…` | the peers |

use std::cell::RefCell;

use anyhow::ensure;
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::Common;
use crate::link::Address;
use crate::report::{Latencies, Percentile, Report};
use crate::server::{ServerOptions, Who};
use crate::stage::{self, Client, Stopwatch};

/// Options of `connect`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Connections to open.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Connections that are on their way at a time.
    #[arg(long, default_value_t = 256)]
    at_once: usize,
}

/// Followers of each room.
const ROOM_FOLLOWERS: usize = 100;
const PERCENTILES: [Percentile; 3] = [Percentile::P50, Percentile::P99, Percentile::Max];

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(&Who::ALL.map(|who| format!("{}hello", who.prefix())))?;
    ensure!(options.connections > 0 && options.at_once > 0, "connections, at-once: expected at least 1 each");
    let pinning = options.server.pin();
    let who = options.server.who();
    let mut results = vec![(Vec::new(), Vec::new()); who.len()];
    for round in 0..options.common.rounds {
        for (who, (rates, latencies)) in who.iter().zip(&mut results) {
            if options.common.wants(&format!("{}hello", who.prefix())) {
                let scratch = options.common.scratch()?;
                let server = options.server.start_one(*who, pinning, scratch.path())?;
                let (rate, of_clients) = stage::block_on(measure(options, server.address))?;
                rates.push(rate);
                latencies.push(of_clients);
            }
        }
        eprintln!("connect: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "connect",
        &[
            ("connections", format!("{}, {} at a time", options.connections, options.at_once)),
            ("rooms", format!("2 each, of {ROOM_FOLLOWERS} followers, empty")),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    for (who, (rates, latencies)) in who.iter().zip(&results) {
        let variant = format!("{}hello", who.prefix());
        report.values(&variant, "connects/s", rates, None, &[]);
        if !latencies.is_empty() {
            report.latencies(&variant, latencies, &PERCENTILES, &[])?;
        }
    }
    report.print(options.common.json)
}

async fn measure(options: &Options, address: Address) -> anyhow::Result<(f64, Latencies)> {
    let count = options.connections.div_ceil(ROOM_FOLLOWERS).max(2);
    let rooms: Vec<String> = (0..count).map(|number| format!("room-{number}")).collect();
    stage::open_rooms(address, &rooms).await?;
    let (watch, latencies) = (Stopwatch::start(), RefCell::new(Latencies::new()?));
    let of = |number: usize| rooms.iter().cycle().skip(number % count).take(2).cloned().collect::<Vec<_>>();
    let comings = (0..options.connections).map(|number| {
        let (user, follows, latencies) = (format!("client-{number}"), of(number), &latencies);
        async move {
            let from = watch.nanos();
            let client = Client::enter(address, &user, &follows).await?;
            latencies.borrow_mut().record(watch.nanos() - from);
            anyhow::Ok(client)
        }
    });
    let clients: Vec<Client> = stream::iter(comings).buffer_unordered(options.at_once).try_collect().await?;
    let took = std::time::Duration::from_nanos(watch.nanos());
    let rate = f64::from(u32::try_from(clients.len())?) / took.as_secs_f64();
    // Nobody leaves before the last one is in.
    drop(clients);
    Ok((rate, latencies.into_inner()))
}
