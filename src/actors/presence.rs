//! Who is present in which room, for the whole process: sessions enter and leave here, and each
//! hub takes what it has to tell its followers.
//!
//! A room in which nobody comes or goes costs its entries in the book and nothing else: no
//! timer, no message. Changes are told together (`socket.presence.interval_ms`); where more
//! than `listed_max` members are present, their number and a sample of their names.

mod book;
mod pending;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dramatis_events::{EntityId, MemberId, StreamId};
use tokio::sync::Notify;

use book::{Book, Change, Whole};
use pending::{Delays, Needs, Pending, Untold};

use crate::config::PresenceConfig;
use crate::protocol::{self, PresenceChange, ServerMessage};

/// How a connection leaves a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It said so, or was made to: seen at once.
    Asked,
    /// It is gone, and may come back: seen after the grace.
    Gone,
}

/// See the module.
pub struct Presence {
    state: Mutex<State>,
    started: Instant,
    delays: Delays,
}

struct State {
    book: Book,
    hubs: Vec<(Pending, Arc<Notify>)>,
}

/// What a hub tells of one room.
pub(super) struct News {
    pub(super) stream: StreamId,
    room: EntityId,
    /// For all who know the presence up to now; `None` where nothing changed, or everyone needs
    /// the whole.
    diff: Option<(u64, Vec<MemberId>, Vec<MemberId>)>,
    whole: Option<Whole>,
    /// Everyone needs it.
    pub(super) anew: bool,
}

impl Presence {
    /// Nobody is present yet.
    pub fn new(config: &PresenceConfig) -> Self {
        let book = Book::new(config.grace_ms, config.listed_max);
        let delays = Delays { small_ms: config.interval_ms, large_ms: config.large_interval_ms };
        Self { state: Mutex::new(State { book, hubs: Vec::new() }), started: Instant::now(), delays }
    }

    /// One more hub; its number.
    pub(super) fn join(&self) -> usize {
        let mut state = self.lock();
        state.hubs.push((Pending::default(), Arc::new(Notify::new())));
        state.hubs.len() - 1
    }

    /// A connection of this hub follows a room, and its reader is present if that counts.
    pub(super) fn enter(&self, hub: usize, stream: &StreamId, member: &MemberId, counts: bool) {
        let now_ms = self.now_ms();
        let mut state = self.lock();
        if counts && let Some(change) = state.book.enter(stream, member) {
            state.spread(&change, now_ms, self.delays);
        }
        state.need_whole(hub, stream, now_ms.saturating_add(self.delays.small_ms));
    }

    /// A connection follows a room no longer.
    pub(super) fn leave(&self, stream: &StreamId, member: &MemberId, leaving: Leaving) {
        let now_ms = self.now_ms();
        let mut state = self.lock();
        match state.book.leave(stream, member, now_ms, leaving == Leaving::Gone) {
            Some(change) => state.spread(&change, now_ms, self.delays),
            // The first hub looks after those whose grace ends.
            None => state.wake_first(),
        }
    }

    /// Some of this hub's followers could not be told: they are told the whole later.
    pub(super) fn retell(&self, hub: usize, stream: &StreamId) {
        let due_ms = self.now_ms().saturating_add(self.delays.large_ms);
        self.lock().need_whole(hub, stream, due_ms);
    }

    /// Waits until there is something for this hub to tell.
    pub(super) async fn due(&self, hub: usize) {
        loop {
            let (due_ms, woken) = {
                let state = self.lock();
                let Some((pending, woken)) = state.hubs.get(hub) else { return };
                let expiry = if hub == 0 { state.book.next_expiry() } else { None };
                let due_ms = [pending.next_due(), expiry].into_iter().flatten().min();
                (due_ms, woken.clone())
            };
            let Some(due_ms) = due_ms else {
                woken.notified().await;
                continue;
            };
            let wait = Duration::from_millis(due_ms.saturating_sub(self.now_ms()));
            if wait.is_zero() {
                return;
            }
            // Woken when something is due sooner.
            let _ = actix_rt::time::timeout(wait, woken.notified()).await;
        }
    }

    /// What this hub has to tell by now.
    pub(super) fn take(&self, hub: usize) -> Vec<News> {
        let now_ms = self.now_ms();
        let mut guard = self.lock();
        let state = &mut *guard;
        for change in state.book.expire(now_ms) {
            state.spread(&change, now_ms, self.delays);
        }
        let Some((pending, _)) = state.hubs.get_mut(hub) else { return Vec::new() };
        let due = pending.take_due(now_ms);
        due.into_iter().filter_map(|(stream, untold)| state.book.news(stream, untold)).collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn spread(&mut self, change: &Change, now_ms: u64, delays: Delays) {
        for (pending, woken) in &mut self.hubs {
            if pending.note(change, now_ms, delays) {
                woken.notify_one();
            }
        }
    }

    fn need_whole(&mut self, hub: usize, stream: &StreamId, due_ms: u64) {
        if let Some((pending, woken)) = self.hubs.get_mut(hub)
            && pending.need_whole(stream, due_ms)
        {
            woken.notify_one();
        }
    }

    fn wake_first(&self) {
        if let Some((_, woken)) = self.hubs.first() {
            woken.notify_one();
        }
    }
}

impl Book {
    fn news(&self, stream: StreamId, untold: Untold) -> Option<News> {
        let room = EntityId::parse(stream.id()).ok()?;
        let Untold { whole, moves, counted, .. } = untold;
        let changed = counted || !moves.is_empty();
        let diff = (changed && whole != Some(Needs::All)).then(|| {
            let (joined, left): (Vec<_>, Vec<_>) = moves.into_iter().partition(|(_, joined)| *joined);
            let names = |moves: Vec<(MemberId, bool)>| {
                let mut names: Vec<_> = moves.into_iter().map(|(member, _)| member).collect();
                names.sort();
                names
            };
            (self.count(&stream), names(joined), names(left))
        });
        let anew = whole == Some(Needs::All);
        let whole = whole.map(|_| self.whole(&stream));
        Some(News { stream, room, diff, whole, anew })
    }
}

impl News {
    /// The message for who knows the presence up to now; `None` if nothing changed.
    pub(super) fn encode_diff(&self) -> Option<bytes::Bytes> {
        let (count, joined, left) = self.diff.as_ref()?;
        let change = PresenceChange::Diff {
            count: *count,
            joined: joined.iter().collect(),
            left: left.iter().collect(),
        };
        Some(self.encode(change))
    }

    /// The message for who does not know it, in so many bytes: with fewer names where they are long, since
    /// what is larger than may ever wait would never be told.
    pub(super) fn encode_whole(&self, bytes_max: usize) -> Option<bytes::Bytes> {
        let Whole { count, members, complete } = self.whole.as_ref()?;
        let all = members.len();
        let mut named = all;
        loop {
            let members = members.iter().take(named).collect::<Vec<_>>();
            let complete = *complete && named == all;
            let message = self.encode(PresenceChange::Full { count: *count, members, complete });
            if message.len() <= bytes_max || named == 0 {
                return Some(message);
            }
            named /= 2;
        }
    }

    fn encode(&self, change: PresenceChange<'_>) -> bytes::Bytes {
        ServerMessage::Presence(protocol::Presence { room: &self.room, change }).encode()
    }
}
