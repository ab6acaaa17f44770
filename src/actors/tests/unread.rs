//! One's own stream that gives no state: who wants that is told so, and not left to wait for it.

use std::sync::Arc;

use actix::prelude::*;
use dramatis_events::StreamId;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::task::yield_now;

use super::{limits, stage_over, start_session};
use crate::actors::hub::Hub;
use crate::actors::outbox::Next;
use crate::actors::session::Inbound;
use crate::clock::SystemClock;
use crate::log::memory::MemoryLog;
use crate::log::{Append, EventLog as _, Expected, contract};

#[test]
fn a_state_of_ones_own_that_is_not_to_be_had_is_denied() {
    System::new().block_on(async {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let stream = StreamId::parse("user-main.alice").unwrap();
        let envelopes = vec![contract::event("ProfileChanged", "no profile")];
        log.append(Append { stream, expected: Expected::Any, envelopes }).await.unwrap();
        let stage = stage_over(log, limits());
        let rooms = Hub::start_here(&stage);
        for (catch_up, how, code) in
            [("state", "denied", json!("internal")), ("events", "events", Value::Null)]
        {
            let outbox = rooms.outbox();
            let hello = json!({"type": "hello", "user": "alice", "session": catch_up,
                "rooms": [{"room": "me", "catch_up": catch_up}]});
            let inbound = stream::iter([Inbound::Text(hello.to_string())]).chain(stream::pending());
            start_session(&stage, &rooms, &outbox, inbound);
            let ready: Value = loop {
                yield_now().await;
                let Some(Next::Write(messages)) = outbox.next(usize::MAX) else { continue };
                outbox.drained(messages.bytes());
                let mut heard =
                    messages.iter().map(|message| serde_json::from_slice::<Value>(message).unwrap());
                if let Some(ready) = heard.find(|message| message["type"] == "ready") {
                    break ready;
                }
            };
            let entry = &ready["rooms"][0];
            assert_eq!((&entry["how"], &entry["code"]), (&json!(how), &code), "{ready}");
            outbox.finish();
        }
    });
}
