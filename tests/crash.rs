//! What was acknowledged is in the log, once, after the server is killed in the middle of
//! anything; and an import killed many times ends as one that was left in peace.
//!
//! `kill -9` ends the process and leaves the system's page cache: this shows what the process
//! promises, not what the disk does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value;
use support::imports::{
    Chance, assert_each_once, assert_whole, caught_up, chat_log, file, imported, long_tier,
};
use support::{Server, dramatis};

/// Lines of each of the two files.
const LINES: u64 = 6_000;

/// An import whose ledger is its standard output: each id arrives here as it is noted there.
fn start_import(server: &Server, files: &[PathBuf]) -> Child {
    dramatis()
        .args(["import", "irc"])
        .args(files)
        .args(["--ledger", "/dev/stdout", "--in-flight", "256", "--url", &server.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn is_id(line: &str) -> bool {
    line.len() == 32 && line.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Imports until so many commands are acknowledged and then kills the server; adds the ids.
fn import_until_killed(server: Server, files: &[PathBuf], kill_at: u64, acknowledged: &mut HashSet<String>) {
    let mut import = start_import(&server, files);
    let mut server = Some(server);
    let mut noted = 0;
    for line in BufReader::new(import.stdout.take().unwrap()).lines().map(Result::unwrap) {
        if !is_id(&line) {
            continue;
        }
        acknowledged.insert(line);
        noted += 1;
        if noted == kill_at {
            server.take().expect("it is killed once").kill();
        }
    }
    assert!(server.is_none(), "the import ended after {noted} answers, before the kill at {kill_at}");
    assert_eq!(import.wait().unwrap().code(), Some(3), "the connection was lost");
}

/// The events without what depends on when they were recorded, by stream.
fn by_stream(events: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut streams: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in events {
        let mut event = event.clone();
        let fields = event.as_object_mut().unwrap();
        fields.remove("position").unwrap();
        fields.remove("recorded_at").unwrap();
        streams.entry(event["stream"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    streams
}

#[test]
fn acknowledged_commands_survive_kills_in_the_middle_of_an_import() {
    let rounds: u64 = if long_tier() { 20 } else { 5 };
    let mut chance = Chance::new();
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = [
        file(logs.path(), "den-2010-03-08.txt", chat_log(LINES, 1)),
        file(logs.path(), "attic-2010-03-09.txt", chat_log(LINES, 2)),
    ];
    let mut acknowledged = HashSet::new();
    for round in 0..rounds {
        // Past all that earlier rounds had answered, so that each round dies over new commands. Where
        // this thread is slower than the import, each knows of much more than it was to wait for.
        let known = u64::try_from(acknowledged.len()).unwrap();
        if known + LINES / rounds >= 2 * LINES - LINES / 10 {
            assert!(round > 2, "{known} commands were answered in {round} rounds");
            break;
        }
        let server = Server::start(data.path());
        let kill_at = known + 1 + chance.below(LINES / rounds);
        import_until_killed(server, &files, kill_at, &mut acknowledged);

        let server = Server::start(data.path());
        let events = server.events(&[]);
        println!(
            "round {round}: killed at {kill_at}, {} acknowledged, {} in the log",
            acknowledged.len(),
            events.len()
        );
        assert_whole(&events);
        assert_each_once(&acknowledged, &events);
    }

    let server = Server::start(data.path());
    let counts = imported(&server, &files, &[]);
    assert!(counts["duplicates"] >= u64::try_from(acknowledged.len()).unwrap(), "{counts:?}");
    let events = server.events(&[]);
    assert_whole(&events);
    assert_each_once(&acknowledged, &events);

    let peaceful_data = tempfile::tempdir().unwrap();
    let peaceful = Server::start(peaceful_data.path());
    let expected = imported(&peaceful, &files, &[]);
    assert_eq!(counts["recorded"] + counts["duplicates"], expected["recorded"]);
    assert_eq!(counts["refused"], expected["refused"]);
    assert_eq!(by_stream(&events), by_stream(&peaceful.events(&[])));
    let documents = |server| -> Vec<_> { caught_up(server).iter().map(|s| s["documents"].clone()).collect() };
    assert_eq!(documents(&server), documents(&peaceful));
}
