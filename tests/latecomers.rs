//! Latecomers: a room's state in place of its history, and one hello for very many rooms.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::{Client, Server};

fn subscribe(client: &mut Client, catch_up: &str, after: Option<u64>) -> Value {
    client.send(
        &json!({"type": "subscribe", "id": "s", "room": "lobby", "after": after, "catch_up": catch_up}),
    );
    client.answer("s")
}

fn post(alice: &mut Client, count: usize) {
    let ids: Vec<String> =
        (0..count).map(|n| alice.command("lobby", "post_message", &json!({"text": n.to_string()}))).collect();
    for id in ids {
        assert_eq!(alice.answer(&id)["type"], "ack");
    }
}

#[test]
fn state_and_last_events_come_in_place_of_history() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    post(&mut alice, 300);
    let mut bob = server.client("bob", &json!([]));
    let entry = subscribe(&mut bob, "state", None);
    assert_eq!((&entry["how"], &entry["head"]), (&json!("state"), &json!(301)));
    let shown = bob.receive();
    assert_eq!((&shown["type"], &shown["revision"]), (&json!("room_state"), &json!(301)), "{shown}");
    let state = json!({"title": "lobby", "owner": "alice", "visibility": "open", "is_open": true,
        "member_count": 1, "members": [{"member": "alice", "display_name": "alice"}]});
    assert_eq!(shown["state"], state);
    let revisions: Vec<u64> =
        shown["events"].as_array().unwrap().iter().map(|event| event["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, (252..=301).collect::<Vec<_>>());
    assert_eq!(bob.receive(), json!({"type": "live", "room": "lobby", "revision": 301}));
    post(&mut alice, 1);
    assert_eq!(bob.receive_type("event")["revision"], 302);

    assert_eq!(subscribe(&mut bob, "state", Some(290))["how"], "events", "few are missing");
    assert_eq!(bob.receive()["revision"], 291);
    assert_eq!(subscribe(&mut bob, "state", Some(20))["how"], "state");
    assert_eq!(bob.receive_type("room_state")["revision"], 302);
    bob.send(&json!({"type": "subscribe", "id": "s", "room": "lobby", "after": 20, "catch_up": "state",
        "epoch": "00000000deadbeef.1"}));
    assert_eq!(bob.answer("s")["how"], "state");
    assert_eq!(bob.receive_type("room_state")["revision"], 302);
}

#[test]
fn what_happens_meanwhile_is_in_the_state_or_follows_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    post(&mut alice, 60);
    let busy = AtomicBool::new(true);
    let rounds = 60;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while busy.load(Ordering::Relaxed) {
                post(&mut alice, 7);
            }
        });
        for round in 0..rounds {
            let mut bob =
                server.client(&format!("bob-{round}"), &json!([{"room": "lobby", "catch_up": "state"}]));
            let shown = bob.receive_type("room_state");
            let at = shown["revision"].as_u64().unwrap();
            let last = shown["events"].as_array().unwrap().last().unwrap();
            assert_eq!(last["revision"], at, "the events end where the state stands");
            let mut next = at + 1;
            let mut live = false;
            while !live || next < at + 10 {
                let message = bob.receive();
                if message["type"] == "event" {
                    assert_eq!(message["revision"], next, "in round {round}");
                    next += 1;
                } else if message["type"] == "live" {
                    assert_eq!(message["revision"], next - 1);
                    live = true;
                }
            }
        }
        busy.store(false, Ordering::Relaxed);
    });
    println!("{rounds} latecomers while others spoke, none missed or doubled an event");
}

#[test]
fn one_hello_takes_a_thousand_rooms() {
    const ROOMS: usize = 1_000;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut alice = server.client("alice", &json!([]));
    let name = |number: usize| format!("room-{number}");
    for number in 0..=ROOMS {
        alice.command(&name(number), "open_room", &json!({"title": "T"}));
    }
    for _ in 0..=ROOMS {
        alice.receive_type("ack");
    }
    // A restart: no entity is in memory.
    server.kill();
    let server = Server::start(data.path());
    let rooms: Vec<Value> = (0..=ROOMS).map(|number| json!({"room": name(number), "after": 0})).collect();
    let mut bob = Client::connect(server.address);
    let ready = bob.hello("bob", "tab", &json!(rooms));
    let entries = ready["rooms"].as_array().unwrap();
    assert_eq!(entries.len(), ROOMS + 1);
    for (number, entry) in entries.iter().take(ROOMS).enumerate() {
        assert_eq!((&entry["room"], &entry["head"]), (&json!(name(number)), &json!(1)), "{entry}");
    }
    assert_eq!(entries[ROOMS]["code"], "rate_limited", "one more than a session may follow");
    let mut live = 0;
    let mut events = 0;
    while live < ROOMS {
        match bob.receive()["type"].as_str().unwrap() {
            "live" => live += 1,
            "event" => events += 1,
            _ => {}
        }
    }
    assert_eq!(events, ROOMS);
}
