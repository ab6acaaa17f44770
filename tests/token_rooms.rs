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

#[test]
fn an_integrations_token_for_some_rooms_opens_nobodys_own_stream() {
    let guarded = start(&[]);
    let bot = token(&guarded, "integration:bot", Some("lobby"));
    let ops = token(&guarded, "integration:ops", None);
    let alice = token(&guarded, "alice", None);
    let profile = |id: &str, by: Option<&str>, name: &str| json!({"type": "command", "id": id, "room": "me", "by": by, "name": "set_profile", "data": {"display_name": name}});
    let shown = || {
        let me = guarded.request("GET /api/me", &alice, "").1;
        me["profile"]["display_name"].clone()
    };
    let mut socket = guarded.hello(&hello(&bot));
    for (id, by) in [("1", "alice"), ("2", "bob")] {
        let command = profile(id, Some(by), "not hers");
        let (status, problem) = guarded.request("POST /api/commands", &bot, &command.to_string());
        assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{problem}");
        socket.send(&command);
        assert_eq!(socket.answer(id)["code"], "forbidden");
    }
    let (status, ack) =
        guarded.request("POST /api/commands", &alice, &profile("3", None, "Alice").to_string());
    assert_eq!(status, 200, "{ack}");
    let (status, ack) =
        guarded.request("POST /api/commands", &ops, &profile("4", Some("alice"), "Alicia").to_string());
    assert_eq!(status, 200, "{ack}");
    let path = format!("GET /api/me?min_position={}", ack["position"].as_str().unwrap());
    assert_eq!(guarded.request(&path, &alice, "").0, 200);
    assert_eq!(shown(), "Alicia");
    let join = json!({"type": "command", "id": "5", "room": "lobby", "by": "system:platform", "name": "join", "data": {}});
    for token in [&bot, &ops] {
        let (status, problem) = guarded.request("POST /api/commands", token, &join.to_string());
        assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{problem}");
    }
}

#[test]
fn one_is_told_of_other_rooms_only_by_a_token_that_opens_ones_own_stream() {
    let guarded = start(&[]);
    let alice = token(&guarded, "alice", None);
    assert_eq!(guarded.post(&alice, "alice", "den").0, 201);
    let mut owner = guarded.hello(&hello(&alice));
    assert_eq!(owner.ask("den", "invite_member", &json!({"member": "bob"}))["type"], "ack");
    let (wide, narrow) = (token(&guarded, "bob", None), token(&guarded, "bob", Some("lobby")));
    let own = mint(&guarded.key, &["--user", "bob", "--for", "1h", "--room", "me"]);
    let rooms = json!([{"room": "me"}, {"room": "lobby"}]);
    let begin = |token: &str, session: &str| {
        let mut client =
            guarded.hello(&json!({"type": "hello", "token": token, "session": session, "rooms": rooms}));
        let ready = client.receive_type("ready");
        (client, [0, 1].map(|room| ready["rooms"][room]["code"].clone()))
    };
    let forbidden = json!("forbidden");
    let (mut client, codes) = begin(&narrow, "narrow");
    assert_eq!(codes, [forbidden.clone(), Value::Null]);
    for (id, message) in [
        ("1", json!({"type": "subscribe", "room": "me"})),
        ("2", json!({"type": "history", "room": "me"})),
        (
            "3",
            json!({"type": "command", "room": "me", "name": "dismiss_invitation", "data": {"room": "den"}}),
        ),
    ] {
        let mut message = message;
        message["id"] = json!(id);
        client.send(&message);
        assert_eq!(client.answer(id)["code"], forbidden, "{message}");
    }
    let (mut client, codes) = begin(&own, "own");
    assert_eq!(codes, [Value::Null, forbidden.clone()]);
    while client.receive_type("event")["name"] != "InvitationReceived" {}
    let (mut client, codes) = begin(&wide, "wide");
    assert_eq!(codes, [Value::Null, Value::Null]);
    client.send(&json!({"type": "authenticate", "id": "a", "token": narrow}));
    assert_eq!(client.answer("a")["code"], forbidden, "it does not open what is followed");
}
