//! Why a user's stream says no.

use dramatis_events::EntityId;

use crate::domain::line::LineFault;
use crate::domain::{Rejection, RejectionClass};

/// Why a user's stream says no. Nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserRejection {
    /// A name of nothing but white space.
    #[error("display_name must hold more than white space; leave it out to go by none")]
    DisplayNameEmpty,
    /// The name is too long.
    #[error("display_name may have at most {max} characters, got {got}: shorten it")]
    DisplayNameTooLong {
        /// The limit, in characters.
        max: usize,
        /// The length, in characters.
        got: usize,
    },
    /// A character that a line of text cannot show.
    #[error("display_name must be visible text on one line; it holds {got:?}: remove it")]
    DisplayNameInvalid {
        /// The first such character.
        got: char,
    },
    /// Not a reference.
    #[error("avatar must be 1 to {max} visible characters without white space, an address for example")]
    AvatarInvalid {
        /// The limit, in characters.
        max: usize,
    },
    /// Not a language tag.
    #[error("locale must be a language tag of at most {max} characters such as pt-BR")]
    LocaleInvalid {
        /// The limit, in characters.
        max: usize,
    },
    /// No invitation to this room waits for an answer.
    #[error("there is no invitation to room {room} that waits for an answer")]
    InvitationNotFound {
        /// The room named.
        room: EntityId,
    },
    /// Too many wait for an answer.
    #[error("at most {max} invitations may wait for an answer: answer or dismiss some first")]
    TooManyInvitations {
        /// The limit.
        max: usize,
    },
}

impl UserRejection {
    pub(super) fn display_name(fault: LineFault, max: usize) -> Self {
        match fault {
            LineFault::Empty => Self::DisplayNameEmpty,
            LineFault::TooLong { got } => Self::DisplayNameTooLong { max, got },
            LineFault::Unprintable { got } => Self::DisplayNameInvalid { got },
        }
    }
}

impl Rejection for UserRejection {
    fn word(&self) -> &'static str {
        match self {
            Self::DisplayNameEmpty => "display_name_empty",
            Self::DisplayNameTooLong { .. } => "display_name_too_long",
            Self::DisplayNameInvalid { .. } => "display_name_invalid",
            Self::AvatarInvalid { .. } => "avatar_invalid",
            Self::LocaleInvalid { .. } => "locale_invalid",
            Self::InvitationNotFound { .. } => "invitation_not_found",
            Self::TooManyInvitations { .. } => "too_many_invitations",
        }
    }

    fn class(&self) -> RejectionClass {
        match self {
            Self::InvitationNotFound { .. } => RejectionClass::NotFound,
            Self::DisplayNameEmpty
            | Self::DisplayNameTooLong { .. }
            | Self::DisplayNameInvalid { .. }
            | Self::AvatarInvalid { .. }
            | Self::LocaleInvalid { .. }
            | Self::TooManyInvitations { .. } => RejectionClass::Rule,
        }
    }
}
