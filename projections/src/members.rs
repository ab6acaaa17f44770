//! `members`: who is in a room. One document a member, keyed `<room stream>/<member>`.

use dramatis_events::room::RoomEvent;
use dramatis_events::{MemberId, Personal, Recorded, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{FoldError, Index, Projection, happened_at};

/// A member of a room. Who leaves has no document; who comes back starts a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The tenant.
    pub tenant: String,
    /// The room's id.
    pub room: String,
    /// Who it is.
    pub member: MemberId,
    /// The name shown in this room.
    pub display_name: Personal,
    /// When they came in.
    pub joined_at: UnixMillis,
}

/// The projection that keeps [`Member`] documents.
pub struct Members;

impl Projection for Members {
    const NAME: &'static str = "members";
    const VERSION: u32 = 1;
    const KEY: &'static [KeyPart] = &[KeyPart::Text("MEMBER")];
    const EVENTS: &'static [&'static str] = &["MemberJoined", "MemberLeft", "MemberRemoved", "MemberRenamed"];
    // A room's members lie together by their keys.
    const INDEXES: &'static [Index] = &[];
    type Event = RoomEvent;
    type Document = Member;

    fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
        let member = match event {
            RoomEvent::MemberJoined(joined) => &joined.member,
            RoomEvent::MemberLeft(left) => &left.member,
            RoomEvent::MemberRemoved(removed) => &removed.member,
            RoomEvent::MemberRenamed(renamed) => &renamed.member,
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::MessagePosted(_)
            | RoomEvent::MessageEdited(_)
            | RoomEvent::MessageRedacted(_)
            | RoomEvent::ReactionAdded(_)
            | RoomEvent::ReactionRemoved(_) => return,
        };
        keys.push(format!("{}/{member}", recorded.stream));
    }

    fn fold(document: &mut Option<Member>, recorded: &Recorded, event: &RoomEvent) -> Result<(), FoldError> {
        let absent = || FoldError::out_of_place(event, "the member is not in the room");
        match event {
            RoomEvent::MemberJoined(joined) => {
                if document.is_some() {
                    return Err(FoldError::out_of_place(event, "the member is in the room already"));
                }
                *document = Some(Member {
                    tenant: recorded.stream.tenant().to_owned(),
                    room: recorded.stream.id().to_owned(),
                    member: joined.member.clone(),
                    display_name: joined.display_name.clone(),
                    joined_at: happened_at(recorded),
                });
            }
            RoomEvent::MemberLeft(_) | RoomEvent::MemberRemoved(_) => {
                document.take().ok_or_else(absent)?;
            }
            RoomEvent::MemberRenamed(renamed) => {
                document.as_mut().ok_or_else(absent)?.display_name = renamed.display_name.clone();
            }
            RoomEvent::RoomOpened(_)
            | RoomEvent::RoomRenamed(_)
            | RoomEvent::RoomClosed(_)
            | RoomEvent::RoomVisibilitySet(_)
            | RoomEvent::MemberInvited(_)
            | RoomEvent::InvitationAccepted(_)
            | RoomEvent::InvitationDeclined(_)
            | RoomEvent::InvitationWithdrawn(_)
            | RoomEvent::MessagePosted(_)
            | RoomEvent::MessageEdited(_)
            | RoomEvent::MessageRedacted(_)
            | RoomEvent::ReactionAdded(_)
            | RoomEvent::ReactionRemoved(_) => return Err(FoldError::not_mine(event)),
        }
        Ok(())
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

    fn check(lines: &str, expected: &str) {
        let shown = document::<Members>("room-main.lobby/alice", &history(lines));
        assert_eq!(shown.unwrap_or_else(|error| error.to_string()), expected, "{lines}");
    }

    const JOINED: &str = r#"alice MemberJoined {"member":"alice","display_name":"Alice"}"#;

    #[test]
    fn members_come_go_and_come_back() {
        check(
            JOINED,
            r#"{"tenant":"main","room":"lobby","member":"alice","display_name":"Alice","joined_at":1000}"#,
        );
        check(&format!("{JOINED}\nowner MemberLeft {{\"member\":\"alice\"}}"), "none");
        check(
            &format!(
                "{JOINED}
                alice MemberRenamed {{\"member\":\"alice\",\"display_name\":\"Al\"}}
                alice MemberLeft {{\"member\":\"alice\"}}
                bob MemberJoined {{\"member\":\"bob\",\"display_name\":\"Bob\"}}
                alice MemberJoined {{\"member\":\"alice\",\"display_name\":\"Alice II\"}}"
            ),
            r#"{"tenant":"main","room":"lobby","member":"alice","display_name":"Alice II","joined_at":1004}"#,
        );
    }

    #[test]
    fn events_out_of_place_are_refused() {
        let twice = format!("{JOINED}\n{JOINED}");
        let left = r#"alice MemberLeft {"member":"alice"}"#;
        for (lines, reason) in [(twice.as_str(), "is in the room already"), (left, "is not in the room")] {
            let error = document::<Members>("room-main.lobby/alice", &history(lines)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
