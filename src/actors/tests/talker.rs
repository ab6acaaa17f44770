//! A client of a session, without a socket: it takes what waits for it when the test wants that.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::start_session;
use crate::actors::Stage;
use crate::actors::hub::Rooms;
use crate::actors::outbox::{Next, Outbox};
use crate::actors::session::Inbound;

/// What has not come by then never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
pub(super) struct Talker {
    pub(super) outbox: Rc<Outbox>,
    inbound: mpsc::UnboundedSender<Inbound>,
    pub(super) heard: Vec<Value>,
    /// What of it was waited for.
    read: usize,
}

impl Talker {
    pub(super) fn start(stage: &Arc<Stage>, rooms: &Rc<Rooms>) -> Self {
        let outbox = rooms.outbox();
        let (sender, receiver) = mpsc::unbounded_channel();
        let inbound =
            futures_util::stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<_>| async {
                receiver.recv().await.map(|said| (said, receiver))
            });
        start_session(stage, rooms, &outbox, Box::pin(inbound));
        Self { outbox, inbound: sender, heard: Vec::new(), read: 0 }
    }

    pub(super) fn say(&self, message: &Value) {
        self.inbound.send(Inbound::Text(message.to_string())).unwrap();
    }

    /// Says hello in local mode, from a session of its own.
    pub(super) fn hello(&self, user: &str, rooms: &[&str]) {
        let rooms: Vec<_> = rooms.iter().map(|room| json!({"room": room})).collect();
        self.say(&json!({"type": "hello", "user": user, "session": "tab", "rooms": rooms}));
    }

    /// Leaves so much waiting that nothing is read for it before it takes some of that.
    pub(super) fn fill(&self) {
        let most = self.outbox.bytes_max_now();
        self.outbox.push(json!({"type": "filler", "text": "x".repeat(most / 8 * 5)}).to_string().into());
    }

    /// Takes what waits.
    pub(super) fn take(&mut self) {
        while let Some(Next::Write(messages)) = self.outbox.next(usize::MAX) {
            let lines = messages.iter().flat_map(|message| message.split(|byte| *byte == b'\n'));
            self.heard.extend(lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()));
            self.outbox.drained(messages.bytes());
        }
    }

    /// Takes what comes until this does.
    pub(super) async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            self.take();
            while let Some(message) = self.heard.get(self.read) {
                self.read += 1;
                if is_it(message) {
                    return message.clone();
                }
            }
            assert!(began.elapsed() < PATIENCE, "it did not come: {}", self.last());
            yield_now().await;
        }
    }

    /// The last of what was heard, for who must understand a failure.
    fn last(&self) -> String {
        let last = self.heard.iter().rev().take(5);
        last.map(|message| message.to_string().chars().take(300).chain("; ".chars()).collect::<String>())
            .collect()
    }

    pub(super) async fn until_type(&mut self, name: &str) -> Value {
        self.until(|message| message["type"] == name).await
    }
}

/// Waits until this holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        yield_now().await;
    }
}

/// Lets every actor do all that it can without the test.
pub(super) async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}
