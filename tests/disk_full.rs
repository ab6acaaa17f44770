//! A disk that fills up: appends stop with a word for it, reads go on, and nothing that was
//! acknowledged is lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use support::imports::caught_up;
use support::small_disk::{Filler, on_a_small_disk};
use support::{Client, PATIENCE, Server, dramatis};

const ROOM: &str = "den";

/// Someone who posts and notes what is acknowledged.
struct Poster {
    client: Client,
    sent: u64,
    /// Revisions by text.
    acknowledged: BTreeMap<String, u64>,
}

impl Poster {
    fn new(server: &Server) -> Self {
        server.open_room(ROOM, "olga");
        Self { client: server.client("olga", &json!([])), sent: 0, acknowledged: BTreeMap::new() }
    }

    fn come_back(&mut self, server: &Server) {
        self.client = server.client("olga", &json!([]));
    }

    fn text(&self) -> String {
        format!("{} {}", self.sent, "x".repeat(4_000))
    }

    /// Posts the next message; the same again if the last one was rejected.
    fn post(&mut self) -> Value {
        let (id, text) = (format!("message-{}", self.sent), self.text());
        let data = json!({"text": text});
        let command =
            json!({"type": "command", "id": id, "room": ROOM, "name": "post_message", "data": data});
        self.client.send(&command);
        let answer = self.client.answer(&id);
        if answer["type"] == "ack" {
            self.acknowledged.insert(text, answer["revision"].as_u64().unwrap());
            self.sent += 1;
        }
        answer
    }

    /// Posts what is no message of the row.
    fn post_another(&mut self) -> Value {
        self.client.ask(ROOM, "post_message", &json!({"text": "another"}))
    }

    /// Posts until it is rejected, which must come before so many.
    fn post_until_rejected(&mut self, most: u64) -> Value {
        let until = self.sent + most;
        loop {
            let answer = self.post();
            if answer["type"] == "reject" {
                println!("after {} messages: {answer}", self.sent);
                return answer;
            }
            assert!(self.sent < until, "{most} messages and the disk is not full");
        }
    }

    /// All that was acknowledged is in the log where it was said to be, by every way of reading.
    fn assert_all_there(&self, server: &Server) {
        let events = server.events(&["--room", ROOM]);
        for (text, revision) in &self.acknowledged {
            assert_eq!(events[usize::try_from(*revision).unwrap()]["data"]["text"], *text);
        }
        let posted = events.iter().filter(|event| event["name"] == "MessagePosted").count() as u64;
        assert!((self.sent..=self.sent + 1).contains(&posted), "{posted} of {} messages", self.sent);
        let mut reader = server.client("reader", &json!([]));
        reader.send(&json!({"type": "subscribe", "id": "s", "room": ROOM, "after": 0}));
        for event in &events[1..] {
            assert_eq!(reader.receive_type("event")["data"], event["data"]);
        }
        reader.send(&json!({"type": "history", "id": "h", "room": ROOM, "before": 3, "limit": 2}));
        assert_eq!(reader.answer("h")["events"][1]["data"], events[2]["data"]);
        assert_eq!(server.get(&format!("/api/rooms/{ROOM}/timeline")).0, 200);
    }
}

fn assert_degraded(server: &Server, why: &str) {
    assert_tells(&server.get_json("/api/health"), why);
}

fn assert_tells(health: &Value, why: &str) {
    assert_eq!(health["status"], "degraded", "{health}");
    let reasons = health["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason.as_str().unwrap().contains(why)), "{health}");
}

/// Asks until health is no longer in order; what it says then. Meanwhile something is done each time.
fn degraded(server: &Server, mut meanwhile: impl FnMut()) -> Value {
    let started = Instant::now();
    loop {
        let health = server.get_json("/api/health");
        if health["status"] != "ok" {
            return health;
        }
        assert!(started.elapsed() < PATIENCE, "health is not degraded");
        meanwhile();
    }
}

/// Segments small enough to be closed while the disk fills up, and nothing kept in reserve.
const SETTINGS: [(&str, &str); 2] =
    [("DRAMATIS__LOG__SEGMENT_BYTES", "1048576"), ("DRAMATIS__LOG__RESERVE_BYTES", "0")];

/// Fills the disk up to so many KiB, and the log from there.
fn fill_up(disk: &Path, left_kib: u64) {
    let data = disk.join(format!("data-{left_kib}"));
    let server = Server::start_with(&data, &[], &SETTINGS);
    let mut poster = Poster::new(&server);
    for _ in 0..20 {
        assert_eq!(poster.post()["type"], "ack");
    }
    caught_up(&server);
    let filler = Filler::all_but(disk, left_kib);
    let refused = poster.post_until_rejected(1_000);
    if refused["code"] == "unavailable" {
        // The next segment could not be begun: nothing of this one was written.
        assert!(refused["message"].as_str().unwrap().contains("it is tried again"), "{refused}");
        assert_degraded(&server, "it is tried again");
        poster.assert_all_there(&server);
        filler.remove();
        assert_eq!(poster.post()["type"], "ack", "there is space again, and no restart was needed");
    } else {
        // Nobody knows of the one that met the full disk, however often it is asked for; those behind it
        // were not recorded.
        assert_eq!(refused["code"], "unknown_outcome");
        let again = poster.post();
        assert_eq!((&again["code"], &again["retry"]), (&json!("unknown_outcome"), &json!(true)), "{again}");
        let next = poster.post_another();
        assert_eq!((&next["code"], &next["retry"]), (&json!("unavailable"), &json!(true)), "{next}");
        assert_degraded(&server, "the log takes no appends");
        poster.assert_all_there(&server);
        filler.remove();
        let still = poster.post_another();
        assert_eq!(still["code"], "unavailable", "a writer that failed was used again: {still}");
    }
    poster.assert_all_there(&server);
    assert_eq!(server.terminate(), Some(0));

    let server = Server::start_with(&data, &[], &SETTINGS);
    poster.assert_all_there(&server);
    poster.come_back(&server);
    for _ in 0..20 {
        assert_eq!(poster.post()["type"], "ack");
    }
    caught_up(&server);
    assert_eq!(server.get_json("/api/health"), json!({"status": "ok"}));
    poster.assert_all_there(&server);
}

#[test]
fn a_full_disk_stops_appends_until_a_restart_and_loses_nothing() {
    on_a_small_disk("a_full_disk_stops_appends_until_a_restart_and_loses_nothing", 96, |disk| {
        // So that it is full over one thing or another: a batch, room ahead, an index, a segment.
        for left_kib in [4, 100, 600, 1_200, 1_600] {
            fill_up(disk, left_kib);
        }
    });
}

#[test]
fn appends_stop_at_the_reserve_and_go_on_once_there_is_space() {
    on_a_small_disk("appends_stop_at_the_reserve_and_go_on_once_there_is_space", 96, |disk| {
        let data = disk.join("data");
        // The default reserve is a twentieth of so small a disk.
        let server = Server::start_with(&data, &[], &SETTINGS[..1]);
        let mut poster = Poster::new(&server);
        for left_kib in [4_000, 6_200] {
            for _ in 0..20 {
                assert_eq!(poster.post()["type"], "ack");
            }
            caught_up(&server);
            let filler = Filler::all_but(disk, left_kib);
            // What read models give back may let appends go on for a while.
            let mut in_a_row = 0;
            while in_a_row < 2 {
                let answer = if in_a_row == 0 { poster.post_until_rejected(1_000) } else { poster.post() };
                let is_refused = answer["type"] == "reject";
                in_a_row = if is_refused { in_a_row + 1 } else { 0 };
                if is_refused {
                    assert_eq!((&answer["code"], &answer["retry"]), (&json!("unavailable"), &json!(true)));
                    assert!(answer["message"].as_str().unwrap().contains("log.reserve_bytes"), "{answer}");
                }
            }
            let health = degraded(&server, || drop(poster.post_until_rejected(1_000)));
            assert_tells(&health, "log.reserve_bytes");
            poster.assert_all_there(&server);
            filler.remove();
            assert_eq!(poster.post()["type"], "ack", "there is space again, and no restart was needed");
            caught_up(&server);
            assert_eq!(server.get_json("/api/health"), json!({"status": "ok"}));
        }
        poster.assert_all_there(&server);
        server.kill();
        poster.assert_all_there(&Server::start_with(&data, &[], &SETTINGS[..1]));
    });
}

#[test]
fn a_start_on_a_full_disk_serves_what_is_there_and_goes_on_once_there_is_space() {
    let name = "a_start_on_a_full_disk_serves_what_is_there_and_goes_on_once_there_is_space";
    on_a_small_disk(name, 32, |disk| {
        for (is_clean, durability) in [(false, "sync"), (true, "sync"), (true, "interval")] {
            let data = disk.join(format!("data-{is_clean}-{durability}"));
            let settings = [SETTINGS[0], SETTINGS[1], ("DRAMATIS__LOG__DURABILITY", durability)];
            let server = Server::start_with(&data, &[], &settings);
            let mut poster = Poster::new(&server);
            for _ in 0..20 {
                assert_eq!(poster.post()["type"], "ack");
            }
            caught_up(&server);
            if is_clean {
                assert_eq!(server.terminate(), Some(0));
            } else {
                server.kill();
            }
            let filler = Filler::all_but(disk, 0);
            let server = Server::try_start(&data, &settings).unwrap();
            assert_tells(&degraded(&server, std::thread::yield_now), "disk is full");
            poster.assert_all_there(&server);
            filler.remove();
            poster.come_back(&server);
            assert_eq!(poster.post()["type"], "ack", "no restart is needed");
            caught_up(&server);
            assert_eq!(server.get_json("/api/health"), json!({"status": "ok"}));
            server.kill();
            poster.assert_all_there(&Server::start_with(&data, &[], &settings));
        }
    });
}

fn read_only(disk: &Path) {
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(disk).status().unwrap();
    assert!(remounted.success());
}

#[test]
fn a_cold_tier_on_a_disk_that_became_read_only_is_read() {
    on_a_small_disk("a_cold_tier_on_a_disk_that_became_read_only_is_read", 16, |disk| {
        let data = tempfile::tempdir().unwrap();
        let cold = disk.join("cold");
        std::fs::create_dir(&cold).unwrap();
        let settings = [
            ("DRAMATIS__LOG__COLD_DIR", cold.to_str().unwrap()),
            ("DRAMATIS__LOG__SEGMENT_BYTES", "65536"),
            ("DRAMATIS__LOG__HOT_SEGMENTS_MAX", "0"),
        ];
        let server = Server::start_with(data.path(), &[], &settings);
        let mut poster = Poster::new(&server);
        while !std::fs::read_dir(&cold)
            .unwrap()
            .any(|file| file.unwrap().path().extension().is_some_and(|extension| extension == "segment"))
        {
            assert_eq!(poster.post()["type"], "ack");
        }
        assert_eq!(server.terminate(), Some(0));
        read_only(disk);
        let server = Server::start_with(data.path(), &[], &settings);
        poster.assert_all_there(&server);
        poster.come_back(&server);
        assert_eq!(poster.post()["type"], "ack");
    });
}

#[test]
fn a_log_that_is_not_there_is_not_begun_anew() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[]);
    let mut poster = Poster::new(&server);
    assert_eq!(poster.post()["type"], "ack");
    caught_up(&server);
    assert_eq!(server.terminate(), Some(0));
    let (log, away) = (data.path().join("log"), data.path().join("away"));
    std::fs::rename(&log, &away).unwrap();
    for is_mount_point in [false, true] {
        if is_mount_point {
            std::fs::create_dir(&log).unwrap();
        }
        let refused = Server::try_start(data.path(), &[]).err().unwrap();
        assert!(refused.contains("there is no log in") && refused.contains("mount that"), "{refused}");
    }
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&away, &log).unwrap();
    poster.assert_all_there(&Server::start_with(data.path(), &[], &[]));
}

/// A system often goes on with a failing disk as one that is read only.
#[test]
fn a_disk_that_is_read_only_can_be_looked_at() {
    on_a_small_disk("a_disk_that_is_read_only_can_be_looked_at", 16, |disk| {
        let data = disk.join("data");
        let server = Server::start_with(&data, &[], &SETTINGS);
        let mut poster = Poster::new(&server);
        for _ in 0..20 {
            assert_eq!(poster.post()["type"], "ack");
        }
        assert_eq!(server.terminate(), Some(0));
        std::fs::remove_file(data.join("log").join("LOCK")).unwrap();
        read_only(disk);
        for command in ["verify", "info", "repair"] {
            let output = dramatis().args(["log", command, "--data"]).arg(&data).output().unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let refused = Server::try_start(&data, &SETTINGS).err().unwrap();
        assert!(refused.contains("ead-only"), "{refused}");
    });
}
