//! One room's new events: encoded once, joined once, shared by all who follow.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use dramatis_events::{MemberId, Recorded, Revision, StreamId};

use super::Follow;
use crate::actors::rights::Changes;
use crate::protocol::EventFrame;

/// See the module.
pub(super) struct Batch {
    first: Revision,
    frames: Vec<EventFrame>,
    /// All frames, newline-joined.
    text: Bytes,
    /// Where each frame ends in it.
    ends: Vec<usize>,
    /// Who is told the commands of their own events, in the order of [`by_length`]. Every follower is looked for.
    authors: Vec<MemberId>,
    /// Whose rights they change.
    changes: Changes,
}

/// What a delivery came to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Delivered {
    /// Events pushed.
    pub(super) events: u64,
    /// Followers that must read the log.
    pub(super) fell_behind: u64,
}

impl Batch {
    /// Puts events together by room, each room's in their order.
    pub(super) fn gather<'a>(events: impl Iterator<Item = &'a Arc<Recorded>>) -> Vec<(StreamId, Self)> {
        let mut rooms: Vec<(StreamId, Vec<&'a Arc<Recorded>>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for event in events {
            let place = *places.entry(&event.stream).or_insert(rooms.len());
            match rooms.get_mut(place) {
                Some((_, events)) => events.push(event),
                None => rooms.push((event.stream.clone(), vec![event])),
            }
        }
        rooms.into_iter().filter_map(|(stream, events)| Some((stream, Self::of(&events)?))).collect()
    }

    fn of(events: &[&Arc<Recorded>]) -> Option<Self> {
        let first = events.first()?.revision;
        let frames: Vec<_> = events.iter().map(|event| EventFrame::encode(event)).collect();
        let mut ends = Vec::with_capacity(frames.len());
        let text = match frames.as_slice() {
            [only] => {
                ends.push(only.text.len());
                only.text.clone()
            }
            frames => {
                let mut text = Vec::with_capacity(frames.iter().map(|frame| frame.text.len() + 1).sum());
                for frame in frames {
                    if !text.is_empty() {
                        text.push(b'\n');
                    }
                    text.extend_from_slice(&frame.text);
                    ends.push(text.len());
                }
                text.into()
            }
        };
        let authors = frames.iter().filter(|frame| frame.has_command()).map(|frame| frame.author.clone());
        let mut authors: Vec<_> = authors.collect();
        authors.sort_unstable_by(by_length);
        authors.dedup();
        let mut changes = Changes::default();
        for event in events {
            changes.note(event);
        }
        Some(Self { first, frames, text, ends, authors, changes })
    }

    pub(super) fn last(&self) -> Revision {
        let more = u64::try_from(self.frames.len()).unwrap_or(0).saturating_sub(1);
        Revision::new(self.first.get().saturating_add(more))
    }

    /// Hands the events to these followers; who has no room for them reads the log later.
    pub(super) fn deliver<'a>(&self, followers: impl Iterator<Item = &'a Follow>) -> Delivered {
        let (last, mut delivered) = (self.last(), Delivered::default());
        for follow in followers.filter(|follow| follow.is_live() && follow.next.get() <= last) {
            let next = follow.next.get();
            let known = usize::try_from(next.get().saturating_sub(self.first.get())).unwrap_or(usize::MAX);
            let size = self.text.len().saturating_sub(self.start(known));
            if next < self.first || !follow.outbox.takes(size) {
                follow.fall_behind();
                delivered.fell_behind += 1;
                continue;
            }
            let to = self.end_for(follow);
            self.push(known, to, follow);
            delivered.events += u64::try_from(to.saturating_sub(known)).unwrap_or(0);
            if to < self.frames.len() || follow.rights.have_ended() {
                follow.outbox.push(follow.goodbye().unwrap_or_default());
                follow.outbox.set_behind();
            } else {
                follow.next.set(last.next());
            }
        }
        delivered
    }

    /// Whether any reader's rights may be others after it.
    pub(super) fn changes_rights(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether a follower is behind, and its right to read ends with this at the latest.
    pub(super) fn ends_ahead(&self, follow: &Follow) -> bool {
        !follow.is_live()
            && (follow.rights.have_ended() || !follow.rights.look_ahead(&self.changes, &follow.reader))
    }

    /// Up to which frame the reader may read: all, unless their right to it ends among them.
    fn end_for(&self, follow: &Follow) -> usize {
        let all = self.frames.len();
        if self.changes.is_empty() {
            return all;
        }
        let Some(end) = follow.rights.end_at(&self.changes, &follow.reader) else { return all };
        let to = end.next().get().saturating_sub(self.first.get());
        usize::try_from(to).unwrap_or(usize::MAX).min(all)
    }

    /// Pushes the frames from one on up to another, shared but for those that the reader is the author of.
    fn push(&self, known: usize, to: usize, follow: &Follow) {
        let mut from = known;
        if self.authors.binary_search_by(|author| by_length(author, &follow.reader)).is_ok() {
            for (index, frame) in self.frames.iter().enumerate().take(to).skip(known) {
                if !frame.has_command() || frame.author != follow.reader {
                    continue;
                }
                self.push_shared(from, index, follow);
                let mut own = Vec::with_capacity(frame.text.len() + 64);
                frame.write_for(&follow.reader, &mut own);
                follow.outbox.queue_up(own.into());
                from = index + 1;
            }
        }
        self.push_shared(from, to, follow);
        follow.outbox.call_writer_in_turn();
    }

    fn push_shared(&self, from: usize, to: usize, follow: &Follow) {
        if let Some(end) = to.checked_sub(1).filter(|last| *last >= from).and_then(|last| self.ends.get(last))
        {
            follow.outbox.queue_up(self.text.slice(self.start(from)..*end));
        }
    }

    /// Where a frame starts in the text.
    fn start(&self, frame: usize) -> usize {
        let before =
            frame.checked_sub(1).map(|before| self.ends.get(before).map_or(self.text.len(), |end| end + 1));
        before.unwrap_or(0)
    }
}

/// Names of different lengths differ without a look at them, which lie elsewhere for each follower.
fn by_length(one: &MemberId, other: &MemberId) -> Ordering {
    let (one, other) = (one.as_str(), other.as_str());
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}
