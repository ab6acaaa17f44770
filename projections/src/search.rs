//! `search`: the words of every message that still has some, for full-text search. One document
//! a message, keyed as in `timeline`; a redacted one has none.
//!
//! Apart from `timeline`, so that indexing words holds up nobody who reads a room.

use std::sync::Arc;

use dramatis_events::room::RoomEvent;
use dramatis_events::{MemberId, Personal, Recorded, Revision, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{Field, FieldKind, FoldError, Index, Projection, TextField, happened_at};
use crate::timeline::Timeline;

/// What of a message can be searched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The tenant.
    pub tenant: String,
    /// The room's id.
    pub room: String,
    /// The message's name in its room.
    pub revision: Revision,
    /// Who said it.
    pub by: MemberId,
    /// The words, as last edited; absent while they are sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Arc<str>>,
    /// `occurred_at` if it was given, or else `recorded_at`.
    pub posted_at: UnixMillis,
}

/// The projection that keeps [`Found`] documents.
pub struct Search;

impl Projection for Search {
    const NAME: &'static str = "search";
    const VERSION: u32 = 6;
    const KEY: &'static [KeyPart] = &[KeyPart::Revision("MESSAGE")];
    const EVENTS: &'static [&'static str] = &["MessagePosted", "MessageEdited", "MessageRedacted"];
    const INDEXES: &'static [Index] = &[Index {
        name: "by_time",
        fields: &[
            Field { name: "tenant", kind: FieldKind::Text },
            Field { name: "posted_at", kind: FieldKind::Integer },
        ],
    }];
    // What was said, alone: a message is not about who said it. Queries filter by that.
    const TEXT: &'static [TextField] = &[TextField { name: "text", weight: 1 }];
    type Event = RoomEvent;
    type Document = Found;

    fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
        let message = match event {
            RoomEvent::MessagePosted(_) => recorded.revision,
            RoomEvent::MessageEdited(edited) => edited.target,
            RoomEvent::MessageRedacted(redacted) => redacted.target,
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::MemberJoined(_)
            | RoomEvent::MemberLeft(_)
            | RoomEvent::MemberRemoved(_)
            | RoomEvent::MemberRenamed(_)
            | RoomEvent::ReactionAdded(_)
            | RoomEvent::ReactionRemoved(_) => return,
        };
        keys.push(Timeline::key(&recorded.stream, message));
    }

    fn is_first(event: &RoomEvent) -> bool {
        matches!(event, RoomEvent::MessagePosted(_))
    }

    fn fold(document: &mut Option<Found>, recorded: &Recorded, event: &RoomEvent) -> Result<(), FoldError> {
        match event {
            RoomEvent::MessagePosted(posted) => *document = Some(Found::posted(recorded, &posted.text)),
            RoomEvent::MessageEdited(edited) => {
                // What was hidden stays hidden, whatever comes later.
                if let Some(found) = document {
                    found.text = edited.text.plain().cloned();
                }
            }
            RoomEvent::MessageRedacted(_) => *document = None,
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::MemberJoined(_)
            | RoomEvent::MemberLeft(_)
            | RoomEvent::MemberRemoved(_)
            | RoomEvent::MemberRenamed(_)
            | RoomEvent::ReactionAdded(_)
            | RoomEvent::ReactionRemoved(_) => return Err(FoldError::not_mine(event)),
        }
        Ok(())
    }
}

impl Found {
    fn posted(recorded: &Recorded, text: &Personal) -> Self {
        Self {
            tenant: recorded.stream.tenant().to_owned(),
            room: recorded.stream.id().to_owned(),
            revision: recorded.revision,
            by: recorded.envelope.author.clone(),
            text: text.plain().cloned(),
            posted_at: happened_at(recorded),
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

    fn check(lines: &str, text: &str) {
        let posted = r#"alice MessagePosted {"kind":"text","text":"hello"}"#;
        let key = "room-main.lobby/00000000000000000000";
        let shown = document::<Search>(key, &history(&format!("{posted}\n{lines}"))).unwrap();
        let found =
            format!(r#"{{"tenant":"main","room":"lobby","revision":0,"by":"alice",{text}"posted_at":1000}}"#);
        assert_eq!(shown, if text == "none" { text.to_owned() } else { found }, "{lines}");
    }

    #[test]
    fn words_follow_edits_and_go_for_good() {
        check("", r#""text":"hello","#);
        check(r#"alice MessageEdited {"target":0,"text":"hi"}"#, r#""text":"hi","#);
        check(
            r#"alice MessageRedacted {"target":0}
               alice MessageEdited {"target":0,"text":"hello again"}"#,
            "none",
        );
    }

    #[test]
    fn sealed_words_are_not_searched() {
        let sealed = r#"{"$sealed":{"key":"k1","nonce":"AA==","ciphertext":"AAEC"}}"#;
        check(&format!(r#"alice MessageEdited {{"target":0,"text":{sealed}}}"#), "");
    }
}
