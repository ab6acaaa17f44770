//! Ephemerals on their way from a session to the hubs of all threads, each of which has an inbox
//! here: bounded, and of one member, name and room only the newest waits. Rooms take turns, and where
//! most waits the oldest give way: so whoever fills one room keeps no other from being heard.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dramatis_events::StreamId;
use tokio::sync::Notify;

use crate::protocol::{EphemeralFrame, ServerMessage};
use crate::telemetry::metrics::EphemeralMetrics;

/// Ephemerals that may wait for one hub; beyond that the oldest of the room of which most wait give way.
const INBOX_LEN_MAX: usize = 1_024;
/// Names of one member and room that may wait; a client chooses them, and needs few at a time.
const NAMES_MAX: u8 = 4;

/// One ephemeral, encoded.
#[derive(Debug, Clone)]
pub struct Shout {
    /// The room.
    pub stream: StreamId,
    /// The same for all of one member, name and room. Two others share one once in 2^64.
    pub key: u64,
    /// The same for all of one member and room.
    member: u64,
    /// The same for all of one room.
    room: u64,
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
        let (by, name) = (frame.by, frame.name.as_str());
        let key = self.keys.hash_one((stream, by, name));
        let (member, room) = (self.keys.hash_one((stream, by)), self.keys.hash_one(stream));
        let message = ServerMessage::Ephemeral(frame).encode();
        let shout = Arc::new(Shout { stream: stream.clone(), key, member, room, from, message });
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
    rooms: HashMap<u64, Room>,
    /// Rooms of which something waits, in the order of their turns.
    turns: VecDeque<u64>,
    /// The same by how much waits of them.
    by_len: BTreeSet<(usize, u64)>,
}

/// What waits of one room.
#[derive(Default)]
struct Room {
    order: VecDeque<u64>,
    /// How many names of each member.
    names: HashMap<u64, u8>,
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
        let put = lock(&self.waiting).put(shout);
        if put != Put::Collapsed {
            self.woken.notify_one();
        }
        put
    }

    /// The one that waits longest of the room whose turn it is.
    pub(super) fn pop(&self) -> Option<Arc<Shout>> {
        let mut waiting = lock(&self.waiting);
        let room = waiting.turns.pop_front()?;
        let shout = waiting.take_oldest(room);
        if waiting.rooms.contains_key(&room) {
            waiting.turns.push_back(room);
        }
        shout
    }

    /// Waits until something does.
    pub(super) async fn filled(&self) {
        while lock(&self.waiting).newest.is_empty() {
            self.woken.notified().await;
        }
    }
}

impl Waiting {
    fn put(&mut self, shout: Arc<Shout>) -> Put {
        let (key, room) = (shout.key, shout.room);
        if let Entry::Occupied(mut older) = self.newest.entry(key) {
            older.insert(shout);
            return Put::Collapsed;
        }
        let queue = self.rooms.entry(room).or_default();
        let names = queue.names.entry(shout.member).or_default();
        if *names >= NAMES_MAX {
            return Put::Dropped;
        }
        *names += 1;
        let before = queue.order.len();
        queue.order.push_back(key);
        if before == 0 {
            self.turns.push_back(room);
        }
        self.by_len.remove(&(before, room));
        self.by_len.insert((before + 1, room));
        self.newest.insert(key, shout);
        if self.newest.len() <= INBOX_LEN_MAX {
            return Put::Waits;
        }
        if let Some((_, longest)) = self.by_len.last().copied() {
            self.take_oldest(longest);
            if !self.rooms.contains_key(&longest) {
                self.turns.retain(|room| *room != longest);
            }
        }
        Put::Dropped
    }

    fn take_oldest(&mut self, room: u64) -> Option<Arc<Shout>> {
        let queue = self.rooms.get_mut(&room)?;
        self.by_len.remove(&(queue.order.len(), room));
        let shout = queue.order.pop_front().and_then(|key| self.newest.remove(&key));
        if let Some(shout) = &shout
            && let Entry::Occupied(mut names) = queue.names.entry(shout.member)
        {
            *names.get_mut() -= 1;
            if *names.get() == 0 {
                names.remove();
            }
        }
        if queue.order.is_empty() {
            self.rooms.remove(&room);
        } else {
            self.by_len.insert((queue.order.len(), room));
        }
        shout
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    fn shout(room: u64, member: u64, name: u64, text: &'static str) -> Arc<Shout> {
        let stream = StreamId::parse(&format!("room-main.{room}")).unwrap();
        let member = (room << 32) | (member << 8);
        Arc::new(Shout { stream, key: member | name, member, room, from: 0, message: Bytes::from(text) })
    }

    fn left(inbox: &Inbox) -> Vec<Arc<Shout>> {
        let left = std::iter::from_fn(|| inbox.pop()).collect();
        let waiting = lock(&inbox.waiting);
        assert!(waiting.newest.is_empty() && waiting.rooms.is_empty());
        assert!(waiting.turns.is_empty() && waiting.by_len.is_empty());
        left
    }

    #[test]
    fn only_the_newest_of_a_key_waits_and_the_oldest_give_way() {
        let inbox = Inbox::default();
        assert_eq!(inbox.put(shout(1, 1, 1, "older")), Put::Waits);
        assert_eq!(inbox.put(shout(1, 2, 1, "other")), Put::Waits);
        assert_eq!(inbox.put(shout(1, 1, 1, "newer")), Put::Collapsed);
        assert_eq!(inbox.pop().unwrap().message, "newer");
        let many = u64::try_from(INBOX_LEN_MAX).unwrap();
        for member in 3..3 + many {
            let want = if member == 2 + many { Put::Dropped } else { Put::Waits };
            assert_eq!(inbox.put(shout(1, member, 1, "many")), want, "{member}");
        }
        let left = left(&inbox);
        assert_eq!((left.len(), left.first().unwrap().message.as_ref()), (INBOX_LEN_MAX, b"many".as_slice()));
    }

    #[test]
    fn who_fills_a_room_keeps_no_other_from_its_turn() {
        let (inbox, many) = (Inbox::default(), 2 * u64::try_from(INBOX_LEN_MAX).unwrap());
        assert_eq!(inbox.put(shout(1, 1, 1, "first")), Put::Waits);
        for member in 0..many {
            inbox.put(shout(2, member, 1, "many"));
        }
        assert_eq!(inbox.put(shout(3, 1, 1, "last")), Put::Dropped, "of the room of which most wait");
        let first: Vec<_> = left(&inbox).iter().take(3).map(|shout| shout.message.clone()).collect();
        assert_eq!(first, ["first", "many", "last"]);
    }

    #[test]
    fn of_one_member_few_names_of_a_room_wait() {
        let inbox = Inbox::default();
        let put: Vec<_> = (0..10).map(|name| inbox.put(shout(1, 1, name, "name"))).collect();
        assert_eq!(put.iter().filter(|put| **put == Put::Waits).count(), usize::from(NAMES_MAX));
        assert_eq!(inbox.put(shout(1, 1, 0, "newer")), Put::Collapsed);
        assert_eq!(inbox.put(shout(2, 1, 9, "elsewhere")), Put::Waits);
        assert_eq!(left(&inbox).len(), usize::from(NAMES_MAX) + 1);
        assert_eq!(inbox.put(shout(1, 1, 9, "again")), Put::Waits);
    }
}
