//! Two processes with one store of read models, whose logs are copies of each other: one keeps it, the
//! other one says so, and nobody is shown what is not theirs.
//! `.ci/run` starts a server; `DRAMATIS_TEST_MONGODB_URI` names one that is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "support/mongodb.rs"]
mod database;
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use database::Database;
use serde_json::{Value, json};
use support::imports::caught_up;
use support::{PATIENCE, Server, dramatis};
use tempfile::TempDir;

/// So that who has gone is soon known to have.
const LEASE: [(&str, &str); 1] = [("DRAMATIS__PROJECTIONS__LEASE_MS", "2000")];
/// So that who has gone is not known to have for longer than a test takes.
const LONG_LEASE: [(&str, &str); 1] = [("DRAMATIS__PROJECTIONS__LEASE_MS", "600000")];

/// Until it answers queries from what it has of its own.
fn texts(server: &Server) -> Vec<String> {
    caught_up(server);
    let page = server.get_json("/api/rooms/den/timeline");
    page["messages"].as_array().unwrap().iter().map(|one| one["text"].as_str().unwrap().to_owned()).collect()
}

fn say(server: &Server, text: &str) {
    let ack = server.client("anna", &json!([])).ask("den", "post_message", &json!({"text": text}));
    assert_eq!(ack["type"], "ack", "{ack}");
}

/// That all read models are kept by another process, which everybody is told.
fn is_kept_off(server: &Server) {
    let started = Instant::now();
    loop {
        let standings = server.get_json("/api/projections");
        let standings = standings.as_array().unwrap();
        if standings.iter().all(|standing| standing["state"] == "standby") {
            let told = standings[0]["error"].as_str().unwrap();
            assert!(told.contains("another process keeps it"), "{told}");
            break;
        }
        assert!(started.elapsed() < PATIENCE, "it is not kept off: {standings:?}");
    }
    for path in ["/api/rooms", "/api/rooms/den/timeline", "/api/projections/timeline/documents"] {
        let (status, told) = server.get(path);
        assert!(status == 503 && told.contains("another process keeps it"), "{path}: {status} {told}");
    }
    let health = server.get_json("/api/health");
    assert!(health["status"] == "degraded" && health.to_string().contains("another process"), "{health}");
    let listed = server.run(&["projections", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("another process keeps it"));
    let rebuilt = server.run(&["projections", "rebuild", "timeline"]);
    assert_eq!(rebuilt.status.code(), Some(1), "{}", String::from_utf8_lossy(&rebuilt.stdout));
}

fn build(server: &Server) -> Value {
    caught_up(server);
    server.get_json("/api/projections/timeline")["build"].clone()
}

/// A data directory of a process that has ended, with one message.
fn begun(database: &Database) -> TempDir {
    let one = tempfile::tempdir().unwrap();
    let server = database.serve_with(one.path(), &LEASE);
    server.open_room("den", "anna");
    say(&server, "before");
    assert_eq!(texts(&server), ["before"]);
    assert_eq!(server.terminate(), Some(0));
    one
}

fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to.path()).status().unwrap();
    assert!(copied.success());
    to
}

/// A server that keeps all for long goes, and comes back with the short lease until it has it: so that
/// only in its last moments another one could take over that is quicker than it.
fn for_a_last_time(database: &Database, data: &Path, server: Server) -> Server {
    server.kill();
    let server = database.serve_with(data, &LEASE);
    let started = Instant::now();
    loop {
        let standings = server.get_json("/api/projections");
        let is_settled = |standing: &Value| {
            ["live", "unsupported", "standby"].iter().any(|state| standing["state"] == *state)
        };
        if standings.as_array().unwrap().iter().all(is_settled) {
            return server;
        }
        assert!(started.elapsed() < PATIENCE, "it does not keep them: {standings:?}");
    }
}

#[test]
fn of_a_directory_and_its_copy_each_shows_what_it_recorded_itself() {
    let Some(database) = Database::new("a copied data directory on one MongoDB") else { return };
    let one = begun(&database);
    let copy = copied(one.path());
    let first = database.serve_with(one.path(), &LONG_LEASE);
    assert_eq!((texts(&first), build(&first)), (vec!["before".to_owned()], json!("timeline@1")));
    let second = database.serve_with(copy.path(), &LONG_LEASE);
    is_kept_off(&second);
    say(&first, "of the first");
    say(&second, "of the second");
    assert_eq!(texts(&first), ["before", "of the first"]);
    is_kept_off(&second);
    // Once it has gone, however it went, the other takes over, and shows nothing of it.
    for_a_last_time(&database, one.path(), first).kill();
    assert_eq!(texts(&second), ["before", "of the second"]);
    let first = database.serve_with(one.path(), &LONG_LEASE);
    is_kept_off(&first);
    assert_eq!(for_a_last_time(&database, copy.path(), second).terminate(), Some(0));
    assert_eq!(texts(&first), ["before", "of the first"]);
    let verified = first.run(&["projections", "verify", "timeline"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    assert_eq!(first.terminate(), Some(0));
}

#[test]
fn what_was_restored_beside_a_running_server_leaves_that_alone() {
    let Some(database) = Database::new("a restored log on one MongoDB") else { return };
    let (one, backups, other) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = database.serve_with(one.path(), &LONG_LEASE);
    first.open_room("den", "anna");
    say(&first, "before");
    // It keeps all of them by now: of those it had not begun, another could be first.
    assert_eq!(texts(&first), ["before"]);
    let store = backups.path().to_str().unwrap();
    let into = other.path().join("restored");
    for arguments in [
        &["create", "--store", store, "--data", one.path().to_str().unwrap()][..],
        &["restore", "--store", store, "latest", "--into", into.to_str().unwrap()],
    ] {
        assert!(dramatis().arg("backup").args(arguments).status().unwrap().success());
    }
    let second = database.serve_with(&into, &LONG_LEASE);
    is_kept_off(&second);
    say(&first, "after");
    let undisturbed = |first: &Server| {
        let all = (vec!["before".to_owned(), "after".to_owned()], json!("timeline@1"));
        assert_eq!((texts(first), build(first)), all);
        is_kept_off(&second);
    };
    undisturbed(&first);
    // A restart, after a crash or in order, finds all as it was, and at once.
    first.kill();
    is_kept_off(&second);
    let first = database.serve_with(one.path(), &LONG_LEASE);
    undisturbed(&first);
    assert_eq!(first.terminate(), Some(0));
    is_kept_off(&second);
    undisturbed(&database.serve_with(one.path(), &LONG_LEASE));
}

#[test]
fn a_directory_that_was_moved_keeps_its_read_models() {
    let Some(database) = Database::new("a moved data directory on one MongoDB") else { return };
    let one = begun(&database);
    let moved = copied(one.path());
    one.close().unwrap();
    let server = database.serve_with(moved.path(), &LEASE);
    say(&server, "after");
    assert_eq!(
        (texts(&server), build(&server)),
        (vec!["before".into(), "after".into()], json!("timeline@1"))
    );
}
