//! What may be asked of a user's stream, and its JSON form.

use dramatis_events::user::InvitationOutcome;
use dramatis_events::{CommandId, EntityId, MemberId, Revision};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::command::commands;

commands! {
    /// A wish to change what is known of a user.
    UserCommand, "me";
    /// Tells of oneself: the whole profile, what is left out is no longer told.
    "set_profile" => SetProfile,
    /// Puts a notice away that its room will not end.
    "dismiss_invitation" => DismissInvitation;
    internal:
    /// Notes that a room asks for the user.
    "receive_invitation" => ReceiveInvitation,
    /// Notes that it no longer does.
    "end_invitation" => EndInvitation,
    /// Notes how far the user has read.
    "move_read_marker" => MoveReadMarker,
    /// Notes where the user said hello from.
    "start_session" => StartSession,
}

/// See [`UserCommand::SetProfile`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetProfile {
    /// The name to go by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Where a picture is: an address, or a name that the product understands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// A language tag such as `pt-BR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
}

/// See [`UserCommand::DismissInvitation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DismissInvitation {
    /// The room.
    pub room: EntityId,
}

/// See [`UserCommand::ReceiveInvitation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiveInvitation {
    /// The room.
    pub room: EntityId,
    /// What it is called.
    pub title: String,
    /// Who invited.
    pub by: MemberId,
}

/// See [`UserCommand::EndInvitation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndInvitation {
    /// The room.
    pub room: EntityId,
    /// How.
    pub outcome: InvitationOutcome,
}

/// See [`UserCommand::MoveReadMarker`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveReadMarker {
    /// The room.
    pub room: EntityId,
    /// The last revision read.
    pub revision: Revision,
}

/// See [`UserCommand::StartSession`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSession {
    /// The session's name.
    pub session: CommandId,
    /// What the person would call the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}
