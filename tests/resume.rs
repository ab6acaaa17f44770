//! A client that loses its connection again and again, in the middle of anything, sees every
//! event of a busy room exactly once and in order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::fmt::Write as _;
use std::net::Shutdown;
use std::process::Stdio;

use serde_json::{Value, json};
use support::imports::{Chance, file};
use support::{Client, Server, dramatis};

const LINES: u64 = 20_000;
const NICKS: u64 = 20;
const CUTS: u64 = 200;
/// Opened, its owner in, everybody in, every line.
const EVENTS: u64 = 2 + NICKS + LINES;

fn busy_log() -> String {
    let mut text = String::new();
    for line in 0..LINES {
        writeln!(text, "[{:02}:00] <nick{}> line {line}", line * 23 / LINES, line % NICKS).unwrap();
    }
    text
}

/// What a client holds over its connections.
#[derive(Default)]
struct Seen {
    epoch: Option<Value>,
    events: Vec<Value>,
    cuts: u64,
    /// Cuts of a connection that was told that it is live.
    cuts_live: u64,
    /// Cuts before the server had answered at all.
    cuts_unanswered: u64,
}

impl Seen {
    fn left(&self) -> u64 {
        EVENTS - u64::try_from(self.events.len()).unwrap()
    }

    /// One connection: resumes, takes some events, and is cut wherever that is. What was received
    /// and not taken is lost with it.
    fn connection(&mut self, server: &Server, chance: &mut Chance) {
        let mut client = Client::connect(server.address);
        let after = self.events.last().map(|event| event["revision"].clone());
        let cursor = json!({"room": "den", "epoch": self.epoch, "after": after});
        client.send(
            &json!({"type": "hello", "user": "reader", "session": "one-and-the-same", "rooms": [cursor]}),
        );
        // So that all cuts happen before the end, whatever chance says.
        let cuts_left = CUTS - self.cuts;
        let take = if cuts_left == 0 { self.left() } else { chance.below(2 * self.left() / (cuts_left + 1)) };
        let mut live = false;
        if cuts_left > 0 && chance.below(20) == 0 {
            self.cuts_unanswered += 1;
        } else {
            self.greeted(&client.receive_type("ready"));
            live = self.take(&mut client, take);
        }
        client.socket().get_ref().shutdown(Shutdown::Both).unwrap();
        if cuts_left > 0 {
            self.cuts += 1;
            self.cuts_live += u64::from(live);
        }
    }

    fn greeted(&mut self, ready: &Value) {
        let room = &ready["rooms"][0];
        assert_eq!(room["how"], "events", "{ready}");
        let epoch = self.epoch.get_or_insert_with(|| room["epoch"].clone());
        assert_eq!(*epoch, room["epoch"]);
    }

    fn take(&mut self, client: &mut Client, count: u64) -> bool {
        let (mut taken, mut live) = (0, false);
        while taken < count {
            let message = client.receive();
            match message["type"].as_str().unwrap() {
                "event" => {
                    let next = u64::try_from(self.events.len()).unwrap();
                    assert_eq!(message["revision"], next, "cut {}: {message}", self.cuts);
                    self.events.push(message);
                    taken += 1;
                }
                "live" => {
                    // Said when history is done: exactly what came so far.
                    let last = self.events.last().map(|event| &event["revision"]);
                    assert_eq!(last, Some(&message["revision"]), "cut {}", self.cuts);
                    live = true;
                }
                other => panic!("{other} was not asked for: {message}"),
            }
        }
        live
    }
}

#[test]
fn a_client_cut_two_hundred_times_sees_every_event_once() {
    let mut chance = Chance::new();
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    server.open_room("den", "olga");
    let log = file(logs.path(), "2010-03-08.txt", busy_log());
    // Few commands at once, so that the room stays busy while the client comes and goes.
    let mut import = dramatis()
        .args(["import", "irc", log.to_str().unwrap(), "--room", "den", "--in-flight", "16"])
        .args(["--url", &server.url()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (mut seen, mut cuts_during_import) = (Seen::default(), 0);
    while seen.left() > 0 {
        seen.connection(&server, &mut chance);
        if import.try_wait().unwrap().is_none() {
            cuts_during_import = seen.cuts;
        }
    }
    assert_eq!(import.wait().unwrap().code(), Some(0));
    let Seen { cuts, cuts_live, cuts_unanswered, .. } = seen;
    println!(
        "{cuts} cuts: {cuts_during_import} during the import, {cuts_live} live, {cuts_unanswered} unanswered"
    );
    assert_eq!(cuts, CUTS);

    let recorded = server.events(&["--room", "den"]);
    assert_eq!(recorded.len(), seen.events.len());
    for (recorded, seen) in recorded.iter().zip(&seen.events) {
        for field in ["revision", "position", "name", "by", "recorded_at", "occurred_at", "data"] {
            assert_eq!(recorded[field], seen[field], "{field} of {seen}");
        }
    }
}
