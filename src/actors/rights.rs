//! Whether a reader may still read what they follow.
//!
//! The right was asked for at one revision. What came after that is folded event by event by
//! whoever delivers it, so that a reader who loses the right gets the event that took it and
//! nothing past that, on every thread alike.

use std::cell::Cell;
use std::sync::Arc;

use dramatis_events::room::RoomEvent;
use dramatis_events::{Event, MemberId, Recorded, Revision};

use crate::domain::room::Reading;
use crate::protocol::ClosedCode;

/// See the module.
#[derive(Debug, Default)]
pub struct Rights {
    /// What it stands on, and up to which revision; none for one's own stream.
    known: Cell<Option<(Reading, Revision)>>,
    /// The same further on, as the hub has seen it while the reader was behind.
    ahead: Cell<Option<(Reading, Revision)>>,
    ended: Cell<bool>,
}

impl Rights {
    /// As they stood at a revision.
    pub fn at(reading: Reading, revision: Revision) -> Self {
        Self { known: Cell::new(Some((reading, revision))), ..Self::default() }
    }

    /// They were asked for anew. What has ended stays so.
    pub fn renew(&self, reading: Reading, revision: Revision) {
        self.known.set(Some((reading, revision)));
        self.ended.set(self.ended.get() || !reading.may_read());
    }

    /// Whether nothing more may be sent.
    pub fn have_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the reader may be heard, as far as the hub has seen.
    pub fn may_be_heard(&self) -> bool {
        !self.ended.get() && self.newest().is_some_and(|(reading, _)| reading.may_be_heard())
    }

    /// Folds what is delivered to others while this reader is behind; `false` if they will come upon their
    /// end there.
    pub fn look_ahead(&self, changes: &Changes, reader: &MemberId) -> bool {
        let Some((mut reading, mut at)) = self.newest() else { return true };
        let mut may_read = reading.may_read();
        let seen = at;
        for (revision, event) in changes.0.iter().filter(|(revision, _)| *revision > seen) {
            (reading, at) = (reading.after(event, reader), *revision);
            may_read &= reading.may_read();
        }
        self.ahead.set(Some((reading, at)));
        may_read
    }

    fn newest(&self) -> Option<(Reading, Revision)> {
        [self.known.get(), self.ahead.get()].into_iter().flatten().max_by_key(|(_, at)| *at)
    }

    /// Folds what is about to be delivered; the last revision that still may be, if they end.
    pub fn end_at(&self, changes: &Changes, reader: &MemberId) -> Option<Revision> {
        let (mut reading, mut at) = self.known.get()?;
        for (revision, event) in &changes.0 {
            if *revision <= at {
                continue;
            }
            (reading, at) = (reading.after(event, reader), *revision);
            self.renew(reading, at);
            if !reading.may_read() {
                return Some(at);
            }
        }
        None
    }

    /// Why they ended.
    pub fn code(&self) -> ClosedCode {
        let is_removed = self.known.get().is_some_and(|(reading, _)| reading.is_removed);
        if is_removed { ClosedCode::Removed } else { ClosedCode::NotAMember }
    }
}

/// The events of a page that may change who may read. Few pages hold any.
#[derive(Debug, Default)]
pub struct Changes(Vec<(Revision, RoomEvent)>);

impl Changes {
    /// Looks through events of one stream.
    pub fn among<'a>(events: impl IntoIterator<Item = &'a Arc<Recorded>>) -> Self {
        let mut changes = Self::default();
        for event in events {
            changes.note(event);
        }
        changes
    }

    /// Looks at one more event of the stream.
    pub fn note(&mut self, recorded: &Recorded) {
        let is_one = recorded.stream.category() == RoomEvent::CATEGORY
            && Reading::EVENTS.contains(&recorded.envelope.name.as_str());
        if !is_one {
            return;
        }
        match RoomEvent::from_envelope(&recorded.envelope) {
            Ok(event) => self.0.push((recorded.revision, event)),
            Err(error) => {
                tracing::error!(stream = %recorded.stream, %error, "a change of who may read is not understood");
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
