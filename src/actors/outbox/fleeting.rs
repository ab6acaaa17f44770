//! What is worth sending only while it is new: ephemerals and presence. It waits apart from
//! events and answers, goes out behind them, and gives way first.

use std::collections::VecDeque;

use bytes::Bytes;
use dramatis_events::StreamId;

/// The most bytes that wait for one client.
const BYTES_MAX: usize = 16 * 1024;
/// The most items that wait for one client.
const ITEMS_MAX: usize = 64;

struct Item {
    stream: StreamId,
    /// Whose newer one takes its place; presence has none, and is not given up once taken.
    key: Option<u64>,
    bytes: Bytes,
}

/// See the module. Holds no memory while empty.
#[derive(Default)]
pub(super) struct Fleeting(Option<Box<Waiting>>);

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It waits.
    Waits,
    /// It waits in place of an older one of its key, or of the oldest ones there were.
    Replaced,
    /// There was no room.
    Refused,
}

impl Fleeting {
    /// An ephemeral: takes the place of an older one of its key, or of the oldest if there are many.
    /// `room` is for so many bytes in all.
    pub(super) fn push_newest(&mut self, stream: &StreamId, key: u64, bytes: Bytes, room: usize) -> Fate {
        let fate = self.0.get_or_insert_default().push_newest(stream, key, bytes, room);
        self.shrink();
        fate
    }

    /// Presence: in order and complete, or refused.
    pub(super) fn push_whole(&mut self, stream: &StreamId, bytes: Bytes, room: usize) -> Fate {
        let fate = self.0.get_or_insert_default().push_whole(stream, bytes, room);
        self.shrink();
        fate
    }

    /// Drops what waits of this room.
    pub(super) fn forget(&mut self, stream: &StreamId) {
        if let Some(waiting) = &mut self.0 {
            waiting.items.retain(|item| item.stream != *stream);
            waiting.bytes = waiting.items.iter().map(|item| item.bytes.len()).sum();
        }
        self.shrink();
    }

    /// The next item, if it has at most so many bytes or `any` size is right.
    pub(super) fn pop(&mut self, bytes_max: usize, any: bool) -> Option<Bytes> {
        let waiting = self.0.as_mut()?;
        let front = waiting.items.front()?;
        if !any && front.bytes.len() > bytes_max {
            return None;
        }
        let bytes = waiting.remove(0);
        self.shrink();
        bytes
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    fn shrink(&mut self) {
        if self.0.as_ref().is_some_and(|waiting| waiting.items.is_empty()) {
            self.0 = None;
        }
    }
}

impl Waiting {
    fn push_newest(&mut self, stream: &StreamId, key: u64, bytes: Bytes, room: usize) -> Fate {
        if let Some(item) = self.items.iter_mut().find(|item| item.key == Some(key)) {
            let others = self.bytes.saturating_sub(item.bytes.len());
            if others.saturating_add(bytes.len()) > room {
                return Fate::Refused;
            }
            self.bytes = others.saturating_add(bytes.len());
            item.bytes = bytes;
            return Fate::Replaced;
        }
        let mut fate = Fate::Waits;
        while !self.fits(bytes.len(), room) {
            let Some(oldest) = self.items.iter().position(|item| item.key.is_some()) else {
                return Fate::Refused;
            };
            self.remove(oldest);
            fate = Fate::Replaced;
        }
        self.add(stream, Some(key), bytes);
        fate
    }

    fn push_whole(&mut self, stream: &StreamId, bytes: Bytes, room: usize) -> Fate {
        if !self.fits(bytes.len(), room) {
            return Fate::Refused;
        }
        self.add(stream, None, bytes);
        Fate::Waits
    }

    /// One item may be larger than several together.
    fn fits(&self, bytes: usize, room: usize) -> bool {
        let then = self.bytes.saturating_add(bytes);
        then <= room && (self.items.is_empty() || (self.items.len() < ITEMS_MAX && then <= BYTES_MAX))
    }

    fn add(&mut self, stream: &StreamId, key: Option<u64>, bytes: Bytes) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.items.push_back(Item { stream: stream.clone(), key, bytes });
    }

    fn remove(&mut self, index: usize) -> Option<Bytes> {
        let item = self.items.remove(index)?;
        self.bytes = self.bytes.saturating_sub(item.bytes.len());
        Some(item.bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    /// For more than may wait anyway.
    const ROOM: usize = 2 * BYTES_MAX;

    fn room(name: &str) -> StreamId {
        StreamId::parse(&format!("room-main.{name}")).unwrap()
    }

    fn all(fleeting: &mut Fleeting) -> Vec<Bytes> {
        std::iter::from_fn(|| fleeting.pop(0, true)).collect()
    }

    #[test]
    fn the_newest_of_a_key_takes_the_place_of_the_older() {
        let (mut fleeting, den) = (Fleeting::default(), room("den"));
        for (key, text) in [(1, "a1"), (2, "b1"), (1, "a2"), (1, "a3")] {
            fleeting.push_newest(&den, key, Bytes::from(text), ROOM);
        }
        assert_eq!(all(&mut fleeting), ["a3", "b1"]);
        assert!(fleeting.0.is_none());
    }

    #[test]
    fn the_oldest_ephemerals_give_way_and_presence_does_not() {
        let (mut fleeting, den) = (Fleeting::default(), room("den"));
        assert_eq!(fleeting.push_whole(&den, Bytes::from("presence"), ROOM), Fate::Waits);
        for key in 0..1_000 {
            assert_ne!(fleeting.push_newest(&den, key, Bytes::from(vec![0; 1_000]), ROOM), Fate::Refused);
            assert!(fleeting.bytes() <= BYTES_MAX);
        }
        let left = all(&mut fleeting);
        assert_eq!((left.len(), left.first().unwrap().as_ref()), (17, b"presence".as_slice()));

        let large = Bytes::from(vec![0; BYTES_MAX + 1]);
        assert_eq!(fleeting.push_whole(&den, large.clone(), BYTES_MAX), Fate::Refused);
        assert_eq!(fleeting.push_whole(&den, large.clone(), ROOM), Fate::Waits);
        assert_eq!(fleeting.push_whole(&den, Bytes::from("more"), ROOM), Fate::Refused);
        assert_eq!(fleeting.push_newest(&den, 1, Bytes::from("more"), ROOM), Fate::Refused);
        assert_eq!(all(&mut fleeting), [large]);
    }

    #[test]
    fn a_room_that_is_left_is_forgotten() {
        let mut fleeting = Fleeting::default();
        fleeting.push_newest(&room("den"), 1, Bytes::from("den"), ROOM);
        fleeting.push_whole(&room("attic"), Bytes::from("attic"), ROOM);
        fleeting.forget(&room("den"));
        assert_eq!(fleeting.bytes(), 5);
        assert_eq!(fleeting.pop(4, false), None);
        assert_eq!(all(&mut fleeting), ["attic"]);
    }
}
