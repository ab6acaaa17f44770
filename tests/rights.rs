//! Who may read a room, and how they are told that they no longer may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use serde_json::{Value, json};
use support::{Client, Server};
use tempfile::TempDir;

/// A server of several threads with a room of alice and bob, which waits for who reads slowly for longer
/// than a test takes.
fn start() -> (TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let environment = [
        ("DRAMATIS__SERVER__WORKERS", "3"),
        ("DRAMATIS__SOCKET__WRITE_TIMEOUT_MS", "600000"),
        ("DRAMATIS__SOCKET__HEARTBEAT_MS", "600000"),
    ];
    let server = Server::start_with(data.path(), &[], &environment);
    server.open_room("lobby", "alice");
    let alice = server.client("alice", &json!([]));
    let mut bob = server.client("bob", &json!([]));
    assert_eq!(bob.ask("lobby", "join", &json!({}))["type"], "ack");
    (data, server, alice)
}

fn follow(server: &Server, user: &str, session: &str) -> Client {
    let mut client = Client::connect(server.address);
    client.hello(user, session, &json!([{"room": "lobby"}]));
    client.receive_type("live");
    client
}

fn subscribe(client: &mut Client, after: Option<u64>) -> Value {
    client.send(&json!({"type": "subscribe", "id": "s", "room": "lobby", "after": after}));
    client.answer("s")
}

/// The messages about the room up to its `closed`, as event names and the code.
fn until_closed(client: &mut Client) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let message = client.receive();
        match message["type"].as_str().unwrap() {
            "event" => told.push(message["name"].as_str().unwrap().to_owned()),
            "closed" => {
                assert_eq!(message["room"], "lobby");
                told.push(message["code"].as_str().unwrap().to_owned());
                return told;
            }
            _ => {}
        }
    }
}

/// That nothing of the room comes before the answer to a message that asks for nothing.
fn assert_quiet(client: &mut Client) {
    client.send(&json!({"type": "unsubscribe", "id": "quiet", "room": "nowhere"}));
    loop {
        let message = client.receive();
        assert!(message["type"] != "event", "{message}");
        if message["id"] == "quiet" {
            return;
        }
    }
}

#[test]
fn a_removed_member_hears_of_it_on_every_device_and_then_nothing() {
    let (_data, server, mut alice) = start();
    let mut devices: Vec<Client> =
        (0..6).map(|number| follow(&server, "bob", &format!("device-{number}"))).collect();
    let mut carol = follow(&server, "carol", "tab");
    alice.ask("lobby", "post_message", &json!({"text": "before"}));
    alice.ask("lobby", "remove_member", &json!({"member": "bob", "reason": "rude"}));
    alice.ask("lobby", "post_message", &json!({"text": "after"}));
    for name in ["MessagePosted", "MemberRemoved", "MessagePosted"] {
        assert_eq!(carol.receive_type("event")["name"], name, "an onlooker reads on");
    }
    for device in &mut devices {
        assert_eq!(until_closed(device), ["MessagePosted", "MemberRemoved", "removed"]);
        assert_quiet(device);
    }
    let bob = &mut devices[0];
    assert_eq!(subscribe(bob, None)["code"], "forbidden");
    bob.send(&json!({"type": "history", "id": "h", "room": "lobby"}));
    assert_eq!(bob.answer("h")["code"], "forbidden");
    let ready = Client::connect(server.address).hello("bob", "new", &json!([{"room": "lobby", "after": 3}]));
    let entry = &ready["rooms"][0];
    assert_eq!(
        (&entry["how"], &entry["code"], &entry["head"]),
        (&json!("denied"), &json!("forbidden"), &Value::Null)
    );

    assert_eq!(bob.ask("lobby", "join", &json!({}))["type"], "ack");
    assert_eq!(subscribe(bob, Some(2))["how"], "events");
    let names: Vec<Value> = (0..4).map(|_| bob.receive_type("event")["name"].clone()).collect();
    let past = ["MessagePosted", "MemberRemoved", "MessagePosted", "MemberJoined"];
    assert_eq!(names, past, "what was is read past a removal that no longer holds");
    alice.ask("lobby", "post_message", &json!({"text": "welcome"}));
    assert_eq!(bob.receive_type("event")["data"]["text"], "welcome");
}

#[test]
fn only_members_read_a_room_of_the_invited() {
    let (_data, server, mut alice) = start();
    let (mut bob, mut carol) = (follow(&server, "bob", "tab"), follow(&server, "carol", "tab"));
    alice.ask("lobby", "set_visibility", &json!({"visibility": "invited"}));
    alice.ask("lobby", "post_message", &json!({"text": "among us"}));
    assert_eq!(until_closed(&mut carol), ["RoomVisibilitySet", "not_a_member"]);
    assert_quiet(&mut carol);
    assert_eq!(subscribe(&mut carol, None)["code"], "not_a_member");
    assert_eq!(carol.ask("lobby", "join", &json!({}))["code"], "forbidden");
    assert_eq!(bob.receive_type("event")["name"], "RoomVisibilitySet");
    assert_eq!(bob.receive_type("event")["data"]["text"], "among us");
    bob.ask("lobby", "leave", &json!({}));
    let mut bob = follow_denied(&server);
    assert_eq!(subscribe(&mut bob, None)["code"], "not_a_member");
    alice.ask("lobby", "set_visibility", &json!({"visibility": "open"}));
    assert_eq!(subscribe(&mut carol, None)["how"], "events");
}

fn follow_denied(server: &Server) -> Client {
    let mut client = Client::connect(server.address);
    let ready = client.hello("bob", "another", &json!([{"room": "lobby"}]));
    assert_eq!(ready["rooms"][0]["code"], "not_a_member", "{ready}");
    client
}

#[test]
fn who_reads_slowly_hears_of_the_removal_in_its_place() {
    let (_data, server, mut alice) = start();
    let mut bob = follow(&server, "bob", "tab");
    // More than an outbox and the sockets between hold: the rest is read from the log later.
    let text = "x".repeat(7_900);
    let posts = 1_500;
    let ids: Vec<String> =
        (0..posts).map(|_| alice.command("lobby", "post_message", &json!({"text": text}))).collect();
    let removal = alice.command("lobby", "remove_member", &json!({"member": "bob"}));
    let last = alice.command("lobby", "post_message", &json!({"text": "after"}));
    for id in ids.iter().chain([&removal, &last]) {
        assert_eq!(alice.answer(id)["type"], "ack");
    }
    let told = until_closed(&mut bob);
    assert_eq!(told.len(), posts + 2);
    assert_eq!(told[posts..], ["MemberRemoved", "removed"]);
    assert_quiet(&mut bob);
}

#[test]
fn who_may_not_read_a_room_is_not_told_where_it_stands_or_whose_it_is() {
    let (_data, server, mut alice) = start();
    let mut bob = server.client("bob", &json!([]));
    let mut carol = server.client("carol", &json!([]));
    let ask = |client: &mut Client, id: &str, name: &str, data: Value| {
        client.send(
            &json!({"type": "command", "id": id, "room": "lobby", "name": name, "data": data, "expected": 0}),
        );
        client.answer(id)
    };
    assert_eq!(carol.ask("lobby", "close_room", &json!({}))["code"], "forbidden", "all may read it");
    alice.ask("lobby", "set_visibility", &json!({"visibility": "invited"}));
    for (id, name, data, code) in [
        ("1", "post_message", json!({"text": "how many are there?"}), "not_a_member"),
        ("2", "close_room", json!({}), "not_a_member"),
        ("3", "set_visibility", json!({"visibility": "open"}), "not_a_member"),
        ("4", "remove_member", json!({"member": "bob"}), "not_a_member"),
        ("5", "join", json!({}), "forbidden"),
        ("6", "decline_invitation", json!({}), "not_found"),
        ("7", "open_room", json!({"title": "mine"}), "rule"),
    ] {
        let refused = ask(&mut carol, id, name, data);
        let text = refused.to_string();
        assert!(refused["code"] == code && !text.contains("alice") && !text.contains("at 3"), "{refused}");
    }
    let refused = ask(&mut bob, "8", "post_message", json!({"text": "am I the first?"}));
    assert!(
        refused["code"] == "conflict" && refused["message"].as_str().unwrap().contains("at 3"),
        "{refused}"
    );
    let refused = ask(&mut bob, "9", "close_room", json!({}));
    assert!(
        refused["code"] == "forbidden" && refused["message"].as_str().unwrap().contains("alice"),
        "{refused}"
    );
    assert_eq!(ask(&mut alice, "10", "close_room", json!({}))["code"], "conflict");
}
