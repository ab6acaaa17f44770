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
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use raw::{Raw, TEXT, put_frame};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use serde_json::{Value, json};
use support::http::Request;
use support::imports::long_tier;
use support::{Client, PATIENCE, Server};
use tempfile::TempDir;

/// Messages of about 8 kB: more than the kernel takes for a connection.
const MESSAGES: usize = 120;
/// What the kernel keeps for one of them.
const SEND_BUFFER_BYTES: &str = "16384";
/// What the server itself may take meanwhile: it is written to all the while.
const SLACK_KIB: u64 = 64 * 1_024;
/// What one of them may cost: the outbox, the dispatcher's buffer, an event on its way.
const HELD_KIB: u64 = 768;
/// The same of an answer, which is there whole until it is taken: a page of a list, of 1 MiB at the most.
const ANSWER_KIB: u64 = 1_280;

/// How long the server has patience with who does not read.
const PATIENCE_MS: &str = "1000";

/// A server with a room of long messages that gives those who do not read so long.
fn start(send_buffer_bytes: &str, patience_ms: &str) -> (TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let environment = [
        ("DRAMATIS__SOCKET__WRITE_TIMEOUT_MS", patience_ms),
        ("DRAMATIS__SOCKET__SEND_BUFFER_BYTES", send_buffer_bytes),
    ];
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
    json!({"type": "hello", "user": format!("mallory-{number}"), "session": "s", "rooms": [{"room": "lobby", "after": 1}]})
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
fn check<Connection>(what: &str, held_kib: u64, connect: impl Fn(&Server, usize) -> Connection) {
    // Long enough for all of them to be there at once.
    let (clients, patience_ms) = if long_tier() { (200, "30000") } else { (10, "3000") };
    let (_data, server, mut alice) = start(SEND_BUFFER_BYTES, patience_ms);
    let (files, before_kib) = (open_files(&server), server.resident_kib());
    let (mut held, mut most) = (Vec::new(), files);
    for number in 0..clients {
        held.push(connect(&server, number));
        most = most.max(open_files(&server));
    }
    let (mut most_kib, began) = (0, Instant::now());
    let slack = 4; // segments of the log and the like
    while open_files(&server) > files + slack {
        post(&mut alice);
        most_kib = most_kib.max(server.resident_kib().saturating_sub(before_kib));
        assert!(began.elapsed() < PATIENCE * 4, "{} of {most} files are open still", open_files(&server));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "{clients} {what} that never read: ended after {} ms, {most_kib} KiB more meanwhile",
        began.elapsed().as_millis()
    );
    assert!(most > files + clients / 2, "{most} files, {files} before: they were connected");
    assert!(most_kib < SLACK_KIB + clients as u64 * held_kib, "{most_kib} KiB for {clients} clients");
    drop(held);
}

#[test]
fn sockets() {
    check("sockets", HELD_KIB, |server, number| {
        let mut frame = Vec::new();
        put_frame(&mut frame, TEXT, hello(number).to_string().as_bytes());
        Raw::connect(server.address, &frame)
    });
}

#[test]
fn streams() {
    check("streams", HELD_KIB, |server, number| {
        request(server, "POST", "/api/stream", &hello(number).to_string())
    });
}

#[test]
fn polls() {
    check("polls", HELD_KIB, |server, number| {
        request(server, "POST", "/api/poll", &hello(number).to_string())
    });
}

#[test]
fn long_answers() {
    check("long answers", ANSWER_KIB, |server, _| {
        request(server, "GET", "/api/rooms/lobby/timeline?limit=500", "")
    });
}

/// A connection of a client that takes few bytes at a time.
fn narrow(address: SocketAddr) -> TcpStream {
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&stream, 4_096).unwrap();
    connect(&stream, &address).unwrap();
    TcpStream::from(stream)
}

/// A stream that takes few bytes at a time and is asked this.
fn narrow_request(server: &Server, method: &str, path: &str, body: &str) -> TcpStream {
    let request = Request { method, path, headers: &[("Content-Type", "application/json")], body };
    let mut stream = narrow(server.address);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.text(server.address).as_bytes()).unwrap();
    stream
}

/// Reads up to the last message of the room, slowly at first; `false` if the machine kept it from reading
/// for about as long as the server's patience, and it was closed: nobody can tell why.
fn read_slowly(mut reader: impl std::io::Read) -> bool {
    /// The server's patience is one second: in these it runs out several times over.
    const SLOW_READS: usize = 60;
    let last = format!("\"revision\":{}", 1 + MESSAGES);
    let mut heard = Vec::new();
    let mut piece = [0; 1_024];
    let (mut reads, mut read_at, mut stood_still) = (0, Instant::now(), Duration::ZERO);
    while !heard.windows(last.len()).any(|window| window == last.as_bytes()) {
        let read = reader.read(&mut piece).unwrap_or(0);
        stood_still = stood_still.max(read_at.elapsed());
        read_at = Instant::now();
        if read == 0 {
            assert!(stood_still > Duration::from_millis(500), "closed after {reads} reads");
            return false;
        }
        heard.drain(..heard.len().saturating_sub(last.len()));
        heard.extend_from_slice(&piece[..read]);
        reads += 1;
        if reads <= SLOW_READS {
            // What is tested: it reads no faster.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    true
}

/// The system says that there is room once a third of it is: for a slow reader after four seconds.
const LARGE_SEND_BUFFER_BYTES: &str = "65536";

fn is_served<R: std::io::Read>(open: impl Fn(&Server) -> R) {
    let (_data, server, _alice) = start(LARGE_SEND_BUFFER_BYTES, PATIENCE_MS);
    assert!((0..20).any(|_| read_slowly(open(&server))), "this machine stands still all the time");
}

#[test]
fn a_socket_that_reads_slowly_is_served() {
    is_served(|server| {
        let mut frame = Vec::new();
        put_frame(&mut frame, TEXT, hello(0).to_string().as_bytes());
        Raw::connect_over(narrow(server.address), server.address, &frame).into_stream()
    });
}

#[test]
fn a_stream_that_is_read_slowly_is_served() {
    is_served(|server| narrow_request(server, "POST", "/api/stream", &hello(0).to_string()));
}

#[test]
fn a_long_answer_that_is_read_slowly_is_served() {
    is_served(|server| narrow_request(server, "GET", "/api/events?room=lobby", ""));
}

/// Sends the head of a request and a part of its body; what is answered, up to the end.
fn half_a_request(server: &Server, path: &str, how: &str, part: &str) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nDramatis-User: alice\r\nContent-Type: application/json\r\n{how}\r\n",
        server.address
    );
    stream.write_all((head + "\r\n" + part).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__SOCKET__BODY_TIMEOUT_MS", "1000")]);
    for path in ["/api/commands", "/api/stream", "/api/rooms"] {
        for (how, part) in [("Content-Length: 100", "{"), ("Transfer-Encoding: chunked", "1\r\n{\r\n")] {
            let answer = half_a_request(&server, path, how, part);
            assert!(
                answer.starts_with("HTTP/1.1 408") && answer.contains("did not come"),
                "{path}: {answer}"
            );
        }
    }
}

#[test]
fn the_answers_of_one_frame_are_bounded_for_one_who_does_not_read_them() {
    const OUTBOX_BYTES_MAX: u64 = 256 * 1_024;
    let (_data, server, _alice) = start(SEND_BUFFER_BYTES, PATIENCE_MS);
    let mut bytes = Vec::new();
    let said = json!({"type": "hello", "user": "mallory", "session": "s", "rooms": []});
    put_frame(&mut bytes, TEXT, said.to_string().as_bytes());
    let mut asked = String::new();
    for number in 0.. {
        let subscribe = json!({"type": "subscribe", "id": number.to_string(), "room": "none"}).to_string();
        if asked.len() + subscribe.len() >= 512 * 1_024 {
            break;
        }
        asked = asked + &subscribe + "\n";
    }
    put_frame(&mut bytes, TEXT, asked.as_bytes());
    let _mallory = Raw::connect(server.address, &bytes);
    let (mut most, began) = (0, Instant::now());
    loop {
        let held = server.metric("dramatis_outbox_bytes");
        if most > OUTBOX_BYTES_MAX / 2 && held == 0 {
            break; // it was closed
        }
        most = most.max(held);
        assert!(began.elapsed() < PATIENCE, "{held} bytes still, {most} at the most");
    }
    println!("{most} bytes at the most");
    assert!(most < OUTBOX_BYTES_MAX + OUTBOX_BYTES_MAX / 8, "{most} bytes of answers");
}
