//! What one hub has yet to tell its followers: changes of presence, put together for a while
//! so that coming and going at once is nothing. Pure, time is an argument.

use std::collections::HashMap;

use dramatis_events::{MemberId, StreamId};

use super::book::{Change, Listing};

/// How long changes are put together, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delays {
    /// Where members are named.
    pub(super) small_ms: u64,
    /// Where only their number is told.
    pub(super) large_ms: u64,
}

/// Holds no memory for rooms in which nothing changes.
#[derive(Default)]
pub(super) struct Pending {
    rooms: HashMap<StreamId, Untold>,
    /// Nothing is due before this.
    next_due: Option<u64>,
}

/// What is to be told of one room.
#[derive(Debug, Default)]
pub(super) struct Untold {
    due_ms: u64,
    /// The whole is needed: by all, or by who does not know it yet.
    pub(super) whole: Option<Needs>,
    /// Who came (`true`) or went since it was last told.
    pub(super) moves: HashMap<MemberId, bool>,
    /// The number changed, whoever it was.
    pub(super) counted: bool,
}

/// Who needs the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needs {
    /// Followers that do not know it yet.
    Some,
    /// Everyone.
    All,
}

impl Pending {
    /// A change; whether something is due sooner than before.
    pub(super) fn note(&mut self, change: &Change, now_ms: u64, delays: Delays) -> bool {
        let large = change.listing == Listing::Count;
        let delay = if large { delays.large_ms } else { delays.small_ms };
        let (untold, sooner) = self.at(&change.stream, now_ms.saturating_add(delay));
        match change.listing {
            Listing::Count => {
                untold.moves.clear();
                untold.counted = true;
            }
            Listing::Anew => {
                untold.moves.clear();
                untold.whole = Some(Needs::All);
            }
            // Who came and went meanwhile was never told of.
            Listing::Names => match untold.moves.get(&change.member) {
                Some(joined) if *joined != change.joined => {
                    untold.moves.remove(&change.member);
                }
                _ => {
                    untold.moves.insert(change.member.clone(), change.joined);
                }
            },
        }
        sooner
    }

    /// Somebody follows the room who does not know its presence.
    pub(super) fn need_whole(&mut self, stream: &StreamId, due_ms: u64) -> bool {
        let (untold, sooner) = self.at(stream, due_ms);
        untold.whole = untold.whole.max(Some(Needs::Some));
        sooner
    }

    /// What is due by now.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<(StreamId, Untold)> {
        if self.next_due.is_none_or(|due| due > now_ms) {
            return Vec::new();
        }
        let due = self.rooms.extract_if(|_, untold| untold.due_ms <= now_ms).collect();
        if self.rooms.is_empty() {
            self.rooms = HashMap::new();
        }
        self.next_due = self.rooms.values().map(|untold| untold.due_ms).min();
        due
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.next_due
    }

    fn at(&mut self, stream: &StreamId, due_ms: u64) -> (&mut Untold, bool) {
        let sooner = self.next_due.is_none_or(|next| due_ms < next);
        if sooner {
            self.next_due = Some(due_ms);
        }
        let untold =
            self.rooms.entry(stream.clone()).or_insert_with(|| Untold { due_ms, ..Untold::default() });
        untold.due_ms = untold.due_ms.min(due_ms);
        (untold, sooner)
    }
}
