//! A server goes away in good order and another takes its place: nothing lost, nothing doubled.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http::{Events, Request};
use support::{Client, PATIENCE, Server, dramatis};

const CLIENTS: usize = 200;
/// Before the server is asked to end, each has so many posts answered; all post on until it goes.
const POSTS_BEFORE: usize = 3;
/// And so many that they send to its successor.
const POSTS_AFTER: usize = 3;
const RECONNECTS_PER_S: &str = "400";

#[derive(Default)]
struct Told {
    acked: BTreeMap<String, u64>,
    events: Vec<u64>,
    slot_ms: Option<u64>,
    in_ms: u64,
    closed: Option<u16>,
}

/// Where the clients of a run wait for each other.
struct Run {
    address: SocketAddr,
    before: Barrier,
    done: Barrier,
    commands: AtomicUsize,
}

impl Told {
    /// `true` if it was the answer waited for.
    fn take(&mut self, message: &Value, waits_for: &str) -> bool {
        match message["type"].as_str().unwrap() {
            "event" => self.events.push(message["revision"].as_u64().unwrap()),
            "ack" => {
                let id = message["id"].as_str().unwrap().to_owned();
                let revision = message["revision"].as_u64().unwrap();
                assert!(self.acked.insert(id, revision).is_none_or(|known| known == revision), "{message}");
            }
            "drain" => {
                self.slot_ms = message["slot_ms"].as_u64();
                self.in_ms = message["in_ms"].as_u64().unwrap();
            }
            "reject" => panic!("{message}"),
            _ => {}
        }
        message["id"] == waits_for
    }
}

fn connect(address: SocketAddr, user: &str, told: &Told, epoch: &mut Option<String>) -> Client {
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE, "{user} does not get in again");
        if TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let Ok(mut client) = std::panic::catch_unwind(|| Client::connect(address)) else { continue };
        let after = told.events.last();
        let cursor = json!([{"room": "hall", "after": after.copied().unwrap_or(0), "epoch": epoch}]);
        client.send(&json!({"type": "hello", "user": user, "session": user, "rooms": cursor}));
        let Ok(ready) = client.try_receive() else { continue };
        if ready["type"] != "ready" {
            continue;
        }
        assert_eq!(ready["rooms"][0]["how"], "events", "{ready}");
        *epoch = ready["rooms"][0]["epoch"].as_str().map(str::to_owned);
        return client;
    }
}

/// Posts, and sends again what was not answered when the connection ended.
fn talk(run: &Run, number: usize) -> Told {
    let address = run.address;
    let (user, mut told, mut epoch) = (format!("user-{number}"), Told::default(), None);
    let mut client = connect(address, &user, &told, &mut epoch);
    let (mut post, mut after, mut sent) = (0, 0, false);
    while after < POSTS_AFTER {
        let id = format!("{user}-{post}");
        let command = if post == 0 {
            json!({"type": "command", "id": id, "room": "hall", "name": "join", "data": {}})
        } else {
            json!({"type": "command", "id": id, "room": "hall", "name": "post_message", "data": {"text": id}})
        };
        if !sent {
            let _ = client.socket().send(tokio_tungstenite::tungstenite::Message::text(command.to_string()));
            sent = true;
        }
        match client.try_receive() {
            Ok(message) => {
                if told.take(&message, &id) {
                    post += 1;
                    sent = false;
                    after += usize::from(told.closed.is_some());
                    if post == POSTS_BEFORE {
                        run.before.wait();
                    }
                }
            }
            Err(code) => {
                told.closed = told.closed.or(Some(code));
                std::thread::sleep(Duration::from_millis(told.slot_ms.unwrap_or(0)));
                client = connect(address, &user, &told, &mut epoch);
                sent = false;
            }
        }
    }
    run.commands.fetch_add(told.acked.len(), Ordering::SeqCst);
    run.done.wait();
    let last = 1 + run.commands.load(Ordering::SeqCst) as u64;
    while told.events.last().is_none_or(|heard| *heard < last) {
        match client.try_receive() {
            Ok(message) => {
                told.take(&message, "");
            }
            Err(code) => {
                told.closed = told.closed.or(Some(code));
                std::thread::sleep(Duration::from_millis(told.slot_ms.unwrap_or(0)));
                client = connect(address, &user, &told, &mut epoch);
            }
        }
    }
    told
}

#[test]
fn a_successor_takes_over_and_every_client_comes_back_in_its_slot() {
    let data = tempfile::tempdir().unwrap();
    // The machine may be busy, and all clients are on it: each has two seconds to answer the close.
    let environment =
        [("DRAMATIS__DRAIN__RECONNECTS_PER_S", RECONNECTS_PER_S), ("DRAMATIS__DRAIN__SUCCESSOR_MS", "8000")];
    let first = Server::start_with(data.path(), &[], &environment);
    first.open_room("hall", "owner");
    let address = first.address;
    let run = Run {
        address,
        before: Barrier::new(CLIENTS + 1),
        done: Barrier::new(CLIENTS),
        commands: AtomicUsize::new(0),
    };
    let (told, code, successor) = std::thread::scope(|scope| {
        let run = &run;
        let talking: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || talk(run, number))).collect();
        let successor = scope.spawn(|| {
            let mut command = dramatis();
            command.args(["serve", "--wait-for-lock", "--listen", &address.to_string(), "--data"]);
            command.arg(data.path()).env("RUST_LOG", "warn").stdout(Stdio::piped());
            Server::once_it_listens(command.spawn().unwrap()).expect("the successor takes over")
        });
        run.before.wait();
        let code = first.terminate();
        let successor = successor.join().unwrap();
        let told: Vec<_> = talking.into_iter().map(|talking| talking.join().unwrap()).collect();
        (told, code, successor)
    });
    assert_eq!(code, Some(0), "the server that goes ends well");
    assert_eq!(successor.address, address);

    let last = 1 + run.commands.load(Ordering::SeqCst);
    let contiguous: Vec<u64> = (1..=last as u64).collect();
    let mut slots = HashSet::new();
    for (number, told) in told.iter().enumerate() {
        assert_eq!(told.events, contiguous, "client {number}: every event once and in order");
        assert_eq!(told.closed, Some(4001), "client {number}");
        assert_eq!(told.in_ms, 500);
        slots.insert(told.slot_ms.expect("each is told its slot"));
    }
    let each_ms = 1_000 / RECONNECTS_PER_S.parse::<u64>().unwrap();
    assert!(slots.len() >= CLIENTS / 2, "slots are spread: {}", slots.len());
    let span = slots.iter().max().unwrap() - slots.iter().min().unwrap();
    assert!(span >= each_ms * (CLIENTS as u64 - 1), "{span} ms from the first slot to the last");

    let recorded = successor.events(&["--room", "hall"]);
    assert_eq!(recorded.len(), last + 1, "one effect a command");
    let texts: HashSet<_> = recorded.iter().filter_map(|event| event["data"]["text"].as_str()).collect();
    assert_eq!(texts.len(), last - 1 - CLIENTS, "every text once");
    println!("{CLIENTS} clients, {} events, slots over {span} ms", recorded.len());
}

/// A connection that the server has answered once and keeps.
fn kept(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "HEAD /api/health HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    stream
}

#[test]
fn who_comes_meanwhile_is_refused_and_who_reads_nothing_is_not_waited_for() {
    let data = tempfile::tempdir().unwrap();
    let patience = ("DRAMATIS__DRAIN__PATIENCE_MS", "60000");
    let server = Server::start_with(data.path(), &[], &[patience, ("DRAMATIS__DRAIN__NOTICE_MS", "0")]);
    server.open_room("den", "alice");
    let mut alice = server.client("alice", &json!([]));
    // Of these more than the system takes for a connection waits for who reads nothing.
    let text = "long words ".repeat(720);
    for _ in 0..1_000 {
        assert_eq!(alice.ask("den", "post_message", &json!({"text": text}))["type"], "ack");
    }
    let mut stuck = Client::connect(server.address);
    stuck.send(
        &json!({"type": "hello", "user": "bob", "session": "s", "rooms": [{"room": "den", "after": 0}]}),
    );
    stuck.receive_type("ready");
    let began = Instant::now();
    while server.metric("dramatis_outbox_bytes") < 65_536 {
        assert!(began.elapsed() < PATIENCE, "nothing waits for who reads nothing");
    }
    let (address, began, pid) = (server.address, Instant::now(), server.process_id().to_string());
    let _kept = kept(address);
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    alice.receive_type("drain");
    let refused = TcpStream::connect(address).expect_err("nobody is let in who would only wait");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
    assert_eq!(alice.closed(), 4001);
    assert_eq!(server.ended(), Some(0));
    assert!(began.elapsed() < PATIENCE, "the patience with the stuck one was {patience:?}");
}

#[test]
fn a_stream_or_poll_that_comes_meanwhile_is_sent_to_its_slot() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__DRAIN__NOTICE_MS", "60000")]);
    let mut alice = server.client("alice", &json!([]));
    let (of_poll, of_stream) = (kept(server.address), kept(server.address));
    let pid = server.process_id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    alice.receive_type("drain");
    let body = json!({"type": "hello", "user": "bob", "session": "late", "rooms": []}).to_string();
    let headers = [("Content-Type", "application/json")];
    let request = |path| Request { method: "POST", path, headers: &headers, body: &body };

    let answer = request("/api/poll?wait=1").send_over(of_poll).unwrap().json().unwrap();
    assert_eq!(answer["close"], 4001, "{answer}");
    let messages = answer["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1, "{answer}");
    assert_eq!((&messages[0]["type"], &messages[0]["in_ms"]), (&json!("drain"), &json!(60_000)), "{answer}");

    let mut events = Events::new(request("/api/stream").send_over(of_stream).unwrap());
    let first = events.next().unwrap().expect("a first event");
    assert_eq!(first.messages()[0]["type"], "drain", "{first:?}");
    let last = events.next().unwrap().expect("a last event");
    assert_eq!((last.name.as_str(), &last.messages()[0]["code"]), ("close", &json!(4001)), "{last:?}");
}
