//! Who is removed from a room while so much waits for it that it hears nothing of that: it gets nothing
//! from after the removal, and the others hear and see it no more.

use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use dramatis_events::StreamId;
use serde_json::{Value, json};

use super::race::scripted::{Holds, ScriptedLog};
use super::talker::{Talker, settle, until};
use super::{limits, stage_over};
use crate::actors::Stage;
use crate::actors::hub::{Hub, Rooms};
use crate::clock::SystemClock;
use crate::log::memory::MemoryLog;
use crate::log::{Append, EventLog, Expected, contract};

async fn record(log: &dyn EventLog, name: &str, data: &Value) {
    let (stream, envelopes) =
        (StreamId::parse("room-main.den").unwrap(), vec![contract::event(name, data.to_string())]);
    log.append(Append { stream, expected: Expected::Any, envelopes }).await.unwrap();
}

async fn say(log: &dyn EventLog, text: &str) {
    record(log, "MessagePosted", &json!({"kind": "text", "text": text})).await;
}

async fn remove_mallory(log: &dyn EventLog) {
    record(log, "MemberRemoved", &json!({"member": "mallory"})).await;
}

/// A room of the invited, with these members.
async fn open(log: &dyn EventLog, members: &[&str]) {
    record(log, "RoomOpened", &json!({"title": "A room", "owner": "alice"})).await;
    record(log, "RoomVisibilitySet", &json!({"visibility": "invited"})).await;
    for member in members {
        record(log, "MemberJoined", &json!({"member": member, "display_name": member})).await;
    }
}

/// Whenever it happens: before any of the reads that a page takes, and behind each of them.
#[test]
fn a_page_of_history_has_nothing_from_after_the_removal() {
    const READS: usize = 10;
    System::new().block_on(async {
        for (is_full, reads) in
            [false, true].into_iter().flat_map(|full| (0..READS).map(move |reads| (full, reads)))
        {
            let log = Arc::new(ScriptedLog::new(Holds::Before));
            open(&*log, &["alice", "mallory"]).await;
            say(&*log, "before").await;
            let stage = stage_over(log.clone(), limits());
            let rooms = Hub::start_here(&stage);
            let mut mallory = Talker::start(&stage, &rooms);
            mallory.hello("mallory", &[]);
            mallory.until_type("ready").await;
            if is_full {
                mallory.fill();
            }
            mallory.say(&json!({"type": "history", "id": "h", "room": "den", "limit": 50}));
            for _ in 0..reads {
                settle().await;
                if log.gate().waiting() > 0 {
                    log.gate().let_through(0);
                }
            }
            settle().await;
            remove_mallory(&*log).await;
            say(&*log, "after").await;
            log.gate().open();
            let answer = mallory.until(|message| message["id"] == "h").await;
            assert!(!answer.to_string().contains("after"), "full {is_full}, {reads} reads: {answer}");
            log.close();
        }
    });
}

/// The names among these of a presence message.
fn told(message: &Value, of: &str, name: &str) -> bool {
    let names = if of == "members" { &message["full"]["members"] } else { &message["diff"][of] };
    names.as_array().is_some_and(|names| names.iter().any(|known| known == name))
}

/// Whether a presence message tells that this one is there.
fn is_present(message: &Value, name: &str) -> bool {
    ["members", "joined"].iter().any(|of| told(message, of, name))
}

fn ephemeral(name: &str) -> Value {
    json!({"type": "ephemeral", "room": "den", "name": name, "data": null})
}

struct Den {
    log: Arc<MemoryLog>,
    stage: Arc<Stage>,
    rooms: Rc<Rooms>,
}

impl Den {
    async fn open(members: &[&str]) -> Self {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        open(&*log, members).await;
        let mut limits = limits();
        limits.outbox_bytes_max = 16 * 1_024;
        (limits.presence.interval_ms, limits.presence.large_interval_ms) = (1, 1);
        let stage = stage_over(log.clone(), limits);
        let rooms = Hub::start_here(&stage);
        Self { log, stage, rooms }
    }

    async fn enter(&self, name: &str) -> Talker {
        let mut talker = Talker::start(&self.stage, &self.rooms);
        talker.hello(name, &["den"]);
        talker.until_type("live").await;
        talker
    }

    fn unheard(&self) -> u64 {
        self.stage.metrics.ephemerals.unheard.get()
    }
}

#[test]
fn who_stays_behind_is_neither_heard_nor_present_after_the_removal() {
    System::new().block_on(async {
        let den = Den::open(&["alice", "carol", "mallory"]).await;
        let (mut alice, mut carol) = (den.enter("alice").await, den.enter("carol").await);
        let mut mallory = den.enter("mallory").await;
        alice.until(|message| is_present(message, "mallory")).await;

        // While she is behind, she is one of them as long as she is a member.
        while den.stage.metrics.fell_behind.get() == 0 {
            say(&*den.log, &"x".repeat(1_000)).await;
            alice.until_type("event").await;
            carol.until_type("event").await;
        }
        mallory.say(&ephemeral("typing"));
        alice.until(|message| message["name"] == "typing").await;
        alice.say(&ephemeral("hello"));
        carol.until(|message| message["name"] == "hello").await;

        remove_mallory(&*den.log).await;
        alice.until(|message| told(message, "left", "mallory")).await;
        mallory.say(&ephemeral("caret"));
        until("a removed member is heard", || den.unheard() == 1).await;
        alice.say(&ephemeral("secret"));
        carol.until(|message| message["name"] == "secret").await;
        say(&*den.log, "secret").await;
        alice.until_type("event").await;
        assert!(!alice.heard.iter().any(|message| message["name"] == "caret"));

        mallory.until_type("closed").await;
        let text = json!(mallory.heard).to_string();
        assert!(text.contains("hello") && !text.contains("secret"), "{text}");
    });
}

/// Nobody knows whether she was removed since her right was asked for.
#[test]
fn who_was_never_live_is_neither_heard_nor_present() {
    System::new().block_on(async {
        let den = Den::open(&["alice", "bob", "nora"]).await;
        let mut alice = den.enter("alice").await;
        let nora = Talker::start(&den.stage, &den.rooms);
        nora.fill();
        nora.hello("nora", &["den"]);
        settle().await;
        nora.say(&ephemeral("caret"));
        until("she is heard", || den.unheard() == 1).await;
        let _bob = den.enter("bob").await;
        alice.until(|message| is_present(message, "bob")).await;
        let text = json!(alice.heard).to_string();
        assert!(
            !text.contains("caret") && !alice.heard.iter().any(|message| is_present(message, "nora")),
            "{text}"
        );
    });
}
