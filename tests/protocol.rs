//! The protocol's error table, row by row: what a client does wrong, and what it hears.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use serde_json::{Value, json};
use support::{Client, Server, http};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

const MESSAGE_BYTES_MAX: usize = 65_536;
const FRAME_BYTES_MAX: usize = 524_288;
const SUBPROTOCOL: (&str, &str) = ("Sec-WebSocket-Protocol", "dramatis.v1.json");

fn start(environment: &[(&str, &str)]) -> (TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], environment);
    (data, server)
}

/// A server with a room `lobby` that alice owns, and alice and bob connected; bob is no member.
fn lobby(environment: &[(&str, &str)]) -> (TempDir, Server, Client, Client) {
    let (data, server) = start(environment);
    server.open_room("lobby", "alice");
    let (alice, bob) = (server.client("alice", &json!([])), server.client("bob", &json!([])));
    (data, server, alice, bob)
}

fn padded(message: &str, len: usize) -> String {
    format!("{message}{}", " ".repeat(len - message.len()))
}

/// Still answers: the connection has survived what came before.
fn assert_open(client: &mut Client) {
    client.send(&json!({"type": "unsubscribe", "id": "still-there", "room": "nowhere"}));
    assert_eq!(client.answer("still-there")["type"], "unsubscribed");
}

fn assert_rejected(answer: &Value, code: &str, rule: &str) {
    assert_eq!((&answer["type"], &answer["code"]), (&json!("reject"), &json!(code)), "{answer}");
    assert_eq!(answer["retry"], false, "{answer}");
    if code == "rule" {
        assert_eq!(answer["message"], rule);
        assert!(answer["detail"].as_str().unwrap().len() > rule.len(), "a sentence for people: {answer}");
    }
}

#[test]
fn frames_that_are_no_text_close_the_connection() {
    let (_data, server) = start(&[]);
    let not_utf8 = || Message::Frame(Frame::message(vec![b'{', 0xff], OpCode::Data(Data::Text), true));
    for greeted in [false, true] {
        for (frame, code) in [(Message::binary(vec![1, 2, 3]), 1003), (not_utf8(), 1007)] {
            let mut client = Client::connect(server.address);
            if greeted {
                client.hello("alice", "s", &json!([]));
            }
            client.socket().send(frame).unwrap();
            assert_eq!(client.closed(), code, "greeted: {greeted}");
        }
    }
}

#[test]
fn messages_and_frames_may_be_as_long_as_the_limits_and_no_longer() {
    let (_data, server) = start(&[]);
    let pong = r#"{"type":"pong"}"#;
    let mut alice = server.client("alice", &json!([]));
    alice.send_text(&padded(pong, MESSAGE_BYTES_MAX));
    let full =
        format!("{}\n", padded(pong, MESSAGE_BYTES_MAX - 1)).repeat(FRAME_BYTES_MAX / MESSAGE_BYTES_MAX);
    assert_eq!(full.len(), FRAME_BYTES_MAX);
    alice.send_text(&full);
    assert_open(&mut alice);
    alice.send_text(&padded(pong, MESSAGE_BYTES_MAX + 1));
    assert_eq!(alice.closed(), 1009);

    let mut bob = server.client("bob", &json!([]));
    bob.send_text(&format!("{full}\n"));
    assert_eq!(bob.closed(), 1009);

    // A hello may be as long as a frame; what comes behind it in the same frame is a message again.
    let hello = r#"{"type":"hello","user":"carol","session":"s"}"#;
    for (first, closed) in [
        (padded(hello, FRAME_BYTES_MAX), None),
        (padded(hello, FRAME_BYTES_MAX + 1), Some(1009)),
        (format!("{hello}\n{}", padded(pong, MESSAGE_BYTES_MAX)), None),
        (format!("{hello}\n{}", padded(pong, MESSAGE_BYTES_MAX + 1)), Some(1009)),
    ] {
        let mut carol = Client::connect(server.address);
        carol.send_text(&first);
        match closed {
            None => {
                assert_eq!(carol.receive()["type"], "ready");
                assert_open(&mut carol);
            }
            Some(code) => assert_eq!(carol.closed(), code),
        }
    }
}

/// Places in so many rooms, as a client writes them that names its rooms by UUIDs.
fn places(count: usize) -> Value {
    let place = |number| {
        let room = format!("00000000-0000-4000-8000-{number:012}");
        json!({"room": room, "epoch": "00c0ffee00c0ffee.1", "after": 1_000_000})
    };
    (0..count).map(place).collect()
}

#[test]
fn a_hello_names_as_many_rooms_as_may_be_followed() {
    let (_data, server) = start(&[]);
    let mut alice = Client::connect(server.address);
    let rooms = places(1_000);
    assert!(rooms.to_string().len() > MESSAGE_BYTES_MAX);
    let ready = alice.hello("alice", "s", &rooms);
    assert_eq!(ready["rooms"].as_array().unwrap().len(), 1_000);
    assert_open(&mut alice);
    // A long one is for no more than that.
    let mut mallory = Client::connect(server.address);
    let rooms = places(1_001);
    mallory.send(&json!({"type": "hello", "user": "mallory", "session": "s", "rooms": rooms}));
    assert_eq!(mallory.closed(), 1009);
    let too_many = json!({"type": "hello", "user": "mallory", "session": "s", "rooms": rooms});
    for path in ["/api/stream", "/api/poll"] {
        let (status, problem) = server.post(path, &too_many);
        assert_eq!((status, &problem["code"]), (413, &json!("too_large")), "{problem}");
    }
}

#[test]
fn a_room_of_a_hello_that_can_be_none_is_denied_and_the_others_are_not() {
    let (_data, server, _alice, _bob) = lobby(&[]);
    let rooms = json!([{"room": "my room"}, {"room": "lobby"}, {"room": "lobby", "after": -1},
        {"room": "den", "epoch": "yesterday"}, {"room": "", "catch_up": "all"}]);
    let mut carol = Client::connect(server.address);
    let ready = carol.hello("carol", "s", &rooms);
    let entries = ready["rooms"].as_array().unwrap();
    let told: Vec<_> = entries.iter().map(|entry| (entry["room"].clone(), entry["code"].clone())).collect();
    let malformed = |room: &str| (json!(room), json!("malformed"));
    let lobby = (json!("lobby"), Value::Null);
    assert_eq!(told, [malformed("my room"), lobby, malformed("lobby"), malformed("den"), malformed("")]);
    assert!(entries.iter().all(|entry| (entry["how"] == "denied") == (entry["code"] == "malformed")));
    assert_eq!(carol.receive_type("live")["room"], "lobby");
    let (status, page) =
        server.post("/api/poll", &json!({"type": "hello", "user": "carol", "session": "t", "rooms": rooms}));
    assert_eq!((status, &page["messages"][0]["rooms"]), (200, &ready["rooms"]), "{page}");
}

#[test]
fn a_connection_begins_with_hello_and_in_time() {
    let (_data, server) = start(&[]);
    for (first, why) in [
        (r#"{"type":"pong"}"#, "begins with a hello"),
        (r#"{"type":"command","id":"c","room":"lobby","name":"join","data":{}}"#, "begins with a hello"),
        (r#"{"type":"hello","user":"a b","session":"s"}"#, "got \"a b\""),
        (r#"{"type":"hello","user":"alice"}"#, "missing field `session`"),
        (r#"{"type":"hello","session":"s"}"#, "names its user"),
        (r#"{"type":"hello","token":"t","session":"s"}"#, "no key for tokens"),
        ("good evening", "a JSON object with a \"type\"; got \"good evening\""),
    ] {
        let mut client = Client::connect(server.address);
        client.send_text(first);
        let reject = client.receive();
        assert_eq!(reject["code"], "malformed", "{reject}");
        assert!(reject["message"].as_str().unwrap().contains(why), "{first}: {reject}");
        assert_eq!(client.closed(), 4500, "{first}");
    }
    let (_data, server) = start(&[("DRAMATIS__SOCKET__HELLO_TIMEOUT_MS", "100")]);
    let mut silent = Client::connect(server.address);
    assert_eq!(silent.closed(), 4506);
    let mut chatty = Client::connect(server.address);
    // It may be closed before this goes out.
    let _ = chatty.socket().send(Message::Ping(vec![7].into()));
    assert_eq!(chatty.closed(), 4506, "a ping is no hello");
}

#[test]
fn malformed_messages_are_refused_with_their_id_and_the_connection_stays() {
    let (_data, _server, mut alice, _) = lobby(&[("DRAMATIS__SOCKET__MALFORMED_PER_MINUTE_MAX", "10000")]);
    for (text, id) in [
        ("good evening", None),
        ("[]", None),
        ("null", None),
        (r#"{"id":"m1"}"#, Some("m1")),
        (r#"{"type":7,"id":"m2"}"#, Some("m2")),
        (r#"{"type":"dance","id":"m3"}"#, Some("m3")),
        (r#"{"type":"command","id":"m4","room":"lobby"}"#, Some("m4")),
        (r#"{"type":"command","id":"m5","room":"a b","name":"join","data":{}}"#, Some("m5")),
        (r#"{"type":"command","id":"m6","room":"lobby","name":"join","data":{},"colour":"red"}"#, Some("m6")),
        (r#"{"type":"command","id":"m7","room":"lobby","name":"dance","data":{}}"#, Some("m7")),
        (r#"{"type":"command","id":"m8","room":"lobby","name":"post_message","data":{}}"#, Some("m8")),
        (
            r#"{"type":"command","id":"m9","room":"lobby","name":"post_message","data":{"text":7}}"#,
            Some("m9"),
        ),
        (r#"{"type":"command","id":"m10","room":"lobby","name":"post_message"}"#, Some("m10")),
        (
            r#"{"type":"command","id":"m11","room":"lobby","name":"join","data":{},"expected":-1}"#,
            Some("m11"),
        ),
        (r#"{"type":"command","id":12,"room":"lobby","name":"join","data":{}}"#, None),
        (r#"{"type":"command","id":"m13","id":"m13","room":"lobby","name":"join","data":{}}"#, None),
        (r#"{"type":"subscribe","id":"m14","room":"lobby","after":"0"}"#, Some("m14")),
        (r#"{"type":"subscribe","id":"m15","room":"lobby","epoch":"yesterday"}"#, Some("m15")),
        (r#"{"type":"unsubscribe","id":"m16"}"#, Some("m16")),
        (r#"{"type":"history","id":"m17","room":"lobby","limit":-1}"#, Some("m17")),
        (r#"{"type":"hello","user":"alice","session":"again"}"#, None),
    ] {
        alice.send_text(text);
        let answer = alice.receive();
        assert_rejected(&answer, "malformed", "");
        assert_eq!(answer.get("id").and_then(Value::as_str), id, "{text}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
    }
    assert_open(&mut alice);
}

#[test]
fn the_tenth_malformed_message_in_a_minute_closes() {
    let (_data, _server, mut alice, mut bob) = lobby(&[]);
    for _ in 0..9 {
        alice.send_text("?");
    }
    assert_open(&mut alice);
    alice.send_text("?");
    assert_eq!(alice.closed(), 4500);
    bob.send_text(&"?\n".repeat(200));
    let mut refused = 0;
    let code = loop {
        match bob.try_receive() {
            Ok(answer) => refused += u32::from(answer["code"] == "malformed"),
            Err(code) => break code,
        }
    };
    assert_eq!((refused, code), (10, 4500));
}

#[test]
fn who_may_not_is_told_so_and_nothing_is_recorded() {
    let (_data, server, mut alice, mut bob) = lobby(&[]);
    assert_eq!(alice.ask("lobby", "post_message", &json!({"text": "mine"}))["revision"], 2);
    let not_a_member = bob.ask("lobby", "post_message", &json!({"text": "hi"}));
    assert_rejected(&not_a_member, "not_a_member", "");
    assert_eq!(bob.ask("lobby", "join", &json!({}))["revision"], 3);
    for (name, data) in [
        ("rename_room", json!({"title": "mine now"})),
        ("close_room", json!({})),
        ("remove_member", json!({"member": "alice"})),
        ("edit_message", json!({"target": 2, "text": "yours"})),
        ("redact_message", json!({"target": 2})),
    ] {
        assert_rejected(&bob.ask("lobby", name, &data), "forbidden", "");
    }
    for extra in [json!({"by": "alice"}), json!({"occurred_at": 1_000})] {
        let mut command = json!({"type": "command", "id": "f", "room": "lobby", "name": "post_message",
            "data": {"text": "not me"}});
        command.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        bob.send(&command);
        assert_rejected(&bob.answer("f"), "forbidden", "");
    }
    assert_open(&mut bob);
    assert_eq!(server.events(&["--room", "lobby"]).len(), 4);
}

#[test]
fn integrations_speak_for_others() {
    let (_data, server, _, _) = lobby(&[]);
    let mut bridge = server.client("integration:bridge", &json!([]));
    bridge.send(&json!({"type": "command", "id": "i", "room": "lobby", "name": "post_message",
        "data": {"text": "from elsewhere"}, "by": "alice", "occurred_at": 1_000}));
    assert_eq!(bridge.answer("i")["type"], "ack");
    let event = server.events(&["--room", "lobby"]).pop().unwrap();
    assert_eq!((&event["by"], &event["occurred_at"]), (&json!("alice"), &json!(1_000)));
    let (without_hour, before_year_1) = (253_402_207_200_000_i64, -62_135_596_800_001_i64);
    bridge.send(&json!({"type": "command", "id": "last", "room": "lobby", "name": "post_message",
        "data": {"text": "at the end of time"}, "by": "alice", "occurred_at": without_hour - 1}));
    let ack = bridge.answer("last");
    let position = ack["position"].as_str().unwrap_or_else(|| panic!("{ack}"));
    let hours = server.get_json(&format!("/api/rooms/lobby/statistics?min_position={position}"));
    let hour = without_hour - 3_600_000;
    assert!(hours["hours"].as_array().unwrap().iter().any(|counted| counted["hour"] == hour), "{hours}");
    for (number, at) in [i64::MAX, i64::MIN, without_hour, before_year_1].into_iter().enumerate() {
        let id = format!("o-{number}");
        bridge.send(&json!({"type": "command", "id": id, "room": "lobby", "name": "post_message",
            "data": {"text": "from no year"}, "occurred_at": at}));
        assert_rejected(&bridge.answer(&id), "malformed", "milliseconds");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let (_data, _server, mut alice, _) = lobby(&[]);
    assert_rejected(&alice.ask("nowhere", "join", &json!({})), "not_found", "");
    for target in [0, 1, 99] {
        let data = json!({"target": target, "text": "no message"});
        assert_rejected(&alice.ask("lobby", "edit_message", &data), "not_found", "");
        let reply = json!({"text": "re", "reply_to": target});
        assert_rejected(&alice.ask("lobby", "post_message", &reply), "not_found", "");
    }
    assert_rejected(&alice.ask("lobby", "remove_member", &json!({"member": "carol"})), "not_found", "");
    for kind in ["subscribe", "history"] {
        alice.send(&json!({"type": kind, "id": kind, "room": "nowhere"}));
        assert_rejected(&alice.answer(kind), "not_found", "");
    }
    assert_open(&mut alice);
}

#[test]
fn the_domain_says_no_with_the_word_of_the_rule() {
    let (_data, server, mut alice, _) = lobby(&[]);
    assert_eq!(alice.ask("lobby", "post_message", &json!({"text": "hello"}))["revision"], 2);
    for (name, data, rule) in [
        ("open_room", json!({"title": "again"}), "room_exists"),
        ("post_message", json!({"text": " \n\t"}), "text_empty"),
        ("post_message", json!({"text": "x".repeat(8_001)}), "text_too_long"),
        ("rename_room", json!({"title": ""}), "title_empty"),
        ("rename_room", json!({"title": "two\nlines"}), "title_invalid"),
        ("rename_member", json!({"display_name": "x".repeat(81)}), "display_name_too_long"),
        ("add_reaction", json!({"target": 2, "emoji": "a b"}), "emoji_invalid"),
        ("leave", json!({"reason": "x".repeat(501)}), "reason_too_long"),
    ] {
        assert_rejected(&alice.ask("lobby", name, &data), "rule", rule);
    }
    assert_eq!(alice.ask("lobby", "post_message", &json!({"text": "x".repeat(8_000)}))["type"], "ack");
    assert_eq!(alice.ask("lobby", "close_room", &json!({}))["type"], "ack");
    assert_rejected(&alice.ask("lobby", "post_message", &json!({"text": "late"})), "rule", "room_closed");
    assert_eq!(server.events(&["--room", "lobby"]).len(), 5);
}

#[test]
fn a_passed_revision_is_a_conflict() {
    let (_data, _server, mut alice, _) = lobby(&[]);
    let mut post = |id: &str, expected: u64| {
        alice.send(&json!({"type": "command", "id": id, "room": "lobby", "name": "post_message",
            "data": {"text": "first?"}, "expected": expected}));
        alice.answer(id)
    };
    assert_eq!(post("e1", 1)["revision"], 2);
    for (id, expected) in [("e2", 0), ("e3", 1), ("e4", 3)] {
        assert_rejected(&post(id, expected), "conflict", "");
    }
    assert_eq!(post("e5", 2)["revision"], 3);
    let again = post("e1", 1);
    assert_eq!(
        (&again["revision"], &again["duplicate"]),
        (&json!(2), &json!(true)),
        "a retry is no conflict"
    );
}

#[test]
fn a_command_has_one_effect_from_any_connection() {
    let (_data, server, mut alice, mut bob) = lobby(&[]);
    let post = |text: &str| {
        json!({"type": "command", "id": "once", "room": "lobby", "name": "post_message",
        "data": {"text": text}})
    };
    alice.send(&post("hello"));
    let first = alice.answer("once");
    assert_eq!((&first["revision"], &first["duplicate"]), (&json!(2), &json!(false)));
    let mut want = first.clone();
    want["duplicate"] = json!(true);
    let mut other = Client::connect(server.address);
    other.hello("alice", "another-device", &json!([]));
    for client in [&mut alice, &mut other] {
        client.send_text(&format!("{}\n{}", post("hello"), post("hello")));
        assert_eq!((client.answer("once"), client.answer("once")), (want.clone(), want.clone()));
        client.send(&post("something else"));
        assert_rejected(&client.answer("once"), "command_id_reused", "");
    }
    assert_eq!(bob.ask("lobby", "join", &json!({}))["type"], "ack");
    bob.send(&post("hello"));
    assert_eq!(bob.answer("once")["duplicate"], false, "ids are scoped to their author");

    let twice = json!({"type": "command", "id": "pair", "room": "lobby", "name": "post_message",
        "data": {"text": "in one frame"}});
    alice.send_text(&format!("{twice}\n{twice}"));
    let (one, two) = (alice.answer("pair"), alice.answer("pair"));
    assert_eq!((&one["duplicate"], &two["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(one["revision"], two["revision"]);
    assert_eq!(server.events(&["--room", "lobby"]).len(), 6);
}

#[test]
fn a_command_has_one_effect_over_http_too() {
    let (_data, server) = start(&[]);
    let open = |title: &str| {
        server.post("/api/rooms", &json!({"user": "alice", "room": "den", "title": title, "id": "open-den"}))
    };
    let (status, first) = open("Den");
    assert_eq!((status, &first["revision"], &first["duplicate"]), (201, &json!(1), &json!(false)));
    let (status, again) = open("Den");
    assert_eq!((status, &again["duplicate"]), (201, &json!(true)));
    assert_eq!((&again["revision"], &again["position"]), (&first["revision"], &first["position"]));
    let (status, other) = open("Other");
    assert_eq!((status, &other["code"]), (409, &json!("command_id_reused")));

    let mut alice = server.client("alice", &json!([]));
    let mut over_socket = |title: &str| {
        alice.send(&json!({"type": "command", "id": "open-den", "room": "den", "name": "open_room",
            "data": {"title": title}}));
        alice.answer("open-den")
    };
    let ack = over_socket("Den");
    assert_eq!((&ack["duplicate"], &ack["position"]), (&json!(true), &first["position"]));
    assert_rejected(&over_socket("Other"), "command_id_reused", "");
}

#[test]
fn a_cursor_past_the_head_is_ahead_of_the_log() {
    let (_data, _server, mut alice, _) = lobby(&[]);
    alice.send(&json!({"type": "subscribe", "id": "s", "room": "lobby", "after": 2}));
    let answer = alice.answer("s");
    assert_rejected(&answer, "ahead_of_log", "");
    assert_eq!(answer["head"], 1);
    alice.send(&json!({"type": "subscribe", "id": "t", "room": "lobby", "after": 1}));
    assert_eq!(alice.answer("t")["how"], "events");
}

#[test]
fn strangers_are_refused_at_the_handshake() {
    let (_data, server) = start(&[]);
    let own = format!("http://{}", server.address);
    for (headers, want) in [
        (vec![SUBPROTOCOL], Ok(())),
        (vec![], Ok(())),
        (vec![SUBPROTOCOL, ("Origin", own.as_str())], Ok(())),
        (vec![("Sec-WebSocket-Protocol", "dramatis.v9.json")], Err(400)),
        (vec![SUBPROTOCOL, ("Origin", "https://evil.example")], Err(403)),
        (vec![SUBPROTOCOL, ("Origin", "null")], Err(403)),
        (vec![SUBPROTOCOL, ("Host", "evil.example")], Err(403)),
        (vec![SUBPROTOCOL, ("Host", "evil.example"), ("Origin", "http://evil.example")], Err(403)),
        (vec![SUBPROTOCOL, ("Sec-WebSocket-Version", "8")], Err(426)),
    ] {
        assert_eq!(Client::try_connect(server.address, &headers).map(|_| ()), want, "{headers:?}");
    }
    let request = |path: &str, host: &str, more: &str| {
        http(
            server.address,
            &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"),
        )
    };
    let host = server.address.to_string();
    assert_eq!(request("/api/health", &host, "").0, 200);
    assert_eq!(request("/api/health", "evil.example", "").0, 403);
    let (status, body) = request("/api/rooms", &host, "Origin: https://evil.example\r\n");
    assert_eq!((status, body.contains("\"forbidden\"")), (403, true), "{body}");
    let upgrade = format!(
        "GET /elsewhere HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    assert_eq!(http(server.address, &upgrade).0, 404);
}
