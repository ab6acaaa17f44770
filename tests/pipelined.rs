//! A client that does not wait for answers: whatever it sends at once, each message is handled, in its
//! order, and each command answered.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod support;

use serde_json::{Value, json};
use support::{Client, Server};
use tokio_tungstenite::tungstenite::Message;

/// Commands before the message that waits for the log, and behind it: of the first some are in flight
/// when it waits, of the second some are left when the next frame comes.
const BEFORE: usize = 200;
const BEHIND: usize = 100;
/// Commands of the next frame.
const NEXT: usize = 5;

fn post(number: usize) -> Value {
    let data = json!({"text": format!("message {number}")});
    json!({"type": "command", "id": format!("post-{number}"), "room": "den", "name": "post_message", "data": data})
}

fn lines(messages: impl IntoIterator<Item = Value>) -> String {
    messages.into_iter().map(|message| message.to_string()).collect::<Vec<_>>().join("\n")
}

/// Sends two frames at once, and hears the answers to all of their commands.
fn assert_all_answered(client: &mut Client, between: Vec<Value>) {
    let (first, second) = (BEFORE + BEHIND, BEFORE + BEHIND + NEXT);
    let frame = (0..BEFORE).map(post).chain(between).chain((BEFORE..first).map(post));
    client.socket().write(Message::text(lines(frame))).unwrap();
    client.socket().write(Message::text(lines((first..second).map(post)))).unwrap();
    // The room answers in order: what has no answer by then has none.
    let last = client.command("den", "post_message", &json!({"text": "the last one"}));
    let mut revisions = vec![None; second];
    loop {
        let message = client.receive();
        let id = message["id"].as_str().unwrap_or_default();
        if let Some(number) = id.strip_prefix("post-") {
            assert_eq!(message["type"], "ack", "{message}");
            revisions[number.parse::<usize>().unwrap()] = message["revision"].as_u64();
        }
        if id == last {
            break;
        }
    }
    let unanswered: Vec<_> = (0..second).filter(|number| revisions[*number].is_none()).collect();
    assert!(unanswered.is_empty(), "{unanswered:?}");
    assert!(revisions.is_sorted(), "{revisions:?}");
}

#[test]
fn a_frame_that_waits_is_handled_to_its_end_before_the_next_one() {
    let (history, subscribe) = (
        json!({"type": "history", "id": "h", "room": "den"}),
        json!({"type": "subscribe", "id": "s", "room": "den", "after": 0}),
    );
    let seen = vec![json!({"type": "seen", "room": "den", "revision": 0}); 300];
    for between in [vec![history], vec![subscribe], seen] {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        server.open_room("den", "alice");
        let mut alice = server.client("alice", &json!([]));
        assert_all_answered(&mut alice, between);
    }
}
