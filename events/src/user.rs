//! The events of a user's own stream: who they are, which rooms ask for them, how far they have
//! read, and where they have said hello from.
//!
//! Nobody else reads it. An invitation is a matter of its room: what stands here is the notice
//! of it, written by the platform and caused by the room's event.

use serde::{Deserialize, Serialize};

use crate::event::event_enum;
use crate::{CommandId, EntityId, Event, MemberId, Personal, Revision};

/// Everything that can happen to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserEvent {
    /// The user told of themselves.
    ProfileChanged(ProfileChanged),
    /// A room asks for the user.
    InvitationReceived(InvitationReceived),
    /// It no longer does, or the user no longer wants to see that it does.
    InvitationEnded(InvitationEnded),
    /// The user has read on.
    ReadMarkerMoved(ReadMarkerMoved),
    /// The user said hello from a session that was not heard of before.
    SessionStarted(SessionStarted),
}

event_enum!(UserEvent, "user", {
    ProfileChanged = 1,
    InvitationReceived = 1,
    InvitationEnded = 1,
    ReadMarkerMoved = 1,
    SessionStarted = 1,
});

impl UserEvent {
    pub(crate) fn known_name(text: &str) -> Option<&'static str> {
        Self::NAMES.iter().map(|(name, _)| *name).find(|name| *name == text)
    }
}

/// See [`UserEvent::ProfileChanged`]. The whole profile from now on: what is absent is not told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ProfileChanged {
    /// The name to go by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<crate::schema::PersonalText>))]
    pub display_name: Option<Personal>,
    /// Where a picture is: an address, or a name that the product understands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<crate::schema::PersonalText>))]
    pub avatar: Option<Personal>,
    /// The language and region to speak to them in, a BCP 47 tag such as `pt-BR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<crate::schema::PersonalText>))]
    pub locale: Option<Personal>,
}

/// See [`UserEvent::InvitationReceived`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InvitationReceived {
    /// The room.
    pub room: EntityId,
    /// What the room was called then: who is invited may not read it yet.
    pub title: String,
    /// Who invited.
    pub by: MemberId,
}

/// How an invitation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InvitationOutcome {
    /// The user joined the room.
    Accepted,
    /// The user told the room that they will not come.
    Declined,
    /// The room took it back.
    Withdrawn,
    /// The user put it away and told nobody, or it gave way to later ones of who invited.
    Dismissed,
}

/// See [`UserEvent::InvitationEnded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InvitationEnded {
    /// The room.
    pub room: EntityId,
    /// How.
    pub outcome: InvitationOutcome,
}

/// See [`UserEvent::ReadMarkerMoved`]. A marker never moves back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadMarkerMoved {
    /// The room.
    pub room: EntityId,
    /// The last revision read, on whichever device.
    pub revision: Revision,
}

/// See [`UserEvent::SessionStarted`]. Coming back to a session is not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SessionStarted {
    /// The session's name, made by the client.
    pub session: CommandId,
    /// What the person would call the device, if the client said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<crate::schema::PersonalText>))]
    pub device: Option<Personal>,
}
