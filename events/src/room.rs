//! The events of a room, in which people and personas meet.
//!
//! A message is named by its place: the revision of its `MessagePosted`. Who did a thing is
//! the envelope's author; a payload names a member only where that may be someone else.

use serde::{Deserialize, Serialize};

use crate::event::event_enum;
use crate::{Event, MemberId, Personal, Revision};

/// Everything that can happen in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomEvent {
    /// The room came to be.
    RoomOpened(RoomOpened),
    /// It got another title.
    RoomRenamed(RoomRenamed),
    /// It takes no further events.
    RoomClosed(RoomClosed),
    /// A member came in.
    MemberJoined(MemberJoined),
    /// A member left or was removed.
    MemberLeft(MemberLeft),
    /// A member goes by another display name.
    MemberRenamed(MemberRenamed),
    /// A member said something.
    MessagePosted(MessagePosted),
    /// A message has another text.
    MessageEdited(MessageEdited),
    /// A message is hidden for good.
    MessageRedacted(MessageRedacted),
    /// The author reacted to a message.
    ReactionAdded(ReactionAdded),
    /// The author took a reaction back.
    ReactionRemoved(ReactionRemoved),
}

event_enum!(RoomEvent, "room", {
    RoomOpened = 1,
    RoomRenamed = 1,
    RoomClosed = 1,
    MemberJoined = 1,
    MemberLeft = 1,
    MemberRenamed = 1,
    MessagePosted = 1,
    MessageEdited = 1,
    MessageRedacted = 1,
    ReactionAdded = 1,
    ReactionRemoved = 1,
});

impl RoomEvent {
    pub(crate) fn known_name(text: &str) -> Option<&'static str> {
        Self::NAMES.iter().map(|(name, _)| *name).find(|name| *name == text)
    }
}

/// See [`RoomEvent::RoomOpened`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RoomOpened {
    /// What the room is called.
    pub title: String,
    /// Who may rename and close it, remove members and redact any message.
    pub owner: MemberId,
}

/// See [`RoomEvent::RoomRenamed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RoomRenamed {
    /// The new title.
    pub title: String,
}

/// See [`RoomEvent::RoomClosed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RoomClosed {
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomEvent::MemberJoined`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberJoined {
    /// Who came in.
    pub member: MemberId,
    /// The name shown in this room.
    #[cfg_attr(feature = "schema", schema(value_type = crate::schema::PersonalText))]
    pub display_name: Personal<String>,
}

/// See [`RoomEvent::MemberLeft`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberLeft {
    /// Who left; where the author is someone else, they were removed.
    pub member: MemberId,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomEvent::MemberRenamed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberRenamed {
    /// Whose name it is.
    pub member: MemberId,
    /// The name shown from now on.
    #[cfg_attr(feature = "schema", schema(value_type = crate::schema::PersonalText))]
    pub display_name: Personal<String>,
}

/// How a message is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Said: "hello".
    #[default]
    Text,
    /// Done: "* alice waves".
    Action,
}

/// See [`RoomEvent::MessagePosted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MessagePosted {
    /// Said or done.
    pub kind: MessageKind,
    /// The words.
    #[cfg_attr(feature = "schema", schema(value_type = crate::schema::PersonalText))]
    pub text: Personal<String>,
    /// The message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Revision>,
    /// The first message of the thread that `reply_to` is in; stands exactly where `reply_to` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_root: Option<Revision>,
}

/// See [`RoomEvent::MessageEdited`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MessageEdited {
    /// The message.
    pub target: Revision,
    /// Its words from now on.
    #[cfg_attr(feature = "schema", schema(value_type = crate::schema::PersonalText))]
    pub text: Personal<String>,
}

/// See [`RoomEvent::MessageRedacted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MessageRedacted {
    /// The message.
    pub target: Revision,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomEvent::ReactionAdded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReactionAdded {
    /// The message.
    pub target: Revision,
    /// The reaction, usually one emoji.
    pub emoji: String,
}

/// See [`RoomEvent::ReactionRemoved`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReactionRemoved {
    /// The message.
    pub target: Revision,
    /// The reaction.
    pub emoji: String,
}
