//! A client that takes an answer and never reads it, on every transport: few bytes are held for it,
//! others are served meanwhile, and it is ended. `DRAMATIS_TEST_TIER=long` brings twenty times as many.
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

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use raw::{Raw, TEXT, put_frame};
use serde_json::{Value, json};
use support::http::Request;
use support::imports::long_tier;
use support::{Client, PATIENCE, Server};
use tempfile::TempDir;

/// Messages of about 8 kB: more than the kernel takes for a connection.
const MESSAGES: usize = 120;
/// What the server itself may take meanwhile: it is written to all the while.
const SLACK_KIB: u64 = 64 * 1_024;
/// What one of them may cost: the outbox, the dispatcher's buffer, an event on its way.
const HELD_KIB: u64 = 768;

/// A server with a room of long messages that gives those who do not read one second.
fn start() -> (TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let environment =
        [("DRAMATIS__SOCKET__WRITE_TIMEOUT_MS", "1000"), ("DRAMATIS__SOCKET__SEND_BUFFER_BYTES", "16384")];
    let server = Server::start_with(data.path(), &[], &environment);
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    for _ in 0..MESSAGES {
        post(&mut alice);
    }
    (data, server, alice)
}

fn post(alice: &mut Client) {
    let answer = alice.ask("lobby", "post_message", &json!({"text": "long words ".repeat(720)}));
    assert_eq!(answer["type"], "ack", "{answer}");
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.process_id())).unwrap().count()
}

fn hello(number: usize) -> Value {
    json!({"type": "hello", "user": "mallory", "session": format!("s-{number}"), "rooms": [{"room": "lobby", "after": 1}]})
}

/// Sends a request and reads the beginning of its answer, so that it was taken; no more is read.
fn request(server: &Server, method: &str, path: &str, body: &str) -> TcpStream {
    let request = Request { method, path, headers: &[("Content-Type", "application/json")], body };
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.text(server.address).as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

/// Lets clients connect that never read, and waits until the server has let go of all of them.
fn check<Connection>(what: &str, connect: impl Fn(&Server, usize) -> Connection) {
    let (_data, server, mut alice) = start();
    let clients = if long_tier() { 200 } else { 10 };
    let (files, before_kib) = (open_files(&server), server.resident_kib());
    let held: Vec<_> = (0..clients).map(|number| connect(&server, number)).collect();
    let most = open_files(&server);
    let (mut most_kib, began) = (0, Instant::now());
    let slack = 4; // segments of the log and the like
    while open_files(&server) > files + slack {
        post(&mut alice);
        most_kib = most_kib.max(server.resident_kib().saturating_sub(before_kib));
        assert!(began.elapsed() < PATIENCE * 2, "{} of {most} files are open still", open_files(&server));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "{clients} {what} that never read: ended after {} ms, {most_kib} KiB more meanwhile",
        began.elapsed().as_millis()
    );
    assert!(most > files + clients / 2, "{most} files, {files} before: they were connected");
    assert!(most_kib < SLACK_KIB + clients as u64 * HELD_KIB, "{most_kib} KiB for {clients} clients");
    drop(held);
}

#[test]
fn sockets() {
    check("sockets", |server, number| {
        let mut frame = Vec::new();
        put_frame(&mut frame, TEXT, hello(number).to_string().as_bytes());
        Raw::connect(server.address, &frame)
    });
}

#[test]
fn streams() {
    check("streams", |server, number| request(server, "POST", "/api/stream", &hello(number).to_string()));
}

#[test]
fn polls() {
    check("polls", |server, number| request(server, "POST", "/api/poll", &hello(number).to_string()));
}

#[test]
fn long_answers() {
    check("long answers", |server, _| request(server, "GET", "/api/rooms/lobby/timeline?limit=500", ""));
}
