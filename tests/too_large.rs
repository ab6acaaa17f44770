//! What is over its limit is refused with words wherever it comes in, and the limit itself is taken.
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

const MESSAGE_BYTES_MAX: usize = 4_096;
const FRAME_BYTES_MAX: usize = 8_192;

fn start() -> (tempfile::TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let limits =
        [("DRAMATIS__SOCKET__MESSAGE_BYTES_MAX", "4096"), ("DRAMATIS__SOCKET__FRAME_BYTES_MAX", "8192")];
    let server = Server::start_with(data.path(), &[], &limits);
    server.open_room("lobby", "alice");
    (data, server)
}

fn post(server: &Server, path: &str, body: &str) -> Answer {
    let headers =
        [("Content-Type", "application/json"), ("Dramatis-User", "alice"), ("Dramatis-Session", "tab")];
    Request { method: "POST", path, headers: &headers, body }.send(server.address).unwrap()
}

/// JSON made so many bytes long by white space.
fn padded(message: &Value, len: usize) -> String {
    let mut text = message.to_string();
    text.insert_str(1, &" ".repeat(len - text.len()));
    text
}

fn assert_too_large(what: &str, answer: Answer, max: usize) {
    assert!(answer.head.contains("content-type: application/problem+json"), "{what}: {}", answer.head);
    let status = answer.status;
    let problem = answer.json().unwrap();
    assert_eq!((status, &problem["code"]), (413, &json!("too_large")), "{what}: {problem}");
    assert_eq!(problem["status"], 413);
    assert!(problem["detail"].as_str().unwrap().contains(&max.to_string()), "{what}: {problem}");
}

#[test]
fn bodies_and_messages_over_their_limit_are_told_so() {
    let (_data, server) = start();
    let hello = json!({"type": "hello", "user": "alice", "session": "tab", "rooms": []});
    let command = |id: &str| json!({"type": "command", "id": id, "room": "lobby", "name": "post_message", "data": {"text": id}});
    let mut events = Events::new(post(&server, "/api/stream", &padded(&hello, FRAME_BYTES_MAX)));
    assert_eq!(events.next().unwrap().unwrap().messages()[0]["type"], "ready");
    assert_eq!(post(&server, "/api/commands", &padded(&command("most"), MESSAGE_BYTES_MAX)).status, 200);
    let typing = json!({"type": "ephemeral", "room": "lobby", "name": "typing", "data": {}});
    let most = [padded(&typing, MESSAGE_BYTES_MAX), padded(&typing, MESSAGE_BYTES_MAX - 1)].join("\n");
    assert_eq!((most.len(), post(&server, "/api/frames", &most).status), (FRAME_BYTES_MAX, 202));

    let over = MESSAGE_BYTES_MAX + 1;
    for (path, body) in
        [("/api/commands", padded(&command("over"), over)), ("/api/frames", padded(&typing, over))]
    {
        assert_too_large(path, post(&server, path, &body), MESSAGE_BYTES_MAX);
    }
    // A hello may name many rooms: it is as long as a frame at the most.
    for path in ["/api/commands", "/api/frames", "/api/stream", "/api/poll"] {
        let body = padded(&hello, FRAME_BYTES_MAX + 1);
        assert_too_large(path, post(&server, path, &body), FRAME_BYTES_MAX);
    }
    let room = json!({"user": "alice", "room": "den", "title": "Den"});
    assert_too_large("/api/rooms", post(&server, "/api/rooms", &padded(&room, 65_537)), 65_536);
    assert!(server.events(&["--room", "lobby"]).iter().all(|event| event["data"]["text"] != "over"));
}

#[test]
fn bodies_that_are_no_text_are_told_so() {
    let (_data, server) = start();
    let head = format!("POST /api/commands HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", server.address);
    let (status, body) = support::http(
        server.address,
        &format!("{head}Content-Type: application/json; charset=utf-7\r\nContent-Length: 2\r\n\r\n{{}}"),
    );
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &problem["code"]), (400, &json!("malformed")), "{problem}");
}

#[test]
fn a_socket_is_closed_for_what_is_over_the_limit() {
    let (_data, server) = start();
    for (len, code) in [(MESSAGE_BYTES_MAX + 1, 1009), (FRAME_BYTES_MAX + 1, 1009)] {
        let mut alice = Client::connect(server.address);
        alice.hello("alice", &format!("s-{len}"), &json!([]));
        alice.send_text(&padded(&json!({"type": "pong"}), len));
        assert_eq!(alice.closed(), code, "{len}");
    }
}
