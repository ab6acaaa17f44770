//! Where a client without a socket is told that it stands: in the rooms that it follows, whatever their
//! number and whoever else takes up the places.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use serde_json::{Value, json};
use support::http::{Answer, Events, Request};
use support::{Client, Server};

/// A request of alice, of this session.
fn ask(server: &Server, method: &str, path: &str, session: &str, body: &Value) -> Answer {
    let headers =
        [("Content-Type", "application/json"), ("Dramatis-User", "alice"), ("Dramatis-Session", session)];
    let body = if method == "POST" { body.to_string() } else { String::new() };
    let answer = Request { method, path, headers: &headers, body: &body }.send(server.address).unwrap();
    assert!(answer.status < 300, "{method} {path}: {}", answer.body().unwrap());
    answer
}

fn hello(rooms: &Value) -> Value {
    json!({"type": "hello", "user": "alice", "session": "tab", "rooms": rooms})
}

/// Messages up to the one of this type, and the cursor that the event with it has.
fn until(events: &mut Events, kind: &str) -> (Value, Option<String>) {
    loop {
        let event = events.next().unwrap().expect("the stream goes on");
        if let Some(found) = event.messages().into_iter().find(|message| message["type"] == kind) {
            return (found, event.id);
        }
    }
}

/// The rooms that a stream follows which goes on from this cursor.
fn followed(server: &Server, cursor: &str) -> (Events, Vec<String>) {
    let rooms = json!({"type": "hello", "user": "alice", "session": "tab", "cursor": cursor});
    let mut events = Events::new(ask(server, "POST", "/api/stream", "tab", &rooms));
    let ready = until(&mut events, "ready").0;
    let names =
        ready["rooms"].as_array().unwrap().iter().map(|room| room["room"].as_str().unwrap().to_owned());
    (events, names.collect())
}

#[test]
fn a_cursor_of_many_rooms_comes_with_every_change_of_what_is_followed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut socket = server.client("alice", &json!([]));
    let names: Vec<_> = (0..60).map(|number| format!("{number:0>100}")).collect();
    for room in names.iter().map(String::as_str).chain(["new"]) {
        assert_eq!(socket.ask(room, "open_room", &json!({"title": "x"}))["type"], "ack");
    }
    let rooms: Vec<_> = names.iter().map(|room| json!({"room": room})).collect();
    let mut events = Events::new(ask(&server, "POST", "/api/stream", "tab", &hello(&json!(rooms))));
    let mut live = 0;
    while live < names.len() {
        let messages = events.next().unwrap().expect("the stream goes on").messages();
        live += messages.iter().filter(|message| message["type"] == "live").count();
    }
    let frame = |frame: Value| ask(&server, "POST", "/api/frames", "tab", &frame);
    frame(json!({"type": "subscribe", "id": "s", "room": "new"}));
    let cursor = until(&mut events, "subscribed").1.expect("a cursor comes with that");
    assert!(cursor.len() > 4_096, "{} bytes", cursor.len());
    let (mut events, followed_then) = followed(&server, &cursor);
    assert!(followed_then.len() == 61 && followed_then.iter().any(|room| room == "new"), "{followed_then:?}");
    frame(json!({"type": "unsubscribe", "id": "u", "room": "new"}));
    let cursor = until(&mut events, "unsubscribed").1.expect("a cursor comes with that");
    let (_events, followed_then) = followed(&server, &cursor);
    assert!(followed_then.len() == 60 && followed_then.iter().all(|room| room != "new"), "{followed_then:?}");
}

fn poll(server: &Server, session: &str, cursor: &str, wait: u64) -> Value {
    let path = format!("/api/poll?cursor={cursor}&wait={wait}");
    ask(server, "GET", &path, session, &Value::Null).json().unwrap()
}

#[test]
fn a_room_that_is_denied_for_now_stays_in_the_cursor() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__LIMITS__USER__ROOMS_MAX", "3")]);
    for room in ["a", "b", "c", "d"] {
        server.open_room(room, "alice");
    }
    let rooms = json!([{"room": "a", "after": 1}, {"room": "b", "after": 1}]);
    let begun = ask(&server, "POST", "/api/poll", "tab", &hello(&rooms)).json().unwrap();
    let cursor = begun["cursor"].as_str().unwrap();
    // The places go to another connection.
    for room in ["a", "b"] {
        let unsubscribe = json!({"type": "unsubscribe", "id": room, "room": room});
        ask(&server, "POST", "/api/frames", "tab", &unsubscribe);
    }
    let (mut left, mut page) = (0, begun.clone());
    while left < 2 {
        page = poll(&server, "tab", page["cursor"].as_str().unwrap(), 5);
        let messages = page["messages"].as_array().unwrap().iter();
        left += messages.filter(|message| message["type"] == "unsubscribed").count();
    }
    let mut other = Client::connect(server.address);
    other.hello("alice", "other", &json!([{"room": "c"}, {"room": "d"}]));
    assert_eq!(other.ask("b", "post_message", &json!({"text": "meanwhile"}))["revision"], 2);
    let page = poll(&server, "tab", cursor, 5);
    let ready = &page["messages"][0];
    let told: Vec<_> = ready["rooms"].as_array().unwrap().iter().map(|room| &room["code"]).collect();
    assert_eq!(told, [&Value::Null, &json!("rate_limited")], "{ready}");
    for room in ["c", "d"] {
        other.send(&json!({"type": "unsubscribe", "id": room, "room": room}));
        assert_eq!(other.answer(room)["type"], "unsubscribed");
    }
    // From what that said, elsewhere.
    let mut page = poll(&server, "elsewhere", page["cursor"].as_str().unwrap(), 5);
    let rooms = page["messages"][0]["rooms"].as_array().unwrap();
    assert!(rooms.len() == 2 && rooms.iter().all(|room| room["how"] == "events"), "{rooms:?}");
    let missed = loop {
        let mut messages = page["messages"].as_array().unwrap().iter();
        if let Some(event) = messages.find(|message| message["type"] == "event") {
            break event.clone();
        }
        page = poll(&server, "elsewhere", page["cursor"].as_str().unwrap(), 5);
    };
    assert_eq!((&missed["room"], &missed["revision"]), (&json!("b"), &json!(2)), "from where it stood on");
}

#[test]
fn a_poll_that_waits_is_not_asked_whether_it_is_there() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__SOCKET__HEARTBEAT_MS", "1000")]);
    // Where much goes on at once one of them may come so late that it was asked before.
    let waited = (0..5).any(|number| {
        let session = format!("tab-{number}");
        let hello = json!({"type": "hello", "user": "alice", "session": session, "rooms": []});
        let begun = ask(&server, "POST", "/api/poll", &session, &hello).json().unwrap();
        let page = poll(&server, &session, begun["cursor"].as_str().unwrap(), 3);
        page["messages"] == json!([])
    });
    assert!(waited, "each is answered with a ping, and none waits for what it was told to");
}
