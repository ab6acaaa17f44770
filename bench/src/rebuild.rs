//! `rebuild`: how fast documents are made of events.
//!
//! | variant | what | limit |
//! |---|---|---|
//! | `fold` | the timeline's events, read before, decoded and folded into documents on one core | |
//! | `sqlite`, `mongodb` | the timeline rebuilt beside the live build by the projector, as `dramatis projections rebuild` has it done, until all its documents are written | `bulk-write` |
//! | `sqlite-proven`, `mongodb-proven` | the same, until every document is compared with the live build's as well | `bulk-write` |
//! | `sqlite-events`, `mongodb-events` | the same as the first, in events | |
//! | `…-events-first-tenth`, `…-events-last-tenth` | the same, of the first and the last tenth of the events | |
//! | `…-memory` | the most memory that the process had, the log's and the store's own threads in it | |
//! | `sqlite-statistics`, `mongodb-statistics` | the read model in which many events make one document, until it is written | |
//! | `sqlite-bulk-write`, `mongodb-bulk-write` | the limit: the very same documents, made before, written in the order of their keys under the same guard into a collection with the same indexes | |
//! | `…-bulk-write-unsorted` | the same in the order of the log, in which a rebuild makes them | |
//!
//! `mongodb` needs a server: `--mongodb` or `DRAMATIS_TEST_MONGODB_URI` names it, and
//! `tests/servers/mongodb/run` starts one.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::Args;
use dramatis::log::EventLog;

use crate::Common;
use crate::report::Report;

mod fold;
mod history;
mod mongodb;
mod product;
mod sqlite;

use product::Measured;

/// Options of `rebuild`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Events of the log.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Rooms that they lie in, one after the other in turn.
    #[arg(long, default_value_t = 100)]
    rooms: u64,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
    /// Events folded between two writes, in `fold`; the others take what a server takes.
    #[arg(long, default_value_t = 2_000)]
    batch: usize,
    /// Leave out the limits, which have all documents in memory.
    #[arg(long)]
    without_limits: bool,
    /// A `MongoDB` server, for databases of this run's own that are dropped after it.
    #[arg(long, env = "DRAMATIS_TEST_MONGODB_URI", hide_env_values = true)]
    mongodb: Option<String>,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(&["fold", "sqlite", "mongodb"])?;
    ensure!(options.rooms > 0, "rooms: expected at least 1, got 0");
    let scratch = options.common.scratch()?;
    // One thread, as a server has for its rebuilds; log and stores have their own besides.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(async {
        let log: Arc<dyn EventLog> = crate::engine::open(scratch.path())?;
        history::fill(&*log, options).await?;
        let mut report = begin(options);
        if options.common.wants("fold") {
            let mut folds = Vec::new();
            for _ in 0..options.common.rounds {
                folds.push(fold::fold(options, &*log).await?);
            }
            report.values("fold", "events/s", &folds, None, &[("cores", "1".to_owned())]);
        }
        if options.common.wants("sqlite") {
            let measured = sqlite::measure(options, &log, scratch.path()).await?;
            rows(&mut report, &SQLITE, &measured);
        }
        match &options.mongodb {
            Some(uri) if options.common.wants("mongodb") => {
                let measured = mongodb::measure(options, &log, uri).await;
                rows(&mut report, &MONGODB, &measured.context("the variant mongodb")?);
            }
            None if options.common.wants("mongodb") => {
                eprintln!("mongodb is left out: --mongodb or DRAMATIS_TEST_MONGODB_URI names a server");
            }
            _ => {}
        }
        anyhow::Ok(report)
    })?;
    report.print(options.common.json)
}

fn begin(options: &Options) -> Report {
    Report::new(
        "rebuild",
        &[
            ("engine", "embedded".to_owned()),
            ("projection", "timeline".to_owned()),
            ("events", format!("{} in {} rooms", options.events, options.rooms)),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("batch", format!("{} events", options.batch)),
        ],
    )
}

/// What a store's rows are called.
struct Names {
    built: &'static str,
    proven: &'static str,
    events: &'static str,
    many: &'static str,
    sorted: &'static str,
    unsorted: &'static str,
    durability: &'static str,
}

const SQLITE: Names = Names {
    built: "sqlite",
    proven: "sqlite-proven",
    events: "sqlite-events",
    many: "sqlite-statistics",
    sorted: "sqlite-bulk-write",
    unsorted: "sqlite-bulk-write-unsorted",
    durability: "WAL, synchronous = NORMAL",
};

const MONGODB: Names = Names {
    built: "mongodb",
    proven: "mongodb-proven",
    events: "mongodb-events",
    many: "mongodb-statistics",
    sorted: "mongodb-bulk-write",
    unsorted: "mongodb-bulk-write-unsorted",
    durability: "acknowledged by a majority",
};

fn rows(report: &mut Report, names: &Names, measured: &Measured) {
    let extra = [
        ("durability", names.durability.to_owned()),
        ("documents", measured.documents.to_string()),
        ("bulk", format!("{} documents a write", product::BULK)),
    ];
    let limit = Some(("bulk-write", measured.sorted.as_slice()));
    report.values(names.built, "docs/s", &measured.built, limit, &extra);
    report.values(names.proven, "docs/s", &measured.proven, limit, &extra);
    report.values(names.events, "events/s", &measured.events, None, &extra);
    for (tenth, rates) in [("first", &measured.first_tenth), ("last", &measured.last_tenth)] {
        report.values(&format!("{}-{tenth}-tenth", names.events), "events/s", rates, None, &[]);
    }
    report.values(&format!("{}-memory", names.built), "MiB", &measured.memory, None, &[]);
    report.values(names.sorted, "docs/s", &measured.sorted, None, &extra);
    report.values(names.unsorted, "docs/s", &measured.unsorted, limit, &extra);
    let many = [("documents", measured.many_documents.to_string()), ("projection", product::MANY.to_owned())];
    report.values(names.many, "events/s", &measured.many, None, &many);
}
