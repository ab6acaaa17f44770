//! Clients that go without a word: the server lets go of them although it has nothing to say to them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use serde_json::json;
use support::Server;
use support::http::{Answer, Events, Request};

const CONNECTIONS_MAX: usize = 8;

fn get(server: &Server, path: &str) -> Answer {
    Request { method: "GET", path, headers: &[], body: "" }.send(server.address).unwrap()
}

#[test]
fn a_follower_of_a_quiet_room_who_has_gone_takes_no_place() {
    let data = tempfile::tempdir().unwrap();
    let most = CONNECTIONS_MAX.to_string();
    let environment = [("DRAMATIS__SERVER__CONNECTIONS_MAX", &*most), ("DRAMATIS__SERVER__WORKERS", "1")];
    let server = Server::start_with(data.path(), &[], &environment);
    server.open_room("quiet", "alice");
    for path in ["/api/events?follow=true&room=quiet&from=1", "/api/events?follow=true&name=RoomClosed"] {
        for _ in 0..2 * CONNECTIONS_MAX {
            assert_eq!(get(&server, path).status, 200);
        }
        assert_eq!(get(&server, "/api/health").status, 200, "{path}");
    }
}

#[test]
fn a_stream_that_was_closed_is_seen_to_leave_a_quiet_room() {
    let data = tempfile::tempdir().unwrap();
    let environment =
        [("DRAMATIS__SOCKET__PRESENCE__GRACE_MS", "100"), ("DRAMATIS__SOCKET__HEARTBEAT_MS", "600000")];
    let server = Server::start_with(data.path(), &[], &environment);
    server.open_room("den", "alice");
    let mut alice = server.client("alice", &json!([{"room": "den"}]));
    alice.hears_presence = true;
    let hello =
        json!({"type": "hello", "user": "sue", "session": "s", "rooms": [{"room": "den"}]}).to_string();
    let headers = [("Content-Type", "application/json")];
    let request = Request { method: "POST", path: "/api/stream", headers: &headers, body: &hello };
    let mut events = Events::new(request.send(server.address).unwrap());
    events.next().unwrap().expect("a first event");
    let mut hears = |what: &str, listed: &str| loop {
        let presence = alice.receive_type("presence");
        if presence.to_string().contains(what) && presence.to_string().contains(listed) {
            return;
        }
    };
    hears("sue", "");
    drop(events);
    hears("sue", "left");
}
