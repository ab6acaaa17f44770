//! The relaxed durability says what it is, loses nothing at a clean end, and after any other end
//! begins a new epoch: clients start over and read models are built anew.
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

use serde_json::{Value, json};
use support::imports::caught_up;
use support::{PATIENCE, Server};

const RELAXED: [(&str, &str); 2] =
    [("DRAMATIS__LOG__DURABILITY", "interval"), ("DRAMATIS__LOG__SYNC_INTERVAL_MS", "60000")];

fn start(data: &Path, environment: &[(&str, &str)]) -> Server {
    Server::start_with(data, &[], environment)
}

/// What the server answers to a client that followed the room in an earlier epoch.
fn subscribed(server: &Server, epoch: Option<&Value>) -> Value {
    let mut client = server.client("nobody", &json!([]));
    client.send(&json!({"type": "subscribe", "id": "s", "room": "lobby", "after": 1, "epoch": epoch}));
    client.receive_type("subscribed")
}

fn builds(server: &Server) -> Vec<Value> {
    caught_up(server).iter().map(|standing| standing["build"].clone()).collect()
}

fn metric(server: &Server, name: &str) -> String {
    let text = server.get("/metrics").1;
    let line = text.lines().find(|line| line.starts_with(&format!("dramatis_{name} "))).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn an_unclean_end_begins_a_new_epoch_and_a_clean_one_does_not() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &RELAXED);
    let health = server.get_json("/api/health");
    assert_eq!(health["status"], "degraded");
    assert!(health["reasons"][0].as_str().unwrap().contains("interval"), "{health}");
    assert_eq!(metric(&server, "log_relaxed"), "1");
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    for text in ["one", "two", "three"] {
        assert_eq!(alice.ask("lobby", "post_message", &json!({"text": text}))["type"], "ack");
    }
    let (events, first_builds) = (server.events(&["--room", "lobby"]), builds(&server));
    let epoch = subscribed(&server, None)["epoch"].clone();
    drop(alice);
    assert_eq!(server.terminate(), Some(0));

    let server = start(data.path(), &RELAXED);
    assert_eq!(server.events(&["--room", "lobby"]), events, "a clean end syncs what was answered");
    let answer = subscribed(&server, Some(&epoch));
    assert_eq!((&answer["how"], &answer["epoch"]), (&json!("events"), &epoch));
    assert_eq!(builds(&server), first_builds);
    server.kill();

    // Whatever mode comes next: what was acknowledged before the kill may have been lost.
    let server = start(data.path(), &[]);
    assert_eq!((metric(&server, "log_relaxed"), metric(&server, "log_poisoned")), ("0".into(), "0".into()));
    assert_eq!(server.events(&["--room", "lobby"]), events, "the page cache outlives a process");
    let answer = subscribed(&server, Some(&epoch));
    assert_eq!(answer["how"], "reset");
    assert_ne!(answer["epoch"], epoch);
    // The builds of the other history answer until those of this one stand.
    let started = Instant::now();
    while builds(&server).iter().any(|build| first_builds.contains(build)) {
        assert!(started.elapsed() < PATIENCE, "{:?} among {first_builds:?}", builds(&server));
    }
    assert_eq!(server.get_json("/api/health"), json!({"status": "ok"}));
    server.kill();

    let server = start(data.path(), &[]);
    assert_eq!(subscribed(&server, Some(&answer["epoch"]))["how"], "events", "once settled, it stays");
}
