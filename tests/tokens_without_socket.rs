//! Tokens where there is no socket: streams, polls and commands by HTTP keep to them as sockets do.
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

use std::time::Instant;

use guarded::{Guarded, briefly, mint, start};
use serde_json::{Value, json};
use support::http::{Answer, Events, Request};
use support::{PATIENCE, nobody};

/// A token is asked for anew from the start on, and does not outlive its time by much.
const SHORT: [(&str, &str); 2] =
    [("DRAMATIS__AUTH__REFRESH_AHEAD_MS", "3600000"), ("DRAMATIS__AUTH__EXPIRED_GRACE_MS", "300")];

/// A request of session `tab` with this token, or none.
fn ask(guarded: &Guarded, method: &str, path: &str, token: Option<&str>, body: &Value) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("Content-Type", "application/json"), ("Dramatis-Session", "tab")];
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    let body = if method == "POST" { body.to_string() } else { String::new() };
    Request { method, path, headers: &headers, body: &body }.send(guarded.server.address).unwrap()
}

fn hello(rooms: &Value) -> Value {
    json!({"type": "hello", "session": "tab", "rooms": rooms})
}

fn command(id: &str, room: &str) -> Value {
    json!({"type": "command", "id": id, "room": room, "name": "post_message", "data": {"text": id}})
}

fn code(answer: Answer) -> (u16, String) {
    let status = answer.status;
    let problem = answer.json().unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    (status, problem["code"].as_str().unwrap().to_owned())
}

/// Reads on until a message of this type, or until the stream says with which code it ends.
fn until(events: &mut Events, kind: &str) -> Result<Value, u64> {
    until_one_of(events, &[kind])
}

fn until_one_of(events: &mut Events, kinds: &[&str]) -> Result<Value, u64> {
    loop {
        let event = events.next().unwrap().expect("a stream that ends says so");
        let messages = event.messages();
        if event.name == "close" {
            return Err(messages[0]["code"].as_u64().unwrap());
        }
        let is_it = |message: &Value| kinds.iter().any(|kind| message["type"] == *kind);
        if let Some(message) = messages.into_iter().find(is_it) {
            return Ok(message);
        }
    }
}

#[test]
fn a_stream_is_renewed_in_place_and_without_that_runs_out() {
    let guarded = start(&SHORT);
    let rooms = json!([{"room": "lobby"}]);
    let bob = mint(&guarded.key, &["--user", "bob", "--for", "1h"]);
    let renew = |id: &str, by: &str, token: &str| {
        let frame = json!({"type": "authenticate", "id": id, "token": token});
        ask(&guarded, "POST", "/api/frames", Some(by), &frame)
    };
    let fresh = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    let (short, mut events) = briefly(|lasts| {
        let short = mint(&guarded.key, &["--user", "alice", "--for", lasts]);
        let begun = ask(&guarded, "POST", "/api/stream", Some(&short), &hello(&rooms));
        let mut events = Events::new(Some(begun).filter(|begun| begun.status == 200)?);
        let ready = until(&mut events, "ready").ok()?;
        assert_eq!(ready["user"], "alice");
        let first = ready["token_expires_at"].as_i64().unwrap();
        let asked = until(&mut events, "authenticate").ok()?;
        assert_eq!(asked, json!({"type": "authenticate", "by": first}));
        // Another user's token finds another session, or none.
        assert_eq!(code(renew("other", &bob, &bob)), (404, "not_found".to_owned()));
        if renew("mixed", &short, &bob).status != 202 {
            return None;
        }
        assert_eq!(until(&mut events, "reject").ok()?["code"], "forbidden");
        if renew("fresh", &fresh, &fresh).status != 202 {
            return None;
        }
        let renewed = until(&mut events, "authenticated").ok()?;
        assert!(renewed["token_expires_at"].as_i64().unwrap() > first, "{renewed}");
        Some((short, events))
    });

    // The first one has run out when this comes through; the stream has not.
    while ask(&guarded, "POST", "/api/commands", Some(&short), &command("with-short", "lobby")).status == 200
    {
    }
    let long = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    assert_eq!(ask(&guarded, "POST", "/api/commands", Some(&long), &command("after", "lobby")).status, 200);
    while until(&mut events, "event").unwrap()["data"]["text"] != "after" {}

    // Once the last one has run out nothing more is shown: it ends, and opens nothing again.
    let brief = briefly(|lasts| {
        let brief = mint(&guarded.key, &["--user", "alice", "--for", lasts]);
        assert_eq!(renew("brief", &long, &brief).status, 202);
        let answer = until_one_of(&mut events, &["authenticated", "reject"]).unwrap();
        (answer["type"] == "authenticated").then_some(brief)
    });
    assert_eq!(until(&mut events, "none"), Err(4501));
    assert_eq!(
        code(ask(&guarded, "POST", "/api/stream", Some(&brief), &hello(&rooms))),
        (401, "token_expired".to_owned())
    );
    assert_eq!(code(renew("late", &brief, &long)), (401, "token_expired".to_owned()));
}

/// A poll that was begun by alice with a token of this time: the token and the first answer.
fn begun_for(guarded: &Guarded, lasts: &str, rooms: &Value) -> Option<(String, Value)> {
    let short = mint(&guarded.key, &["--user", "alice", "--for", lasts]);
    let answer = ask(guarded, "POST", "/api/poll?wait=1", Some(&short), &hello(rooms));
    (answer.status == 200).then(|| (short, answer.json().unwrap()))
}

#[test]
fn a_poll_ends_with_its_token_and_goes_on_with_a_fresh_one() {
    let guarded = start(&SHORT);
    let rooms = json!([{"room": "lobby"}]);
    let (short, mut page) = briefly(|lasts| begun_for(&guarded, lasts, &rooms));
    let mut cursor = page["cursor"].as_str().unwrap().to_owned();
    let ended = loop {
        let path = format!("/api/poll?cursor={cursor}&wait=5");
        let answer = ask(&guarded, "GET", &path, Some(&short), &Value::Null);
        if answer.status != 200 {
            break code(answer);
        }
        page = answer.json().unwrap();
        cursor = page["cursor"].as_str().unwrap().to_owned();
        if page["close"] == 4501 {
            break code(ask(&guarded, "GET", &path, Some(&short), &Value::Null));
        }
    };
    assert_eq!(ended, (401, "token_expired".to_owned()));
    let fresh = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    assert_eq!(ask(&guarded, "POST", "/api/commands", Some(&fresh), &command("missed", "lobby")).status, 200);
    let path = format!("/api/poll?cursor={cursor}&wait=5");
    let mut texts = Vec::new();
    while texts.is_empty() {
        let page = ask(&guarded, "GET", &path, Some(&fresh), &Value::Null).json().unwrap();
        let messages = page["messages"].as_array().unwrap();
        texts.extend(messages.iter().filter(|message| message["type"] == "event").cloned());
    }
    assert_eq!(texts[0]["data"]["text"], "missed", "from its cursor on, and only that: {texts:?}");
    let bob = mint(&guarded.key, &["--user", "bob", "--for", "1h"]);
    assert_eq!(code(ask(&guarded, "GET", &path, Some(&bob), &Value::Null)).0, 400, "a cursor is its user's");
}

#[test]
fn polls_that_show_a_fresh_token_each_outlive_the_first_one() {
    let guarded = start(&SHORT);
    let polled = |cursor: &str| {
        let fresh = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
        let path = format!("/api/poll?cursor={cursor}&wait=1");
        ask(&guarded, "GET", &path, Some(&fresh), &Value::Null).json().unwrap()
    };
    let (short, mut cursor) = briefly(|lasts| {
        let (short, begun) = begun_for(&guarded, lasts, &json!([{"room": "lobby"}]))?;
        // Before the first one has ended, and the session with it.
        let page = polled(begun["cursor"].as_str().unwrap());
        page["close"].is_null().then(|| (short, page["cursor"].as_str().unwrap().to_owned()))
    });
    let mut polls_after = 0;
    // With the grace of SHORT the first one's end has come long before the last of these.
    while polls_after < 3 {
        let page = polled(&cursor);
        assert_eq!(page["close"], Value::Null, "after {polls_after} polls: {page}");
        cursor = page["cursor"].as_str().unwrap().to_owned();
        let status = ask(&guarded, "GET", "/api/me", Some(&short), &Value::Null).status;
        polls_after += usize::from(status == 401);
    }
}

#[test]
fn commands_and_beginnings_keep_to_who_the_token_names_and_where_it_opens() {
    let guarded = start(&[]);
    let alice = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    assert_eq!(guarded.post(&alice, "alice", "den").0, 201);
    let narrow = mint(&guarded.key, &["--user", "alice", "--for", "1h", "--room", "lobby"]);
    for path in ["/api/commands", "/api/frames", "/api/stream", "/api/poll"] {
        for token in [None, Some("no-token")] {
            assert_eq!(
                code(ask(&guarded, "POST", path, token, &json!({}))),
                (401, "forbidden".to_owned()),
                "{path}"
            );
        }
    }
    let to =
        |room: &str, token: &str| ask(&guarded, "POST", "/api/commands", Some(token), &command(room, room));
    assert_eq!(to("den", &alice).status, 200);
    assert_eq!(to("lobby", &narrow).status, 200);
    assert_eq!(code(to("den", &narrow)), (403, "forbidden".to_owned()));
    // The header of local mode says nothing where there are tokens.
    let bob = mint(&guarded.key, &["--user", "bob", "--for", "1h"]);
    let bearer = format!("Bearer {bob}");
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", bearer.as_str()),
        ("Dramatis-User", "alice"),
    ];
    let body = command("as-alice", "lobby").to_string();
    let posing = Request { method: "POST", path: "/api/commands", headers: &headers, body: &body };
    assert_eq!(code(posing.send(guarded.server.address).unwrap()), (403, "not_a_member".to_owned()));
    // A hello that names another than its token does.
    let mut as_alice = hello(&json!([]));
    as_alice["user"] = json!("alice");
    for path in ["/api/stream", "/api/poll"] {
        let refused = code(ask(&guarded, "POST", path, Some(&bob), &as_alice));
        assert_eq!(refused, (403, "forbidden".to_owned()), "{path}");
    }
    let rooms = json!([{"room": "lobby"}, {"room": "den", "after": 1}]);
    let mut events = Events::new(ask(&guarded, "POST", "/api/stream", Some(&narrow), &hello(&rooms)));
    let ready = until(&mut events, "ready").unwrap();
    assert_eq!(
        (&ready["rooms"][0]["how"], &ready["rooms"][1]["code"]),
        (&json!("events"), &json!("forbidden"))
    );
    // Nor is it told where the other room stands.
    assert_eq!((&ready["rooms"][1]["head"], &ready["rooms"][1]["after"]), (&Value::Null, &Value::Null));
}

/// Polls with this token until the first of these messages: it and the cursor after it.
fn poll_until(guarded: &Guarded, token: &str, mut page: Value, kinds: &[&str]) -> (Value, String) {
    loop {
        let cursor = page["cursor"].as_str().unwrap().to_owned();
        let mut messages = page["messages"].as_array().unwrap().iter();
        let found = messages.rfind(|message| kinds.iter().any(|kind| message["type"] == *kind));
        if let Some(found) = found {
            return (found.clone(), cursor);
        }
        page = poll(guarded, token, &cursor);
    }
}

fn poll(guarded: &Guarded, token: &str, cursor: &str) -> Value {
    let path = format!("/api/poll?cursor={cursor}&wait=5");
    ask(guarded, "GET", &path, Some(token), &Value::Null).json().unwrap()
}

#[test]
fn a_narrow_token_gets_nothing_of_what_a_session_was_opened_to_by_a_wide_one() {
    let guarded = start(&[]);
    let wide = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    let narrow = mint(&guarded.key, &["--user", "alice", "--for", "1h", "--room", "lobby"]);
    assert_eq!(guarded.post(&wide, "alice", "den").0, 201);
    let frame = |token: &str, frames: &[Value]| {
        let body = frames.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("Content-Type", "application/json"),
            ("Dramatis-Session", "tab"),
            ("Authorization", bearer.as_str()),
        ];
        let request = Request { method: "POST", path: "/api/frames", headers: &headers, body: &body };
        request.send(guarded.server.address).unwrap()
    };
    let secret = |id: &str| {
        let mut secret = command(id, "den");
        secret["data"]["text"] = json!("a secret");
        assert_eq!(ask(&guarded, "POST", "/api/commands", Some(&wide), &secret).status, 200);
    };
    let rooms = json!([{"room": "den"}]);
    let first = ask(&guarded, "POST", "/api/poll?wait=5", Some(&wide), &hello(&rooms)).json().unwrap();
    let (_, cursor) = poll_until(&guarded, &wide, first, &["live"]);
    secret("one");
    let page = poll(&guarded, &narrow, &cursor);
    let (told, cursor) = (page.to_string(), page["cursor"].as_str().unwrap());
    assert!(page["messages"][0]["type"] == "ready" && !told.contains("a secret"), "{page}");
    assert_eq!(page["messages"][0]["rooms"][0]["code"], "forbidden", "{page}");

    // Begun by a narrow one and opened to more: what is said with the narrow one reaches no further.
    let asks = [
        json!({"type": "subscribe", "id": "s", "room": "den"}),
        json!({"type": "history", "id": "h", "room": "den"}),
        json!({"type": "seen", "room": "den", "revision": 1}),
        json!({"type": "ephemeral", "room": "den", "name": "typing"}),
    ];
    let authenticate = json!({"type": "authenticate", "id": "a", "token": wide});
    assert_eq!(frame(&narrow, &[authenticate, asks[0].clone()]).status, 202, "a wide one comes with it");
    let (_, cursor) = poll_until(&guarded, &wide, poll(&guarded, &wide, cursor), &["live"]);
    for said in &asks {
        let refused = code(frame(&narrow, std::slice::from_ref(said)));
        assert_eq!(refused, (403, "forbidden".to_owned()), "{said}");
    }
    secret("two");
    let page = poll(&guarded, &narrow, &cursor);
    assert!(page["messages"][0]["type"] == "ready" && !page.to_string().contains("a secret"), "{page}");
    let (event, _) = poll_until(&guarded, &wide, poll(&guarded, &wide, &cursor), &["event"]);
    assert_eq!(event["data"]["text"], "a secret", "who shows the wide one goes on from there");
}

#[test]
fn metrics_are_for_integrations_unless_they_are_opened() {
    let read = |guarded: &Guarded, user: Option<&str>| {
        let token = user.map(|user| mint(&guarded.key, &["--user", user, "--for", "1h"]));
        ask(guarded, "GET", "/metrics", token.as_deref(), &Value::Null).status
    };
    let guarded = start(&[]);
    assert_eq!(
        [read(&guarded, None), read(&guarded, Some("alice")), read(&guarded, Some("integration:metrics"))],
        [401, 403, 200]
    );
    assert_eq!(guarded.server.get("/api/health").0, 200);
    let open = start(&[("DRAMATIS__AUTH__OPEN_METRICS", "true")]);
    assert_eq!(read(&open, None), 200);
}

#[test]
fn what_is_wrong_inside_is_told_to_integrations_alone() {
    let (_held, nobody) = nobody();
    let address = nobody.trim_start_matches("http://");
    let uri = format!("mongodb://{address}/");
    let guarded = start(&[
        ("DRAMATIS__READ_MODELS__ENGINE", "mongodb"),
        ("DRAMATIS__READ_MODELS__MONGODB__URI", &uri),
        ("DRAMATIS__READ_MODELS__MONGODB__CONNECT_TIMEOUT_MS", "100"),
    ]);
    let token = |arguments: &[&str]| mint(&guarded.key, &[arguments, &["--for", "1h"]].concat());
    let (alice, operator) = (token(&["--user", "alice"]), token(&["--user", "integration:ops"]));
    let narrow = token(&["--user", "integration:ops", "--room", "lobby"]);
    let asked = |path: &str, token: &str| {
        let answer = ask(&guarded, "GET", path, Some(token).filter(|token| !token.is_empty()), &Value::Null);
        (answer.status, answer.json().unwrap().to_string())
    };
    let started = Instant::now();
    while !asked("/api/health", &operator).1.contains(address) {
        assert!(started.elapsed() < PATIENCE, "{}", asked("/api/health", &operator).1);
    }
    for token in ["", "no-token", &alice, &narrow] {
        let (status, health) = asked("/api/health", token);
        let part = r#""the read-model store does not answer""#;
        assert!(status == 200 && health.contains("degraded") && health.contains(part), "{health}");
        assert!(!health.contains(address), "{health}");
    }
    let (status, problem) = asked("/api/me", &alice);
    assert!(status == 503 && problem.contains("unavailable") && !problem.contains(address), "{problem}");
}

#[test]
fn what_one_is_told_of_oneself_is_the_tokens_own() {
    let guarded = start(&[]);
    let alice = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    let (status, opened) = guarded.post(&alice, "alice", "den");
    assert_eq!(status, 201, "{opened}");
    let path = format!("/api/me?min_position={}", opened["position"].as_str().unwrap());
    let rooms = |token: &str| {
        let me = ask(&guarded, "GET", &path, Some(token), &Value::Null).json().unwrap();
        let rooms = me["rooms"].as_array().unwrap().iter();
        (me["user"].clone(), rooms.map(|mine| mine["room"]["room"].clone()).collect::<Vec<_>>())
    };
    let narrow = mint(&guarded.key, &["--user", "alice", "--for", "1h", "--room", "lobby"]);
    let bob = mint(&guarded.key, &["--user", "bob", "--for", "1h"]);
    assert_eq!(rooms(&alice), (json!("alice"), vec![json!("den"), json!("lobby")]));
    assert_eq!(rooms(&narrow), (json!("alice"), vec![json!("lobby")]));
    assert_eq!(rooms(&bob), (json!("bob"), vec![]));
    assert_eq!(ask(&guarded, "GET", "/api/me", None, &Value::Null).status, 401);
}

#[test]
fn rights_are_those_to_what_the_path_names() {
    let guarded = start(&[]);
    let token = |user: &str| mint(&guarded.key, &["--user", user, "--for", "1h"]);
    let (alice, both) = (token("alice"), token("a+b"));
    let read = |path: &str| ask(&guarded, "GET", path, Some(&both), &Value::Null).status;
    for path in ["/api/users/a+b/activity", "/api/users/a%2Bb/activity", "/api/users/a%2bb/activity"] {
        assert_eq!(read(path), 200, "{path}");
    }
    assert_eq!(read("/api/users/a%20b/activity"), 403);
    // A room whose id begins as that of an open one, and goes on.
    let room = json!({"user": "alice", "room": "lobby&den", "title": "den", "visibility": "invited"});
    assert_eq!(guarded.request("POST /api/rooms", &alice, &room.to_string()).0, 201);
    for path in ["/api/rooms/lobby&den", "/api/rooms/lobby%26den", "/api/rooms/lobby&den/timeline"] {
        assert_eq!(read(path), 403, "{path}");
    }
    assert_eq!(read("/api/rooms/lobby/timeline"), 200);
}

#[test]
fn a_followed_stream_of_events_ends_with_its_token() {
    let guarded = start(&[]);
    let (token, answer) = briefly(|lasts| {
        let token = mint(&guarded.key, &["--user", "integration:export", "--for", lasts]);
        let answer = ask(&guarded, "GET", "/api/events?follow=true&room=lobby", Some(&token), &Value::Null);
        (answer.status == 200).then_some((token, answer))
    });
    // It is cut short: an end in order would say that nothing is missing.
    let cut = answer.body().unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof, "{cut}");
    let expired = ask(&guarded, "GET", "/api/events?follow=true&room=lobby", Some(&token), &Value::Null);
    assert_eq!(code(expired), (401, "token_expired".to_owned()));
}
