//! `statistics`: what happened in a room, hour by hour. One document for each hour in which
//! something happened, keyed `<room stream>/<hour, as 2004-11-15T03>`, UTC.

use std::collections::BTreeMap;

use dramatis_events::room::{MessageKind, MessagePosted, RoomEvent};
use dramatis_events::{MemberId, Recorded, StreamId, UnixMillis};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{FoldError, Index, Projection, happened_at};

/// How many authors an hour names. A room that all the world talks in has more, and each message in it is a
/// write of its hour.
pub const AUTHORS_MAX: usize = 1_000;

const HOUR_MS: i64 = 3_600_000;

/// One hour of a room, by when things happened by their authors' accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hour {
    /// The tenant.
    pub tenant: String,
    /// The room's id.
    pub room: String,
    /// When it began.
    pub hour: UnixMillis,
    /// Messages said or done.
    pub messages: u64,
    /// Those of them that tell what was done.
    pub actions: u64,
    /// Those of them that answer another.
    pub replies: u64,
    /// Characters in them, as first posted; sealed words do not count.
    pub characters: u64,
    /// Messages by author, of the first [`AUTHORS_MAX`] of them.
    pub by: BTreeMap<MemberId, u64>,
    /// Whether there were others.
    pub more_authors: bool,
    /// Edits.
    pub edits: u64,
    /// Redactions.
    pub redactions: u64,
    /// Reactions given, as often as that was recorded: so is one that was there already.
    pub reactions: u64,
    /// Members who came in.
    pub joins: u64,
    /// Members who left or were removed.
    pub leaves: u64,
}

/// The projection that keeps [`Hour`] documents.
pub struct Statistics;

impl Statistics {
    /// The key of the hour in which a time lies; `None` for years that no calendar has (before
    /// -9999, after 9999).
    pub fn key(stream: &StreamId, at: UnixMillis) -> Option<String> {
        let at = Timestamp::from_millisecond(at.get()).ok()?;
        Some(format!("{stream}/{}", at.strftime("%Y-%m-%dT%H")))
    }
}

impl Projection for Statistics {
    const NAME: &'static str = "statistics";
    const VERSION: u32 = 2;
    const KEY: &'static [KeyPart] = &[KeyPart::Text("YYYY-MM-DDTHH")];
    const EVENTS: &'static [&'static str] = &[
        "MemberJoined",
        "MemberLeft",
        "MemberRemoved",
        "MessagePosted",
        "MessageEdited",
        "MessageRedacted",
        "ReactionAdded",
    ];
    // A room's hours lie together, in order, by their keys.
    const INDEXES: &'static [Index] = &[];
    type Event = RoomEvent;
    type Document = Hour;

    fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
        match event {
            RoomEvent::MemberJoined(_)
            | RoomEvent::MemberLeft(_)
            | RoomEvent::MemberRemoved(_)
            | RoomEvent::MessagePosted(_)
            | RoomEvent::MessageEdited(_)
            | RoomEvent::MessageRedacted(_)
            | RoomEvent::ReactionAdded(_) => {
                // A time beyond every calendar belongs to no hour: the log's own always has one.
                let hour = Self::key(&recorded.stream, happened_at(recorded));
                keys.extend(hour.or_else(|| Self::key(&recorded.stream, recorded.recorded_at)));
            }
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::MemberRenamed(_)
            | RoomEvent::ReactionRemoved(_) => {}
        }
    }

    fn fold(document: &mut Option<Hour>, recorded: &Recorded, event: &RoomEvent) -> Result<(), FoldError> {
        let hour = document.get_or_insert_with(|| Hour::begun(recorded));
        let count = |counter: &mut u64| *counter = counter.saturating_add(1);
        match event {
            RoomEvent::MessagePosted(posted) => hour.post(&recorded.envelope.author, posted),
            RoomEvent::MessageEdited(_) => count(&mut hour.edits),
            RoomEvent::MessageRedacted(_) => count(&mut hour.redactions),
            RoomEvent::ReactionAdded(_) => count(&mut hour.reactions),
            RoomEvent::MemberJoined(_) => count(&mut hour.joins),
            RoomEvent::MemberLeft(_) | RoomEvent::MemberRemoved(_) => count(&mut hour.leaves),
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::MemberRenamed(_)
            | RoomEvent::ReactionRemoved(_) => return Err(FoldError::not_mine(event)),
        }
        Ok(())
    }
}

impl Hour {
    fn begun(recorded: &Recorded) -> Self {
        let happened = happened_at(recorded);
        let has_hour = Timestamp::from_millisecond(happened.get()).is_ok();
        let at = if has_hour { happened } else { recorded.recorded_at };
        Self {
            tenant: recorded.stream.tenant().to_owned(),
            room: recorded.stream.id().to_owned(),
            hour: UnixMillis::new(at.get() - at.get().rem_euclid(HOUR_MS)),
            messages: 0,
            actions: 0,
            replies: 0,
            characters: 0,
            by: BTreeMap::new(),
            more_authors: false,
            edits: 0,
            redactions: 0,
            reactions: 0,
            joins: 0,
            leaves: 0,
        }
    }

    fn post(&mut self, author: &MemberId, posted: &MessagePosted) {
        let characters = posted.text.plain().map_or(0, |text| text.chars().count());
        self.messages = self.messages.saturating_add(1);
        self.actions = self.actions.saturating_add(u64::from(posted.kind == MessageKind::Action));
        self.replies = self.replies.saturating_add(u64::from(posted.reply_to.is_some()));
        self.characters = self.characters.saturating_add(u64::try_from(characters).unwrap_or(u64::MAX));
        if self.by.len() < AUTHORS_MAX || self.by.contains_key(author) {
            let by = self.by.entry(author.clone()).or_default();
            *by = by.saturating_add(1);
        } else {
            self.more_authors = true;
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use crate::projection::testing::{document, history};

    use super::*;

    const LINES: &str = r#"alice MemberJoined {"member":"alice","display_name":"Alice"}
        alice MessagePosted {"kind":"text","text":"héllo"}
        bob MessagePosted {"kind":"action","text":"waves","reply_to":1,"thread_root":1}
        alice MessageEdited {"target":1,"text":"hello again"}
        bob ReactionAdded {"target":1,"emoji":"x"}
        alice MessageRedacted {"target":1}
        bob MemberLeft {"member":"bob"}"#;

    #[test]
    fn an_hour_counts_what_happened_in_it() {
        assert_eq!(
            document::<Statistics>("room-main.lobby/1970-01-01T00", &history(LINES)).unwrap(),
            r#"{"tenant":"main","room":"lobby","hour":0,"messages":2,"actions":1,"replies":1,"characters":10,"by":{"alice":1,"bob":1},"more_authors":false,"edits":1,"redactions":1,"reactions":1,"joins":1,"leaves":1}"#,
        );
    }

    #[test]
    fn an_hour_names_so_many_authors_and_counts_what_others_say() {
        let said = |number: usize| format!(r#"user-{number} MessagePosted {{"kind":"text","text":"hi"}}"#);
        let lines: Vec<_> = (0..=AUTHORS_MAX).chain([0]).map(said).collect();
        let events = history(&lines.join("\n"));
        let shown = document::<Statistics>("room-main.lobby/1970-01-01T00", &events).unwrap();
        let hour: Hour = serde_json::from_str(&shown).unwrap();
        assert_eq!((hour.by.len(), hour.more_authors), (AUTHORS_MAX, true));
        assert_eq!((hour.messages, hour.by[&MemberId::parse("user-0").unwrap()]), (1_002, 2));
    }

    #[test]
    fn hours_go_by_when_it_happened_and_may_lie_before_1970() {
        let mut events = history(LINES);
        for (event, at) in events.iter_mut().zip([-1, -HOUR_MS, -HOUR_MS - 1]) {
            event.envelope.occurred_at = Some(UnixMillis::new(at));
        }
        let hour = |key: &str| -> Hour {
            serde_json::from_str(&document::<Statistics>(key, &events).unwrap()).unwrap()
        };
        let last = hour("room-main.lobby/1969-12-31T23");
        assert_eq!((last.hour.get(), last.joins, last.messages), (-HOUR_MS, 1, 1));
        let before = hour("room-main.lobby/1969-12-31T22");
        assert_eq!((before.hour.get(), before.actions), (-2 * HOUR_MS, 1));
    }

    #[test]
    fn a_time_that_no_calendar_has_counts_when_it_was_recorded() {
        let mut events = history(LINES);
        events[1].envelope.occurred_at = Some(UnixMillis::new(i64::MAX));
        let shown = document::<Statistics>("room-main.lobby/1970-01-01T00", &events).unwrap();
        assert!(shown.contains(r#""hour":0,"messages":2"#), "{shown}");
    }
}
