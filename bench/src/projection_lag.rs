//! `projection-lag`: how long after a command's answer queries see what it did, while commands
//! come at a fixed rate, spread over many rooms.
//!
//! Open loop, as `latency`. For some of the commands a query is sent as soon as the answer is
//! read: it names the answer's position, so the server holds it until the read model has got
//! there, and answers from the read model. That of the timeline asks for the very message, and
//! one that is not there is an error; those of the others, in turn, ask for a page of documents.
//! So each figure has the query's own way to the server and back in it.
//!
//! | variant | from … until the query's answer is read |
//! |---|---|
//! | `sqlite`, `mongodb` | the command's answer was read, all read models in turn |
//! | `sqlite-<read model>`, … | the same, of one read model: its 99th percentile |
//! | `sqlite-command`, `mongodb-command` | the command was due |
//! | `sqlite-query`, `mongodb-query` | the query was sent, of queries that wait for nothing: their own way alone |

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use memchr::memmem;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::Common;
use crate::link::{Address, Message};
use crate::pace::{Load, send_for};
use crate::report::{Latencies, Percentile, Report};
use crate::server::ServerOptions;
use crate::stage::{self, Client, Composer, Stopwatch, stamp};

mod query;

/// Options of `projection-lag`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Commands a second, over all rooms.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Rooms; one client posts in each.
    #[arg(long, default_value_t = 100)]
    rooms: usize,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 300)]
    event_bytes: usize,
    /// One command in so many is followed by a query.
    #[arg(long, default_value_t = 20)]
    query_every: u32,
    /// A read model that is built anew all the while, beside the live one.
    #[arg(long, value_name = "NAME")]
    rebuild: Option<String>,
    /// A `MongoDB` server, for databases of this run's own that are dropped after it.
    #[arg(long, env = "DRAMATIS_TEST_MONGODB_URI", hide_env_values = true)]
    mongodb: Option<String>,
}

/// Commands sent before measuring, as time.
const WARM_UP: Duration = Duration::from_secs(1);
/// How often it is asked whether a rebuild is over, and another may begin.
const REBUILD_EVERY: Duration = Duration::from_millis(100);
/// How long the last answers may take.
const REST_WITHIN: Duration = Duration::from_secs(10);
/// Connections for queries: many more than there are queries on their way.
const QUERIERS: usize = 64;
/// One query in so many waits for nothing.
const FREE_EVERY: usize = 11;
const PERCENTILES: [Percentile; 3] = [Percentile::P50, Percentile::P99, Percentile::Max];
const TIMELINE: &str = "timeline";

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(&["sqlite", "mongodb"])?;
    ensure!(options.rate > 0 && options.rooms > 0, "rate and rooms: expected at least 1 each");
    ensure!(options.query_every > 0, "query-every: expected at least 1, got 0");
    let pinning = options.server.pin();
    let mut engines = vec![("sqlite", None)];
    match &options.mongodb {
        Some(uri) => engines.push(("mongodb", Some(uri.as_str()))),
        None => eprintln!("mongodb is left out: --mongodb or DRAMATIS_TEST_MONGODB_URI names a server"),
    }
    engines.retain(|(engine, _)| options.common.wants(engine));
    let mut found: BTreeMap<&str, Vec<Found>> = BTreeMap::new();
    for round in 0..options.common.rounds {
        for (engine, uri) in &engines {
            let scratch = options.common.scratch()?;
            let database = format!("dramatis_bench_lag_{}_{round}", std::process::id());
            let mut settings = vec![("DRAMATIS__READ_MODELS__ENGINE", *engine)];
            if let Some(uri) = uri {
                settings.push(("DRAMATIS__READ_MODELS__MONGODB__URI", uri));
                settings.push(("DRAMATIS__READ_MODELS__MONGODB__DATABASE", &database));
            }
            let server = options.server.start_with(pinning, scratch.path(), &settings)?;
            let measured = stage::block_on(measure(options, server.address));
            drop(server);
            if let Some(uri) = uri {
                stage::block_on(drop_database(uri, &database))?;
            }
            found.entry(engine).or_default().push(measured?);
        }
        eprintln!("projection-lag: round {} of {}", round + 1, options.common.rounds);
    }
    report(options, &pinning.describe(), &found)?.print(options.common.json)
}

async fn drop_database(uri: &str, database: &str) -> anyhow::Result<()> {
    Ok(mongodb::Client::with_uri_str(uri).await?.database(database).drop().await?)
}

fn report(options: &Options, pinning: &str, found: &BTreeMap<&str, Vec<Found>>) -> anyhow::Result<Report> {
    let mut report = Report::new(
        "projection-lag",
        &[
            ("durability", "fdatasync before every answer".to_owned()),
            ("arrivals", format!("open loop, {} commands/s, evenly spaced", options.rate)),
            ("queries", format!("after one command in {}", options.query_every)),
            ("rebuilding", options.rebuild.clone().unwrap_or_else(|| "nothing".to_owned())),
            ("rooms", options.rooms.to_string()),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("seconds", options.common.seconds.to_string()),
            ("pinning", pinning.to_owned()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    for (engine, rounds) in found {
        let of =
            |which: &dyn Fn(&Found) -> Option<Latencies>| rounds.iter().filter_map(which).collect::<Vec<_>>();
        report.latencies(engine, &of(&|found| found.all().ok()), &PERCENTILES, &[])?;
        let from_due = of(&|found| Some(found.from_due.clone()));
        report.latencies(&format!("{engine}-command"), &from_due, &PERCENTILES, &[])?;
        let free = of(&|found| Some(found.free.clone()));
        report.latencies(&format!("{engine}-query"), &free, &PERCENTILES, &[])?;
        for projection in dramatis_projections::all() {
            let visible = of(&|found| found.visible.get(projection.name()).cloned());
            report.latencies(
                &format!("{engine}-{}", projection.name()),
                &visible,
                &[Percentile::P99],
                &[],
            )?;
        }
    }
    Ok(report)
}

/// What a round found.
#[derive(Debug, Clone)]
struct Found {
    /// From a command's answer, by read model.
    visible: BTreeMap<&'static str, Latencies>,
    from_due: Latencies,
    free: Latencies,
}

impl Found {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { visible: BTreeMap::new(), from_due: Latencies::new()?, free: Latencies::new()? })
    }

    fn all(&self) -> anyhow::Result<Latencies> {
        let mut all = Latencies::new()?;
        self.visible.values().for_each(|latencies| all.merge(latencies));
        Ok(all)
    }

    fn note(&mut self, wish: &Wish, sent: u64, seen: u64) -> anyhow::Result<()> {
        if wish.min_position.is_none() {
            self.free.record(seen.saturating_sub(sent));
            return Ok(());
        }
        if !self.visible.contains_key(wish.projection) {
            self.visible.insert(wish.projection, Latencies::new()?);
        }
        if let Some(latencies) = self.visible.get_mut(wish.projection) {
            latencies.record(seen.saturating_sub(wish.answered));
        }
        self.from_due.record(seen.saturating_sub(wish.due));
        Ok(())
    }
}

/// A query to be made.
#[derive(Debug)]
struct Wish {
    projection: &'static str,
    /// The message's room and revision.
    room: String,
    revision: u64,
    min_position: Option<u64>,
    /// When the command was due.
    due: u64,
    /// When its answer was read.
    answered: u64,
}

impl Wish {
    fn path(&self) -> String {
        let Self { projection, room, revision, .. } = self;
        let place = if *projection == TIMELINE && self.min_position.is_some() {
            format!("document?key=room-main.{room}/{revision:020}")
        } else {
            "documents?limit=1".to_owned()
        };
        let wait = self.min_position.map_or_else(String::new, |position| format!("&min_position={position}"));
        format!("/api/projections/{projection}/{place}{wait}")
    }
}

/// What the readers and queriers of a round share.
struct Gauge {
    watch: Stopwatch,
    /// Commands due before this moment are not measured.
    from_nanos: Cell<u64>,
    acks: Cell<u64>,
    wished: Cell<usize>,
    answered: Cell<usize>,
    query_every: u64,
    wishes: Vec<UnboundedSender<Wish>>,
    found: RefCell<Found>,
}

async fn measure(options: &Options, address: Address) -> anyhow::Result<Found> {
    let rooms: Vec<String> = (0..options.rooms).map(|number| format!("room-{number}")).collect();
    stage::open_rooms(address, &rooms).await?;
    let clients =
        Client::enter_all(address, options.rooms, |number| (format!("client-{number}"), Vec::new())).await?;
    let (wishes, wanted): (Vec<_>, Vec<_>) = (0..QUERIERS).map(|_| unbounded_channel()).unzip();
    let gauge = Rc::new(Gauge {
        watch: Stopwatch::start(),
        from_nanos: Cell::new(u64::MAX),
        acks: Cell::new(0),
        wished: Cell::new(0),
        answered: Cell::new(0),
        query_every: options.query_every.into(),
        wishes,
        found: RefCell::new(Found::new()?),
    });
    let (mut tasks, mut posters) = (JoinSet::new(), Vec::new());
    for wanted in wanted {
        let connection = query::Connection::open(address.socket).await?;
        tasks.spawn_local(answer(connection, wanted, gauge.clone()));
    }
    for (room, mut client) in rooms.iter().zip(clients) {
        client.command(room, "join", &serde_json::json!({})).await?;
        posters.push((client.link.clone(), Composer::new(room, options.event_bytes)));
        tasks.spawn_local(read(client, room.clone(), gauge.clone()));
    }
    await_builds(address).await?;
    if let Some(projection) = options.rebuild.clone() {
        tasks.spawn_local(rebuild(query::Connection::open(address.socket).await?, projection));
    }
    let (watch, rate) = (gauge.watch, options.rate);
    let from_nanos = watch.nanos() + u64::try_from(WARM_UP.as_nanos())?;
    gauge.from_nanos.set(from_nanos);
    let load = Load { posters, watch, rate, from_nanos };
    let sent = send_for(load, WARM_UP + options.common.window(), &mut tasks).await?.len();
    tokio::select! {
        rest = await_rest(&gauge, sent) => rest?,
        ended = tasks.join_next() => {
            ended.context("expected clients")???;
        }
    }
    tasks.abort_all();
    Ok(gauge.found.borrow().clone())
}

/// Waits for the answers that are still out: leaving them away would hide the slowest.
async fn await_rest(gauge: &Gauge, sent: u64) -> anyhow::Result<()> {
    let rest = async {
        while gauge.acks.get() < sent || gauge.answered.get() < gauge.wished.get() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(REST_WITHIN, rest).await.with_context(|| {
        format!(
            "expected {sent} acks and {} answers to queries, got {} and {}: try a lower --rate",
            gauge.wished.get(),
            gauge.acks.get(),
            gauge.answered.get()
        )
    })
}

/// Reads the answers of one poster, and has queries made after some.
async fn read(
    mut client: Client,
    room: String,
    gauge: Rc<Gauge>,
) -> anyhow::Result<std::convert::Infallible> {
    loop {
        let on_message = |message: Message<'_>| {
            let Message::Ack(ack) = message else { return Ok(()) };
            let Some(due) = stamp(ack).filter(|due| *due >= gauge.from_nanos.get()) else { return Ok(()) };
            let answered = gauge.watch.nanos();
            gauge.acks.set(gauge.acks.get() + 1);
            if !gauge.acks.get().is_multiple_of(gauge.query_every) {
                return Ok(());
            }
            let number = |field: &[u8]| number(ack, field).context("a revision and a position in the answer");
            let (revision, position) = (number(br#""revision":"#)?, number(br#""position":""#)?);
            gauge.wish(&room, revision, position, (due, answered))
        };
        client.link.read(&mut client.inbox, on_message).await?;
    }
}

impl Gauge {
    fn wish(
        &self,
        room: &str,
        revision: u64,
        position: u64,
        (due, answered): (u64, u64),
    ) -> anyhow::Result<()> {
        let turn = self.wished.get();
        self.wished.set(turn + 1);
        let all = dramatis_projections::all();
        let projection = all.get(turn % all.len()).context("a projection")?.name();
        let min_position = Some(position).filter(|_| !turn.is_multiple_of(FREE_EVERY));
        let wish = Wish { projection, room: room.to_owned(), revision, min_position, due, answered };
        self.wishes.get(turn % QUERIERS).context("a querier")?.send(wish).context("the queriers are gone")
    }
}

/// Makes queries, one after the other.
async fn answer(
    mut connection: query::Connection,
    mut wanted: UnboundedReceiver<Wish>,
    gauge: Rc<Gauge>,
) -> anyhow::Result<std::convert::Infallible> {
    loop {
        let wish = wanted.recv().await.context("the readers are gone")?;
        let sent = gauge.watch.nanos();
        connection.get(&wish.path()).await?;
        gauge.found.borrow_mut().note(&wish, sent, gauge.watch.nanos())?;
        gauge.answered.set(gauge.answered.get() + 1);
    }
}

/// Waits until every read model has its first build: a server takes a while to make them, and what
/// came meanwhile would be measured for long.
async fn await_builds(address: Address) -> anyhow::Result<()> {
    let mut connection = query::Connection::open(address.socket).await?;
    for projection in dramatis_projections::all() {
        let path = format!("/api/projections/{}/documents?limit=1&min_position=0", projection.name());
        connection.get(&path).await?;
    }
    Ok(())
}

/// Has a read model built anew, again and again.
async fn rebuild(
    mut connection: query::Connection,
    projection: String,
) -> anyhow::Result<std::convert::Infallible> {
    loop {
        connection.rebuild(&projection).await?;
        tokio::time::sleep(REBUILD_EVERY).await;
    }
}

/// The digits after a field's name.
fn number(message: &[u8], field: &[u8]) -> Option<u64> {
    let rest = message.get(memmem::find(message, field)? + field.len()..)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_an_answer() {
        let ack =
            br#"{"type":"ack","id":"r1","room":"lobby","revision":42,"position":"978","duplicate":false}"#;
        assert_eq!(number(ack, br#""revision":"#), Some(42));
        assert_eq!(number(ack, br#""position":""#), Some(978));
        assert_eq!(number(br#"{"revision":null}"#, br#""revision":"#), None);
    }

    #[test]
    fn a_query_names_the_message_and_the_position() {
        let mut wish = Wish {
            projection: TIMELINE,
            room: "lobby".into(),
            revision: 7,
            min_position: Some(9),
            due: 0,
            answered: 0,
        };
        let path =
            "/api/projections/timeline/document?key=room-main.lobby/00000000000000000007&min_position=9";
        assert_eq!(wish.path(), path);
        wish.min_position = None;
        assert_eq!(wish.path(), "/api/projections/timeline/documents?limit=1");
    }
}
