//! Connections that are to be closed by others than their sessions, on whichever thread: a session that
//! waits for its client handles no message until that is over, and the client says when. So nobody tells
//! the session; the hub of its thread closes the outbox, which ends the wait too.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::protocol::CloseCode;

/// Those of one thread that are to be closed now.
#[derive(Default)]
pub struct Closing {
    connections: Mutex<Vec<(u64, CloseCode)>>,
    some: Notify,
}

/// Closes one connection, from any thread.
#[derive(Clone)]
pub struct Closer {
    thread: Arc<Closing>,
    connection: u64,
}

impl Closing {
    /// For the hub: waits for some.
    pub(super) async fn next(&self) -> Vec<(u64, CloseCode)> {
        loop {
            let some = self.take();
            if !some.is_empty() {
                return some;
            }
            self.some.notified().await;
        }
    }

    /// Those there are.
    pub(super) fn take(&self) -> Vec<(u64, CloseCode)> {
        std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Closer {
    /// Closes this connection of the thread.
    pub fn new(thread: Arc<Closing>, connection: u64) -> Self {
        Self { thread, connection }
    }

    /// Has it closed for this reason. One that is gone already is not.
    pub fn close(&self, code: CloseCode) {
        let mut connections = self.thread.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.push((self.connection, code));
        drop(connections);
        self.thread.some.notify_one();
    }
}
