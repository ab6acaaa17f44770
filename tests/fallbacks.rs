//! Clients without a socket: streams, polls, and what is posted beside them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use support::http::{Answer, Event, Events, Request};
use support::{Client, Server};
use tempfile::TempDir;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const ALICE: (&str, &str) = ("Dramatis-User", "alice");
const TAB: (&str, &str) = ("Dramatis-Session", "tab-1");

/// Who is in a room is told a while after a beginning, to streams and polls like anything else: here
/// that comes by itself no sooner than a test is over.
const LATE_PRESENCE: [(&str, &str); 1] = [("DRAMATIS__SOCKET__PRESENCE__INTERVAL_MS", "60000")];

/// A server with a room of so many messages, the last of revision `1 + messages`.
fn room_of(messages: u64) -> (TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &LATE_PRESENCE);
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    for text in 0..messages {
        assert_eq!(say(&mut alice, &text.to_string())["type"], "ack");
    }
    (data, server)
}

fn say(client: &mut Client, text: &str) -> Value {
    client.ask("lobby", "post_message", &json!({"text": text}))
}

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    Request { method: "GET", path, headers, body: "" }.send(server.address).unwrap()
}

fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    Request { method: "POST", path, headers, body: &body.to_string() }.send(server.address).unwrap()
}

fn hello(rooms: &Value) -> Value {
    json!({"type": "hello", "user": "alice", "session": "tab-1", "rooms": rooms})
}

fn stream(server: &Server, path: &str, headers: &[(&str, &str)]) -> Events {
    let answer = get(server, path, headers);
    assert!(answer.status == 200, "{path}: {}", answer.body().unwrap());
    Events::new(answer)
}

/// Messages up to the one of this type, and the cursor behind it.
fn until(events: &mut Events, kind: &str) -> (Vec<Value>, String) {
    let mut messages = Vec::new();
    loop {
        let event = events.next().unwrap().expect("the stream goes on");
        messages.extend(event.messages());
        if messages.iter().any(|message| message["type"] == kind) {
            return (messages, event.id.unwrap());
        }
    }
}

fn revisions(messages: &[Value]) -> Vec<u64> {
    let events = messages.iter().filter(|message| message["type"] == "event");
    events.map(|event| event["revision"].as_u64().unwrap()).collect()
}

/// Polls until this type comes: the messages, and the last cursor.
fn poll_until(server: &Server, mut page: Value, kind: &str) -> (Vec<Value>, String) {
    let mut messages = Vec::new();
    loop {
        messages.extend(page["messages"].as_array().unwrap().iter().cloned());
        let cursor = page["cursor"].as_str().unwrap().to_owned();
        if messages.iter().any(|message| message["type"] == kind) {
            return (messages, cursor);
        }
        page = poll(server, &cursor, 25);
    }
}

fn poll(server: &Server, cursor: &str, wait: u64) -> Value {
    let answer = get(server, &format!("/api/poll?cursor={cursor}&wait={wait}"), &[ALICE, TAB]);
    assert_eq!((answer.status, answer.head.contains("cache-control: no-store")), (200, true));
    answer.json().unwrap()
}

#[test]
fn a_stream_carries_what_a_socket_would_and_goes_on_from_its_last_id() {
    let (_data, server) = room_of(3);
    let answer = post(&server, "/api/stream", &[JSON], &hello(&json!([{"room": "lobby", "after": 1}])));
    for header in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
        assert!(answer.head.contains(header), "{}", answer.head);
    }
    let mut events = Events::new(answer);
    let (messages, cursor) = until(&mut events, "live");
    let mut socket = Client::connect(server.address);
    let ready = socket.hello("alice", "tab-2", &json!([{"room": "lobby", "after": 1}]));
    assert_eq!(messages[0]["rooms"], ready["rooms"]);
    assert_eq!(messages[0]["rooms"][0]["after"], 1);
    for message in &messages[1..] {
        assert_eq!(*message, socket.receive());
    }
    say(&mut socket, "live");
    let (live, at_live) = until(&mut events, "event");
    assert_eq!(revisions(&live), [5]);
    drop(events);

    say(&mut socket, "missed");
    let headers = [ALICE, TAB, ("Last-Event-ID", &*cursor)];
    let (again, _) = until(&mut stream(&server, "/api/stream", &headers), "live");
    assert_eq!(revisions(&again), [5, 6], "from the cursor on, not from the end of the first stream");
    let (rest, _) =
        until(&mut stream(&server, &format!("/api/stream?cursor={at_live}"), &[ALICE, TAB]), "live");
    assert_eq!(revisions(&rest), [6]);
}

#[test]
fn a_poll_answers_at_once_or_when_something_comes_or_after_its_wait() {
    let (_data, server) = room_of(2);
    let first = post(&server, "/api/poll", &[JSON], &hello(&json!([{"room": "lobby"}]))).json().unwrap();
    let (messages, cursor) = poll_until(&server, first, "live");
    assert_eq!(messages[0]["type"], "ready");
    assert_eq!(revisions(&messages), [0, 1, 2, 3]);
    let empty = poll(&server, &cursor, 0);
    assert_eq!(empty, json!({"cursor": cursor, "messages": []}));

    let mut socket = server.client("alice", &json!([]));
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| poll(&server, &cursor, 60));
        say(&mut socket, "while it waits");
        waiting.join().unwrap()
    });
    assert_eq!(revisions(waiting["messages"].as_array().unwrap()), [4]);

    // The answer was lost: the same cursor gets the same events, as often as it asks.
    for _ in 0..3 {
        let page = poll(&server, &cursor, 25);
        let (again, next) = poll_until(&server, page, "event");
        assert_eq!(revisions(&again), [4]);
        assert_eq!(revisions(poll(&server, &next, 0)["messages"].as_array().unwrap()), [0; 0]);
    }
}

#[test]
fn a_cursor_over_very_many_rooms_leads_on() {
    const ROOMS: usize = 500;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut socket = server.client("alice", &json!([]));
    let name = |number: usize| format!("{number:0>120}");
    let opened: Vec<_> =
        (0..ROOMS).map(|number| socket.command(&name(number), "open_room", &json!({"title": "x"}))).collect();
    // Each of them by its own entity, in any order.
    for _ in opened {
        socket.receive_type("ack");
    }
    let rooms: Vec<_> = (0..ROOMS).map(|number| json!({"room": name(number)})).collect();
    // Live in all of them.
    let mut page = post(&server, "/api/poll", &[JSON], &hello(&json!(rooms))).json().unwrap();
    let headers = [JSON, ALICE, TAB];
    let (mut live, mut cursor) = (0, String::new());
    loop {
        page["cursor"].as_str().unwrap().clone_into(&mut cursor);
        let messages = page["messages"].as_array().unwrap();
        live += messages.iter().filter(|message| message["type"] == "live").count();
        if live == ROOMS {
            break;
        }
        let answer = post(&server, "/api/poll", &headers, &json!({"cursor": cursor}));
        assert_eq!(answer.status, 200);
        page = answer.json().unwrap();
        assert!(page["messages"].as_array().unwrap().iter().all(|message| message["type"] != "ready"));
    }
    assert!(cursor.len() > 65_536, "{} bytes", cursor.len());
    let last = name(ROOMS - 1);
    let said = socket.ask(&last, "post_message", &json!({"text": "missed"}));
    let has_it = |messages: &[Value]| {
        messages.iter().any(|message| message["type"] == "event" && message["revision"] == said["revision"])
    };
    // By a stream, by the poll that goes on, and by a poll elsewhere.
    let mut events = stream(&server, "/api/stream", &[ALICE, TAB, ("Last-Event-ID", &*cursor)]);
    while !has_it(&events.next().unwrap().expect("the stream goes on").messages()) {}
    for session in ["tab-1", "tab-2"] {
        let (mut cursor, mut come) = (cursor.clone(), Vec::new());
        while !has_it(&come) {
            let headers = [JSON, ALICE, ("Dramatis-Session", session)];
            let answer = post(&server, "/api/poll?wait=25", &headers, &json!({"cursor": cursor}));
            assert_eq!(answer.status, 200, "{session}");
            let page = answer.json().unwrap();
            page["cursor"].as_str().unwrap().clone_into(&mut cursor);
            come.extend(page["messages"].as_array().unwrap().iter().cloned());
        }
    }
    for (body, status) in [
        (json!({"cursor": "nonsense"}), 400),
        (json!({"cursor": cursor, "colour": "red"}), 400),
        (json!({"cursor": 7}), 400),
        (json!({}), 400),
    ] {
        assert_eq!(post(&server, "/api/poll", &headers, &body).status, status, "{body}");
    }
    assert_eq!(post(&server, "/api/poll", &[ALICE, TAB], &json!({"cursor": cursor})).status, 400, "no JSON");
}

#[test]
fn a_first_answer_tells_which_rooms_are_followed_however_short_its_wait() {
    let (_data, server) = room_of(1);
    for round in 0..20 {
        let session = format!("tab-{round}");
        let hello =
            json!({"type": "hello", "user": "alice", "session": session, "rooms": [{"room": "lobby"}]});
        let page = post(&server, "/api/poll?wait=0", &[JSON], &hello).json().unwrap();
        assert_eq!(page["messages"][0]["type"], "ready", "{page}");
        // Gone on with by others, who know nothing of the session, again without waiting.
        let mut cursor = page["cursor"].clone();
        for session in ["elsewhere", "again"].map(|session| format!("{session}-{round}")) {
            let path = format!("/api/poll?cursor={}&wait=0", cursor.as_str().unwrap());
            let answer = get(&server, &path, &[ALICE, ("Dramatis-Session", &*session)]).json().unwrap();
            assert_eq!(answer["messages"][0]["rooms"][0]["room"], "lobby", "{answer}");
            cursor = answer["cursor"].clone();
        }
    }
}

#[test]
fn a_later_poll_takes_the_place_of_the_one_that_waits() {
    let (_data, server) = room_of(1);
    let first = post(&server, "/api/poll", &[JSON], &hello(&json!([{"room": "lobby"}]))).json().unwrap();
    let (_, cursor) = poll_until(&server, first, "live");
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| poll(&server, &cursor, 60))).collect();
        // Whichever comes last waits; the others are answered.
        let done = |count| waiting.iter().filter(|waiting| waiting.is_finished()).count() == count;
        let started = std::time::Instant::now();
        while !done(3) {
            assert!(started.elapsed() < support::PATIENCE, "three of four polls give way");
            std::thread::yield_now();
        }
        say(&mut server.client("alice", &json!([])), "for the last one");
        let answers: Vec<Value> = waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect();
        let has_event = |answer: &&Value| {
            answer["messages"].as_array().unwrap().iter().any(|message| message["type"] == "event")
        };
        let with_events = answers.iter().filter(has_event);
        assert_eq!(with_events.count(), 1, "{answers:?}");
    });
}

#[test]
fn a_client_moves_between_all_transports() {
    let (_data, server) = room_of(1);
    let mut speaker = server.client("alice", &json!([]));
    let mut seen = Vec::new();
    // Socket: the client's own revisions are its cursor.
    let mut socket = Client::connect(server.address);
    let ready = socket.hello("alice", "tab-1", &json!([{"room": "lobby"}]));
    let epoch = ready["rooms"][0]["epoch"].clone();
    while seen.last() != Some(&2) {
        seen.push(socket.receive_type("event")["revision"].as_u64().unwrap());
    }
    say(&mut speaker, "3");
    // Stream.
    let answer = post(
        &server,
        "/api/stream",
        &[JSON],
        &hello(&json!([{"room": "lobby", "epoch": epoch, "after": 2}])),
    );
    let mut events = Events::new(answer);
    let (messages, cursor) = until(&mut events, "live");
    seen.extend(revisions(&messages));
    assert_eq!(socket.closed(), 4507, "the stream took the session over");
    say(&mut speaker, "4");
    // Poll.
    let (messages, cursor) = poll_until(&server, poll(&server, &cursor, 25), "live");
    seen.extend(revisions(&messages));
    let replaced = loop {
        let event = events.next().unwrap().expect("it says goodbye");
        if event.name == "close" {
            break event;
        }
    };
    let data = r#"{"type":"close","code":4507,"reason":"this session came back on another connection"}"#;
    assert_eq!(replaced, Event { name: "close".into(), data: data.into(), id: None });
    assert_eq!(events.next().unwrap(), None);
    say(&mut speaker, "5");
    // Socket again, with the poll's cursor.
    let mut socket = Client::connect(server.address);
    socket.send(&json!({"type": "hello", "user": "alice", "session": "tab-1", "cursor": cursor}));
    assert_eq!(socket.receive()["type"], "ready");
    seen.push(socket.receive()["revision"].as_u64().unwrap());
    // And a stream, although the socket is there still.
    let (messages, _) =
        until(&mut stream(&server, &format!("/api/stream?cursor={cursor}"), &[ALICE, TAB]), "live");
    assert_eq!(revisions(&messages), [5]);
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn frames_reach_the_stream_or_poll_of_their_session() {
    let (_data, server) = room_of(1);
    let subscribe = json!({"type": "subscribe", "id": "s1", "room": "lobby", "after": 1});
    let headers = [JSON, ALICE, TAB];
    assert_eq!(post(&server, "/api/frames", &headers, &subscribe).status, 404, "there is no stream yet");
    let mut events = Events::new(post(&server, "/api/stream", &[JSON], &hello(&json!([]))));
    until(&mut events, "ready");
    assert_eq!(post(&server, "/api/frames", &headers, &subscribe).status, 202);
    let (messages, cursor) = until(&mut events, "live");
    assert_eq!((&messages[0]["type"], &messages[0]["id"]), (&json!("subscribed"), &json!("s1")));
    assert_eq!(revisions(&messages), [2]);
    let other = [JSON, ALICE, ("Dramatis-Session", "tab-2")];
    assert_eq!(post(&server, "/api/frames", &other, &subscribe).status, 404);

    let (_, cursor) = poll_until(&server, poll(&server, &cursor, 25), "live");
    let unsubscribe = json!({"type": "unsubscribe", "id": "u1", "room": "lobby"});
    assert_eq!(post(&server, "/api/frames", &headers, &unsubscribe).status, 202);
    let (_, cursor) = poll_until(&server, poll(&server, &cursor, 25), "unsubscribed");
    say(&mut server.client("alice", &json!([])), "unheard");
    assert_eq!(poll(&server, &cursor, 0)["messages"], json!([]));
}

#[test]
fn a_command_has_one_effect_on_whichever_way_it_comes() {
    let (_data, server) = room_of(0);
    let command = |id: &str, text: &str| json!({"type": "command", "id": id, "room": "lobby", "name": "post_message", "data": {"text": text}});
    let first = post(&server, "/api/commands", &[JSON, ALICE], &command("c1", "once"));
    assert_eq!(first.status, 200);
    let ack = first.json().unwrap();
    assert_eq!((&ack["type"], &ack["id"], &ack["revision"]), (&json!("ack"), &json!("c1"), &json!(2)));
    let mut again = post(&server, "/api/commands", &[JSON, ALICE], &command("c1", "once")).json().unwrap();
    assert_eq!(again["duplicate"].take(), true);
    let mut socket = server.client("alice", &json!([]));
    socket.send(&command("c1", "once"));
    assert_eq!(socket.answer("c1")["revision"], 2);
    for (body, status, code) in [
        (command("c1", "other"), 409, "command_id_reused"),
        (
            json!({"type": "command", "id": "c2", "room": "nowhere", "name": "join", "data": {}}),
            404,
            "not_found",
        ),
        (
            json!({"type": "command", "id": "c2", "room": "lobby", "name": "dance", "data": {}}),
            400,
            "malformed",
        ),
        (
            json!({"type": "command", "id": "c2", "room": "lobby", "name": "post_message", "data": {"text": "x"}, "expected": 0}),
            409,
            "conflict",
        ),
        (
            json!({"type": "command", "id": "c2", "room": "lobby", "name": "post_message", "data": {"text": "x"}, "by": "bob"}),
            403,
            "forbidden",
        ),
        (
            json!({"type": "command", "id": "c2", "room": "lobby", "name": "post_message", "data": {"text": ""}}),
            422,
            "rule",
        ),
        (hello(&json!([])), 400, "malformed"),
    ] {
        let answer = post(&server, "/api/commands", &[JSON, ALICE], &body);
        assert_eq!(
            (answer.status, answer.head.contains("application/problem+json")),
            (status, true),
            "{body}"
        );
        let problem = answer.json().unwrap();
        assert_eq!(problem["code"], code, "{problem}");
        if body["type"] == "command" {
            assert_eq!(problem["id"], body["id"], "{problem}");
        }
    }
    let mine = server.events(&["--room", "lobby"]);
    assert_eq!(mine.len(), 3, "opened, joined, said once");
}

#[test]
fn to_an_old_client_a_body_ends_with_its_connection() {
    let (_data, server) = room_of(1);
    server.session_noted("alice");
    for (path, first) in [
        ("/api/events", "{\"stream\":"),
        ("/api/stream?room=lobby&session=tab-1", "retry: "),
        ("/api/rooms", "{"),
    ] {
        let mut connection = TcpStream::connect(server.address).unwrap();
        connection.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let head = format!("GET {path} HTTP/1.0\r\nHost: {}\r\nDramatis-User: alice\r\n", server.address);
        connection.write_all(format!("{head}Connection: keep-alive\r\n\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(connection);
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
            head += &line.to_ascii_lowercase();
        }
        assert!(head.starts_with("http/1.0 200") && !head.contains("transfer-encoding"), "{head}");
        line.clear();
        let mut bytes = vec![0; first.len()];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), first, "{path}: {head}");
        if path == "/api/events" {
            let mut rest = String::new();
            reader.read_to_string(&mut rest).unwrap();
            let whole = format!("{first}{rest}");
            let told: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(told.len(), 4);
        }
    }
}

#[test]
fn what_a_page_elsewhere_can_send_does_nothing() {
    let (_data, server) = room_of(0);
    let command = json!({"type": "command", "id": "c1", "room": "lobby", "name": "post_message", "data": {"text": "x"}});
    let plain = ("Content-Type", "text/plain");
    for (path, body) in [
        ("/api/commands", &command),
        ("/api/frames", &json!({"type": "pong"})),
        ("/api/stream", &hello(&json!([]))),
        ("/api/poll", &hello(&json!([]))),
    ] {
        assert_eq!(post(&server, path, &[plain, ALICE, TAB], body).status, 400, "{path}");
        let elsewhere = [JSON, ALICE, TAB, ("Origin", "https://evil.example")];
        assert_eq!(post(&server, path, &elsewhere, body).status, 403, "{path}");
    }
    for path in ["/api/stream?room=lobby&session=tab-1", "/api/poll?room=lobby&session=tab-1"] {
        assert_eq!(get(&server, path, &[]).status, 400, "{path}: nobody asks");
        let cookie = ("Cookie", "dramatis_user=alice");
        assert_eq!(get(&server, path, &[cookie, ("Sec-Fetch-Site", "cross-site")]).status, 403, "{path}");
    }
    // An own page that can set no headers.
    let own = [("Cookie", "dramatis_user=alice"), ("Sec-Fetch-Site", "same-origin")];
    let (messages, _) = until(&mut stream(&server, "/api/stream?room=lobby&session=tab-1", &own), "live");
    assert_eq!(messages[0]["user"], "alice");
}

#[test]
fn a_cursor_that_is_none_is_refused_with_words() {
    let (_data, server) = room_of(1);
    let first = post(&server, "/api/poll", &[JSON], &hello(&json!([{"room": "lobby"}]))).json().unwrap();
    let cursor = first["cursor"].as_str().unwrap();
    let altered =
        format!("{}{}", &cursor[..cursor.len() - 2], if cursor.ends_with("AA") { "BB" } else { "AA" });
    for (text, user, part) in [
        ("nonsense", ALICE, "version"),
        ("!", ALICE, "must be the text"),
        (&*altered, ALICE, "check does not match"),
        (cursor, ("Dramatis-User", "bob"), "another user"),
    ] {
        for path in ["poll", "stream"] {
            let answer = get(&server, &format!("/api/{path}?cursor={text}"), &[user, TAB]);
            assert_eq!(answer.status, 400, "{text}");
            let problem = answer.json().unwrap();
            assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
        }
    }
    let mut socket = Client::connect(server.address);
    socket.send(&json!({"type": "hello", "user": "bob", "session": "s", "cursor": cursor}));
    assert_eq!(socket.receive()["code"], "malformed");
    assert_eq!(socket.closed(), 4500);
    let (status, text) = server.get("/api/openapi.json");
    assert_eq!(status, 200);
    for path in ["/api/commands", "/api/frames", "/api/stream", "/api/poll"] {
        assert!(text.contains(&format!("\"{path}\"")), "{path} is described");
    }
}
