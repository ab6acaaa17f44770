//! Rebuilds of a server that lives: queries never fail nor go back in time, a kill at any moment
//! costs nothing, the way back is open, and admins are told by exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::documents::{Documents, documents};
use support::imports::{Chance, caught_up, chat_log, file, imported, long_tier};
use support::{Client, Server};
use traffic::{POSTED_TOGETHER, Pace, Seen, rate};

/// Batches small enough that there is much to interrupt.
const SMALL: [(&str, &str); 1] = [("DRAMATIS__PROJECTIONS__BATCH_EVENTS", "100")];
/// How long a rebuild may take: the history grows under load, and a machine that has much else to do
/// compares it for long.
const COMES_WITHIN: Duration = Duration::from_mins(5);

fn lived_in(server: &Server, lines: u64) {
    let logs = tempfile::tempdir().unwrap();
    let log = file(logs.path(), "den-2010-03-08.txt", chat_log(lines, 3));
    imported(server, &[log], &["--room", "den"]);
    caught_up(server);
}

fn standing(server: &Server, name: &str) -> Value {
    server.get_json(&format!("/api/projections/{name}?counts=false"))
}

/// Asks until a projection stands as wished.
fn until(server: &Server, name: &str, wished: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let standing = standing(server, name);
        if wished(&standing) {
            return standing;
        }
        assert!(started.elapsed() < COMES_WITHIN, "{name} does not come to it: {standing}");
    }
}

/// The documents that queries see, tombstones left out.
fn shown(data: &Path, name: &str) -> Documents {
    let mut documents = documents(data).remove(name).unwrap();
    documents.retain(|(_, _, body)| body.is_some());
    documents
}

#[test]
fn a_rebuild_killed_at_random_under_load_ends_right() {
    let kills_wanted = if long_tier() { 50 } else { 4 };
    let (mut chance, data) = (Chance::new(), tempfile::tempdir().unwrap());
    let server = Server::start_with(data.path(), &[], &SMALL);
    lived_in(&server, 1_500);
    server.kill();
    let (mut seen, mut kills, mut rebuilds) = (Seen::default(), 0, 0);
    let started = Instant::now();
    while kills < kills_wanted {
        let server = Server::start_with(data.path(), &[], &SMALL);
        let address = server.address;
        let (rebuilding, killed) =
            seen.until_gone(address, rate(), || killed_within_a_rebuild(server, &mut chance));
        rebuilds += u64::from(rebuilding);
        kills += u64::from(killed);
    }
    let (posted, took) = (seen.posted.len(), started.elapsed());
    let server = Server::start_with(data.path(), &[], &SMALL);
    let ended = until(&server, "timeline", |standing| standing["job"]["state"] == "done");
    println!(
        "{rebuilds} rebuilds killed {kills} times in {took:?} while {posted} messages were posted and {} \
         queries answered; the last says {}",
        seen.asked, ended["job"]["completion"]
    );
    assert_eq!(ended["build"], ended["job"]["build"]);
    caught_up(&server);
    // What is live is what the log says, and what was acknowledged is in it.
    let output = server.run(&["projections", "verify", "timeline"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let shown: BTreeSet<u64> = shown(data.path(), "timeline")
        .iter()
        .map(|(key, ..)| key.rsplit('/').next().unwrap().parse().unwrap())
        .collect();
    assert!(
        seen.posted.is_subset(&shown),
        "{} of {posted} are there",
        seen.posted.intersection(&shown).count()
    );
}

/// Orders a rebuild if none is under way, and kills the server once it got a random bit further;
/// tells whether it ordered one, and whether it hit one.
fn killed_within_a_rebuild(server: Server, chance: &mut Chance) -> (bool, bool) {
    let standing = until(&server, "timeline", |standing| standing["state"] == "live");
    let state = standing["job"]["state"].clone();
    let mut ordered = false;
    if state.is_null() || state == "done" {
        // Slow enough to be hit.
        let slowly = "/api/projections/timeline/rebuild?events_per_second=20000";
        let (status, answer) = server.post(slowly, &json!({}));
        assert_eq!(status, 202, "{answer}");
        ordered = true;
    }
    let events = |standing: &Value| standing["job"]["events"].as_u64().unwrap_or(0);
    let from = if ordered { 0 } else { events(&standing) };
    let enough = from + chance.below(4_000);
    let at = until(&server, "timeline", |standing| {
        let job = &standing["job"];
        job["state"] == "done" || (!job["state"].is_null() && events(standing) >= enough)
    });
    server.kill();
    (ordered, at["job"]["state"] != "done")
}

#[test]
fn queries_never_fail_or_go_back_in_time_while_builds_come_and_go() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &SMALL);
    lived_in(&server, 1_000);
    let (done, started) = (AtomicBool::new(false), Instant::now());
    let (posted, asked, switches) = std::thread::scope(|scope| {
        let poster = scope.spawn(|| post_until(&mut server.client("poster", &json!([])), &done));
        let reader = scope.spawn(|| read_until(&server, &done));
        let mut switches = 0;
        for _ in 0..if long_tier() { 20 } else { 3 } {
            for what in ["rebuild", "rollback"] {
                let output = server.run(&["projections", what, "timeline"]);
                assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
                switches += 1;
            }
        }
        done.store(true, Ordering::SeqCst);
        (poster.join().unwrap(), reader.join().unwrap(), switches)
    });
    let took = started.elapsed();
    println!(
        "{switches} switches in {took:?} while {posted} messages were posted and {asked} queries answered"
    );
    assert!(posted > 0 && asked > 0);
    caught_up(&server);
    // The live build and the warm one are what the log says.
    let output = server.run(&["projections", "verify", "timeline"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let live = shown(data.path(), "timeline");
    assert!(server.run(&["projections", "rollback", "timeline"]).status.success());
    assert_eq!(shown(data.path(), "timeline"), live);
}

fn post_until(client: &mut Client, done: &AtomicBool) -> u64 {
    client.ask("den", "join", &json!({}));
    let (mut posted, mut pace) = (0, Pace::of(rate(), POSTED_TOGETHER));
    while !done.load(Ordering::SeqCst) {
        pace.wait();
        let ids: Vec<_> = (0..POSTED_TOGETHER)
            .map(|n| client.command("den", "post_message", &json!({"text": format!("{posted} {n}")})))
            .collect();
        for id in ids {
            assert_eq!(client.answer(&id)["type"], "ack");
            posted += 1;
        }
    }
    posted
}

/// Asks for the newest message over and over: it is never older than the one before.
fn read_until(server: &Server, done: &AtomicBool) -> u64 {
    let (mut newest, mut asked) = (0, 0);
    while !done.load(Ordering::SeqCst) {
        let page = server.get_json("/api/rooms/den/timeline?limit=1");
        let revision = page["messages"][0]["revision"].as_u64().unwrap();
        assert!(revision >= newest, "back from {newest} to {revision}");
        (newest, asked) = (revision, asked + 1);
    }
    asked
}

#[test]
fn documents_are_shown_as_they_were_and_why() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "alice");
    let mut alice = server.client("alice", &json!([]));
    let posted = alice.ask("den", "post_message", &json!({"text": "one"}));
    let edited = alice.ask("den", "edit_message", &json!({"target": posted["revision"], "text": "two"}));
    let (then, now) = (posted["position"].as_str().unwrap(), edited["position"].as_str().unwrap());
    caught_up(&server);
    let revision = posted["revision"].as_u64().unwrap();
    let key = format!("room-main.den/{revision:020}");
    let run = |arguments: &[&str]| {
        let output = server.run(&[&["projections"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = |arguments: &[&str]| -> Value {
        serde_json::from_str::<Value>(&run(arguments)).unwrap()["text"].clone()
    };
    assert_eq!(text(&["get", "timeline", &key]), "two");
    assert_eq!(text(&["get", "timeline", &key, "--as-of", then]), "one");
    let why = run(&["why", "timeline", &key]);
    let names: Vec<_> = why.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(names, ["MessagePosted", "MessageEdited"], "{why}");
    // A whole read model as it was is a build beside the live one.
    let told = run(&["as-of", "timeline", "--position", then, "--json"]);
    let job: Value = serde_json::from_str(&told).unwrap();
    let build = job["build"].as_str().unwrap();
    let page = server.get_json(&format!("/api/projections/timeline/documents?build={build}"));
    assert_eq!(page["documents"][0]["document"]["text"], "one");
    let head = server.get_json("/api/projections/timeline");
    assert_ne!(head["build"], build);
    dropped_before_its_time(&server, build, head["build"].as_str().unwrap());
    // A position of another history is refused, one of this is waited for.
    let epoch = head["epoch"].as_str().unwrap();
    let with = |epoch: &str| server.get(&format!("/api/rooms/den/timeline?min_position={epoch}:{now}"));
    assert_eq!(with(epoch).0, 200);
    let (status, answer) = with("00000000000000aa.1");
    assert_eq!(status, 409, "{answer}");
    let output = server.run(&["projections", "retry", "timeline", &key]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not parked"));
}

fn dropped_before_its_time(server: &Server, build: &str, live: &str) {
    let drop = |build: &str| server.run(&["projections", "drop", "timeline", build]);
    for other in [live, "timeline@99", "rooms@1"] {
        let refused = drop(other);
        assert_eq!(refused.status.code(), Some(1), "{other}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("no build of timeline as of a position"));
    }
    let told = String::from_utf8(drop(build).stdout).unwrap();
    assert!(told.starts_with(&format!("timeline: {build}, which showed position ")), "{told}");
    assert_eq!(standing(server, "timeline")["kept"], json!([]));
    let (status, answer) = server.get(&format!("/api/projections/timeline/documents?build={build}"));
    assert_eq!(status, 404, "{answer}");
    assert_eq!(drop(build).status.code(), Some(1), "it is gone");
}

#[test]
fn a_difference_ends_with_its_own_exit_code_and_waits() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    lived_in(&server, 200);
    assert_eq!(server.terminate(), Some(0));
    let store = rusqlite::Connection::open(data.path().join("read-models.sqlite")).unwrap();
    let build: String = store
        .query_row("SELECT collection FROM aliases WHERE projection = 'rooms'", (), |row| row.get(0))
        .unwrap();
    let sql = format!("UPDATE \"documents {build}\" SET body = json_set(body, '$.title', 'forged')");
    assert_eq!(store.execute(&sql, ()).unwrap(), 1);
    drop(store);
    let server = Server::start(data.path());
    let code = |arguments: &[&str]| {
        let output = server.run(&[&["projections"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (verified, told) = code(&["verify", "rooms"]);
    assert_eq!(verified, Some(3), "{told}");
    assert!(told.contains("room-main.den in title"), "{told}");
    assert_eq!(code(&["rebuild", "rooms"]).0, Some(3));
    assert_eq!(standing(&server, "rooms")["build"], build, "nothing was switched");
    assert_eq!(code(&["pause", "rooms"]).0, Some(1), "it waits already");
    assert_eq!(code(&["accept", "rooms"]).0, Some(0));
    assert_ne!(standing(&server, "rooms")["build"], build);
    assert_eq!(server.get_json("/api/rooms/den")["title"], "den");
}
