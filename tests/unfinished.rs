//! Messages that come in part and no further, and whole ones that wait: what is kept of them is bounded
//! for the process and in time, who holds most is told why it is closed, and others are served meanwhile.
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
use std::time::{Duration, Instant};

use raw::{Heard, Raw, TEXT, put_frame};
use serde_json::json;
use support::{Client, PATIENCE, Server};

/// The smallest budget, in bytes.
const BUDGET: u64 = 1_048_576;
/// A message that is let in, in bytes.
const MESSAGE_BYTES: usize = 60_000;
/// What has come of it, in bytes.
const COME_BYTES: usize = 50_000;
const TOO_MUCH: Heard = Heard { rejects: 0, closed: Some(4013) };

fn hello(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let user = format!("mallory{}", number % 3);
    let text = json!({"type": "hello", "user": user, "session": number.to_string(), "rooms": []});
    put_frame(&mut bytes, TEXT, text.to_string().as_bytes());
    bytes
}

fn start(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let budget = BUDGET.to_string();
    let settings = [&[("DRAMATIS__SOCKET__UNFINISHED_BYTES_MAX", budget.as_str())], settings].concat();
    let server = Server::start_with(data.path(), &[], &settings);
    server.open_room("lobby", "alice");
    (data, server)
}

/// So many are closed since they held too much.
fn assert_told(server: &Server, count: usize) {
    let started = Instant::now();
    loop {
        let metrics = server.get("/metrics").1;
        let closes = metrics.lines().find(|line| line.starts_with("dramatis_closes_total{code=\"4013\"}"));
        let told = closes.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap());
        if told >= count {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{told} of {count} are closed");
    }
}

fn assert_served(alice: &mut Client) {
    let ack = alice.ask("lobby", "post_message", &json!({"text": "still here"}));
    assert_eq!(ack["type"], "ack", "{ack}");
}

/// Frames that have come in part, and messages whose last frame has not come.
fn parts(fragmented: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if fragmented {
        put_frame(&mut bytes, TEXT, &vec![b' '; COME_BYTES]);
        // It is not the last one.
        bytes[0] &= 0x7f;
    } else {
        put_frame(&mut bytes, TEXT, &vec![b' '; MESSAGE_BYTES]);
        bytes.truncate(COME_BYTES);
    }
    bytes
}

#[test]
fn what_has_come_in_part_is_bounded_and_who_has_held_it_for_long_is_told() {
    const MANY: usize = 60;
    for fragmented in [false, true] {
        let (_data, server) = start(&[]);
        let mut alice = server.client("alice", &json!([]));
        let part = parts(fragmented);
        let mut most = 0;
        let mut mallory: Vec<_> = (0..MANY)
            .map(|number| {
                let mut mallory = Raw::connect(server.address, &hello(number));
                mallory.send(&part);
                assert_served(&mut alice);
                most = most.max(server.metric("dramatis_unfinished_bytes"));
                mallory
            })
            .collect();
        println!("fragmented: {fragmented}: {most} bytes of {BUDGET}");
        // One read of one connection on each thread, and the threads' own sums.
        assert!((BUDGET * 3 / 4..BUDGET * 5 / 4).contains(&most), "{most}");
        assert_told(&server, MANY / 2);
        // Who came first has not held the least.
        mallory.truncate(MANY / 4);
        assert!(mallory.iter_mut().any(|early| early.listen(usize::MAX) == TOO_MUCH));
        // A message that comes at once is small enough, whatever others hold.
        assert_served(&mut alice);
        drop(mallory);
        let mut large = || alice.ask("lobby", "rename_room", &json!({"title": "x".repeat(MESSAGE_BYTES)}));
        while server.metric("dramatis_unfinished_bytes") > BUDGET / 8 {
            assert_served(&mut server.client("alice", &json!([])));
        }
        assert_eq!(large()["code"], "rule", "it is read, and too long for a title");
    }
}

#[test]
fn who_holds_on_to_much_keeps_nobody_from_sending_more() {
    const HOLDERS: usize = 40;
    const HELD_BYTES: usize = 200_000;
    let (_data, server) = start(&[]);
    let mut frame = Vec::new();
    put_frame(&mut frame, TEXT, &vec![b' '; HELD_BYTES]);
    frame.truncate(HELD_BYTES);
    let mut mallory: Vec<_> = (0..HOLDERS)
        .map(|number| {
            let mut mallory = Raw::connect(server.address, &hello(number));
            mallory.send(&frame);
            mallory
        })
        .collect();
    // A large message of somebody else, of which the rest comes once the beginning is there.
    let rename = json!({"type": "command", "id": "long", "room": "lobby", "name": "rename_room",
        "data": {"title": "x".repeat(MESSAGE_BYTES)}});
    for number in 0..10 {
        let mut bytes = Vec::new();
        let said = json!({"type": "hello", "user": "alice", "session": number.to_string(), "rooms": []});
        put_frame(&mut bytes, TEXT, said.to_string().as_bytes());
        let mut alice = Raw::connect(server.address, &bytes);
        bytes.clear();
        put_frame(&mut bytes, TEXT, rename.to_string().as_bytes());
        let (first, rest) = bytes.split_at(COME_BYTES);
        alice.send(first);
        // So the first half was read before the second comes.
        assert_served(&mut server.client("alice", &json!([])));
        alice.send(rest);
        let heard = alice.listen(1);
        assert_eq!(
            (heard.rejects, heard.closed),
            (1, None),
            "{number}: it is read, and too long for a title"
        );
    }
    let held = server.metric("dramatis_unfinished_bytes");
    assert!(held < BUDGET * 5 / 4, "{held}");
    assert_told(&server, HOLDERS / 2);
    mallory.clear();
}

#[test]
fn a_message_that_has_begun_comes_in_time_or_its_connection_ends() {
    let (_data, server) = start(&[("DRAMATIS__SOCKET__BODY_TIMEOUT_MS", "3000")]);
    for fragmented in [false, true] {
        let mut silent = Raw::connect(server.address, &hello(1));
        silent.send(&parts(fragmented));
        assert_eq!(silent.listen(usize::MAX), Heard { rejects: 0, closed: Some(4014) });
        // One byte now and then is heard, and does not count as the message.
        let mut slow = Raw::connect(server.address, &hello(2));
        let mut whole = Vec::new();
        put_frame(&mut whole, TEXT, &vec![b' '; MESSAGE_BYTES]);
        if fragmented {
            slow.send(&parts(true));
        }
        let mut writer = slow.writer();
        std::thread::spawn(move || {
            for byte in whole {
                if writer.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert_eq!(slow.listen(usize::MAX).closed, Some(4014));
    }
    while server.metric("dramatis_unfinished_bytes") > 0 {
        assert_served(&mut server.client("alice", &json!([])));
    }
    // Who sends messages one after the other, each in pieces, goes on.
    let mut steady = Raw::connect(server.address, &hello(3));
    let bad = json!({"type": "unsubscribe", "id": "u", "colour": "red", "room": "lobby"}).to_string();
    let mut frame = Vec::new();
    put_frame(&mut frame, TEXT, bad.as_bytes());
    for _ in 0..8 {
        let (first, rest) = frame.split_at(frame.len() / 2);
        steady.send(first);
        std::thread::sleep(Duration::from_millis(450));
        steady.send(rest);
        assert_eq!(steady.listen(1).rejects, 1);
    }
}

#[test]
fn messages_that_wait_for_those_before_them_count_too() {
    const MANY: usize = 12;
    let (_data, server) = start(&[("DRAMATIS__SOCKET__SEND_BUFFER_BYTES", "16384")]);
    let mut alice = server.client("alice", &json!([]));
    for _ in 0..20 {
        let words = "long words ".repeat(720);
        assert_eq!(alice.ask("lobby", "post_message", &json!({"text": words}))["type"], "ack");
    }
    // Pages that nobody reads: the next ones are not looked for before that.
    let page = json!({"type": "history", "id": "h", "room": "lobby", "limit": 200}).to_string() + "\n";
    let mut frame = Vec::new();
    put_frame(&mut frame, TEXT, page.repeat(300_000 / page.len()).as_bytes());
    let waits = |mallory: &mut Raw, bytes: u64| {
        mallory.send(&frame);
        let started = Instant::now();
        while server.metric("dramatis_unfinished_bytes") < bytes {
            assert!(
                started.elapsed() < PATIENCE,
                "{} bytes wait",
                server.metric("dramatis_unfinished_bytes")
            );
        }
    };
    let mut first = Raw::connect(server.address, &hello(0));
    waits(&mut first, 250_000);
    let mut others: Vec<_> = (1..MANY)
        .map(|number| {
            let mut mallory = Raw::connect(server.address, &hello(number));
            waits(&mut mallory, 500_000);
            assert_served(&mut alice);
            let held = server.metric("dramatis_unfinished_bytes");
            assert!(held < BUDGET * 2, "{held}");
            mallory
        })
        .collect();
    assert_told(&server, MANY / 2);
    others.clear();
    drop(first);
    while server.metric("dramatis_unfinished_bytes") > 0 {
        assert_served(&mut alice);
    }
}

/// A request whose body is not whole, in chunks.
fn chunked(server: &Server, chunks: usize) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /api/frames HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk =
        [format!("{CHUNK_BYTES:x}\r\n").into_bytes(), vec![b' '; CHUNK_BYTES], b"\r\n".to_vec()].concat();
    for _ in 0..chunks {
        // Who holds most is answered and closed, perhaps before all is sent.
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    stream
}

const CHUNK_BYTES: usize = 10_000;

#[test]
fn bodies_that_have_come_in_part_are_of_the_same_budget() {
    const CHUNKS: usize = 20;
    const MANY: usize = 30;
    let (_data, server) = start(&[]);
    let mut alice = server.client("alice", &json!([]));
    let mut most = 0;
    let held: Vec<_> = (0..MANY)
        .map(|_| {
            let stream = chunked(&server, CHUNKS);
            assert_served(&mut alice);
            most = most.max(server.metric("dramatis_unfinished_bytes"));
            stream
        })
        .collect();
    assert!((BUDGET / 2..BUDGET * 2).contains(&most), "{most} bytes of {BUDGET}");
    // Who came first was told by now, though nothing more came of it.
    let mut answer = String::new();
    (&held[0]).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"unavailable\""), "{answer}");
    drop(held);
    while server.metric("dramatis_unfinished_bytes") > 0 {
        assert_served(&mut alice);
    }
}
