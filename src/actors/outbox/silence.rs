//! What is known of the other side: whether it has said hello, when it was last heard, whether it was
//! asked if it is still there.

use std::time::Instant;

use bytes::Bytes;

use super::Outbox;

impl Outbox {
    /// Something was heard of the client, or it took bytes that had waited for it.
    pub fn heard(&self, now: Instant) {
        if self.greeted.get() {
            self.heard.set(now);
        }
        self.pinged.set(false);
    }

    /// The client has said hello.
    pub fn greeted(&self) {
        self.greeted.set(true);
    }

    /// Whether the client has said hello.
    pub fn is_greeted(&self) -> bool {
        self.greeted.get()
    }

    /// Whether what may be its hello has come and waits until it is looked into.
    pub fn waits_for_turn(&self, waits: bool) {
        self.waits_for_turn.set(waits);
    }

    /// Whether nothing that may be a hello has come.
    pub fn owes_hello(&self) -> bool {
        !self.greeted.get() && !self.waits_for_turn.get()
    }

    /// Whether a request of the client waits here for what there will be: then it is there.
    pub fn is_waited_at(&self) -> bool {
        self.waited_at.get()
    }

    /// Such a request has begun to wait, or was answered.
    pub fn waits(&self, waits: bool) {
        self.heard(Instant::now());
        self.waited_at.set(waits);
    }

    /// Whether a ping is out and nothing was heard since.
    pub fn is_pinged(&self) -> bool {
        self.pinged.get()
    }

    /// A ping goes out.
    pub fn ping(&self, message: Bytes) {
        self.pinged.set(true);
        self.pong_due.set(true);
        self.push(message);
    }

    /// Whether the next message may be the answer to a ping, which was asked for. Said once a ping.
    pub fn take_pong_due(&self) -> bool {
        self.pong_due.take()
    }

    /// When something was last heard; before its hello, when the connection was opened.
    pub fn heard_at(&self) -> Instant {
        self.heard.get()
    }
}
