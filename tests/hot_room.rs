//! One room that everyone talks in at once: one order, nothing lost, nothing twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::HashSet;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};
use support::{Client, Server};

const CLIENTS: usize = 64;
const MESSAGES_EACH: usize = 50;
/// `RoomOpened` and the owner's `MemberJoined`.
const OPENING_EVENTS: usize = 2;
const EVENTS: usize = OPENING_EVENTS + CLIENTS + CLIENTS * MESSAGES_EACH;

/// What one client was told of an event: its revision, its author, its text.
type Told = (u64, String, String);

#[derive(Default)]
struct Heard {
    order: Vec<Told>,
    /// Revision and command id of the events that named a command.
    own: Vec<(u64, String)>,
    /// Revision and command id of the acks.
    acks: Vec<(u64, String)>,
}

impl Heard {
    fn take(&mut self, user: &str, message: &Value) {
        let text = |field: &Value| field.as_str().unwrap().to_owned();
        match message["type"].as_str().unwrap() {
            "event" => {
                let (revision, by) = (message["revision"].as_u64().unwrap(), text(&message["by"]));
                assert_eq!(message.get("command").is_some(), by == user, "{user} was told {message}");
                if by == user {
                    self.own.push((revision, text(&message["command"])));
                }
                let words = message["data"]["text"].as_str().unwrap_or_default().to_owned();
                self.order.push((revision, by, words));
            }
            "ack" => {
                assert_eq!(message["duplicate"], false, "{message}");
                self.acks.push((message["revision"].as_u64().unwrap(), text(&message["id"])));
            }
            "live" => {}
            other => panic!("{user} did not expect {other}: {message}"),
        }
    }
}

/// Joins, posts everything without waiting, and listens until all was heard.
fn talk(server: &Server, number: usize, everyone: &Barrier) -> Heard {
    let user = format!("user-{number}");
    let mut client: Client = server.client(&user, &json!([{"room": "hot", "after": 0}]));
    everyone.wait();
    client.command("hot", "join", &json!({}));
    for message in 0..MESSAGES_EACH {
        client.command("hot", "post_message", &json!({"text": format!("{number}/{message}")}));
    }
    let mut heard = Heard::default();
    while heard.order.len() < EVENTS - 1 || heard.acks.len() < MESSAGES_EACH + 1 {
        let message = client.receive();
        heard.take(&user, &message);
    }
    heard
}

#[test]
fn everyone_hears_everything_once_and_in_one_order() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("hot", "owner");
    let everyone = Arc::new(Barrier::new(CLIENTS));
    let heard: Vec<Heard> = std::thread::scope(|scope| {
        let (server, everyone) = (&server, &everyone);
        let talking: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || talk(server, number, everyone))).collect();
        talking.into_iter().map(|talking| talking.join().unwrap()).collect()
    });

    let order = &heard[0].order;
    let revisions: Vec<u64> = order.iter().map(|(revision, ..)| *revision).collect();
    let contiguous: Vec<u64> = (1..EVENTS as u64).collect();
    assert_eq!(revisions, contiguous, "revisions are contiguous");
    for (number, heard) in heard.iter().enumerate() {
        assert_eq!(&heard.order, order, "client {number} heard another order");
        assert_eq!(heard.acks.len(), MESSAGES_EACH + 1);
        assert_eq!(heard.acks, heard.own, "each command is acknowledged once, with its own event's revision");
        let ids: HashSet<_> = heard.acks.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), MESSAGES_EACH + 1, "no command is acknowledged twice");
        let said: Vec<_> = order.iter().filter(|(_, by, _)| *by == format!("user-{number}")).collect();
        let words: Vec<_> = said.iter().skip(1).map(|(.., words)| words.clone()).collect();
        let sent: Vec<_> = (0..MESSAGES_EACH).map(|message| format!("{number}/{message}")).collect();
        assert_eq!(words, sent, "one client's commands keep their order");
    }

    let recorded = server.events(&["--room", "hot"]);
    assert_eq!(recorded.len(), EVENTS);
    let told: Vec<_> = recorded.iter().skip(1).map(|event| event["revision"].as_u64().unwrap()).collect();
    assert_eq!(told, contiguous);
    let position = recorded.last().unwrap()["position"].as_str().unwrap();
    let room = server.get_json(&format!("/api/rooms?min_position={position}"));
    assert_eq!(room["rooms"][0]["message_count"], CLIENTS * MESSAGES_EACH);
}
