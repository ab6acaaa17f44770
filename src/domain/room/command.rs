//! What may be asked of a room, and its JSON form.
//!
//! A command's canonical data is its typed form written again: fields in the order declared,
//! absent options left out. Two spellings of the same wish have one content hash.

use dramatis_events::room::MessageKind;
use dramatis_events::{ContentHash, MemberId, Revision, StreamId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Declares the enum of commands, each variant holding one struct of its name.
macro_rules! room_commands {
    ($($(#[$doc:meta])* $name:literal => $variant:ident),+ $(,)?) => {
        /// A wish to change a room.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum RoomCommand {
            $($(#[$doc])* $variant($variant)),+
        }

        impl RoomCommand {
            /// Every command name.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// Reads a command from its name and its JSON data.
            pub fn parse(name: &str, data: &RawValue) -> Result<Self, CommandError> {
                match name {
                    $($name => read($name, data).map(Self::$variant),)+
                    _ => Err(CommandError::unknown_name(name)),
                }
            }

            /// The command's name, such as `post_message`.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name),+ }
            }

            /// The command's data in its canonical JSON form; `parse` reads it back.
            pub fn data(&self) -> Box<RawValue> {
                match self { $(Self::$variant(data) => write(data)),+ }
            }
        }

        $(impl From<$variant> for RoomCommand {
            fn from(data: $variant) -> Self {
                Self::$variant(data)
            }
        })+
    };
}

room_commands! {
    /// Brings the room to be; its author becomes the owner.
    "open_room" => OpenRoom,
    /// Gives it another title.
    "rename_room" => RenameRoom,
    /// Ends it: nothing can happen in it any more.
    "close_room" => CloseRoom,
    /// Enters.
    "join" => Join,
    /// Goes away.
    "leave" => Leave,
    /// Sends someone else away.
    "remove_member" => RemoveMember,
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
            | Self::Join(_)
            | Self::Leave(_)
            | Self::RemoveMember(_)
            | Self::RenameMember(_) => None,
        }
    }

    /// The hash of what is asked: the room's stream, the name and the canonical data. The
    /// expected revision is no part of it: it says when to do a thing, not which.
    pub fn content_hash(&self, stream: &StreamId) -> ContentHash {
        ContentHash::of(&[stream.as_str().as_bytes(), self.name().as_bytes(), self.data().get().as_bytes()])
    }
}

/// See [`RoomCommand::OpenRoom`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenRoom {
    /// What the room is to be called.
    pub title: String,
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

/// Why a name and its data are no command of a room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such command.
    #[error("unknown command {name:?}: a room takes {}", RoomCommand::NAMES.join(", "))]
    UnknownName {
        /// What came, cut to what is worth showing.
        name: String,
    },
    /// A field is missing, mistyped or unknown.
    #[error("the data of {name} does not fit: {reason}")]
    Data {
        /// The command's name.
        name: &'static str,
        /// Which field, what was expected and what came.
        reason: String,
    },
}

/// How much of an unknown name an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 64;

impl CommandError {
    fn unknown_name(name: &str) -> Self {
        Self::UnknownName { name: name.chars().take(SHOWN_CHARS_MAX).collect() }
    }
}

fn read<'de, T: Deserialize<'de>>(name: &'static str, data: &'de RawValue) -> Result<T, CommandError> {
    let error = |reason: String| CommandError::Data { name, reason };
    // Serde would also take an array for a struct, field by field in order.
    if !data.get().starts_with('{') {
        return Err(error("expected a JSON object".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_str(data.get());
    serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let field = e.path().to_string();
        let reason = e.into_inner().to_string();
        // A missing field has no path; the parser's own words name it.
        if field == "." { error(reason) } else { error(format!("field {field}: {reason}")) }
    })
}

#[expect(clippy::expect_used, reason = "command data is texts and numbers, which always serialize")]
fn write(data: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(data).expect("command data serializes")
}
