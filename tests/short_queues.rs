//! Entities that let few requests wait: what does not fit comes later, and nothing stops for good.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::{Client, Server};

const ROOMS: usize = 6;

fn start(data: &Path, pending_max: usize) -> Server {
    let max = pending_max.to_string();
    Server::start_with(data, &[], &[("DRAMATIS__ENTITY__PENDING_COMMANDS_MAX", &max)])
}

fn rooms() -> Vec<String> {
    (0..ROOMS).map(|number| format!("room-{number}")).collect()
}

fn acked(client: &mut Client, room: &str, name: &str, data: &Value) {
    let answer = client.ask(room, name, data);
    assert_eq!(answer["type"], "ack", "{answer}");
}

/// Waits until this one has as many invitations.
fn assert_invited(server: &Server, user: &str, count: usize) {
    let mut client = Client::connect(server.address);
    client.hello(user, "invited", &json!([{"room": "me"}]));
    let mut invited = BTreeSet::new();
    while invited.len() < count {
        let event = client.receive_type("event");
        if event["name"] == "InvitationReceived" {
            invited.insert(event["data"]["room"].to_string());
        }
    }
}

#[test]
fn a_frame_of_more_commands_than_may_wait_gets_through_by_and_by() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), 2);
    server.open_room("den", "alice");
    let mut alice = server.client("alice", &json!([]));
    let mut left: BTreeSet<String> = (0..20).map(|number| format!("post-{number}")).collect();
    while !left.is_empty() {
        let post = |id: &String| {
            json!({"type": "command", "id": id, "room": "den", "name": "post_message", "data": {"text": id}})
                .to_string()
        };
        alice.send_text(&left.iter().map(post).collect::<Vec<_>>().join("\n"));
        let asked = left.len();
        for _ in 0..asked {
            let answer = alice.receive();
            if answer["type"] == "ack" {
                left.remove(answer["id"].as_str().unwrap());
            } else {
                assert_eq!((&answer["code"], &answer["retry"]), (&json!("unavailable"), &json!(true)));
            }
        }
        assert!(left.len() < asked, "of {asked} none was taken");
    }
}

#[test]
fn notices_and_read_markers_are_recorded_however_many_there_are_at_once() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), 64);
    let mut alice = server.client("alice", &json!([]));
    for room in rooms() {
        acked(&mut alice, &room, "open_room", &json!({"title": room}));
        acked(&mut alice, &room, "invite_member", &json!({"member": "bob"}));
    }
    server.terminate();
    // It tells them all again, in one go.
    std::fs::remove_file(data.path().join("reactors/invitations.json")).unwrap();
    let server = start(data.path(), 2);
    let mut alice = server.client("alice", &json!([]));
    acked(&mut alice, "room-0", "invite_member", &json!({"member": "carl"}));
    assert_invited(&server, "carl", 1);
    assert_invited(&server, "bob", ROOMS);

    let after: Vec<_> = rooms().into_iter().map(|room| json!({"room": room, "after": 0})).collect();
    let mut reader = server.client("alice", &json!(after));
    for room in rooms() {
        reader.receive_type("live");
        reader.send(&json!({"type": "seen", "room": room, "revision": 0}));
    }
    // What comes behind them has an answer.
    acked(&mut reader, "room-0", "post_message", &json!({"text": "read"}));
    server.terminate();
    let server = start(data.path(), 64);
    let ready = Client::connect(server.address).hello("alice", "again", &json!(after));
    let seen: Vec<_> = ready["rooms"].as_array().unwrap().iter().map(|room| room["seen"].clone()).collect();
    assert_eq!(seen, vec![json!(0); ROOMS], "{ready}");
}

#[test]
fn a_state_that_was_promised_comes_although_much_waits() {
    const FOLLOWED: usize = 100;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), 4);
    server.open_room("den", "alice");
    let mut alice = server.client("alice", &json!([]));
    for number in 0..120 {
        acked(&mut alice, "den", "post_message", &json!({"text": number.to_string()}));
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut busy = Client::connect(server.address);
                busy.hello("alice", &format!("busy-{number}"), &json!([]));
                while !done.load(Ordering::Relaxed) {
                    busy.ask("den", "post_message", &json!({"text": "busy"}));
                }
            });
        }
        let mut bob = server.client("bob", &json!([]));
        let mut states = 0;
        while states < FOLLOWED {
            bob.send(&json!({"type": "subscribe", "id": "follow", "room": "den", "catch_up": "state"}));
            let answer = bob.answer("follow");
            if answer["type"] == "reject" {
                continue;
            }
            assert_eq!(answer["how"], "state", "{answer}");
            let next = bob.receive();
            if next["type"] != "room_state" {
                done.store(true, Ordering::Relaxed);
            }
            assert_eq!(next["type"], "room_state", "after {states} states: {next}");
            states += 1;
            bob.send(&json!({"type": "unsubscribe", "id": "leave", "room": "den"}));
            bob.answer("leave");
        }
        done.store(true, Ordering::Relaxed);
    });
}
