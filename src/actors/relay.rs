//! Ephemerals on their way from a session to the hubs of all threads, each of which has an inbox
//! here: bounded, and of one member, name and room only the newest waits.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dramatis_events::{MemberId, StreamId};
use tokio::sync::Notify;

use crate::protocol::{EphemeralFrame, ServerMessage};
use crate::telemetry::metrics::EphemeralMetrics;

/// Ephemerals that may wait for one hub; beyond that the oldest give way.
const INBOX_LEN_MAX: usize = 1_024;

/// One ephemeral, encoded.
#[derive(Debug, Clone)]
pub struct Shout {
    /// The room.
    pub stream: StreamId,
    /// The same for all of one member, name and room. Two others share one once in 2^64.
    pub key: u64,
    /// The connection that sent it, and is not sent it back.
    pub from: u64,
    /// The message.
    pub message: Bytes,
}

/// See the module.
pub struct Relay {
    inboxes: Mutex<Vec<Arc<Inbox>>>,
    keys: RandomState,
    metrics: EphemeralMetrics,
}

impl Relay {
    /// A relay without hubs.
    pub fn new(metrics: EphemeralMetrics) -> Self {
        Self { inboxes: Mutex::default(), keys: RandomState::new(), metrics }
    }

    /// The inbox of one more hub.
    pub(super) fn join(&self) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        lock(&self.inboxes).push(inbox.clone());
        inbox
    }

    /// Gives an ephemeral to all hubs.
    pub fn shout(&self, stream: &StreamId, from: u64, frame: EphemeralFrame<'_>) {
        let key = self.key(stream, frame.by, frame.name.as_str());
        let message = ServerMessage::Ephemeral(frame).encode();
        let shout = Arc::new(Shout { stream: stream.clone(), key, from, message });
        for inbox in lock(&self.inboxes).iter() {
            match inbox.put(shout.clone()) {
                Put::Waits => {}
                Put::Collapsed => {
                    self.metrics.collapsed.inc();
                }
                Put::Dropped => {
                    self.metrics.dropped.inc();
                }
            }
        }
    }

    fn key(&self, stream: &StreamId, by: &MemberId, name: &str) -> u64 {
        self.keys.hash_one((stream, by, name))
    }
}

/// What waits for one hub.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    woken: Notify,
}

#[derive(Default)]
struct Waiting {
    newest: HashMap<u64, Arc<Shout>>,
    order: VecDeque<u64>,
}

/// What a put did to what waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    Waits,
    Collapsed,
    Dropped,
}

impl Inbox {
    fn put(&self, shout: Arc<Shout>) -> Put {
        let mut waiting = lock(&self.waiting);
        let key = shout.key;
        if waiting.newest.insert(key, shout).is_some() {
            return Put::Collapsed;
        }
        waiting.order.push_back(key);
        let full = waiting.order.len() > INBOX_LEN_MAX;
        if full && let Some(oldest) = waiting.order.pop_front() {
            waiting.newest.remove(&oldest);
        }
        drop(waiting);
        self.woken.notify_one();
        if full { Put::Dropped } else { Put::Waits }
    }

    /// The one that waits longest.
    pub(super) fn pop(&self) -> Option<Arc<Shout>> {
        let mut waiting = lock(&self.waiting);
        let key = waiting.order.pop_front()?;
        waiting.newest.remove(&key)
    }

    /// Waits until something does.
    pub(super) async fn filled(&self) {
        while lock(&self.waiting).order.is_empty() {
            self.woken.notified().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    fn shout(key: u64, text: &'static str) -> Arc<Shout> {
        let stream = StreamId::parse("room-main.den").unwrap();
        Arc::new(Shout { stream, key, from: 0, message: Bytes::from(text) })
    }

    #[test]
    fn only_the_newest_of_a_key_waits_and_the_oldest_give_way() {
        let inbox = Inbox::default();
        assert_eq!(inbox.put(shout(1, "older")), Put::Waits);
        assert_eq!(inbox.put(shout(2, "other")), Put::Waits);
        assert_eq!(inbox.put(shout(1, "newer")), Put::Collapsed);
        assert_eq!(inbox.pop().unwrap().message, "newer");
        for key in 3..3 + u64::try_from(INBOX_LEN_MAX).unwrap() {
            let want =
                if key == 2 + u64::try_from(INBOX_LEN_MAX).unwrap() { Put::Dropped } else { Put::Waits };
            assert_eq!(inbox.put(shout(key, "many")), want, "{key}");
        }
        let left = std::iter::from_fn(|| inbox.pop()).count();
        assert_eq!(left, INBOX_LEN_MAX);
        assert!(lock(&inbox.waiting).newest.is_empty());
    }
}
