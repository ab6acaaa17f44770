//! Those who follow the log while it grows fast see every event in order and are never cut off.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};
use support::Server;
use support::imports::long_tier;

const FOLLOWERS: u64 = 16;

/// Follows the whole log until it has seen so many events.
fn follow(server: &Server, events: u64) {
    let answer = ureq::get(format!("{}/api/events?follow=true", server.url())).call().unwrap();
    let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
    for position in 0..events {
        let line = match lines.next() {
            Some(Ok(line)) => line,
            end => panic!("cut off at position {position}: {end:?}"),
        };
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["position"].as_str(), Some(&*position.to_string()));
    }
}

#[test]
fn followers_of_a_log_that_grows_fast_are_never_cut_off() {
    let messages: u64 = if long_tier() { 100_000 } else { 6_000 };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "olga");
    // Opened, its owner in, every message.
    let events = 2 + messages;
    std::thread::scope(|scope| {
        for _ in 0..FOLLOWERS {
            scope.spawn(|| follow(&server, events));
        }
        let mut olga = server.client("olga", &json!([]));
        let mut sent = 0;
        for answered in 0..messages {
            while sent < messages && sent < answered + 4 {
                olga.command("den", "post_message", &json!({"text": "on it goes"}));
                sent += 1;
            }
            assert_eq!(olga.receive()["type"], "ack");
        }
    });
}
