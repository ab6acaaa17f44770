//! Rooms where there are tokens: what a page of their list holds, who reads one, and what stays in memory of that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "support/guarded.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared as the support module is")]
mod guarded;
mod support;

use std::io::Write as _;
use std::net::TcpStream;

use guarded::{Guarded, mint, start};
use serde_json::{Value, json};
use support::http::{Answer, Request};
use support::{Client, PATIENCE};

/// More than are looked at for one page, and fewer than for two.
const OTHERS: usize = 1_050;

fn token(guarded: &Guarded, user: &str) -> String {
    mint(&guarded.key, &["--user", user, "--for", "1h"])
}

fn client(guarded: &Guarded, token: &str) -> Client {
    let mut client = guarded.hello(&json!({"type": "hello", "token": token, "session": "s", "rooms": []}));
    client.receive_type("ready");
    client
}

/// Opens rooms for those who are invited; the position of the last.
fn open(client: &mut Client, rooms: impl Iterator<Item = String>) -> String {
    let data = |room: &str| json!({"title": format!("The {room}"), "visibility": "invited"});
    let asked = rooms.map(|room| client.command(&room, "open_room", &data(&room))).count();
    let positions =
        (0..asked).map(|_| client.receive_type("ack")["position"].as_str().unwrap().parse::<u64>());
    positions.map(Result::unwrap).max().unwrap().to_string()
}

/// The rooms of a page, and where the next one begins.
fn page(guarded: &Guarded, token: &str, query: &str) -> (Vec<String>, Option<String>) {
    let (status, page) = guarded.request(&format!("GET /api/rooms?{query}"), token, "");
    assert_eq!(status, 200, "{page}");
    let rooms =
        page["rooms"].as_array().unwrap().iter().map(|room| room["room"].as_str().unwrap().to_owned());
    (rooms.collect(), page["next"].as_str().map(str::to_owned))
}

#[test]
fn a_page_is_filled_from_behind_rooms_of_others() {
    let guarded = start(&[]);
    let (alice, bob) = (token(&guarded, "alice"), token(&guarded, "bob"));
    let mut own = client(&guarded, &bob);
    for number in 0..3 {
        open(&mut own, std::iter::once(format!("of-bob-{number}")));
    }
    let mut others = client(&guarded, &alice);
    let position = open(&mut others, (0..150).map(|number| format!("of-alice-{number}")));
    let wait = format!("min_position={position}");
    let all = ["of-bob-2", "of-bob-1", "of-bob-0", "lobby"];
    assert_eq!(page(&guarded, &bob, &wait), (all.map(str::to_owned).to_vec(), None));
    for (order, limit, all) in [
        ("activity", 1, all),
        ("activity", 3, all),
        ("title", 2, ["of-bob-0", "of-bob-1", "of-bob-2", "lobby"]),
    ] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let (rooms, next) = page(&guarded, &bob, &format!("order={order}&limit={limit}{after}"));
            assert!(rooms.len() == limit || next.is_none(), "a page of {limit} is full: {rooms:?}");
            seen.extend(rooms);
            let Some(next) = next else { break };
            after = format!("&after={}", next.replace(' ', "%20"));
        }
        assert_eq!(seen, all, "{order}, {limit} at a time");
    }

    // Past so many the rest is left to the next page.
    let position = open(&mut others, (150..OTHERS).map(|number| format!("of-alice-{number}")));
    let (rooms, next) = page(&guarded, &bob, &format!("min_position={position}"));
    assert!(rooms.is_empty(), "{rooms:?}");
    let next = next.expect("there are more");
    assert!(!next.contains("alice"), "where it goes on says nothing of the rooms there: {next}");
    let (rooms, next) = page(&guarded, &bob, &format!("after={next}"));
    assert_eq!((rooms, next), (all.map(str::to_owned).to_vec(), None));
}

#[test]
fn a_room_that_never_was_is_not_looked_for_in_memory() {
    let guarded = start(&[]);
    let (alice, ops) = (token(&guarded, "alice"), token(&guarded, "integration:ops"));
    let in_memory = || {
        let (_, text) = guarded.request("GET /metrics", &ops, "");
        let text = text.as_str().unwrap().to_owned();
        text.lines().find(|line| line.starts_with("dramatis_entities ")).unwrap().to_owned()
    };
    let before = in_memory();
    for number in 0..20 {
        assert_eq!(guarded.request(&format!("GET /api/rooms/never-{number}"), &alice, "").0, 404);
    }
    assert_eq!(in_memory(), before);
}

#[test]
fn who_was_removed_reads_nothing_from_the_answer_on() {
    let guarded = start(&[]);
    let (alice, bob) = (token(&guarded, "alice"), token(&guarded, "bob"));
    let (mut owner, mut member) = (client(&guarded, &alice), client(&guarded, &bob));
    open(&mut owner, std::iter::once("den".to_owned()));
    for round in 0..3 {
        owner.ask("den", "invite_member", &json!({"member": "bob"}));
        let ack = member.ask("den", "join", &json!({}));
        let position = ack["position"].as_str().unwrap();
        let listed = page(&guarded, &bob, &format!("min_position={position}"));
        assert_eq!(listed.0.len(), 2, "{listed:?}");
        assert_eq!(guarded.request("GET /api/rooms/den/timeline", &bob, "").0, 200);
        assert_eq!(owner.ask("den", "remove_member", &json!({"member": "bob"}))["type"], "ack");
        for path in ["", "/timeline", "/members"] {
            let (status, told) = guarded.request(&format!("GET /api/rooms/den{path}"), &bob, "");
            assert_eq!(status, 403, "{round}: {told}");
        }
        assert_eq!(page(&guarded, &bob, "").0, ["lobby"], "{round}");
    }
    let (_, all): (u16, Value) = guarded.request("GET /api/rooms", &alice, "");
    assert_eq!(all["rooms"].as_array().unwrap().len(), 2);
}

#[test]
fn ones_own_rooms_are_those_that_one_may_follow_whatever_a_read_model_says() {
    let guarded = start(&[]);
    let (alice, bob) = (token(&guarded, "alice"), token(&guarded, "bob"));
    let (mut owner, mut member) = (client(&guarded, &alice), client(&guarded, &bob));
    open(&mut owner, std::iter::once("den".to_owned()));
    owner.ask("den", "invite_member", &json!({"member": "bob"}));
    let own = |ack: &Value| {
        let position = ack["position"].as_str().unwrap();
        let (status, me) = guarded.request(&format!("GET /api/me?min_position={position}"), &bob, "");
        assert_eq!(status, 200, "{me}");
        me["rooms"].as_array().unwrap().clone()
    };
    let joined = own(&member.ask("den", "join", &json!({})));
    assert_eq!(joined[0]["room"]["room"], "den", "{joined:?}");
    let removed = owner.ask("den", "remove_member", &json!({"member": "bob"}));
    assert!(own(&removed).is_empty());
    // As if `members` had stopped before that.
    let store = rusqlite::Connection::open(guarded.data.path().join("read-models.sqlite")).unwrap();
    let sql = r#"UPDATE "documents members@1" SET body = ?1 WHERE key = 'room-main.den/bob'"#;
    assert_eq!(store.execute(sql, [joined[0]["member"].to_string()]).unwrap(), 1);
    let posted = owner.ask("den", "post_message", &json!({"text": "he is gone"}));
    let rooms = own(&posted);
    assert!(rooms.is_empty(), "{rooms:?}");
}

#[test]
fn who_is_removed_while_an_answer_waits_for_a_position_reads_nothing_of_what_came_then() {
    let guarded = start(&[]);
    let (alice, bob) = (token(&guarded, "alice"), token(&guarded, "bob"));
    let (mut owner, mut member) = (client(&guarded, &alice), client(&guarded, &bob));
    open(&mut owner, std::iter::once("den".to_owned()));
    owner.ask("den", "invite_member", &json!({"member": "bob"}));
    let joined = member.ask("den", "join", &json!({}));
    let wait = format!("min_position={}", joined["position"].as_str().unwrap());
    assert_eq!(guarded.request(&format!("GET /api/rooms/den/timeline?{wait}"), &bob, "").0, 200);
    // Until that is let go, no read model gets on.
    let store = rusqlite::Connection::open(guarded.data.path().join("read-models.sqlite")).unwrap();
    store.busy_timeout(PATIENCE).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held = owner.ask("den", "post_message", &json!({"text": "held"}));
    let path = format!("/api/rooms/den/timeline?min_position={}", held["position"].as_str().unwrap());
    let authorization = format!("Bearer {bob}");
    let headers = [("Authorization", authorization.as_str())];
    let address = guarded.server.address;
    // Whoever asks may write any letter of the name in another way.
    let other = path.replace("min_position", "min%5Fposition");
    let waiting: Vec<_> = [&path, &other]
        .into_iter()
        .cycle()
        .take(10)
        .map(|path| {
            let asked = Request { method: "GET", path, headers: &headers, body: "" }.text(address);
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(asked.as_bytes()).unwrap();
            stream
        })
        .collect();
    owner.ask("den", "remove_member", &json!({"member": "bob"}));
    owner.ask("den", "post_message", &json!({"text": "among us"}));
    store.execute_batch("ROLLBACK").unwrap();
    for stream in waiting {
        let answer = Answer::read(stream).unwrap();
        let (status, body) = (answer.status, answer.body().unwrap());
        assert_eq!(status, 403, "{body}");
    }
}
