//! A tail ends once the log is past what was asked for, whatever a filter leaves out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use support::{Client, PATIENCE, Server, dramatis, lines_of_json};

/// A tail, and the file that it writes into: nobody reads it meanwhile.
struct Tail {
    process: Child,
    output: File,
}

fn tail(server: &Server, arguments: &[&str]) -> Tail {
    let output = tempfile::tempfile().unwrap();
    let mut command = dramatis();
    command.args(["events", "tail", "--url", &server.url()]).args(arguments);
    let process = command.stdout(output.try_clone().unwrap()).spawn().unwrap();
    Tail { process, output }
}

impl Tail {
    fn goes_on(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// The events of one that ends by itself.
    fn ended(mut self, what: &str) -> Vec<Value> {
        let started = Instant::now();
        while self.goes_on() {
            if started.elapsed() > PATIENCE {
                self.process.kill().unwrap();
                panic!("{what} does not end");
            }
            std::thread::yield_now();
        }
        assert!(self.process.wait().unwrap().success(), "{what}");
        let mut bytes = Vec::new();
        self.output.rewind().unwrap();
        self.output.read_to_end(&mut bytes).unwrap();
        lines_of_json(&bytes)
    }
}

/// A log of two rooms: `den` is opened and spoken in, then `attic` is opened.
fn rooms(server: &Server) -> Client {
    server.open_room("den", "alice");
    let mut alice = server.client("alice", &json!([]));
    for text in ["one", "two"] {
        assert_eq!(alice.ask("den", "post_message", &json!({"text": text}))["type"], "ack");
    }
    server.open_room("attic", "alice");
    // Her session is noted beside all that; nothing comes by itself afterwards.
    assert_eq!(tail(server, &["--name", "SessionStarted", "--limit", "1"]).ended("a limit").len(), 1);
    alice
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()
}

#[test]
fn what_is_past_already_ends_at_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    assert_eq!(tail(&server, &["--before", "2000-01-01T00:00:00Z"]).ended("an empty log"), [json!(null); 0]);
    rooms(&server);
    let all = server.events(&[]);
    let head = all.last().unwrap()["position"].as_str().unwrap().to_owned();
    let next = (head.parse::<u64>().unwrap() + 1).to_string();
    let posted: Vec<Value> = all.iter().filter(|event| event["name"] == "MessagePosted").cloned().collect();
    let den: Vec<Value> = all.iter().filter(|event| event["stream"] == "room-main.den").cloned().collect();
    let den_head = den.last().unwrap()["revision"].to_string();
    while all.last().unwrap()["recorded_at"].as_u64().unwrap() >= u64::try_from(now_ms()).unwrap() {}
    let now = now_ms().to_string();
    for (arguments, wanted) in [
        (&["--to", &head][..], &all),
        (&["--to", &head, "--name", "MessagePosted"], &posted),
        (&["--from", &next, "--to", &head], &Vec::new()),
        (&["--before", &now], &all),
        (&["--before", &now, "--name", "MessagePosted"], &posted),
        (&["--before", "2000-01-01T00:00:00Z"], &Vec::new()),
        (&["--from", &next, "--before", &now], &Vec::new()),
        (&["--room", "den", "--to", &den_head], &den),
        (&["--room", "den", "--to", &den_head, "--name", "MessagePosted"], &posted),
        (&["--room", "den", "--before", &now], &den),
        (&["--room", "den", "--before", "2000-01-01T00:00:00Z"], &Vec::new()),
        (&["--room", "cellar", "--before", &now], &Vec::new()),
    ] {
        assert_eq!(tail(&server, arguments).ended(&format!("{arguments:?}")), *wanted, "{arguments:?}");
    }
}

#[test]
fn what_is_to_come_ends_once_it_has_passed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut alice = rooms(&server);
    let head: u64 = server.events(&[]).last().unwrap()["position"].as_str().unwrap().parse().unwrap();
    let (last, until) = ((head + 3).to_string(), now_ms() + Duration::from_secs(2).as_millis());
    let before = until.to_string();
    let asked: [&[&str]; 5] = [
        &["--to", &last, "--name", "MessagePosted"],
        &["--to", &last, "--name", "RoomClosed"],
        &["--before", &before],
        &["--before", &before, "--name", "RoomClosed"],
        &["--room", "attic", "--before", &before],
    ];
    let mut tails = asked.map(|arguments| tail(&server, arguments));
    // As long as they wait something happens in a room, until after the time.
    let mut said = 0;
    while tails.iter_mut().any(Tail::goes_on) {
        assert!(now_ms() < until + PATIENCE.as_millis(), "some do not end");
        assert_eq!(alice.ask("den", "post_message", &json!({"text": said.to_string()}))["type"], "ack");
        said += 1;
    }
    let [to, to_none, times, times_none, attic] = tails.map(|tail| tail.ended("one that has ended"));
    let positions = to.iter().map(|event| event["position"].as_str().unwrap().parse::<u64>().unwrap());
    assert_eq!(
        positions.filter(|position| *position > head).collect::<Vec<_>>(),
        [head + 1, head + 2, head + 3]
    );
    assert!(to_none.is_empty() && times_none.is_empty());
    let read = server.events(&["--before", &before]);
    assert_eq!(times, read, "all that was recorded before then, and no more");
    assert!(attic.iter().all(|event| event["stream"] == "room-main.attic") && !attic.is_empty());
}
