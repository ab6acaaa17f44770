//! Read models of another history than the log's: before it was restored, or of another log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "support/guarded.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared as the support module is")]
mod guarded;
mod support;

use std::path::Path;
use std::process::Output;

use guarded::{Guarded, hello, mint, start};
use serde_json::{Value, json};
use support::http::Request;
use support::imports::caught_up;
use support::{Server, dramatis};

const STORE: &str = "read-models.sqlite";

/// Puts the store of one data directory in the place of another's.
fn moved(from: &Path, to: &Path) {
    for end in ["", "-wal", "-shm"] {
        let name = format!("{STORE}{end}");
        let _ = std::fs::remove_file(to.join(&name));
        if from.join(&name).exists() {
            std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

fn ran(arguments: &[&str]) -> Output {
    let output = dramatis().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Has the first thing that a server finds be a successor that an admin holds up.
fn held_up(data: &Path, standings: &[Value]) {
    let store = rusqlite::Connection::open(data.join(STORE)).unwrap();
    for standing in standings {
        let name = standing["name"].as_str().unwrap();
        let job = json!({
            "collection": format!("{name}@2"), "purpose": {"kind": "rebuild"}, "version": standing["version"],
            "epoch": standing["epoch"], "accept": true, "events_per_s_max": null, "state": "paused",
            "started_at": 0, "ended_at": null, "worked_ms": 0, "events": 0, "documents_written": 0,
            "completion": null, "difference": null, "replaced": null, "error": null,
        });
        let note = json!({"job": job}).to_string();
        let values = [format!("projection/{name}"), note];
        store.execute("INSERT OR REPLACE INTO notes (name, note) VALUES (?, ?)", values).unwrap();
    }
}

/// A room of the invited that the log knows nothing of any more, since a backup was restored; the read
/// models know it still, and their successors are held up.
fn restored() -> (Guarded, tempfile::TempDir) {
    let Guarded { server, key, data } = start(&[]);
    let (backups, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |folder: &tempfile::TempDir| folder.path().to_str().unwrap().to_owned();
    let store = path(&backups);
    ran(&["backup", "create", "--store", &store, "--name", "before", "--data", &path(&data)]);
    let alice = mint(&key, &["--user", "alice", "--for", "1h"]);
    let guarded = Guarded { server, key, data };
    let room = json!({"user": "alice", "room": "den", "title": "den", "visibility": "invited"}).to_string();
    assert_eq!(guarded.request("POST /api/rooms", &alice, &room).0, 201);
    let mut client = guarded.hello(&hello(&alice));
    let ack = client.ask("den", "post_message", &json!({"text": "among us"}));
    let position = ack["position"].as_str().unwrap();
    for (_, path) in OF_DEN {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("GET {path}{joint}min_position={position}");
        assert_eq!(guarded.request(&path, &alice, "").0, 200, "{path}");
    }
    let Guarded { server, key, data } = guarded;
    assert_eq!(server.terminate(), Some(0));
    ran(&["backup", "restore", "--store", &store, "before", "--into", &path(&restored)]);
    let named = [("DRAMATIS__AUTH__TOKEN_KEY_FILE", key.to_str().unwrap())];
    let operator = mint(&key, &["--user", "integration:ops", "--for", "1h"]);
    let server = Server::start_with(restored.path(), &[], &named);
    let guarded = Guarded { server, key: key.clone(), data: restored };
    let (_, standings) = guarded.request("GET /api/projections", &operator, "");
    let Guarded { server, data: restored, .. } = guarded;
    assert_eq!(server.terminate(), Some(0));
    moved(data.path(), restored.path());
    held_up(restored.path(), standings.as_array().unwrap());
    let server = Server::start_with(restored.path(), &[], &named);
    (Guarded { server, key, data: restored }, data)
}

/// What tells of the room, and the read model that it is told from.
const OF_DEN: [(&str, &str); 8] = [
    ("rooms", "/api/rooms/den"),
    ("rooms", "/api/rooms"),
    ("timeline", "/api/rooms/den/timeline"),
    ("members", "/api/rooms/den/members"),
    ("threads", "/api/rooms/den/threads"),
    ("activity", "/api/rooms/den/activity"),
    ("statistics", "/api/rooms/den/statistics"),
    ("search", "/api/search?q=among&room=den"),
];

#[test]
fn rooms_of_a_history_that_is_lost_are_shown_to_nobody_whose_rights_count() {
    let (guarded, _before) = restored();
    let token = |user: &str| mint(&guarded.key, &["--user", user, "--for", "1h"]);
    let (mallory, operator) = (token("mallory"), token("integration:ops"));
    for (_, path) in OF_DEN {
        let bearer = format!("Bearer {mallory}");
        let headers = [("Authorization", bearer.as_str())];
        let answer = Request { method: "GET", path, headers: &headers, body: "" };
        let answer = answer.send(guarded.server.address).unwrap();
        let (status, head) = (answer.status, answer.head.to_lowercase());
        let told = answer.json().unwrap();
        assert!(status == 503 && head.contains("retry-after: "), "{path}: {head} {told}");
        assert!(told["retry"] == true && told["after_ms"].as_u64() >= Some(1_000), "{told}");
    }
    assert_eq!(guarded.request("GET /api/me", &mallory, "").0, 503);
    // Whoever looks after it sees what is there.
    let (status, documents) = guarded.request("GET /api/projections/timeline/documents", &operator, "");
    assert!(status == 200 && documents.to_string().contains("among us"), "{documents}");
    assert!(!guarded.server.get_json("/api/health").to_string().contains("where there are tokens"));
    let health = guarded.request("GET /api/health", &operator, "").1.to_string();
    assert!(health.contains("where there are tokens they are refused"), "{health}");

    let run = |arguments: &[&str]| {
        let output = dramatis()
            .args(["projections"])
            .args(arguments)
            .args(["--url", &guarded.server.url()])
            .env("DRAMATIS_TOKEN", &operator)
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    };
    assert!(run(&["list"]).1.contains("resume timeline` goes on with it"));
    assert_eq!(run(&["cancel", "timeline"]).0, Some(0));
    let (code, told) = run(&["verify", "timeline"]);
    assert!(code == Some(1) && told.contains("is of another history than the log"), "{told}");
    let (status, told) = guarded.request("GET /api/rooms/den/timeline", &mallory, "");
    // Nobody builds it unasked, so nobody is to ask for it every second.
    let detail = told["detail"].as_str().unwrap();
    assert!(status == 503 && detail.contains("projections rebuild timeline"), "{told}");
    assert!(told["after_ms"].as_u64() >= Some(60_000), "{told}");
    for (name, _) in OF_DEN {
        let (code, told) = run(&[if name == "timeline" { "rebuild" } else { "resume" }, name]);
        // One of them is told of by two paths.
        assert!(
            code == Some(0) || told.contains("no build under way") || told.contains("cannot be"),
            "{told}"
        );
        run(&["watch", name]);
    }
    let (status, rooms) = guarded.request("GET /api/rooms", &mallory, "");
    assert!(status == 200 && !rooms.to_string().contains("den"), "{rooms}");
    let (status, told) = guarded.request("GET /api/rooms/den/timeline", &mallory, "");
    assert!(status == 404, "it was opened in what was cut off: {told}");
}

#[test]
fn read_models_of_another_log_are_left_as_they_are() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (data, room) in [(&one, "den"), (&other, "hall")] {
        let server = Server::start(data.path());
        server.open_room(room, "anna");
        caught_up(&server);
        assert_eq!(server.terminate(), Some(0));
    }
    moved(one.path(), other.path());
    let server = Server::start(other.path());
    for path in ["/api/rooms", "/api/rooms/den", "/api/projections/rooms/documents"] {
        let (status, told) = server.get(path);
        assert!(status == 503 && told.contains("read_models.take_over"), "{path}: {status} {told}");
    }
    let health = server.get_json("/api/health");
    assert_eq!(health["status"], "degraded");
    let told = health["reasons"].to_string();
    let id = told.split("take_over = ").nth(1).unwrap();
    let id: String = id.chars().filter(|c| !matches!(c, '\\' | '"')).take(16).collect();
    let rebuilt = server.run(&["projections", "rebuild", "rooms"]);
    assert!(rebuilt.status.code() == Some(1), "{}", String::from_utf8_lossy(&rebuilt.stdout));
    server.open_room("attic", "anna");
    assert_eq!(server.terminate(), Some(0));

    // They are as they were, for the log that they are of.
    moved(other.path(), one.path());
    let server = Server::start(one.path());
    let standings = caught_up(&server);
    assert!(standings.iter().all(|standing| standing["build"].as_str().unwrap().ends_with("@1")));
    assert_eq!(server.get_json("/api/rooms")["rooms"][0]["room"], "den");
    assert_eq!(server.terminate(), Some(0));

    let refused = Server::try_start(other.path(), &[("DRAMATIS__READ_MODELS__TAKE_OVER", "den")]);
    assert!(refused.err().unwrap().contains("16 hexadecimal digits"));
    let server = Server::start_with(other.path(), &[], &[("DRAMATIS__READ_MODELS__TAKE_OVER", &id)]);
    caught_up(&server);
    let rooms = server.get_json("/api/rooms?order=title");
    let names: Vec<_> = rooms["rooms"].as_array().unwrap().iter().map(|room| &room["room"]).collect();
    assert_eq!(names, ["attic", "hall"]);
}
