//! Writers in a process of their own, what they noted of the answers, and comparing that with
//! the log.
//!
//! The writers send commands whose ids and texts are told by two numbers, so that everything
//! in the log can be held against what was sent. Each answer is in the ledger, synced, before
//! it counts. What was sent and not answered is sent again, with the same id, by the writers
//! of the next round, together with a few commands that were answered.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Client, Server, lines_of_json};

const WRITERS: u64 = 4;
const ROOMS: u64 = 6;
/// What a stream is called before its room.
const STREAM: &str = "room-main.";
const IN_FLIGHT: usize = 64;
/// Commands of one frame.
const BURST: u64 = 8;
/// Answered commands that are sent again, at least.
const AGAIN: u64 = 3;
/// The test that is the other process, and what tells it so: address and ledger.
const WRITERS_TEST: &str = "the_writers";
const WRITERS_ORDER: &str = "DRAMATIS_TEST_WRITERS";

/// Where a command was said to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    room: String,
    revision: u64,
    position: u64,
}

/// What the writers noted.
pub struct Ledger {
    path: PathBuf,
    /// By command id.
    pub answers: BTreeMap<String, Answered>,
    /// Answers that told of an earlier one.
    pub duplicates: u64,
}

impl Ledger {
    /// Reads what is there, which may be nothing yet.
    pub fn read(path: &Path) -> Self {
        let mut ledger = Self { path: path.to_owned(), answers: BTreeMap::new(), duplicates: 0 };
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let [id, room, revision, position, duplicate] =
                line.split(' ').collect::<Vec<_>>().try_into().expect("five words");
            let (revision, position) = (revision.parse().unwrap(), position.parse().unwrap());
            let answered = Answered { room: room.to_owned(), revision, position };
            let first = ledger.answers.entry(id.to_owned()).or_insert_with(|| answered.clone());
            assert_eq!(*first, answered, "{id} was answered in two ways");
            ledger.duplicates += u64::from(duplicate == "true");
        }
        ledger
    }

    /// The lowest number that this writer has no answer to.
    fn unanswered(&self, writer: u64) -> u64 {
        (0..u64::MAX).find(|number| !self.answers.contains_key(&id_of(writer, *number))).unwrap()
    }
}

fn id_of(writer: u64, number: u64) -> String {
    format!("w{writer}-{number}")
}

fn room_of(number: u64) -> String {
    format!("room{}", number / BURST % ROOMS)
}

fn text_of(writer: u64, number: u64) -> String {
    let chars = if number.is_multiple_of(16) { 3_000 } else { 20 + number * 7 % 280 };
    format!("{writer}-{number} {}", "x".repeat(usize::try_from(chars).unwrap()))
}

/// Opens the rooms and lets the writers in.
pub fn prepare(server: &Server) {
    for room in (0..ROOMS).map(|index| room_of(index * BURST)) {
        server.open_room(&room, "olga");
        for writer in 0..WRITERS {
            let mut client = server.client(&format!("writer{writer}"), &json!([]));
            let answer = client.ask(&room, "join", &json!({}));
            assert_eq!(answer["type"], "ack", "{answer}");
        }
    }
}

/// The process of the writers.
pub struct Writers(Child);

impl Writers {
    /// Starts them; they end when the server does.
    pub fn start(address: SocketAddr, ledger: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", WRITERS_TEST, "--include-ignored", "--nocapture"])
            .env(WRITERS_ORDER, format!("{address} {}", ledger.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Kills the server when so many answers are in the ledger, and that much later.
    pub fn kill_at(mut self, server: Server, answers: u64, later: Duration) {
        let mut server = Some(server);
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        for (noted, _) in (1..).zip(lines.filter(|line| line.contains("noted "))) {
            if noted == answers {
                // Not to wait for anything: to end at any moment of what follows an answer.
                std::thread::sleep(later);
                server.take().expect("it is killed once").kill();
            }
        }
        assert!(server.is_none(), "the writers ended before {answers} answers");
        assert!(self.0.wait().unwrap().success(), "the writers failed");
    }
}

/// What the process of the writers does; nothing, if it is not asked.
pub fn write_until_cut() {
    let Ok(order) = std::env::var(WRITERS_ORDER) else { return };
    let (address, path) = order.split_once(' ').unwrap();
    let ledger = Ledger::read(Path::new(path));
    let file = Mutex::new(OpenOptions::new().create(true).append(true).open(path).unwrap());
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let mut client = Client::connect(address.parse().unwrap());
        client.hello(&format!("writer{number}"), &format!("session{number}"), &json!([]));
        let next = ledger.unanswered(number).saturating_sub(AGAIN) / BURST * BURST;
        writers.push(Writer { client, number, next, in_flight: 0, ledger: &file });
    }
    std::thread::scope(|scope| {
        for writer in writers {
            scope.spawn(|| writer.run());
        }
    });
}

struct Writer<'a> {
    client: Client,
    number: u64,
    next: u64,
    in_flight: usize,
    ledger: &'a Mutex<File>,
}

impl Writer<'_> {
    fn run(mut self) {
        loop {
            while self.in_flight < IN_FLIGHT {
                if !self.send() {
                    return;
                }
            }
            match self.client.try_receive_frame() {
                Ok(messages) => self.note(&messages),
                Err(1005 | 1006) => return,
                Err(code) => panic!("the server closed with {code}"),
            }
        }
    }

    fn send(&mut self) -> bool {
        let commands = (self.next..self.next + BURST).map(|number| {
            let data = json!({"text": text_of(self.number, number)});
            json!({"type": "command", "id": id_of(self.number, number), "room": room_of(number),
                "name": "post_message", "data": data})
            .to_string()
        });
        let frame = commands.collect::<Vec<_>>().join("\n");
        self.next += BURST;
        self.in_flight += usize::try_from(BURST).unwrap();
        self.client.socket().send(Message::text(frame)).is_ok()
    }

    /// Into the ledger first, then to who counts.
    fn note(&mut self, messages: &[Value]) {
        let mut lines = String::new();
        for answer in messages.iter().filter(|message| message["type"] != "ping") {
            assert_eq!(answer["type"], "ack", "{answer}");
            let [id, room, position] =
                ["id", "room", "position"].map(|name| answer[name].as_str().expect("text"));
            let line = format!("{id} {room} {} {position} {}\n", answer["revision"], answer["duplicate"]);
            lines.push_str(&line);
            self.in_flight -= 1;
        }
        let mut file = self.ledger.lock().unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        file.sync_data().unwrap();
        for line in lines.lines() {
            println!("noted {line}");
        }
    }
}

/// The log as it was read so far, and what is wrong with it.
#[derive(Default)]
pub struct History {
    /// All events, by their positions.
    pub events: Vec<Value>,
    /// Where each command's event is.
    places: HashMap<String, usize>,
    revisions: HashMap<String, u64>,
}

/// How far back a comparison of the newest part begins.
const OVERLAP: usize = 64;

impl History {
    /// Reads the log, all or the newest part, and compares it with what was read before and
    /// with the ledger. Says what it finds.
    pub fn compare(&mut self, server: &Server, all: bool, ledger: &mut Ledger) -> Vec<String> {
        let known = self.events.len();
        let from = if all { 0 } else { known.saturating_sub(OVERLAP) };
        let output = server.run(&["events", "read", "--from", &from.to_string()]);
        if !output.status.success() {
            return vec![format!("reading from {from}: {}", String::from_utf8_lossy(&output.stderr))];
        }
        let mut findings = Vec::new();
        let read = lines_of_json(&output.stdout);
        if from + read.len() < known {
            findings.push(format!("{known} events were read before, now {}", from + read.len()));
        }
        self.take(from, read, &mut findings);
        if all {
            self.compare_rooms(server, &mut findings);
        }
        let new = Ledger::read(&ledger.path);
        for (id, answered) in &new.answers {
            if all || !ledger.answers.contains_key(id) {
                findings.extend(self.unlike(id, answered));
            }
        }
        *ledger = new;
        findings
    }

    /// Takes what was read from this position on.
    fn take(&mut self, from: usize, read: Vec<Value>, findings: &mut Vec<String>) {
        for (at, event) in (from..).zip(read) {
            match self.events.get(at) {
                Some(known) if *known == event => {}
                Some(known) => {
                    findings.push(format!("changed: {known} became {event}"));
                    self.places.retain(|_, place| *place != at);
                    self.add_command(at, &event, findings);
                    self.events[at] = event;
                }
                None => self.add(at, event, findings),
            }
        }
    }

    fn add(&mut self, at: usize, event: Value, findings: &mut Vec<String>) {
        if event["position"].as_str() != Some(&at.to_string()) {
            findings.push(format!("position {at} was expected: {event}"));
        }
        let next = self.revisions.entry(event["stream"].as_str().unwrap().to_owned()).or_default();
        if event["revision"] != *next {
            findings.push(format!("revision {next} was expected: {event}"));
        }
        *next += 1;
        let before = self.events.last().and_then(|before| before["recorded_at"].as_i64());
        if before > event["recorded_at"].as_i64() {
            findings.push(format!("recorded before {before:?}, which comes first: {event}"));
        }
        self.add_command(at, &event, findings);
        self.events.push(event);
    }

    fn add_command(&mut self, at: usize, event: &Value, findings: &mut Vec<String>) {
        let Some(id) = event["command_id"].as_str() else { return };
        // Commands of `prepare` have ids of their own.
        let Some((writer, number)) = id.strip_prefix('w').and_then(|id| id.split_once('-')) else { return };
        let text = text_of(writer.parse().unwrap(), number.parse().unwrap());
        if event["data"]["text"] != text {
            findings.push(format!("not what {id} said: {event}"));
        }
        if let Some(first) = self.places.insert(id.to_owned(), at) {
            findings.push(format!("{id} is recorded twice, at {first} and {at}"));
        }
    }

    /// What is wrong about an acknowledged command, if anything.
    fn unlike(&self, id: &str, answered: &Answered) -> Option<String> {
        let Some(event) = self.places.get(id).map(|place| &self.events[*place]) else {
            return Some(format!("{id} is lost, acknowledged as {answered:?}"));
        };
        let found = Answered {
            room: event["stream"].as_str().unwrap().trim_start_matches(STREAM).to_owned(),
            revision: event["revision"].as_u64().unwrap(),
            position: event["position"].as_str().unwrap().parse().unwrap(),
        };
        (found != *answered).then(|| format!("{id} was acknowledged as {answered:?} and is {found:?}"))
    }

    /// Each room read by itself is what the whole log holds of it.
    fn compare_rooms(&self, server: &Server, findings: &mut Vec<String>) {
        for stream in self.revisions.keys().filter(|stream| stream.starts_with(STREAM)) {
            let room = stream.trim_start_matches(STREAM);
            let of_room = server.events(&["--room", room]);
            if !of_room.iter().eq(self.events.iter().filter(|event| event["stream"] == *stream)) {
                findings.push(format!("{room} read by itself is not what the log holds of it"));
            }
        }
    }
}

/// The comparison finds what it is there to find.
pub fn assert_comparison_can_fail() {
    let event = |position: u64, revision: u64, id: u64| {
        json!({"stream": format!("{STREAM}room0"), "position": position.to_string(), "revision": revision,
            "recorded_at": 1, "command_id": id_of(0, id), "data": {"text": text_of(0, id)}})
    };
    let findings_of = |events: Vec<Value>| {
        let (mut history, mut findings) = (History::default(), Vec::new());
        history.take(0, events, &mut findings);
        let answered = Answered { room: "room0".to_owned(), revision: 1, position: 1 };
        findings.extend(history.unlike("w0-1", &answered));
        findings.join("\n")
    };
    let (first, second) = (event(0, 0, 0), event(1, 1, 1));
    assert_eq!(findings_of(vec![first.clone(), second.clone()]), "");
    let mut altered = second.clone();
    altered["data"]["text"] = json!("something else");
    let mut earlier = second.clone();
    earlier["recorded_at"] = json!(0);
    for (events, finding) in [
        (vec![first.clone()], "w0-1 is lost"),
        (vec![first.clone(), second.clone(), event(2, 2, 1)], "w0-1 is recorded twice"),
        (vec![second.clone(), first.clone()], "revision 0 was expected"),
        (vec![first.clone(), event(2, 1, 1)], "position 1 was expected"),
        (vec![first.clone(), event(1, 1, 2), event(2, 2, 1)], "w0-1 was acknowledged as"),
        (vec![first.clone(), altered], "not what w0-1 said"),
        (vec![first, earlier], "which comes first"),
    ] {
        let found = findings_of(events);
        assert!(found.contains(finding), "{finding}: {found}");
    }
}
