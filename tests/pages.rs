//! Pages of long messages: an answer stays small, and who goes on gets to the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use serde_json::{Value, json};
use support::Server;

const MESSAGES: u64 = 80;
/// Bytes of documents in a page, and of what is around them.
const PAGE_BYTES_MAX: usize = 1024 * 1024 + 1_000;

/// The revisions of one page's messages, and whether there is more.
fn page(server: &Server, path: &str) -> (Vec<u64>, bool) {
    let (status, text) = server.get(path);
    assert_eq!(status, 200, "{path}");
    assert!(text.len() <= PAGE_BYTES_MAX, "{path}: {} bytes", text.len());
    let page: Value = serde_json::from_str(&text).unwrap();
    let messages = page["messages"].as_array().unwrap();
    let revisions = messages.iter().map(|message| message["revision"].as_u64().unwrap()).collect();
    (revisions, page["more"].as_bool().unwrap())
}

/// What all pages together hold, in ascending order; `next` names the next one by what has come.
fn pages(server: &Server, path: &str, next: impl Fn(&[u64], &[u64]) -> String) -> Vec<u64> {
    let (mut all, mut from) = (Vec::new(), String::new());
    loop {
        let (page, more) = page(server, &format!("{path}{from}"));
        assert!(!page.is_empty(), "{path}{from}");
        all.extend(&page);
        if !more {
            all.sort_unstable();
            return all;
        }
        from = next(&all, &page);
    }
}

#[test]
fn a_page_of_long_messages_ends_early_and_the_next_one_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "alice");
    let mut alice = server.client("alice", &json!([]));
    let text = format!("long {}", "\u{1f602}".repeat(7_900));
    let first = alice.ask("den", "post_message", &json!({"text": text}))["revision"].as_u64().unwrap();
    for _ in 1..MESSAGES {
        alice.command("den", "post_message", &json!({"text": text, "reply_to": first}));
    }
    let mut position = 0;
    for _ in 1..MESSAGES {
        position =
            alice.receive_type("ack")["position"].as_str().unwrap().parse::<u64>().unwrap().max(position);
    }
    let asked = format!("limit=500&min_position={position}");
    let all: Vec<_> = (first..first + MESSAGES).collect();
    let before = |_: &[u64], page: &[u64]| format!("&before={}", page[0]);
    assert_eq!(pages(&server, &format!("/api/rooms/den/timeline?{asked}"), before), all);
    let after = |_: &[u64], page: &[u64]| format!("&after={}", page.last().unwrap());
    assert_eq!(pages(&server, &format!("/api/rooms/den/threads/{first}?{asked}"), after), all);
    for order in ["best", "newest"] {
        for room in ["", "&room=den"] {
            let skip = |all: &[u64], _: &[u64]| format!("&skip={}", all.len());
            let path = format!("/api/search?q=long&order={order}{room}&{asked}");
            assert_eq!(pages(&server, &path, skip), all, "{path}");
        }
    }
}
