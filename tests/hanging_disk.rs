//! A second disk that does not answer any more: the server ends all the same when it is asked to, and
//! nothing is lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::time::Instant;

use serde_json::json;
use support::imports::imported_by_days;
use support::unsynced::preloadable;
use support::{PATIENCE, Server};

#[test]
fn a_read_that_hangs_does_not_keep_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let Some(layer) = preloadable("hang_reads", dir.path()) else { return };
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let (cold, when, told, layer) = (text("cold"), text("when"), text("told"), layer.to_str().unwrap());
    let settings = [
        ("DRAMATIS__LOG__SEGMENT_BYTES", "65536"),
        ("DRAMATIS__LOG__COLD_DIR", &cold),
        ("DRAMATIS__LOG__HOT_SEGMENTS_MAX", "0"),
        // Rooms are read from the log.
        ("DRAMATIS__ENTITY__SNAPSHOT_EVERY_EVENTS", "0"),
        ("DRAMATIS__DRAIN__NOTICE_MS", "0"),
        ("DRAMATIS__DRAIN__PATIENCE_MS", "0"),
    ];
    let server = Server::start_with(&path("data"), &[], &settings);
    imported_by_days(&server, dir.path(), "den", 3);
    let events = server.events(&[]);
    // What still has to move does so at its leisure.
    let started = Instant::now();
    while std::fs::read_dir(path("cold")).unwrap().count() < 4 {
        assert!(started.elapsed() < PATIENCE, "no segment moves");
        std::thread::yield_now();
    }
    server.kill();

    let hanging = [
        ("LD_PRELOAD", layer),
        ("DRAMATIS_HANG_DIR", &cold),
        ("DRAMATIS_HANG_WHEN", &when),
        ("DRAMATIS_HANG_TOLD", &told),
    ];
    let server = Server::start_with(&path("data"), &[], &[&settings[..], &hanging].concat());
    let mut zoe = server.client("zoe", &json!([]));
    std::fs::write(&when, "").unwrap();
    zoe.command("den", "join", &json!({}));
    let started = Instant::now();
    while !path("told").exists() {
        assert!(started.elapsed() < PATIENCE, "nothing is read from the second disk");
        std::thread::yield_now();
    }
    assert_eq!(server.terminate(), Some(1), "it says that it was cut short");

    let server = Server::start_with(&path("data"), &[], &settings);
    assert!(server.events(&[]).starts_with(&events));
    let mut zoe = server.client("zoe", &json!([]));
    assert_eq!(zoe.ask("den", "join", &json!({}))["type"], "ack");
}
