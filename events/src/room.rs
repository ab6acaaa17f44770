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
    /// Others may read it than before.
    RoomVisibilitySet(RoomVisibilitySet),
    /// A member came in.
    MemberJoined(MemberJoined),
    /// A member left.
    MemberLeft(MemberLeft),
    /// A member was sent away.
    MemberRemoved(MemberRemoved),
    /// A member goes by another display name.
    MemberRenamed(MemberRenamed),
    /// Someone was asked to come in.
    MemberInvited(MemberInvited),
    /// Who was invited comes in.
    InvitationAccepted(InvitationAccepted),
    /// Who was invited will not come.
    InvitationDeclined(InvitationDeclined),
    /// An invitation no longer holds.
    InvitationWithdrawn(InvitationWithdrawn),
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
    RoomVisibilitySet = 1,
    MemberJoined = 1,
    MemberLeft = 1,
    MemberRemoved = 1,
    MemberRenamed = 1,
    MemberInvited = 1,
    InvitationAccepted = 1,
    InvitationDeclined = 1,
    InvitationWithdrawn = 1,
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

/// Who may read a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Anyone, those apart who were sent away; and anyone may join. What a room begins with.
    #[default]
    Open,
    /// Members only; and only who is invited may join.
    Invited,
}

/// See [`RoomEvent::RoomVisibilitySet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RoomVisibilitySet {
    /// Who may read it from now on.
    pub visibility: Visibility,
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
    pub display_name: Personal,
}

/// See [`RoomEvent::MemberLeft`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberLeft {
    /// Who left; where the author is someone else, they were removed, as releases before
    /// [`MemberRemoved`] told it.
    pub member: MemberId,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomEvent::MemberRemoved`]. They read the room no more until they join it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberRemoved {
    /// Who had to go.
    pub member: MemberId,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomEvent::MemberInvited`]. Its author invites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberInvited {
    /// Who is asked to come.
    pub member: MemberId,
    /// What the room is called, so that its notice can be told from this event alone.
    pub title: String,
}

/// See [`RoomEvent::InvitationAccepted`]. Their `MemberJoined` follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InvitationAccepted {
    /// Who was invited.
    pub member: MemberId,
}

/// See [`RoomEvent::InvitationDeclined`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InvitationDeclined {
    /// Who was invited.
    pub member: MemberId,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomEvent::InvitationWithdrawn`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InvitationWithdrawn {
    /// Who was invited.
    pub member: MemberId,
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
    pub display_name: Personal,
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
    pub text: Personal,
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
    pub text: Personal,
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
