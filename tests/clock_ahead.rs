//! A clock that ran ahead leaves its time in the log: that is told, and fails nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use dramatis::clock::{Clock as _, ManualClock, SystemClock};
use dramatis::log::embedded::{EmbeddedLog, Options};
use dramatis::log::{Append, EventLog as _, Expected};
use dramatis_events::{EntityId, Envelope, EventId, EventName, MemberId, Revision, StreamId, UnixMillis};
use serde_json::json;
use support::imports::caught_up;
use support::{PATIENCE, Server, serve};

/// A log of one event, recorded so many milliseconds from now.
fn recorded_in(data: &Path, ms: i64) -> UnixMillis {
    let (clock, time) = (ManualClock::default(), UnixMillis::new(SystemClock.now().get() + ms));
    clock.set(time);
    let log = EmbeddedLog::open(&data.join("log"), Options::default(), Arc::new(clock)).unwrap();
    let stream = StreamId::room(&EntityId::parse("den").unwrap());
    let opened = Envelope {
        id: EventId::at(&stream, Revision::new(0)),
        name: EventName::parse("RoomOpened").unwrap(),
        version: 1,
        occurred_at: None,
        author: MemberId::parse("alice").unwrap(),
        command: None,
        correlation_id: None,
        causation_id: None,
        subject: None,
        data: r#"{"owner":"alice","title":"den"}"#.into(),
    };
    let append = Append { stream, expected: Expected::NoStream, envelopes: vec![opened] };
    tokio::runtime::Runtime::new().unwrap().block_on(log.append(append)).unwrap();
    log.close();
    time
}

const TOLD: &str = "ahead of the clock: all others carry that time until the clock gets there";

/// What the process says on standard error once this is in it.
fn said(file: &Path, wanted: &str) -> String {
    let started = Instant::now();
    loop {
        let said = std::fs::read_to_string(file).unwrap();
        if said.contains(wanted) {
            return said;
        }
        assert!(started.elapsed() < PATIENCE, "{said}");
        std::thread::yield_now();
    }
}

#[test]
fn a_log_that_is_ahead_of_the_clock_is_told_once_and_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let year_ms = 365 * 24 * 3_600 * 1_000;
    let time = recorded_in(data.path(), 10 * year_ms);
    let stderr = data.path().join("said");
    let child = serve(data.path()).stderr(std::fs::File::create(&stderr).unwrap()).spawn().unwrap();
    let server = Server::once_it_listens(child).unwrap();
    said(&stderr, TOLD);
    server.open_room("attic", "alice");
    let last = server.events(&["--name", "RoomOpened"]).pop().unwrap();
    assert_eq!((&last["stream"], &last["recorded_at"]), (&json!("room-main.attic"), &json!(time.get())));
    caught_up(&server);
    let health = server.get_json("/api/health");
    assert_eq!(health["status"], "ok", "{health}");
    let note = health["notes"][0].as_str().unwrap();
    assert!(note.starts_with("the last event was recorded at ") && note.ends_with(TOLD), "{note}");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(said(&stderr, TOLD).matches(TOLD).count(), 1);
}

#[test]
fn a_clock_that_is_a_little_behind_is_not_told() {
    let data = tempfile::tempdir().unwrap();
    recorded_in(data.path(), 30_000);
    let server = Server::start(data.path());
    caught_up(&server);
    assert_eq!(server.get_json("/api/health"), json!({"status": "ok"}));
}
