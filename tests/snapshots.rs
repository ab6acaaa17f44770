//! A large room leaves memory and comes back: only what came after its snapshot is read, and
//! whatever becomes of the snapshots, the answers are the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::path::Path;
use std::time::Instant;

use serde_json::json;
use support::{Client, PATIENCE, Server};

/// Messages on their way at once.
const WINDOW: u64 = 500;
/// `RoomOpened`, and `MemberJoined` of its owner.
const OPENING_EVENTS: u64 = 2;
const SNAPSHOTS: &str = "snapshots.sqlite";

/// A server whose rooms leave memory soon, and now and then while a test looks: so what is read
/// has lower bounds.
fn start(data: &Path) -> Server {
    Server::start_with(data, &[], &[("DRAMATIS__ENTITY__IDLE_TIMEOUT_MS", "1000")])
}

/// The value of a metric; 0 while it is not there.
fn metric(server: &Server, name: &str) -> u64 {
    let (_, text) = server.get("/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Rooms read from a snapshot on, rooms read from the start, and events read for both.
fn loads(server: &Server) -> (u64, u64, u64) {
    (
        metric(server, r#"dramatis_entity_loads_total{from="snapshot"}"#),
        metric(server, r#"dramatis_entity_loads_total{from="start"}"#),
        metric(server, "dramatis_entity_events_read_total"),
    )
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn left_memory(server: &Server) {
    wait("the room leaves memory", || metric(server, "dramatis_entities") == 0);
}

fn saved(server: &Server) {
    let saved = r#"dramatis_entity_snapshots_total{outcome="saved"}"#;
    wait("a snapshot is kept", || metric(server, saved) > 0);
}

/// Posts so many messages as alice, a window at a time.
fn post(server: &Server, messages: u64) {
    let mut alice = server.client("alice", &json!([]));
    let port = alice.socket().get_ref().local_addr().unwrap().port();
    let mut posted = 0;
    while posted < messages {
        let window = WINDOW.min(messages - posted);
        let frame: Vec<_> = (posted..posted + window)
            .map(|number| {
                let id = format!("m{number}-{port}-{}", server.process_id());
                let data = json!({"text": format!("number {number}")});
                json!({"type": "command", "id": id, "room": "lobby", "name": "post_message", "data": data})
            })
            .map(|message| message.to_string())
            .collect();
        alice.send_text(&frame.join("\n"));
        for _ in 0..window {
            assert_eq!(alice.receive_type("ack")["duplicate"], false);
        }
        posted += window;
    }
}

/// What depends on the room's state: a member may speak, a stranger may not, nobody opens it twice.
/// Returns the revision of what the member said.
fn assert_right(server: &Server, member: &str, stranger: &str) -> u64 {
    let ask = |user: &str, name: &str, data| -> serde_json::Value {
        let mut client = Client::connect(server.address);
        client.hello(user, "asks", &json!([]));
        client.ask("lobby", name, &data)
    };
    assert_eq!(ask(stranger, "post_message", json!({"text": "hello"}))["code"], "not_a_member");
    assert_eq!(ask(member, "open_room", json!({"title": "again"}))["message"], "room_exists");
    let ack = ask(member, "post_message", json!({"text": "hello"}));
    assert_eq!(ack["type"], "ack", "{ack}");
    ack["revision"].as_u64().unwrap()
}

#[test]
fn a_large_room_comes_back_from_its_snapshot() {
    const MESSAGES: u64 = 20_000;
    const MORE: u64 = 300;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    server.open_room("lobby", "alice");
    post(&server, MESSAGES);
    left_memory(&server);
    let before = loads(&server);
    let revision = assert_right(&server, "alice", "bob");
    assert_eq!(revision, OPENING_EVENTS + MESSAGES);
    let after = loads(&server);
    // Users are loaded too, from the few events that they have.
    assert!(after.0 > before.0, "from a snapshot: {after:?} after {before:?}");
    assert!(after.2 - before.2 < 50, "events read: {}", after.2 - before.2);
    post(&server, MORE);
    server.kill();

    let server = start(data.path());
    let revision = assert_right(&server, "alice", "bob");
    assert_eq!(revision, OPENING_EVENTS + MESSAGES + 1 + MORE);
    let (from_snapshot, _, read) = loads(&server);
    assert!(from_snapshot > 0, "after a crash too");
    assert!((MORE..1_000).contains(&read), "what came since the last snapshot, not {read}");
    server.kill();

    for suffix in ["", "-wal"] {
        std::fs::write(data.path().join(format!("{SNAPSHOTS}{suffix}")), "noise".repeat(10_000)).unwrap();
    }
    let server = start(data.path());
    let events = assert_right(&server, "alice", "bob") + 1;
    let (_, from_start, read) = loads(&server);
    assert!(from_start >= 1 && read >= events - 1, "without its snapshot all is read: {from_start}, {read}");
    left_memory(&server);
    saved(&server);
    assert_right(&server, "alice", "bob");
    let (from_snapshot, from_start, _) = loads(&server);
    assert!(from_snapshot > 0 && from_start >= 1, "there is a new one: {from_snapshot}, {from_start}");
}

#[test]
fn the_snapshots_of_another_log_are_not_believed() {
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (data, owner) in [(theirs.path(), "alice"), (ours.path(), "bob")] {
        let server = start(data);
        server.open_room("lobby", owner);
        let mut client = server.client(owner, &json!([]));
        for _ in 0..100 {
            assert_eq!(client.ask("lobby", "post_message", &json!({"text": "hi"}))["type"], "ack");
        }
        left_memory(&server);
        saved(&server);
        assert_eq!(server.terminate(), Some(0));
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(ours.path().join(format!("{SNAPSHOTS}{suffix}")));
        let theirs = theirs.path().join(format!("{SNAPSHOTS}{suffix}"));
        if theirs.exists() {
            std::fs::copy(theirs, ours.path().join(format!("{SNAPSHOTS}{suffix}"))).unwrap();
        }
    }
    let server = start(ours.path());
    assert_right(&server, "bob", "alice");
    let (_, from_start, read) = loads(&server);
    assert!(from_start >= 1 && read >= 102, "{from_start}, {read}");
}

/// An operator may put an older copy of the log back; its epoch says nothing of that.
#[test]
fn a_snapshot_of_events_that_the_log_lost_is_not_believed() {
    let data = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let server = start(data.path());
    server.open_room("lobby", "alice");
    post(&server, 60);
    assert_eq!(server.terminate(), Some(0));
    let log = data.path().join("log");
    for file in std::fs::read_dir(&log).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }

    let server = start(data.path());
    let mut bob = server.client("bob", &json!([]));
    assert_eq!(bob.ask("lobby", "join", &json!({}))["type"], "ack");
    post(&server, 100);
    left_memory(&server);
    saved(&server);
    assert_eq!(server.terminate(), Some(0));

    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(copy.path(), &log).unwrap();
    std::fs::remove_file(data.path().join("read-models.sqlite")).unwrap();
    let server = start(data.path());
    assert_eq!(assert_right(&server, "alice", "bob"), OPENING_EVENTS + 60);
    let (_, from_start, read) = loads(&server);
    assert!(from_start >= 1 && read >= OPENING_EVENTS + 60, "{from_start}, {read}");
}

#[test]
fn in_a_new_epoch_rooms_are_read_anew() {
    let data = tempfile::tempdir().unwrap();
    let relaxed = || {
        let environment =
            [("DRAMATIS__LOG__DURABILITY", "interval"), ("DRAMATIS__ENTITY__IDLE_TIMEOUT_MS", "1000")];
        Server::start_with(data.path(), &[], &environment)
    };
    let server = relaxed();
    server.open_room("lobby", "alice");
    post(&server, 100);
    left_memory(&server);
    saved(&server);
    server.kill();
    let server = relaxed();
    let events = assert_right(&server, "alice", "bob");
    let (_, from_start, read) = loads(&server);
    assert!(from_start >= 1 && read >= events, "the log's answers may be lost with it: {from_start}, {read}");
}
