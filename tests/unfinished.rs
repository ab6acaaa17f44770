//! Messages that come in part and no further: what is kept of them is bounded for the process, whoever
//! goes on past that is told why, and others are served meanwhile.
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

use raw::{Heard, Raw, TEXT, put_frame};
use serde_json::json;
use support::{Client, Server};

/// The smallest budget, in bytes.
const BUDGET: u64 = 1_048_576;
/// A message that is let in, in bytes.
const MESSAGE_BYTES: usize = 60_000;
/// What has come of it, in bytes.
const COME_BYTES: usize = 50_000;
const TOO_MUCH: Heard = Heard { rejects: 0, closed: Some(4013) };

fn hello(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = json!({"type": "hello", "user": "mallory", "session": number.to_string(), "rooms": []});
    put_frame(&mut bytes, TEXT, text.to_string().as_bytes());
    bytes
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
fn what_has_come_in_part_is_bounded_and_who_goes_on_is_told() {
    const MANY: usize = 60;
    for fragmented in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let budget = BUDGET.to_string();
        let settings = [("DRAMATIS__SOCKET__UNFINISHED_BYTES_MAX", budget.as_str())];
        let server = Server::start_with(data.path(), &[], &settings);
        server.open_room("lobby", "alice");
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
        for late in mallory.iter_mut().skip(MANY / 2) {
            assert_eq!(late.listen(usize::MAX), TOO_MUCH);
        }
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
