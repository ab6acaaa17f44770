//! A token that names rooms opens those alone, whoever has it and by whatever path.
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

use guarded::{Guarded, hello, mint, start};
use serde_json::{Value, json};

/// A server with the rooms lobby and den, in both of which alice and carol spoke.
fn talked() -> Guarded {
    let guarded = start(&[]);
    let (alice, carol) = (token(&guarded, "alice", None), token(&guarded, "carol", None));
    assert_eq!(guarded.post(&alice, "alice", "den").0, 201);
    let mut position = Value::Null;
    for who in [&alice, &carol] {
        let mut client = guarded.hello(&hello(who));
        for room in ["lobby", "den"] {
            client.ask(room, "join", &json!({}));
            let ack = client.ask(room, "post_message", &json!({"text": format!("words in {room}")}));
            position = ack["position"].clone();
        }
    }
    let ops = token(&guarded, "integration:ops", None);
    for path in ["/api/users/carol/activity", "/api/search?q=words", "/api/rooms/den/timeline"] {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("GET {path}{joint}min_position={}", position.as_str().unwrap());
        assert_eq!(guarded.request(&path, &ops, "").0, 200, "{path}");
    }
    guarded
}

fn token(guarded: &Guarded, user: &str, room: Option<&str>) -> String {
    let only: Vec<_> = room.into_iter().flat_map(|room| ["--room", room]).collect();
    mint(&guarded.key, &[&["--user", user, "--for", "1h"], &only[..]].concat())
}

#[test]
fn it_bounds_integrations_too() {
    let guarded = talked();
    let (bot, ops) =
        (token(&guarded, "integration:bot", Some("lobby")), token(&guarded, "integration:ops", None));
    for head in [
        "GET /api/search?q=words",
        "GET /api/search?q=words&room=den",
        "GET /api/search?q=words&r%6fom=den",
        "GET /api/events",
        "GET /api/events?room=den",
        "GET /api/events?room=lobby&room=den",
        "GET /api/events?room=den&room=lobby",
        "GET /api/events?r%6Fom=d%65n",
        "GET /api/events?category=user",
        "GET /api/projections",
        "GET /api/projections/timeline",
        "GET /api/projections/timeline/documents",
        "GET /api/projections/timeline/documents?room=lobby",
        "GET /api/projections/rooms/document?key=room-main.den",
        "GET /api/projections/rooms/why?key=room-main.den",
        "GET /api/projections/rooms/dead_letters",
        "POST /api/projections/rooms/rebuild",
        "POST /api/projections/rooms/rollback",
        "POST /api/projections/rooms/skip?key=room-main.den",
        "GET /metrics",
        "GET /api/rooms/den",
        "GET /api/rooms/den/timeline",
    ] {
        let (status, told) = guarded.request(head, &bot, "");
        assert_eq!(status, 403, "{head}: {told}");
        let (status, told) = guarded.request(head, &ops, "");
        assert_ne!(status, 403, "{head}: {told}");
    }
    for head in
        ["GET /api/search?q=words&room=lobby", "GET /api/events?room=lobby", "GET /api/rooms/lobby/timeline"]
    {
        let (status, told) = guarded.request(head, &bot, "");
        let told = told.to_string();
        assert!(status == 200 && told.contains("words in lobby") && !told.contains("den"), "{head}: {told}");
    }
    let (status, rooms) = guarded.request("GET /api/rooms", &bot, "");
    assert!(status == 200 && !rooms.to_string().contains("den"), "{rooms}");
}

#[test]
fn what_somebody_did_is_told_of_the_rooms_it_opens() {
    let guarded = talked();
    let rooms = |token: &str| -> Vec<Value> {
        let (status, page) = guarded.request("GET /api/users/carol/activity", token, "");
        assert_eq!(status, 200, "{page}");
        page["activity"].as_array().unwrap().iter().map(|one| one["room"].clone()).collect()
    };
    for user in ["carol", "integration:bot"] {
        assert_eq!(rooms(&token(&guarded, user, Some("lobby"))), ["lobby"], "{user}");
        assert_eq!(rooms(&token(&guarded, user, None)).len(), 2, "{user}");
    }
}
