//! `activity`: what each person and persona did in a room. One document for each who ever did
//! something there, keyed `<room stream>/<member>`; it stays when they leave.

use dramatis_events::room::RoomEvent;
use dramatis_events::{MemberId, Recorded, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{Field, FieldKind, FoldError, Index, Projection, happened_at};

/// What one member did in one room, by count and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberActivity {
    /// The tenant.
    pub tenant: String,
    /// The room's id.
    pub room: String,
    /// Who it is.
    pub member: MemberId,
    /// Messages, redacted ones too.
    pub messages: u64,
    /// Those of them that answer another.
    pub replies: u64,
    /// Edits of their messages.
    pub edits: u64,
    /// Reactions given, those taken back too, as often as that was recorded: so is one that was there already.
    pub reactions: u64,
    /// Times they came in.
    pub joins: u64,
    /// When they first did something.
    pub first_at: UnixMillis,
    /// When they last did something.
    pub last_at: UnixMillis,
}

/// The projection that keeps [`MemberActivity`] documents.
pub struct Activity;

impl Projection for Activity {
    const NAME: &'static str = "activity";
    const VERSION: u32 = 1;
    const KEY: &'static [KeyPart] = &[KeyPart::Text("MEMBER")];
    const EVENTS: &'static [&'static str] =
        &["MemberJoined", "MessagePosted", "MessageEdited", "ReactionAdded"];
    const INDEXES: &'static [Index] = &[
        Index {
            name: "by_room",
            fields: &[
                Field { name: "tenant", kind: FieldKind::Text },
                Field { name: "room", kind: FieldKind::Text },
                Field { name: "last_at", kind: FieldKind::Integer },
            ],
        },
        Index {
            name: "by_member",
            fields: &[
                Field { name: "tenant", kind: FieldKind::Text },
                Field { name: "member", kind: FieldKind::Text },
                Field { name: "last_at", kind: FieldKind::Integer },
            ],
        },
    ];
    type Event = RoomEvent;
    type Document = MemberActivity;

    fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
        let member = match event {
            RoomEvent::MemberJoined(joined) => &joined.member,
            RoomEvent::MessagePosted(_) | RoomEvent::MessageEdited(_) | RoomEvent::ReactionAdded(_) => {
                &recorded.envelope.author
            }
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::MemberRemoved(_)
            | RoomEvent::MemberLeft(_)
            | RoomEvent::MemberRenamed(_)
            | RoomEvent::MessageRedacted(_)
            | RoomEvent::ReactionRemoved(_) => return,
        };
        keys.push(format!("{}/{member}", recorded.stream));
    }

    fn fold(
        document: &mut Option<MemberActivity>,
        recorded: &Recorded,
        event: &RoomEvent,
    ) -> Result<(), FoldError> {
        let at = happened_at(recorded);
        let member = match event {
            RoomEvent::MemberJoined(joined) => &joined.member,
            _ => &recorded.envelope.author,
        };
        let activity = document.get_or_insert_with(|| MemberActivity::begun(recorded, member));
        match event {
            RoomEvent::MemberJoined(_) => activity.joins = activity.joins.saturating_add(1),
            RoomEvent::MessagePosted(posted) => {
                activity.messages = activity.messages.saturating_add(1);
                activity.replies = activity.replies.saturating_add(u64::from(posted.reply_to.is_some()));
            }
            RoomEvent::MessageEdited(_) => activity.edits = activity.edits.saturating_add(1),
            RoomEvent::ReactionAdded(_) => activity.reactions = activity.reactions.saturating_add(1),
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::MemberRemoved(_)
            | RoomEvent::MemberLeft(_)
            | RoomEvent::MemberRenamed(_)
            | RoomEvent::MessageRedacted(_)
            | RoomEvent::ReactionRemoved(_) => return Err(FoldError::not_mine(event)),
        }
        // An import may tell of earlier days.
        activity.first_at = activity.first_at.min(at);
        activity.last_at = activity.last_at.max(at);
        Ok(())
    }
}

impl MemberActivity {
    fn begun(recorded: &Recorded, member: &MemberId) -> Self {
        let at = happened_at(recorded);
        Self {
            tenant: recorded.stream.tenant().to_owned(),
            room: recorded.stream.id().to_owned(),
            member: member.clone(),
            messages: 0,
            replies: 0,
            edits: 0,
            reactions: 0,
            joins: 0,
            first_at: at,
            last_at: at,
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

    #[test]
    fn what_a_member_did_is_counted_and_stays() {
        let lines = r#"owner MemberJoined {"member":"alice","display_name":"Alice"}
            alice MessagePosted {"kind":"text","text":"one"}
            bob MessagePosted {"kind":"text","text":"two"}
            alice MessagePosted {"kind":"text","text":"three","reply_to":2,"thread_root":2}
            alice MessageEdited {"target":1,"text":"uno"}
            alice ReactionAdded {"target":2,"emoji":"x"}
            alice ReactionRemoved {"target":2,"emoji":"x"}
            alice MemberLeft {"member":"alice"}
            alice MemberJoined {"member":"alice","display_name":"Alice"}"#;
        assert_eq!(
            document::<Activity>("room-main.lobby/alice", &history(lines)).unwrap(),
            r#"{"tenant":"main","room":"lobby","member":"alice","messages":2,"replies":1,"edits":1,"reactions":1,"joins":2,"first_at":1000,"last_at":1008}"#,
        );
    }
}
