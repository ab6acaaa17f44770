//! One suite over all transports: through a proxy that cuts, delays, splits and repeats, a reader
//! that moves between WebSocket, server-sent events and long poll sees every event once and in
//! order, and every command has one effect, also over the server's own crashes.
//!
//! Each run has a seed and prints it when it fails: `DRAMATIS_TEST_SEED=<seed>` starts with it.
//! The default tier does what fits in its time, `DRAMATIS_TEST_TIER=long` does 1,000 runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "conformance/fault_proxy.rs"]
#[allow(unreachable_pub, reason = "shared as the support module is")]
mod fault_proxy;
#[path = "conformance/reader.rs"]
#[allow(unreachable_pub, reason = "shared as the support module is")]
mod reader;
mod support;
#[path = "conformance/ways.rs"]
#[allow(unreachable_pub, reason = "shared as the support module is")]
mod ways;
#[path = "conformance/writer.rs"]
#[allow(unreachable_pub, reason = "shared as the support module is")]
mod writer;

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fault_proxy::FaultProxy;
use reader::{Counts, Held, Reader};
use serde_json::{Value, json};
use support::imports::{Chance, long_tier};
use support::{PATIENCE, Server, dramatis};
use tempfile::TempDir;
use ways::{From, Line, Person, WAYS};
use writer::{Acknowledged, send};

const RUNS_LONG: u64 = 1_000;
/// What the default tier does in any case: of fewer runs none might have met this or that.
const RUNS_LEAST: u64 = 10;
/// How long the default tier goes on.
const DEFAULT_FOR: Duration = Duration::from_secs(40);
/// Commands of one run to each of its two rooms; all its events fit in a room's latest page.
const COMMANDS: u64 = 12;
/// The room was opened and its owner joined.
const BEFORE: u64 = 2;
/// One run in so many kills the server in its middle.
const KILL_EVERY: u64 = 10;

/// A server that may be killed, and the proxy before it.
struct World {
    data: TempDir,
    server: Option<Server>,
    proxy: Arc<FaultProxy>,
}

impl World {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        let proxy = FaultProxy::start(server.address);
        Self { data, server: Some(server), proxy }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
        let server = Server::start(self.data.path());
        self.proxy.lead_to(server.address);
        self.server = Some(server);
    }
}

fn person(user: &str, session: &str) -> Person {
    Person { user: user.to_owned(), session: session.to_owned() }
}

fn run(world: &mut World, seed: u64) -> (Counts, u64) {
    let rooms = ["a", "b"].map(|name| format!("{name}-{seed}"));
    for room in &rooms {
        world.server().open_room(room, "writer");
    }
    world.proxy.reseed(seed);
    let (to, kills) = (world.proxy.address, seed.is_multiple_of(KILL_EVERY));
    let reader = Reader::new(person("reader", "one-and-the-same"), &rooms, BEFORE + COMMANDS);
    let reading = std::thread::spawn(move || reader.read(to, &mut Chance::of(seed)));
    let (mut chance, writer) = (Chance::of(!seed), person("writer", "of-commands"));
    let mut acknowledged = Vec::new();
    for number in 0..COMMANDS {
        if kills && number == COMMANDS / 2 {
            world.kill();
        }
        for room in &rooms {
            acknowledged.push(send(&writer, to, room, &format!("{seed}-{room}-{number}"), &mut chance));
        }
    }
    let (held, counts) = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    check(world.server(), &held, &acknowledged);
    (counts, acknowledged.iter().map(|command| command.attempts - 1).sum())
}

/// What was read is what is recorded, and each command is in it once, where its answer said.
fn check(server: &Server, held: &BTreeMap<String, Held>, acknowledged: &[Acknowledged]) {
    for (room, held) in held {
        let recorded = server.events(&["--room", room]);
        assert_eq!(recorded.len(), held.events.len(), "{room}");
        for (recorded, read) in recorded.iter().zip(&held.events) {
            for field in ["revision", "position", "name", "by", "recorded_at", "data"] {
                assert_eq!(recorded[field], read[field], "{field} of {read}");
            }
        }
        for command in acknowledged.iter().filter(|command| command.room == *room) {
            let effects = recorded.iter().filter(|event| event["data"]["text"] == command.id);
            let revisions: Vec<_> = effects.map(|event| event["revision"].as_u64().unwrap()).collect();
            assert_eq!(revisions, [command.revision], "{}", command.id);
        }
    }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_on_any_transport() {
    let first = Chance::new().seed();
    let (started, mut world) = (Instant::now(), World::start());
    let (mut runs, mut retried, mut sum) = (0, 0, Counts::default());
    while if long_tier() { runs < RUNS_LONG } else { runs < RUNS_LEAST || started.elapsed() < DEFAULT_FOR } {
        let seed = first.wrapping_add(runs);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut world, seed)));
        let (counts, again) = done.unwrap_or_else(|panic| {
            println!("run {runs} failed: DRAMATIS_TEST_SEED={seed} starts with it");
            std::panic::resume_unwind(panic)
        });
        runs += 1;
        retried += again;
        sum.lines += counts.lines;
        sum.moves += counts.moves;
        sum.by_cursor += counts.by_cursor;
        sum.broken += counts.broken;
        sum.replaced += counts.replaced;
        sum.repeated += counts.repeated;
    }
    let done = &world.proxy.done;
    let count = |fault: &std::sync::atomic::AtomicU64| fault.load(Ordering::Relaxed);
    println!("{runs} runs in {} s: {sum:?}, {retried} commands sent again", started.elapsed().as_secs());
    println!(
        "connections: {} plain, {} cut, {} delayed, {} split, {} requests repeated",
        count(&done.plain),
        count(&done.cut),
        count(&done.delayed),
        count(&done.split),
        count(&done.repeated)
    );
    assert!(runs > 0 && sum.moves > 0 && sum.by_cursor > 0 && sum.broken > 0 && retried > 0);
}

/// Messages of a line up to `live`.
fn until_live(line: &mut Line, server: &Server, reader: &Person) -> (Vec<Value>, Option<String>) {
    let (mut messages, started) = (Vec::new(), Instant::now());
    loop {
        assert!(started.elapsed() < PATIENCE, "{messages:?}");
        let came = line.next(server.address, reader).unwrap();
        messages.extend(came.messages);
        if messages.iter().any(|message: &Value| message["type"] == "live") {
            return (messages, came.cursor);
        }
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn another_epoch_is_told_on_every_transport_and_by_every_cursor() {
    let (data, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let into = store.path().join("restored");
    let backups = store.path().join("backups");
    let server = Server::start(data.path());
    server.open_room("lobby", "alice");
    let reader = person("reader", "s");
    let mut cursors = Vec::new();
    for way in WAYS {
        let from = From::Rooms(json!([{"room": "lobby"}]));
        let mut line = Line::open(way, server.address, &reader, &from).unwrap();
        let (messages, cursor) = until_live(&mut line, &server, &reader);
        let epoch = &messages[0]["rooms"][0]["epoch"];
        cursors.push(From::Rooms(json!([{"room": "lobby", "epoch": epoch, "after": 1}])));
        cursors.extend(cursor.map(From::Cursor));
    }
    assert_eq!(server.terminate(), Some(0));
    let directory = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let backup = |arguments: &[&str]| {
        dramatis().arg("backup").args(arguments).args(["--store", &directory(&backups)]).output().unwrap()
    };
    succeeded(&backup(&["create", "--data", &directory(data.path())]));
    succeeded(&backup(&["restore", "latest", "--into", &directory(&into)]));
    let server = Server::start(&into);
    for (way, from) in WAYS.into_iter().flat_map(|way| cursors.iter().map(move |from| (way, from))) {
        let mut line = Line::open(way, server.address, &reader, from).unwrap();
        let (messages, _) = until_live(&mut line, &server, &reader);
        assert_eq!(messages[0]["rooms"][0]["how"], "reset", "{way:?} from {from:?}");
        let revisions: Vec<_> = messages
            .iter()
            .filter(|message| message["type"] == "event")
            .map(|event| &event["revision"])
            .collect();
        assert_eq!(revisions, [0, 1], "{way:?} from {from:?}");
    }
}
