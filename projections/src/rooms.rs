//! `rooms`: the list of rooms. One document a room, keyed by its stream.

use dramatis_events::room::{MessagePosted, RoomEvent};
use dramatis_events::{MemberId, Personal, Recorded, Revision, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{Field, FieldKind, FoldError, Index, Projection, happened_at};

/// A room as a list of rooms shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// The tenant.
    pub tenant: String,
    /// The room's id.
    pub room: String,
    /// What it is called.
    pub title: String,
    /// Who opened it.
    pub owner: MemberId,
    /// When it was opened.
    pub opened_at: UnixMillis,
    /// When it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<UnixMillis>,
    /// How many are in it.
    pub member_count: u64,
    /// How many messages were posted, redacted ones among them.
    pub message_count: u64,
    /// When the last message was posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_at: Option<UnixMillis>,
    /// The last message's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message: Option<LastMessage>,
    /// The latest of `opened_at` and all messages; lists sort by it.
    pub active_at: UnixMillis,
    /// When the log took the last event that changed this document.
    pub updated_at: UnixMillis,
}

/// A message in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastMessage {
    /// Its revision.
    pub revision: Revision,
    /// Who said it.
    pub by: MemberId,
    /// Its first 120 characters, or the sealed whole; gone once redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Personal>,
    /// Whether it is hidden.
    pub redacted: bool,
}

/// How much of a message a list of rooms repeats.
const PREVIEW_CHARS_MAX: usize = 120;

/// The projection that keeps [`Room`] documents.
pub struct Rooms;

const TENANT: Field = Field { name: "tenant", kind: FieldKind::Text };

impl Projection for Rooms {
    const NAME: &'static str = "rooms";
    const VERSION: u32 = 1;
    const KEY: &'static [KeyPart] = &[];
    const EVENTS: &'static [&'static str] = &[
        "RoomOpened",
        "RoomRenamed",
        "RoomClosed",
        "MemberJoined",
        "MemberLeft",
        "MemberRemoved",
        "MessagePosted",
        "MessageEdited",
        "MessageRedacted",
    ];
    const INDEXES: &'static [Index] = &[
        Index { name: "active", fields: &[TENANT, Field { name: "active_at", kind: FieldKind::Integer }] },
        Index { name: "title", fields: &[TENANT, Field { name: "title", kind: FieldKind::Text }] },
    ];
    type Event = RoomEvent;
    type Document = Room;

    fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
        match event {
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::MemberJoined(_)
            | RoomEvent::MemberLeft(_)
            | RoomEvent::MemberRemoved(_)
            | RoomEvent::MessagePosted(_)
            | RoomEvent::MessageEdited(_)
            | RoomEvent::MessageRedacted(_) => keys.push(recorded.stream.as_str().to_owned()),
            RoomEvent::MemberRenamed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::ReactionAdded(_)
            | RoomEvent::ReactionRemoved(_) => {}
        }
    }

    fn fold(document: &mut Option<Room>, recorded: &Recorded, event: &RoomEvent) -> Result<(), FoldError> {
        if let RoomEvent::RoomOpened(opened) = event {
            if document.is_some() {
                return Err(FoldError::out_of_place(event, "the room is open already"));
            }
            *document = Some(Room::opened(recorded, &opened.title, &opened.owner));
            return Ok(());
        }
        let room =
            document.as_mut().ok_or_else(|| FoldError::out_of_place(event, "the room was not opened"))?;
        match event {
            RoomEvent::RoomRenamed(renamed) => room.title.clone_from(&renamed.title),
            RoomEvent::RoomClosed(_) => room.closed_at = Some(happened_at(recorded)),
            RoomEvent::MemberJoined(_) => room.member_count = room.member_count.saturating_add(1),
            RoomEvent::MemberLeft(_) | RoomEvent::MemberRemoved(_) => {
                let fewer = room.member_count.checked_sub(1);
                room.member_count =
                    fewer.ok_or_else(|| FoldError::out_of_place(event, "the room is empty"))?;
            }
            RoomEvent::MessagePosted(posted) => room.post(recorded, posted),
            RoomEvent::MessageEdited(edited) => {
                let shown = room.last_if(edited.target).filter(|last| !last.redacted);
                if let Some(last) = shown {
                    last.text = Some(preview(&edited.text));
                }
            }
            RoomEvent::MessageRedacted(redacted) => {
                if let Some(last) = room.last_if(redacted.target) {
                    last.text = None;
                    last.redacted = true;
                }
            }
            RoomEvent::RoomOpened(_)
            | RoomEvent::MemberRenamed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::ReactionAdded(_)
            | RoomEvent::ReactionRemoved(_) => return Err(FoldError::not_mine(event)),
        }
        room.updated_at = recorded.recorded_at;
        Ok(())
    }
}

impl Room {
    fn opened(recorded: &Recorded, title: &str, owner: &MemberId) -> Self {
        let opened_at = happened_at(recorded);
        Self {
            tenant: recorded.stream.tenant().to_owned(),
            room: recorded.stream.id().to_owned(),
            title: title.to_owned(),
            owner: owner.clone(),
            opened_at,
            closed_at: None,
            member_count: 0,
            message_count: 0,
            last_message_at: None,
            last_message: None,
            active_at: opened_at,
            updated_at: recorded.recorded_at,
        }
    }

    fn post(&mut self, recorded: &Recorded, posted: &MessagePosted) {
        let posted_at = happened_at(recorded);
        self.message_count = self.message_count.saturating_add(1);
        self.last_message_at = Some(posted_at);
        self.last_message = Some(LastMessage {
            revision: recorded.revision,
            by: recorded.envelope.author.clone(),
            text: Some(preview(&posted.text)),
            redacted: false,
        });
        // An import may tell of earlier days: a room does not grow less active by it.
        self.active_at = self.active_at.max(posted_at);
    }

    fn last_if(&mut self, message: Revision) -> Option<&mut LastMessage> {
        self.last_message.as_mut().filter(|last| last.revision == message)
    }
}

fn preview(text: &Personal) -> Personal {
    match text {
        Personal::Plain(text) => match text.char_indices().nth(PREVIEW_CHARS_MAX) {
            Some((end, _)) => Personal::from(text.get(..end).unwrap_or_default()),
            None => Personal::Plain(text.clone()),
        },
        Personal::Sealed { sealed } => Personal::Sealed { sealed: sealed.clone() },
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

    const OPENED: &str = r#"alice RoomOpened {"title":"Lobby","owner":"alice"}"#;

    fn check(lines: &str, expected: &str) {
        let shown = document::<Rooms>("room-main.lobby", &history(&format!("{OPENED}\n{lines}")));
        assert_eq!(shown.unwrap_or_else(|error| error.to_string()), expected, "{lines}");
    }

    #[test]
    fn a_room_counts_and_remembers() {
        check(
            r#"alice MemberJoined {"member":"alice","display_name":"Alice"}
               bob MemberJoined {"member":"bob","display_name":"Bob"}
               alice MessagePosted {"kind":"text","text":"one"}
               bob MessagePosted {"kind":"text","text":"two"}
               bob ReactionAdded {"target":3,"emoji":"x"}
               bob MemberLeft {"member":"bob"}
               alice RoomRenamed {"title":"Hall"}
               alice RoomClosed {}"#,
            r#"{"tenant":"main","room":"lobby","title":"Hall","owner":"alice","opened_at":1000,"closed_at":1008,"member_count":1,"message_count":2,"last_message_at":1004,"last_message":{"revision":4,"by":"bob","text":"two","redacted":false},"active_at":1004,"updated_at":1008}"#,
        );
    }

    #[test]
    fn the_preview_follows_edits_and_redaction() {
        let start = r#"{"tenant":"main","room":"lobby","title":"Lobby","owner":"alice","opened_at":1000,"member_count":0,"message_count":1,"last_message_at":1001,"last_message":{"revision":1,"by":"alice","#;
        let posted = r#"alice MessagePosted {"kind":"text","text":"one"}
            alice MessageEdited {"target":1,"text":"uno"}"#;
        check(
            posted,
            &format!(r#"{start}"text":"uno","redacted":false}},"active_at":1001,"updated_at":1002}}"#),
        );
        check(
            &format!(
                r#"{posted}
                alice MessageRedacted {{"target":1}}
                alice MessageEdited {{"target":1,"text":"back"}}"#
            ),
            &format!(r#"{start}"redacted":true}},"active_at":1001,"updated_at":1004}}"#),
        );
    }

    #[test]
    fn a_preview_is_cut_between_characters() {
        let long = "é".repeat(200);
        let cut = preview(&Personal::from(long));
        assert_eq!(cut.plain().unwrap().as_ref(), "é".repeat(120));
    }

    #[test]
    fn nothing_happens_in_a_room_that_was_not_opened() {
        let lines = r#"alice MessagePosted {"kind":"text","text":"one"}"#;
        let error = document::<Rooms>("room-main.lobby", &history(lines)).unwrap_err();
        assert!(error.to_string().contains("was not opened"), "{error}");
    }
}
