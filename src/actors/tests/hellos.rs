//! What a hello may ask for, and how long it waits for the answers.

use std::sync::Arc;

use actix::prelude::*;
use serde_json::Value;

use super::race::scripted::{Holds, ScriptedLog};
use super::talker::{Talker, settle};
use super::{limits, stage_over};
use crate::actors::hub::Hub;
use crate::clock::SystemClock;
use crate::config::SocketConfig;
use crate::log::memory::MemoryLog;

fn codes(ready: &Value) -> Vec<&str> {
    ready["rooms"].as_array().unwrap().iter().filter_map(|room| room["code"].as_str()).collect()
}

#[test]
fn hellos_that_wait_for_a_file_that_hangs_keep_no_other_out() {
    /// More than are looked into at a time.
    const HELLOS: usize = 40;
    System::new().block_on(async {
        let log = Arc::new(ScriptedLog::new(Holds::Before));
        let stage = stage_over(log.clone(), SocketConfig { hello_timeout_ms: 100, ..limits() });
        let rooms = Hub::start_here(&stage);
        let mut hanging: Vec<_> = (0..HELLOS).map(|_| Talker::start(&stage, &rooms)).collect();
        for (number, talker) in hanging.iter().enumerate() {
            talker.hello(&format!("user-{number}"), &["den"]);
        }
        let mut another = Talker::start(&stage, &rooms);
        another.hello("another", &[]);
        another.until_type("ready").await;
        for talker in &mut hanging {
            assert_eq!(codes(&talker.until_type("ready").await), ["unavailable"]);
        }
    });
}

#[test]
fn a_hello_asks_for_no_more_rooms_than_may_be_followed() {
    System::new().block_on(async {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let stage = stage_over(log, SocketConfig { rooms_per_session_max: 2, ..limits() });
        let rooms = Hub::start_here(&stage);
        let mut alice = Talker::start(&stage, &rooms);
        alice.hello("alice", &["a", "not a room", "a", "b", "c", "a", "d"]);
        let ready = alice.until_type("ready").await;
        let [gone, full] = ["not_found", "rate_limited"];
        assert_eq!(codes(&ready), [gone, "malformed", gone, gone, full, gone, full]);
    });
}

#[test]
fn a_room_that_a_hello_names_over_and_over_is_asked_for_once() {
    System::new().block_on(async {
        let log = Arc::new(ScriptedLog::new(Holds::Before));
        let stage = stage_over(log.clone(), limits());
        let rooms = Hub::start_here(&stage);
        let mut bridge = Talker::start(&stage, &rooms);
        bridge.hello("integration:bridge", &["den"; 40]);
        settle().await;
        assert_eq!(log.gate().waiting(), 1);
        log.gate().open();
        assert_eq!(codes(&bridge.until_type("ready").await), ["not_found"; 40]);
    });
}
