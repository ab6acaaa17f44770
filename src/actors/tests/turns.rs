//! A frame of very many messages: others of the thread have their turn in between.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::prelude::*;
use futures_util::stream::{StreamExt as _, iter, pending};
use futures_util::task::noop_waker;
use tokio::task::yield_now;

use super::{limits, stage_over, start_session};
use crate::actors::hub::Hub;
use crate::actors::outbox::{Next, Outbox};
use crate::actors::session::Inbound;
use crate::clock::SystemClock;
use crate::log::memory::MemoryLog;

const MESSAGES: usize = 100_000;

/// What was said so far.
struct Heard {
    outbox: Rc<Outbox>,
    text: String,
}

impl Heard {
    /// Lets others work until this was said.
    async fn wait_for(&mut self, what: &str) {
        while !self.text.contains(what) {
            yield_now().await;
            assert!(!self.outbox.is_closing(), "{}", self.text);
            let next = self.outbox.poll_next(&Context::from_waker(&noop_waker()), usize::MAX);
            if let Poll::Ready(Next::Write(messages)) = next {
                for message in messages.iter() {
                    self.text += &String::from_utf8_lossy(message);
                }
            }
        }
    }
}

#[test]
fn no_frame_keeps_others_from_their_turn() {
    System::new().block_on(async {
        let stage = stage_over(Arc::new(MemoryLog::new(Arc::new(SystemClock))), limits());
        let rooms = Hub::start_here(&stage);
        for (kind, filler) in [("empty", "\n"), ("pongs", "{\"type\":\"pong\"}\n")] {
            let outbox = rooms.outbox();
            let hello = format!(r#"{{"type":"hello","user":"mallory","session":"{kind}","rooms":[]}}"#);
            let frame = filler.repeat(MESSAGES) + r#"{"type":"unsubscribe","id":"last","room":"den"}"#;
            let inbound = iter([hello, frame]).map(Inbound::Text).chain(pending());
            let turns = Rc::new(Cell::new(0_usize));
            let another = actix::spawn({
                let turns = turns.clone();
                async move {
                    loop {
                        turns.set(turns.get() + 1);
                        yield_now().await;
                    }
                }
            });
            start_session(&stage, &rooms, &outbox, inbound);
            let mut heard = Heard { outbox, text: String::new() };
            heard.wait_for("ready").await;
            heard.wait_for("last").await;
            another.abort();
            let turns = turns.get();
            println!("{MESSAGES} messages, {kind}: {turns} turns of another");
            assert!(turns >= MESSAGES / 512, "{turns} turns of another beside {MESSAGES} {kind}");
            heard.outbox.finish();
        }
    });
}
