//! Read models are disposable: dropped or rebuilt, they come back byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::documents::{Documents, documents};
use support::imports::{caught_up, chat_log, file, head, imported};
use support::{Server, dramatis};

/// A room with history, and with every change that a message can see after it was posted.
fn lived_in(server: &Server) {
    let logs = tempfile::tempdir().unwrap();
    let log = file(logs.path(), "den-2010-03-08.txt", chat_log(2_000, 3));
    imported(server, &[log], &["--room", "den"]);
    let mut nick = server.client("nick1", &json!([]));
    nick.ask("den", "join", &json!({}));
    let post = |client: &mut support::Client, text: &str| {
        let ack = client.ask("den", "post_message", &json!({"text": text}));
        assert_eq!(ack["type"], "ack", "{ack}");
        ack["revision"].clone()
    };
    let (edited, redacted, liked) = (post(&mut nick, "a"), post(&mut nick, "b"), post(&mut nick, "c"));
    for (name, data) in [
        ("edit_message", json!({"target": edited, "text": "aa"})),
        ("redact_message", json!({"target": redacted})),
        ("add_reaction", json!({"target": liked, "emoji": "👍"})),
        ("post_message", json!({"text": "d", "reply_to": liked})),
        ("leave", json!({})),
    ] {
        let ack = nick.ask("den", name, &data);
        assert_eq!(ack["type"], "ack", "{ack}");
    }
}

fn build_of(standings: &[Value], name: &str) -> Value {
    standings.iter().find(|standing| standing["name"] == name).unwrap()["build"].clone()
}

#[test]
fn deleted_read_models_come_back_the_same() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    lived_in(&server);
    let standings = caught_up(&server);
    assert_eq!(server.terminate(), Some(0));
    let before = documents(data.path());
    let kept: BTreeSet<_> =
        before.iter().filter(|(_, kept)| !kept.is_empty()).map(|(name, _)| name).collect();
    for name in ["rooms", "timeline", "members", "threads", "replies", "activity", "statistics"] {
        assert!(kept.contains(&name.to_owned()), "{name} has no document");
    }
    assert_eq!(before.len(), standings.len());

    assert_eq!(made_anew(data.path()), before);
}

/// The documents after the read models were deleted and a server made them again.
fn made_anew(data: &Path) -> BTreeMap<String, Documents> {
    let mut deleted = 0;
    for entry in std::fs::read_dir(data).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("read-models.sqlite") {
            std::fs::remove_file(entry.path()).unwrap();
            deleted += 1;
        }
    }
    assert!(deleted > 0);
    let server = Server::start(data);
    caught_up(&server);
    assert_eq!(server.terminate(), Some(0));
    documents(data)
}

#[test]
fn a_restart_keeps_read_models_where_they_are() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    lived_in(&server);
    let builds: Vec<_> = caught_up(&server).iter().map(|standing| standing["build"].clone()).collect();
    let before = documents(data.path());
    server.kill();
    let server = Server::start(data.path());
    let builds_after: Vec<_> = caught_up(&server).iter().map(|standing| standing["build"].clone()).collect();
    assert_eq!(builds_after, builds, "nothing is built anew without need");
    assert_eq!(documents(data.path()), before);
}

#[test]
fn a_rebuild_switches_a_live_server_to_the_same_documents() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    lived_in(&server);
    let standings = caught_up(&server);
    let (build, before) = (build_of(&standings, "timeline"), documents(data.path()));

    let (status, said) = server.get("/api/projections/timeline/document?key=x&build=timeline@99");
    assert!(status == 404 && said.contains("timeline@99"), "{status} {said}");
    let (status, said) = server.get("/api/projections/timeline/document?key=x&build=timeline@");
    assert!(status == 404 && said.contains("timeline@"), "{status} {said}");
    let output = server.run(&["projections", "rebuild", "timeline"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let standings = caught_up(&server);
    assert_ne!(build_of(&standings, "timeline"), build, "the new build is live");
    assert_eq!(documents(data.path()), before);

    // The new build goes on from there.
    let mut nick = server.client("nick2", &json!([]));
    nick.ask("den", "join", &json!({}));
    let ack = nick.ask("den", "post_message", &json!({"text": "after the rebuild"}));
    let position = ack["position"].as_str().unwrap();
    let page = server.get_json(&format!("/api/rooms/den/timeline?limit=1&min_position={position}"));
    assert_eq!(page["messages"][0]["text"], "after the rebuild");
    caught_up(&server);
    assert_eq!(documents(data.path())["timeline"].len(), before["timeline"].len() + 1);
}

#[test]
fn rebuilds_while_events_pour_in_lose_none_of_them() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    server.open_room("den", "alice");
    let log = file(logs.path(), "2010-03-08.txt", chat_log(5_000, 4));
    let mut import = dramatis()
        .args(["import", "irc", log.to_str().unwrap(), "--room", "den", "--in-flight", "64"])
        .args(["--url", &server.url()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut rebuilds = 0;
    while import.try_wait().unwrap().is_none() {
        for name in ["timeline", "members", "rooms"] {
            let output = server.run(&["projections", "rebuild", name]);
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            rebuilds += 1;
        }
    }
    println!("{rebuilds} rebuilds during the import");
    assert!(rebuilds > 0);
    caught_up(&server);
    assert_eq!(server.terminate(), Some(0));
    let before = documents(data.path());
    assert!(before["timeline"].len() > 4_000);
    assert_eq!(made_anew(data.path()), before);
}

#[test]
fn the_list_shows_where_each_projection_stands() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "alice");
    caught_up(&server);
    let output = server.run(&["projections", "list"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    let mut rows: Vec<String> =
        table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows.remove(0), "name version build position head lag_events lag_ms state documents parked");
    rows.sort();
    let head = head(&server).unwrap();
    for (name, version, documents) in [("members", 1, 1), ("rooms", 1, 1), ("timeline", 2, 0)] {
        let row = format!("{name} {version} {name}@1 {head} {head} 0 0 live {documents} 0");
        assert!(rows.contains(&row), "{row:?} is not in {rows:#?}");
    }
}

#[test]
fn a_projection_that_is_not_there_is_named_with_those_that_are() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let output = server.run(&["projections", "rebuild", "timelines"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no projection \"timelines\"; there are rooms, timeline, members"), "{told}");
    assert!(server.events(&[]).is_empty(), "an empty log is no error");
}
