//! Floods: what nobody should send, in numbers. The server's memory stays flat and others are
//! served meanwhile. `DRAMATIS_TEST_TIER=long` or `soak` sends fifty times as much.
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

use std::io::{Read as _, Seek as _};

use raw::{Heard, PING, Raw, TEXT, put_frame};
use serde_json::json;
use support::{Client, Server};
use tempfile::TempDir;

/// How much resident memory may grow between the end of the warm-up and the end, in KiB.
const SLACK_KIB: u64 = 16 * 1024;
/// What a socket that has said nothing may cost at the most, in KiB.
const SILENT_SOCKET_KIB: u64 = 16;
/// Frames of the default tier, over both floods of malformed frames.
const FRAMES_DEFAULT: usize = 200_000;
const FRAMES_LONG: usize = 10_000_000;

fn frames() -> usize {
    let tier = std::env::var("DRAMATIS_TEST_TIER").unwrap_or_default();
    if matches!(tier.as_str(), "long" | "soak") { FRAMES_LONG } else { FRAMES_DEFAULT }
}

/// A server with a room, and a client in it whose commands must be answered all the while.
fn start(environment: &[(&str, &str)]) -> (TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], environment);
    server.open_room("lobby", "alice");
    let alice = server.client("alice", &json!([{"room": "lobby"}]));
    (data, server, alice)
}

fn assert_served(alice: &mut Client) {
    let ack = alice.ask("lobby", "post_message", &json!({"text": "still here"}));
    assert_eq!(ack["type"], "ack", "{ack}");
}

fn assert_flat(server: &Server, before_kib: u64, what: &str) {
    let now_kib = server.resident_kib();
    println!("{what}: {before_kib} KiB after the warm-up, {now_kib} KiB at the end");
    assert!(now_kib <= before_kib + SLACK_KIB, "{what}: grew from {before_kib} to {now_kib} KiB");
}

fn hello(user: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = json!({"type": "hello", "user": user, "session": "flood", "rooms": [{"room": "lobby"}]});
    put_frame(&mut bytes, TEXT, text.to_string().as_bytes());
    bytes
}

/// Garbage of many shapes, the same on every run.
struct Garbage(u64);

impl Garbage {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One malformed message, on one line.
    fn message(&mut self) -> String {
        let number = self.next();
        match number % 8 {
            0 => "[".repeat(1 + usize::try_from(number >> 8).unwrap() % 400),
            1 => format!(r#"{{"type":"{number:x}","id":"{number}"}}"#),
            2 => format!(r#"{{"type":"command","id":"{number}","room":"lobby"}}"#),
            3 => format!(
                r#"{{"type":"command","id":"{number}","room":"lobby","name":"n{number}","data":{{}}}}"#
            ),
            4 => r#"{"type":"subscribe","id":"s","room":"a b"}"#.to_owned(),
            5 => format!(r#"{{"type":"history","id":"h","room":"lobby","limit":{number}0}}"#),
            6 => format!("{number:x}\u{0}\u{1F40C}"),
            _ => r#"{"type":"hel"#.to_owned(),
        }
    }

    /// So many frames of one message each.
    fn frames(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            put_frame(&mut bytes, TEXT, self.message().as_bytes());
        }
        bytes
    }

    /// One frame of as many lines as the limit lets in.
    fn big_frame(&mut self) -> Vec<u8> {
        let mut lines = String::new();
        while lines.len() < 500_000 {
            lines.push_str(&self.message());
            lines.push('\n');
        }
        let mut bytes = Vec::new();
        put_frame(&mut bytes, TEXT, lines.as_bytes());
        bytes
    }
}

#[test]
fn malformed_frames_over_reconnecting_sockets_leave_no_trace() {
    const EACH: usize = 50;
    const BIG_EVERY: usize = 16;
    const GREETED: Heard = Heard { rejects: 10, closed: Some(4500) };
    const STRANGER: Heard = Heard { rejects: 1, closed: Some(4500) };
    const TOO_BIG_A_STRANGER: Heard = Heard { rejects: 0, closed: Some(1009) };
    let (_data, server, mut alice) = start(&[]);
    let mut garbage = Garbage(0x9e37_79b9);
    let connections = frames() / 2 / EACH;
    let mut before_kib = 0;
    for number in 0..connections {
        if number == connections / 10 {
            before_kib = server.resident_kib();
        }
        let big = number % BIG_EVERY == 0;
        let flood = if big { garbage.big_frame() } else { garbage.frames(EACH) };
        let greets = number % 4 != 1;
        let early = if greets { [hello("mallory"), flood].concat() } else { flood };
        let heard = Raw::connect(server.address, &early).listen(usize::MAX);
        let expected = match (greets, big) {
            (true, _) => GREETED,
            (false, false) => STRANGER,
            (false, true) => TOO_BIG_A_STRANGER,
        };
        assert_eq!(heard, expected, "connection {number}, big: {big}");
        if number % 100 == 0 {
            assert_served(&mut alice);
        }
    }
    assert_served(&mut alice);
    assert_flat(&server, before_kib, "reconnecting sockets");
}

#[test]
fn malformed_frames_that_are_all_answered_leave_no_trace() {
    const EACH: usize = 10_000;
    const CHUNK: usize = 500;
    let (_data, server, mut alice) = start(&[("DRAMATIS__SOCKET__MALFORMED_PER_MINUTE_MAX", "10000")]);
    let mut garbage = Garbage(0x0dd_ba11);
    let connections = frames() / 2 / EACH;
    let mut before_kib = 0;
    for number in 0..connections {
        if number == connections / 10 {
            before_kib = server.resident_kib();
        }
        let mut mallory = Raw::connect(server.address, &hello("mallory"));
        for sent in (0..EACH).step_by(CHUNK) {
            assert!(mallory.send(&garbage.frames(CHUNK)), "closed after {sent}");
            assert_eq!(mallory.listen(CHUNK), Heard { rejects: CHUNK, closed: None }, "after {sent}");
            if sent % (CHUNK * 10) == 0 {
                assert_served(&mut alice);
            }
        }
        assert_eq!(mallory.listen(usize::MAX), Heard { rejects: 0, closed: Some(4500) });
    }
    assert_flat(&server, before_kib, "answered frames");
}

#[test]
fn pings_whose_answers_nobody_reads_do_not_pile_up() {
    const BATCH: usize = 1_000;
    let (_data, server, mut alice) = start(&[]);
    let mut batch = Vec::new();
    for _ in 0..BATCH {
        put_frame(&mut batch, PING, &[7; 125]);
    }
    let mut mallory = Raw::connect(server.address, &hello("mallory"));
    let batches = frames() / BATCH;
    let mut before_kib = 0;
    for number in 0..batches {
        if number == batches / 10 {
            before_kib = server.resident_kib();
        }
        assert!(mallory.send(&batch), "closed after {number} batches");
        if number % 20 == 0 {
            assert_served(&mut alice);
        }
    }
    assert_served(&mut alice);
    assert_flat(&server, before_kib, "pings");
    let mut last = Vec::new();
    put_frame(&mut last, TEXT, b"?");
    assert!(mallory.send(&last));
    assert_eq!(mallory.listen(1), Heard { rejects: 1, closed: None }, "the newest answers wait, not all");
}

#[test]
fn requests_that_make_no_sense_are_answered_and_not_logged() {
    let data = tempfile::tempdir().unwrap();
    let mut said = tempfile::tempfile().unwrap();
    let child = support::serve(data.path()).stderr(said.try_clone().unwrap()).spawn().unwrap();
    let server = Server::once_it_listens(child).unwrap();
    for nonsense in ["GET / HTTP/1.1\r\nno header\r\n\r\n", "?\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        assert_eq!(support::http(server.address, nonsense).0, 400, "{nonsense:?}");
    }
    let mut text = String::new();
    said.rewind().unwrap();
    said.read_to_string(&mut text).unwrap();
    assert_eq!(text, "");
}

/// How many files this process may have open.
fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

/// How many sockets say nothing.
fn silent_sockets() -> usize {
    if frames() == FRAMES_LONG { 10_000 } else { 2_000 }
}

#[test]
fn sockets_without_hello_cost_little_and_are_closed() {
    let (_data, server, mut alice) = start(&[("DRAMATIS__SOCKET__HELLO_TIMEOUT_MS", "3000")]);
    let sockets = silent_sockets().min(open_files_max() * 3 / 4);
    let before_kib = server.resident_kib();
    let mut silent: Vec<_> = (0..sockets).map(|_| Raw::connect(server.address, &[])).collect();
    assert_served(&mut alice);
    let grown_kib = server.resident_kib().saturating_sub(before_kib);
    println!("{sockets} silent sockets: {grown_kib} KiB");
    assert!(grown_kib <= sockets as u64 * SILENT_SOCKET_KIB, "{grown_kib} KiB for {sockets} sockets");
    for silent in &mut silent {
        assert_eq!(silent.listen(1), Heard { rejects: 0, closed: Some(4506) });
    }
    assert_served(&mut alice);
    drop(silent);
    let again: Vec<_> = (0..sockets).map(|_| Raw::connect(server.address, &[])).collect();
    assert_served(&mut alice);
    assert_flat(&server, before_kib + grown_kib, "a second crowd of silent sockets");
    drop(again);
}
