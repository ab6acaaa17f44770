//! What may be asked of a room, and its JSON form.

use dramatis_events::room::{MessageKind, Visibility};
use dramatis_events::{MemberId, Revision};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::command::commands;

commands! {
    /// A wish to change a room.
    RoomCommand, "a room";
    /// Brings the room to be; its author becomes the owner.
    "open_room" => OpenRoom,
    /// Gives it another title.
    "rename_room" => RenameRoom,
    /// Ends it: nothing can happen in it any more.
    "close_room" => CloseRoom,
    /// Lets others read it than before.
    "set_visibility" => SetVisibility,
    /// Enters.
    "join" => Join,
    /// Goes away.
    "leave" => Leave,
    /// Sends someone else away.
    "remove_member" => RemoveMember,
    /// Asks someone to come in.
    "invite_member" => InviteMember,
    /// Says that the author, who was invited, will not come; `join` says that they do.
    "decline_invitation" => DeclineInvitation,
    /// Takes an invitation back.
    "withdraw_invitation" => WithdrawInvitation,
    /// Takes another display name.
    "rename_member" => RenameMember,
    /// Says or does something.
    "post_message" => PostMessage,
    /// Replaces the text of a message.
    "edit_message" => EditMessage,
    /// Hides a message for good.
    "redact_message" => RedactMessage,
    /// Reacts to a message.
    "add_reaction" => AddReaction,
    /// Takes a reaction back.
    "remove_reaction" => RemoveReaction,
}

impl RoomCommand {
    /// The message that the command refers to.
    pub fn target(&self) -> Option<Revision> {
        match self {
            Self::PostMessage(asked) => asked.reply_to,
            Self::EditMessage(asked) => Some(asked.target),
            Self::RedactMessage(asked) => Some(asked.target),
            Self::AddReaction(asked) => Some(asked.target),
            Self::RemoveReaction(asked) => Some(asked.target),
            Self::OpenRoom(_)
            | Self::RenameRoom(_)
            | Self::CloseRoom(_)
            | Self::SetVisibility(_)
            | Self::InviteMember(_)
            | Self::DeclineInvitation(_)
            | Self::WithdrawInvitation(_)
            | Self::Join(_)
            | Self::Leave(_)
            | Self::RemoveMember(_)
            | Self::RenameMember(_) => None,
        }
    }
}

/// See [`RoomCommand::OpenRoom`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenRoom {
    /// What the room is to be called.
    pub title: String,
    /// Who may read it: anyone, unless it is said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub visibility: Visibility,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_default(visibility: &Visibility) -> bool {
    *visibility == Visibility::default()
}

/// See [`RoomCommand::RenameRoom`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameRoom {
    /// The title from now on.
    pub title: String,
}

/// See [`RoomCommand::CloseRoom`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseRoom {
    /// Why, if the owner says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomCommand::SetVisibility`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetVisibility {
    /// Who may read it from now on.
    pub visibility: Visibility,
}

/// See [`RoomCommand::InviteMember`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteMember {
    /// Who is to come: a person or a persona.
    pub member: MemberId,
}

/// See [`RoomCommand::DeclineInvitation`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclineInvitation {
    /// Why, if they say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomCommand::WithdrawInvitation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawInvitation {
    /// Who was invited.
    pub member: MemberId,
}

/// See [`RoomCommand::Join`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The name to be shown in this room; without it, the author's id without its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// See [`RoomCommand::Leave`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// Why, if the member says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomCommand::RemoveMember`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveMember {
    /// Who is to go.
    pub member: MemberId,
    /// Why, if the owner says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomCommand::RenameMember`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameMember {
    /// The author's own name from now on.
    pub display_name: String,
}

/// See [`RoomCommand::PostMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PostMessage {
    /// The words. Any character is allowed, control characters included.
    pub text: String,
    /// Said (the default) or done.
    #[serde(default)]
    pub kind: MessageKind,
    /// The message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Revision>,
}

/// See [`RoomCommand::EditMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditMessage {
    /// The message.
    pub target: Revision,
    /// Its words from now on.
    pub text: String,
}

/// See [`RoomCommand::RedactMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedactMessage {
    /// The message.
    pub target: Revision,
    /// Why, if it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`RoomCommand::AddReaction`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddReaction {
    /// The message.
    pub target: Revision,
    /// The reaction, usually one emoji.
    pub emoji: String,
}

/// See [`RoomCommand::RemoveReaction`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveReaction {
    /// The message.
    pub target: Revision,
    /// The reaction.
    pub emoji: String,
}
