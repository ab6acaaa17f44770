//! What those in a room see of each other besides events: ephemerals and presence, over real
//! sockets on several worker threads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Client, Server};
use tempfile::TempDir;

/// Connections of one test; over four worker threads some share one and some do not.
const MANY: usize = 24;

fn start(settings: &[(&str, &str)]) -> (TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let environment = [&[("DRAMATIS__SERVER__WORKERS", "4")], settings].concat();
    let server = Server::start_with(data.path(), &[], &environment);
    for room in ["lobby", "den"] {
        server.open_room(room, "alice");
    }
    (data, server)
}

/// A connection that follows the lobby and has heard that it is live.
fn enter(server: &Server, user: &str, session: &str) -> Client {
    let mut client = Client::connect(server.address);
    client.hears_presence = true;
    client.hello(user, session, &json!([{"room": "lobby"}]));
    client.receive_type("live");
    client
}

fn typing(client: &mut Client, data: &Value) {
    client.send(&json!({"type": "ephemeral", "room": "lobby", "name": "typing", "data": data}));
}

fn say(client: &mut Client, text: &str) {
    let answer = client.ask("lobby", "post_message", &json!({"text": text}));
    assert_eq!(answer["type"], "ack", "{answer}");
}

#[test]
fn an_ephemeral_reaches_all_others_on_every_thread_and_is_not_recorded() {
    let (_data, server) = start(&[]);
    let mut clients: Vec<_> =
        (0..MANY).map(|number| enter(&server, &format!("user-{number}"), "tab")).collect();
    let mut elsewhere = server.client("carol", &json!([{"room": "den"}]));
    // Notes of sessions may come at any time.
    let recorded = || server.events(&["--category", "room"]).len();
    let events = recorded();
    typing(&mut clients[0], &json!({"on": true}));
    for client in &mut clients[1..] {
        let heard = client.receive_type("ephemeral");
        let want = json!({"type": "ephemeral", "room": "lobby", "name": "typing", "by": "user-0", "data": {"on": true}});
        assert_eq!(heard, want);
    }
    assert_eq!(recorded(), events);
    // Its sender and those elsewhere hear nothing of it, up to their next answer.
    for (client, room) in [(&mut clients[0], "lobby"), (&mut elsewhere, "den")] {
        let id = client.command(room, "join", &json!({}));
        loop {
            let message = client.receive();
            assert_ne!(message["type"], "ephemeral");
            if message["id"] == id.as_str() {
                break;
            }
        }
    }
}

#[test]
fn what_cannot_be_right_is_refused_and_what_is_too_fast_is_dropped() {
    let (_data, server) = start(&[
        ("DRAMATIS__SOCKET__EPHEMERAL__DATA_BYTES_MAX", "64"),
        ("DRAMATIS__SOCKET__EPHEMERAL__BURST_MAX", "5"),
        ("DRAMATIS__SOCKET__EPHEMERAL__PER_SECOND_MAX", "1"),
    ]);
    let (mut alice, mut bob) = (enter(&server, "alice", "tab"), enter(&server, "bob", "tab"));
    typing(&mut alice, &json!("x".repeat(100)));
    let refused = alice.receive_type("reject");
    assert_eq!(refused["code"], "malformed");
    assert!(refused["message"].as_str().unwrap().contains("at most 64 bytes, got 102"), "{refused}");
    alice.send(&json!({"type": "ephemeral", "room": "den", "name": "typing"}));
    let refused = alice.receive_type("reject");
    assert_eq!(refused["code"], "forbidden");
    assert!(refused["message"].as_str().unwrap().contains("follow room den first"), "{refused}");
    for number in 0..200 {
        alice.send(&json!({"type": "ephemeral", "room": "lobby", "name": format!("n{number}")}));
    }
    say(&mut alice, "done");
    let metrics = server.get("/metrics").1;
    let limited: u64 = metric(&metrics, "dramatis_ephemerals_total{fate=\"limited\"}");
    assert!(limited >= 190, "{limited}");
    let heard = bob.receive_type("ephemeral");
    assert_eq!((&heard["name"], &heard["data"]), (&json!("n0"), &Value::Null));
}

fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The members of the lobby as a client is told of them.
#[derive(Default)]
struct Present(Option<BTreeSet<String>>, u64);

impl Present {
    fn hear(&mut self, client: &mut Client) {
        let message = client.receive_type("presence");
        let names = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
        if let Some(full) = message.get("full") {
            self.0 = Some(names(&full["members"]).into_iter().collect());
            self.1 = full["count"].as_u64().unwrap();
            return;
        }
        let members = self.0.as_mut().expect("the whole comes first");
        for name in names(&message["diff"]["joined"]) {
            assert!(members.insert(name), "joined twice: {message}");
        }
        for name in names(&message["diff"]["left"]) {
            assert!(members.remove(&name), "left without having been there: {message}");
        }
        self.1 = message["diff"]["count"].as_u64().unwrap();
    }

    /// Waits until it is told that these are present.
    fn until(&mut self, client: &mut Client, members: &[&str]) {
        let members: BTreeSet<_> = members.iter().map(ToString::to_string).collect();
        while self.0.as_ref() != Some(&members) {
            self.hear(client);
        }
        assert_eq!(self.1, u64::try_from(members.len()).unwrap());
    }
}

const FAST: [(&str, &str); 2] =
    [("DRAMATIS__SOCKET__PRESENCE__INTERVAL_MS", "10"), ("DRAMATIS__SOCKET__PRESENCE__GRACE_MS", "300")];

#[test]
fn presence_is_told_whole_and_then_by_what_changed() {
    let (_data, server) = start(&FAST);
    let mut alice = enter(&server, "alice", "tab");
    let mut seen = Present::default();
    seen.until(&mut alice, &["alice"]);
    // Three devices of bob are one presence.
    let mut devices: Vec<_> =
        (0..3).map(|number| enter(&server, "bob", &format!("device-{number}"))).collect();
    seen.until(&mut alice, &["alice", "bob"]);
    let mut of_bob = Present::default();
    of_bob.until(&mut devices[2], &["alice", "bob"]);
    devices.truncate(1);
    let _carol = enter(&server, "carol", "tab");
    seen.until(&mut alice, &["alice", "bob", "carol"]);
    // A program that looks on is not there.
    let _program = enter(&server, "integration:archive", "tab");
    // The last device says that it leaves: seen without any grace.
    devices[0].send(&json!({"type": "unsubscribe", "id": "u", "room": "lobby"}));
    seen.until(&mut alice, &["alice", "carol"]);
    devices[0].send(&json!({"type": "subscribe", "id": "s", "room": "lobby"}));
    seen.until(&mut alice, &["alice", "bob", "carol"]);
    // The connection is cut: seen after the grace.
    drop(devices);
    seen.until(&mut alice, &["alice", "carol"]);
}

#[test]
fn a_reload_is_not_seen() {
    let grace = [
        ("DRAMATIS__SOCKET__PRESENCE__INTERVAL_MS", "10"),
        ("DRAMATIS__SOCKET__PRESENCE__GRACE_MS", "600000"),
    ];
    let (_data, server) = start(&grace);
    let mut alice = enter(&server, "alice", "tab");
    let mut seen = Present::default();
    let mut bob = enter(&server, "bob", "tab");
    seen.until(&mut alice, &["alice", "bob"]);
    for _ in 0..5 {
        drop(bob);
        bob = enter(&server, "bob", "tab");
        Present::default().until(&mut bob, &["alice", "bob"]);
    }
    let _carol = enter(&server, "carol", "tab");
    // Nothing but carol's coming is told.
    seen.hear(&mut alice);
    seen.until(&mut alice, &["alice", "bob", "carol"]);
}

#[test]
fn a_room_with_more_than_are_listed_is_told_by_number() {
    let settings = [
        &FAST[..],
        &[
            ("DRAMATIS__SOCKET__PRESENCE__LARGE_INTERVAL_MS", "10"),
            ("DRAMATIS__SOCKET__PRESENCE__LISTED_MAX", "8"),
        ],
    ]
    .concat();
    let (_data, server) = start(&settings);
    let mut alice = enter(&server, "alice", "tab");
    let others: Vec<_> = (0..MANY).map(|number| enter(&server, &format!("user-{number}"), "tab")).collect();
    let (mut full, mut count) = (Value::Null, 0);
    while count != MANY + 1 {
        let message = alice.receive_type("presence");
        let told = message.get("full").or(message.get("diff")).unwrap();
        count = usize::try_from(told["count"].as_u64().unwrap()).unwrap();
        if message.get("full").is_some() {
            full = told.clone();
        } else if full["complete"] == false {
            assert_eq!((&told["joined"], &told["left"]), (&json!([]), &json!([])), "{message}");
        }
    }
    assert_eq!(
        (full["complete"].as_bool(), full["members"].as_array().unwrap().len()),
        (Some(false), 8),
        "{full}"
    );
    drop(others);
    let mut seen = Present::default();
    seen.until(&mut alice, &["alice"]);
}

#[test]
fn nobody_is_heard_in_a_room_that_is_closed() {
    let (_data, server) = start(&[]);
    let mut alice = enter(&server, "alice", "tab");
    let mut eve = enter(&server, "eve", "tab");
    typing(&mut eve, &json!({}));
    assert_eq!(alice.receive_type("ephemeral")["by"], "eve", "who follows it");
    let unheard = |server: &Server| server.metric("dramatis_ephemerals_total{fate=\"unheard\"}");
    let done = |client: &mut Client| {
        typing(client, &json!({}));
        // In the order in which they came.
        client.send(&json!({"type": "unsubscribe", "id": "done", "room": "nowhere"}));
        assert_eq!(client.answer("done")["type"], "unsubscribed", "nothing is said of it");
    };
    alice.command("lobby", "close_room", &json!({}));
    while eve.receive_type("event")["name"] != "RoomClosed" {}
    done(&mut eve);
    assert_eq!(unheard(&server), 1);
    // Nor is who comes later.
    done(&mut enter(&server, "eve", "tab-2"));
    assert_eq!(unheard(&server), 2);
}
