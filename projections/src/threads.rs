//! `threads`: the conversations inside a room. One document a thread, keyed
//! `<room stream>/<revision of its first message, zero-padded to 20>`.
//!
//! It begins with the first reply and holds no words: those are in `timeline`, where edits and
//! redactions find them. What answers what is in `replies`.

use std::collections::BTreeSet;

use dramatis_events::room::{MessagePosted, RoomEvent};
use dramatis_events::{MemberId, Recorded, Revision, StreamId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{Field, FieldKind, FoldError, Index, Projection, happened_at, message_key};

/// Those who answered that a document names, at the most: it is written with every reply.
pub const REPLIERS_MAX: usize = 50;

/// A thread, as far as its replies tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// The tenant.
    pub tenant: String,
    /// The room's id.
    pub room: String,
    /// The first message: the one that the others answer, directly or not.
    pub root: Revision,
    /// How many messages follow it.
    pub replies: u64,
    /// Who answered: the first [`REPLIERS_MAX`] of them.
    pub repliers: BTreeSet<MemberId>,
    /// Set once somebody answered who is not among them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_repliers: bool,
    /// When the first answer came.
    pub first_reply_at: UnixMillis,
    /// The latest answer: its revision.
    pub last_reply: Revision,
    /// Who gave it.
    pub last_reply_by: MemberId,
    /// When.
    pub last_reply_at: UnixMillis,
    /// When something was last said in it. An import of earlier days does not move it back.
    pub active_at: UnixMillis,
}

/// The projection that keeps [`Thread`] documents.
pub struct Threads;

impl Threads {
    /// The key of a thread.
    pub fn key(stream: &StreamId, root: Revision) -> String {
        message_key(stream, root)
    }
}

impl Projection for Threads {
    const NAME: &'static str = "threads";
    const VERSION: u32 = 1;
    const KEY: &'static [KeyPart] = &[KeyPart::Revision("ROOT")];
    const EVENTS: &'static [&'static str] = &["MessagePosted"];
    const INDEXES: &'static [Index] = &[Index {
        name: "by_activity",
        fields: &[
            Field { name: "tenant", kind: FieldKind::Text },
            Field { name: "room", kind: FieldKind::Text },
            Field { name: "active_at", kind: FieldKind::Integer },
        ],
    }];
    type Event = RoomEvent;
    type Document = Thread;

    fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
        if let Some((_, root)) = reply(event) {
            keys.push(Self::key(&recorded.stream, root));
        }
    }

    fn fold(document: &mut Option<Thread>, recorded: &Recorded, event: &RoomEvent) -> Result<(), FoldError> {
        let (_, root) = reply(event).ok_or_else(|| FoldError::not_mine(event))?;
        document.get_or_insert_with(|| Thread::begun(recorded, root)).answer(recorded);
        Ok(())
    }
}

/// A message that answers another: what it says, and the thread's first message.
pub(crate) fn reply(event: &RoomEvent) -> Option<(&MessagePosted, Revision)> {
    match event {
        RoomEvent::MessagePosted(posted) => Some((posted, posted.thread_root?)),
        RoomEvent::RoomOpened(_)
        | RoomEvent::RoomRenamed(_)
        | RoomEvent::RoomClosed(_)
        | RoomEvent::RoomVisibilitySet(_)
        | RoomEvent::MemberInvited(_)
        | RoomEvent::InvitationAccepted(_)
        | RoomEvent::InvitationDeclined(_)
        | RoomEvent::InvitationWithdrawn(_)
        | RoomEvent::MemberRemoved(_)
        | RoomEvent::MemberJoined(_)
        | RoomEvent::MemberLeft(_)
        | RoomEvent::MemberRenamed(_)
        | RoomEvent::MessageEdited(_)
        | RoomEvent::MessageRedacted(_)
        | RoomEvent::ReactionAdded(_)
        | RoomEvent::ReactionRemoved(_) => None,
    }
}

impl Thread {
    fn begun(recorded: &Recorded, root: Revision) -> Self {
        let at = happened_at(recorded);
        Self {
            tenant: recorded.stream.tenant().to_owned(),
            room: recorded.stream.id().to_owned(),
            root,
            replies: 0,
            repliers: BTreeSet::new(),
            more_repliers: false,
            first_reply_at: at,
            last_reply: recorded.revision,
            last_reply_by: recorded.envelope.author.clone(),
            last_reply_at: at,
            active_at: at,
        }
    }

    fn answer(&mut self, recorded: &Recorded) {
        let (by, at) = (&recorded.envelope.author, happened_at(recorded));
        self.replies = self.replies.saturating_add(1);
        if self.repliers.len() < REPLIERS_MAX {
            self.repliers.insert(by.clone());
        } else {
            self.more_repliers |= !self.repliers.contains(by);
        }
        self.last_reply = recorded.revision;
        self.last_reply_by = by.clone();
        self.last_reply_at = at;
        self.active_at = self.active_at.max(at);
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

    const ROOT: &str = r#"alice MessagePosted {"kind":"text","text":"who is there?"}"#;

    fn shown(lines: &str) -> String {
        let key = "room-main.lobby/00000000000000000000";
        document::<Threads>(key, &history(&format!("{ROOT}\n{lines}"))).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn a_message_alone_is_no_thread() {
        assert_eq!(shown(r#"bob MessagePosted {"kind":"text","text":"hello"}"#), "none");
    }

    #[test]
    fn replies_of_any_depth_count_for_the_first_message() {
        assert_eq!(
            shown(
                r#"bob MessagePosted {"kind":"text","text":"me","reply_to":0,"thread_root":0}
                   alice MessagePosted {"kind":"text","text":"who?","reply_to":1,"thread_root":0}
                   bob MessagePosted {"kind":"text","text":"elsewhere","reply_to":9,"thread_root":9}"#
            ),
            r#"{"tenant":"main","room":"lobby","root":0,"replies":2,"repliers":["alice","bob"],"first_reply_at":1001,"last_reply":2,"last_reply_by":"alice","last_reply_at":1002,"active_at":1002}"#,
        );
    }

    #[test]
    fn a_thread_names_so_many_and_says_that_there_are_more() {
        let line = |n: usize| {
            format!(r#"user{n} MessagePosted {{"kind":"text","text":"x","reply_to":0,"thread_root":0}}"#)
        };
        let of = |count: usize| -> Thread {
            let lines: Vec<_> = (0..count).map(line).collect();
            serde_json::from_str(&shown(&lines.join("\n"))).unwrap()
        };
        let (full, over) = (of(REPLIERS_MAX), of(REPLIERS_MAX + 1));
        assert_eq!((full.repliers.len(), full.more_repliers), (REPLIERS_MAX, false));
        assert_eq!((over.repliers, over.more_repliers, over.replies), (full.repliers, true, 51));
    }
}
