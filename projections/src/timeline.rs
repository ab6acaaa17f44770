//! `timeline`: what was said in a room. One document a message, keyed
//! `<room stream>/<revision, zero-padded to 20>`, so that key order is the order of the room.

use std::collections::{BTreeMap, BTreeSet};

use dramatis_events::room::{MessageKind, MessagePosted, RoomEvent};
use dramatis_events::{MemberId, Personal, Recorded, Revision, StreamId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{FoldError, Index, Projection, happened_at, message_key};

/// The most different reactions to one message.
const REACTIONS_MAX: usize = 100;
/// The most of all of them, each counted as often as there are members who gave it.
const REACTED_MAX: usize = 10_000;

/// A message with all that became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The tenant.
    pub tenant: String,
    /// The room's id.
    pub room: String,
    /// The message's name in its room: the revision of its `MessagePosted`.
    pub revision: Revision,
    /// Who said it.
    pub by: MemberId,
    /// Said or done.
    pub kind: MessageKind,
    /// The words; gone once redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Personal>,
    /// The message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Revision>,
    /// The first message of its thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_root: Option<Revision>,
    /// `occurred_at` if it was given, or else `recorded_at`.
    pub posted_at: UnixMillis,
    /// When the log took it.
    pub recorded_at: UnixMillis,
    /// When it was said by its author's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<UnixMillis>,
    /// When it was last edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<UnixMillis>,
    /// How often it was edited.
    pub edits: u32,
    /// Set once it is hidden for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redacted: Option<Redaction>,
    /// Who reacted, by reaction: at most 100 different ones, and 10,000 in all. What is given past that
    /// changes nothing. No reaction has an empty set.
    pub reactions: BTreeMap<String, BTreeSet<MemberId>>,
}

/// How a message came to be hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// Who hid it.
    pub by: MemberId,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    pub at: UnixMillis,
}

/// The projection that keeps [`Message`] documents.
pub struct Timeline;

impl Timeline {
    /// The key of a message.
    pub fn key(stream: &StreamId, revision: Revision) -> String {
        message_key(stream, revision)
    }
}

impl Projection for Timeline {
    const NAME: &'static str = "timeline";
    const VERSION: u32 = 2;
    const KEY: &'static [KeyPart] = &[KeyPart::Revision("MESSAGE")];
    const EVENTS: &'static [&'static str] =
        &["MessagePosted", "MessageEdited", "MessageRedacted", "ReactionAdded", "ReactionRemoved"];
    // A room's messages lie together, in order, by their keys.
    const INDEXES: &'static [Index] = &[];
    type Event = RoomEvent;
    type Document = Message;

    fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
        let message = match event {
            RoomEvent::MessagePosted(_) => recorded.revision,
            RoomEvent::MessageEdited(edited) => edited.target,
            RoomEvent::MessageRedacted(redacted) => redacted.target,
            RoomEvent::ReactionAdded(added) => added.target,
            RoomEvent::ReactionRemoved(removed) => removed.target,
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
            | RoomEvent::MemberRenamed(_) => return,
        };
        keys.push(Self::key(&recorded.stream, message));
    }

    fn is_first(event: &RoomEvent) -> bool {
        matches!(event, RoomEvent::MessagePosted(_))
    }

    fn fold(document: &mut Option<Message>, recorded: &Recorded, event: &RoomEvent) -> Result<(), FoldError> {
        let author = &recorded.envelope.author;
        let absent = || FoldError::out_of_place(event, "its target is no message");
        match event {
            RoomEvent::MessagePosted(posted) => {
                if document.is_some() {
                    return Err(FoldError::out_of_place(event, "the message is there already"));
                }
                *document = Some(Message::posted(recorded, posted));
            }
            RoomEvent::MessageEdited(edited) => {
                let message = document.as_mut().ok_or_else(absent)?;
                // What was hidden stays hidden, whatever comes later.
                if message.redacted.is_none() {
                    message.text = Some(edited.text.clone());
                    message.edited_at = Some(happened_at(recorded));
                    message.edits = message.edits.saturating_add(1);
                }
            }
            RoomEvent::MessageRedacted(redacted) => {
                let message = document.as_mut().ok_or_else(absent)?;
                message.text = None;
                message.redacted.get_or_insert_with(|| Redaction {
                    by: author.clone(),
                    reason: redacted.reason.clone(),
                    at: happened_at(recorded),
                });
            }
            RoomEvent::ReactionAdded(added) => {
                document.as_mut().ok_or_else(absent)?.react(&added.emoji, author);
            }
            RoomEvent::ReactionRemoved(removed) => {
                document.as_mut().ok_or_else(absent)?.take_back(&removed.emoji, author);
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
            | RoomEvent::MemberJoined(_)
            | RoomEvent::MemberLeft(_)
            | RoomEvent::MemberRenamed(_) => return Err(FoldError::not_mine(event)),
        }
        Ok(())
    }
}

impl Message {
    fn posted(recorded: &Recorded, posted: &MessagePosted) -> Self {
        Self {
            tenant: recorded.stream.tenant().to_owned(),
            room: recorded.stream.id().to_owned(),
            revision: recorded.revision,
            by: recorded.envelope.author.clone(),
            kind: posted.kind,
            text: Some(posted.text.clone()),
            reply_to: posted.reply_to,
            thread_root: posted.thread_root,
            posted_at: happened_at(recorded),
            recorded_at: recorded.recorded_at,
            occurred_at: recorded.envelope.occurred_at,
            edited_at: None,
            edits: 0,
            redacted: None,
            reactions: BTreeMap::new(),
        }
    }

    fn react(&mut self, emoji: &str, member: &MemberId) {
        let reacted: usize = self.reactions.values().map(BTreeSet::len).sum();
        let is_one_too_many = !self.reactions.contains_key(emoji) && self.reactions.len() >= REACTIONS_MAX;
        if reacted < REACTED_MAX && !is_one_too_many {
            self.reactions.entry(emoji.to_owned()).or_default().insert(member.clone());
        }
    }

    fn take_back(&mut self, emoji: &str, member: &MemberId) {
        if let Some(members) = self.reactions.get_mut(emoji) {
            members.remove(member);
            if members.is_empty() {
                self.reactions.remove(emoji);
            }
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

    const POSTED: &str = r#"alice MessagePosted {"kind":"text","text":"hello"}"#;

    fn shown(lines: &str) -> String {
        let key = "room-main.lobby/00000000000000000000";
        document::<Timeline>(key, &history(&format!("{POSTED}\n{lines}"))).unwrap_or_else(|e| e.to_string())
    }

    fn check(lines: &str, expected: &str) {
        let shown = shown(lines);
        let rest =
            shown.strip_prefix(r#"{"tenant":"main","room":"lobby","revision":0,"by":"alice","kind":"text","#);
        assert_eq!(rest.unwrap_or(&shown), expected, "{lines}");
    }

    #[test]
    fn a_message_and_its_edits() {
        check("", r#""text":"hello","posted_at":1000,"recorded_at":1000,"edits":0,"reactions":{}}"#);
        check(
            r#"alice MessageEdited {"target":0,"text":"hi"}
               alice MessageEdited {"target":0,"text":"hi!"}"#,
            r#""text":"hi!","posted_at":1000,"recorded_at":1000,"edited_at":1002,"edits":2,"reactions":{}}"#,
        );
    }

    #[test]
    fn what_was_redacted_never_comes_back() {
        check(
            r#"owner MessageRedacted {"target":0,"reason":"rude"}
               alice MessageEdited {"target":0,"text":"hello again"}
               alice MessageRedacted {"target":0}"#,
            r#""posted_at":1000,"recorded_at":1000,"edits":0,"redacted":{"by":"owner","reason":"rude","at":1001},"reactions":{}}"#,
        );
    }

    #[test]
    fn reactions_are_sets() {
        check(
            r#"carol ReactionAdded {"target":0,"emoji":"👍"}
               bob ReactionAdded {"target":0,"emoji":"👍"}
               bob ReactionAdded {"target":0,"emoji":"👍"}
               bob ReactionAdded {"target":0,"emoji":"❤"}
               bob ReactionRemoved {"target":0,"emoji":"❤"}
               dave ReactionRemoved {"target":0,"emoji":"👍"}"#,
            r#""text":"hello","posted_at":1000,"recorded_at":1000,"edits":0,"reactions":{"👍":["bob","carol"]}}"#,
        );
    }

    #[test]
    fn what_is_given_past_the_most_changes_nothing() {
        let many = |count: usize, line: fn(usize) -> String| (0..count).map(line).collect::<String>();
        let given = |emoji: usize| format!("bob ReactionAdded {{\"target\":0,\"emoji\":\"{emoji}\"}}\n");
        let all = many(REACTIONS_MAX, given);
        assert_eq!(shown(&format!("{all}{}", given(REACTIONS_MAX))), shown(&all));
        let back = "bob ReactionRemoved {\"target\":0,\"emoji\":\"7\"}\n";
        let other = shown(&format!("{all}{back}{}", given(REACTIONS_MAX)));
        assert!(other.contains("\"100\":[\"bob\"]") && !other.contains("\"7\":"), "{other}");
        let joined = |member: usize| format!("m-{member} ReactionAdded {{\"target\":0,\"emoji\":\"x\"}}\n");
        let all = many(REACTED_MAX, joined);
        assert!(shown(&all).contains(&format!("\"m-{}\"", REACTED_MAX - 1)));
        assert_eq!(shown(&format!("{all}{}", joined(REACTED_MAX))), shown(&all));
    }

    #[test]
    fn sealed_text_stays_sealed() {
        let sealed = r#"{"$sealed":{"key":"k1","nonce":"AA==","ciphertext":"AAEC"}}"#;
        let shown = shown(&format!(r#"alice MessageEdited {{"target":0,"text":{sealed}}}"#));
        assert!(shown.contains(&format!(r#""text":{sealed}"#)), "{shown}");
    }

    #[test]
    fn a_target_that_is_no_message_is_refused() {
        let lines = format!("{POSTED}\nbob ReactionAdded {{\"target\":7,\"emoji\":\"x\"}}");
        let key = Timeline::key(&StreamId::parse("room-main.lobby").unwrap(), Revision::new(7));
        let error = document::<Timeline>(&key, &history(&lines)).unwrap_err();
        assert!(error.to_string().contains("no message"), "{error}");
    }
}
