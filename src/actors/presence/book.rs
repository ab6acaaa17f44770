//! Who is present in which room: pure bookkeeping, time is an argument.
//!
//! A member is present while any of their connections follows the room, and for a grace after
//! the last one is gone: a reload or a short cut is not seen by the others.

use std::collections::{HashMap, VecDeque};

use dramatis_events::{MemberId, StreamId};

use crate::actors::shrink::shrink;

/// See the module.
pub(super) struct Book {
    rooms: HashMap<StreamId, Room>,
    /// Those whose last connection is gone, in the order in which their grace ends.
    leaving: VecDeque<LeavingSeat>,
    /// Graces given so far.
    graces: u32,
    grace_ms: u64,
    listed_max: usize,
}

struct Room {
    seats: HashMap<MemberId, Seat>,
    /// Few enough are present to name them all.
    complete: bool,
}

#[derive(Default)]
struct Seat {
    connections: u32,
    /// The number of the last grace it was given: tells an old one from a new one.
    left: u32,
}

struct LeavingSeat {
    due_ms: u64,
    stream: StreamId,
    member: MemberId,
    left: u32,
}

/// Somebody came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) stream: StreamId,
    pub(super) member: MemberId,
    pub(super) joined: bool,
    pub(super) listing: Listing,
}

/// What followers can be told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// Who it is.
    Names,
    /// How many there are.
    Count,
    /// Names from now on, or no longer: the whole is told anew.
    Anew,
}

/// Who is present in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) count: u64,
    /// All, or some if there are too many; by name.
    pub(super) members: Vec<MemberId>,
    pub(super) complete: bool,
}

impl Book {
    pub(super) fn new(grace_ms: u64, listed_max: usize) -> Self {
        Self { rooms: HashMap::new(), leaving: VecDeque::new(), graces: 0, grace_ms, listed_max }
    }

    /// One more connection of a member.
    pub(super) fn enter(&mut self, stream: &StreamId, member: &MemberId) -> Option<Change> {
        let room = self
            .rooms
            .entry(stream.clone())
            .or_insert_with(|| Room { seats: HashMap::new(), complete: true });
        let before = room.seats.len();
        let seat = room.seats.entry(member.clone()).or_default();
        seat.connections = seat.connections.saturating_add(1);
        if room.seats.len() == before {
            return None;
        }
        let listing = room.listing(self.listed_max);
        Some(Change { stream: stream.clone(), member: member.clone(), joined: true, listing })
    }

    /// One connection less. With grace the member stays for a while, although it was the last.
    pub(super) fn leave(
        &mut self,
        stream: &StreamId,
        member: &MemberId,
        now_ms: u64,
        grace: bool,
    ) -> Option<Change> {
        let seat = self.rooms.get_mut(stream)?.seats.get_mut(member)?;
        seat.connections = seat.connections.saturating_sub(1);
        if seat.connections > 0 {
            return None;
        }
        if !grace {
            return self.remove(stream, member);
        }
        self.graces = self.graces.wrapping_add(1);
        seat.left = self.graces;
        let (due_ms, left) = (now_ms.saturating_add(self.grace_ms), seat.left);
        self.leaving.push_back(LeavingSeat { due_ms, stream: stream.clone(), member: member.clone(), left });
        None
    }

    /// Those whose grace is over by now.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        while self.leaving.front().is_some_and(|leaving| leaving.due_ms <= now_ms) {
            let Some(LeavingSeat { stream, member, left, .. }) = self.leaving.pop_front() else { break };
            let seat = self.rooms.get(&stream).and_then(|room| room.seats.get(&member));
            if seat.is_some_and(|seat| seat.connections == 0 && seat.left == left) {
                changes.extend(self.remove(&stream, &member));
            }
        }
        if self.leaving.is_empty() {
            self.leaving = VecDeque::new();
        }
        changes
    }

    /// When the next grace ends.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.leaving.front().map(|leaving| leaving.due_ms)
    }

    pub(super) fn whole(&self, stream: &StreamId) -> Whole {
        let Some(room) = self.rooms.get(stream) else { return Whole { complete: true, ..Whole::default() } };
        let listed = if room.complete { room.seats.len() } else { self.listed_max };
        let mut members: Vec<_> = room.seats.keys().take(listed).cloned().collect();
        members.sort();
        Whole { count: room.count(), members, complete: room.complete }
    }

    pub(super) fn count(&self, stream: &StreamId) -> u64 {
        self.rooms.get(stream).map_or(0, Room::count)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    fn remove(&mut self, stream: &StreamId, member: &MemberId) -> Option<Change> {
        let room = self.rooms.get_mut(stream)?;
        room.seats.remove(member)?;
        let listing = room.listing(self.listed_max);
        if room.seats.is_empty() {
            self.rooms.remove(stream);
            shrink(&mut self.rooms);
        } else {
            shrink(&mut room.seats);
        }
        Some(Change { stream: stream.clone(), member: member.clone(), joined: false, listing })
    }
}

impl Room {
    fn count(&self) -> u64 {
        u64::try_from(self.seats.len()).unwrap_or(u64::MAX)
    }

    /// Whether names are told, after a change; a quarter between the two bounds keeps a room on
    /// the edge from switching all the time.
    fn listing(&mut self, listed_max: usize) -> Listing {
        let complete = if self.complete {
            self.seats.len() <= listed_max
        } else {
            self.seats.len() <= listed_max.saturating_sub(listed_max / 4)
        };
        let switched = complete != self.complete;
        self.complete = complete;
        match (switched, complete) {
            (true, _) => Listing::Anew,
            (false, true) => Listing::Names,
            (false, false) => Listing::Count,
        }
    }
}
