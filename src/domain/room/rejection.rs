//! Why a room says no.

use std::fmt;

use dramatis_events::{MemberId, Revision};

use crate::domain::{Rejection, RejectionClass};

/// Why a room says no. Nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomRejection {
    /// The room was never opened.
    #[error("there is no such room: open it first, or check its id")]
    RoomNotFound,
    /// It was opened before.
    #[error("the room exists already: join it, or choose another id")]
    RoomExists,
    /// It was closed; nothing can happen in it.
    #[error("the room is closed and takes no more commands: its history can still be read")]
    RoomClosed,
    /// The author is not the owner.
    #[error("only the owner {owner} may do this, not {author}")]
    OwnerOnly {
        /// Who may.
        owner: MemberId,
        /// Who asked.
        author: MemberId,
    },
    /// The author is not in the room.
    #[error("only members may do this and {author} is none: join the room first")]
    NotAMember {
        /// Who asked.
        author: MemberId,
    },
    /// The one to be removed is not in the room.
    #[error("{member} is not a member of the room, so there is no one to remove")]
    MemberNotFound {
        /// Who was named.
        member: MemberId,
    },
    /// No one else fits in.
    #[error("the room is full: at most {max} members, and it has {got}")]
    RoomFull {
        /// The limit.
        max: usize,
        /// How many there are.
        got: usize,
    },
    /// Only who is invited may come in.
    #[error("only who is invited may join this room, and {author} is not: ask a member to invite you")]
    InvitationNeeded {
        /// Who asked.
        author: MemberId,
    },
    /// No invitation of this one waits for an answer.
    #[error("{member} has no invitation to this room that waits for an answer")]
    InvitationNotFound {
        /// Who was named, or asked.
        member: MemberId,
    },
    /// Neither a person nor a persona.
    #[error("only people and personas can be invited; {member} is neither")]
    NotInvitable {
        /// Who was named.
        member: MemberId,
    },
    /// Too many have not answered yet.
    #[error("at most {max} invitations to a room may wait for an answer, and {got} do: withdraw some first")]
    TooManyInvitations {
        /// The limit.
        max: usize,
        /// How many there are.
        got: usize,
    },
    /// The event that the command refers to is no message.
    #[error("expected the revision of a posted message in this room; revision {target} is none")]
    MessageNotFound {
        /// What was named.
        target: Revision,
    },
    /// Someone else's message.
    #[error("only its author {message_author} may edit this message, not {author}")]
    AuthorOnly {
        /// Who may.
        message_author: MemberId,
        /// Who asked.
        author: MemberId,
    },
    /// Someone else's message, and the author does not own the room.
    #[error(
        "only its author {message_author} or the room's owner {owner} may redact this message, not {author}"
    )]
    AuthorOrOwnerOnly {
        /// Who may.
        message_author: MemberId,
        /// Who may too.
        owner: MemberId,
        /// Who asked.
        author: MemberId,
    },
    /// The field holds nothing but white space.
    #[error("{field} must hold more than white space")]
    Empty {
        /// Which field.
        field: Field,
    },
    /// The field is too long.
    #[error("{field} may have at most {max} characters, got {got}: shorten it")]
    TooLong {
        /// Which field.
        field: Field,
        /// The limit, in characters.
        max: usize,
        /// The length, in characters.
        got: usize,
    },
    /// A character that a line of text cannot show.
    #[error("{field} must be visible text on one line; it holds {got:?}: remove it")]
    Unprintable {
        /// Which field.
        field: Field,
        /// The first such character.
        got: char,
    },
    /// Not a reaction.
    #[error("emoji must be 1 to {max} characters without white space or control characters; got {got:?}")]
    EmojiInvalid {
        /// The limit, in characters.
        max: usize,
        /// What came, cut to one character more than the limit.
        got: String,
    },
}

/// A text that a person chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The room's title.
    Title,
    /// A member's name in the room.
    DisplayName,
    /// A message's words.
    Text,
    /// Why something is done.
    Reason,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Title => "title",
            Self::DisplayName => "display_name",
            Self::Text => "text",
            Self::Reason => "reason",
        })
    }
}

impl Rejection for RoomRejection {
    fn word(&self) -> &'static str {
        match self {
            Self::RoomNotFound => "room_not_found",
            Self::RoomExists => "room_exists",
            Self::RoomClosed => "room_closed",
            Self::OwnerOnly { .. } => "owner_only",
            Self::NotAMember { .. } => "not_a_member",
            Self::MemberNotFound { .. } => "member_not_found",
            Self::RoomFull { .. } => "room_full",
            Self::InvitationNeeded { .. } => "invitation_needed",
            Self::InvitationNotFound { .. } => "invitation_not_found",
            Self::NotInvitable { .. } => "not_invitable",
            Self::TooManyInvitations { .. } => "too_many_invitations",
            Self::MessageNotFound { .. } => "message_not_found",
            Self::AuthorOnly { .. } => "author_only",
            Self::AuthorOrOwnerOnly { .. } => "author_or_owner_only",
            Self::Empty { field } => match field {
                Field::Title => "title_empty",
                Field::DisplayName => "display_name_empty",
                Field::Text => "text_empty",
                Field::Reason => "reason_empty",
            },
            Self::TooLong { field, .. } => match field {
                Field::Title => "title_too_long",
                Field::DisplayName => "display_name_too_long",
                Field::Text => "text_too_long",
                Field::Reason => "reason_too_long",
            },
            Self::Unprintable { field, .. } => match field {
                Field::Title => "title_invalid",
                Field::DisplayName => "display_name_invalid",
                Field::Text => "text_invalid",
                Field::Reason => "reason_invalid",
            },
            Self::EmojiInvalid { .. } => "emoji_invalid",
        }
    }

    fn class(&self) -> RejectionClass {
        match self {
            Self::RoomNotFound
            | Self::MemberNotFound { .. }
            | Self::InvitationNotFound { .. }
            | Self::MessageNotFound { .. } => RejectionClass::NotFound,
            Self::NotAMember { .. } => RejectionClass::NotAMember,
            Self::OwnerOnly { .. }
            | Self::InvitationNeeded { .. }
            | Self::AuthorOnly { .. }
            | Self::AuthorOrOwnerOnly { .. } => RejectionClass::Forbidden,
            Self::RoomExists
            | Self::RoomClosed
            | Self::RoomFull { .. }
            | Self::NotInvitable { .. }
            | Self::TooManyInvitations { .. }
            | Self::Empty { .. }
            | Self::TooLong { .. }
            | Self::Unprintable { .. }
            | Self::EmojiInvalid { .. } => RejectionClass::Rule,
        }
    }
}
