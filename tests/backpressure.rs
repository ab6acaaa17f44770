//! Clients that do not read: what is held for them is bounded, each and all together, those who
//! read are not kept waiting, and nobody loses an event.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "support/raw.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of it is used")]
mod raw;
mod support;

use std::io::Write as _;
use std::net::Shutdown;
use std::time::Instant;

use raw::{Raw, TEXT, put_frame};
use serde_json::json;
use support::{Client, PATIENCE, Server};
use tempfile::TempDir;

/// Clients that do not read for a while.
const STUCK: usize = 12;
/// Messages posted meanwhile, of about 8 kB each: more than the kernel takes for a connection.
const MESSAGES: u64 = 120;
/// What may wait for one client, in bytes.
const OUTBOX_BYTES: u64 = 262_144;
/// The smallest budget of all outboxes, in bytes.
const BUDGET: u64 = 1_048_576;

fn start(settings: &[(&str, &str)]) -> (TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let always = [("DRAMATIS__SERVER__WORKERS", "2"), ("DRAMATIS__SOCKET__SEND_BUFFER_BYTES", "16384")];
    let server = Server::start_with(data.path(), &[], &[&always[..], settings].concat());
    server.open_room("lobby", "alice");
    let alice = server.client("alice", &json!([]));
    (data, server, alice)
}

fn enter(server: &Server, user: &str) -> Client {
    let mut client = server.client(user, &json!([{"room": "lobby"}]));
    client.receive_type("live");
    client
}

fn post(alice: &mut Client) {
    let answer = alice.ask("lobby", "post_message", &json!({"text": "long words ".repeat(720)}));
    assert_eq!(answer["type"], "ack", "{answer}");
}

/// Reads up to this revision and says which ephemerals came in between.
fn read_all(client: &mut Client, last: u64) -> Vec<u64> {
    let (mut next, mut carets) = (2, Vec::new());
    while next <= last {
        let message = client.receive();
        match message["type"].as_str() {
            Some("event") => {
                assert_eq!(message["revision"], next);
                next += 1;
            }
            Some("ephemeral") => carets.push(message["data"].as_u64().unwrap()),
            _ => {}
        }
    }
    carets
}

#[test]
fn many_that_do_not_read_hold_no_more_than_the_budget_and_lose_nothing() {
    let budget = BUDGET.to_string();
    let (_data, server, mut alice) = start(&[("DRAMATIS__SOCKET__OUTBOXES_BYTES_MAX", &budget)]);
    let mut stuck: Vec<_> = (0..STUCK).map(|number| enter(&server, &format!("stuck-{number}"))).collect();
    let mut reader = enter(&server, "reader");
    let mut most = 0;
    for revision in 2..2 + MESSAGES {
        post(&mut alice);
        // The one who reads has each event before the next one is posted.
        assert_eq!(reader.receive_type("event")["revision"], revision);
        most = most.max(server.metric("dramatis_outbox_bytes"));
    }
    let last = 1 + MESSAGES;
    println!("{STUCK} clients that did not read held {most} bytes at the most, of {BUDGET}");
    assert!(most > BUDGET / 2, "{most}: the budget was not used up");
    // What was pushed in the moment before, and the thread's own sums.
    assert!(most < BUDGET + BUDGET / 4, "{most}");
    assert!(server.metric("dramatis_fell_behind_total") >= 1);
    for client in &mut stuck {
        read_all(client, last);
    }
}

#[test]
fn ephemerals_collapse_for_a_client_that_does_not_read_and_events_do_not() {
    const CARETS: u64 = 5_000;
    let (_data, server, mut alice) = start(&[
        ("DRAMATIS__SOCKET__EPHEMERAL__PER_SECOND_MAX", "10000"),
        ("DRAMATIS__SOCKET__EPHEMERAL__BURST_MAX", "10000"),
    ]);
    let mut stuck = enter(&server, "stuck");
    // Of a member, as who is heard has to be.
    let mut typist = Client::connect(server.address);
    typist.hello("alice", "another", &json!([{"room": "lobby"}]));
    typist.receive_type("live");
    for _ in 0..MESSAGES {
        post(&mut alice);
    }
    for caret in 0..CARETS {
        typist.send(&json!({"type": "ephemeral", "room": "lobby", "name": "caret", "data": caret}));
    }
    // Behind them: what is read from now on is what waited.
    post(&mut typist);
    let mut carets = read_all(&mut stuck, 2 + MESSAGES);
    // Behind all events, the newest.
    while carets.last() != Some(&(CARETS - 1)) {
        carets.push(stuck.receive_type("ephemeral")["data"].as_u64().unwrap());
    }
    println!("{} of {CARETS} carets reached a client that did not read", carets.len());
    let held = server.metric("dramatis_outbox_bytes_most");
    assert!((OUTBOX_BYTES / 2..=OUTBOX_BYTES).contains(&held), "{held} bytes held for one client");
    assert!(carets.is_sorted() && carets.len() < 100, "{carets:?}");
}

#[test]
fn a_room_that_a_client_never_catches_up_on_keeps_no_other_from_it() {
    let (_data, server, mut alice) = start(&[]);
    server.open_room("quiet", "alice");
    let mut slow = server.client("slow", &json!([{"room": "lobby"}, {"room": "quiet"}]));
    for _ in 0..2 {
        slow.receive_type("live");
    }
    for _ in 0..MESSAGES {
        post(&mut alice);
    }
    let said = alice.ask("quiet", "post_message", &json!({"text": "ö".repeat(7_900)}));
    assert_eq!(said["type"], "ack");
    // For each event that it takes there is one more: so it stays as far behind in the lobby.
    let mut taken = 0;
    while slow.receive_type("event")["room"] == "lobby" {
        post(&mut alice);
        taken += 1;
        assert!(taken < 3 * MESSAGES, "{taken} events of the lobby, and none of the other room");
    }
}

/// Who asks for more answers than may wait is not read from; what was asked for already has its place.
#[test]
fn answers_that_nobody_reads_stay_within_what_may_wait() {
    const COMMANDS: usize = 8_000;
    let (_data, server, mut alice) = start(&[("DRAMATIS__SERVER__WORKERS", "1")]);
    let room = "r".repeat(120);
    server.open_room(&room, "alice");
    let mut flood = Vec::new();
    for number in 0..COMMANDS {
        let id = format!("{number:0>128}");
        let wish = json!({"type": "command", "id": id, "room": room, "name": "leave", "data": {}});
        put_frame(&mut flood, TEXT, wish.to_string().as_bytes());
    }
    let hello = json!({"type": "hello", "user": "mallory", "session": "s", "rooms": []}).to_string();
    let mut early = Vec::new();
    put_frame(&mut early, TEXT, hello.as_bytes());
    let mallory = Raw::connect(server.address, &early);
    // It ends when the connection does: the server reads no further.
    let flooding = std::thread::spawn({
        let mut writer = mallory.writer();
        move || writer.write_all(&flood).is_ok()
    });
    let started = Instant::now();
    while server.metric("dramatis_outbox_bytes") < OUTBOX_BYTES / 2 {
        assert!(started.elapsed() < PATIENCE, "its answers do not wait");
        post(&mut alice);
    }
    for _ in 0..50 {
        post(&mut alice);
    }
    let most = server.metric("dramatis_outbox_bytes_most");
    println!("{most} bytes of answers waited at the most, of {OUTBOX_BYTES}");
    assert!(most <= OUTBOX_BYTES, "{most}");
    mallory.writer().shutdown(Shutdown::Both).unwrap();
    let _ = flooding.join().unwrap();
}
