//! The rules of a user's own stream: profile, notices of invitations, read markers, sessions.
//!
//! The decider does not ask who the author is: whoever chooses the stream lets the user send
//! what [`UserCommand::parse`] takes to their own stream only, and the rest is the platform's.

use dramatis_events::Revision;
use dramatis_events::user::UserEvent;

use super::line::fits_a_line;
use super::{Context, Decider, IllegalEvent};

mod command;
mod rejection;
mod rules;
mod state;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests;

pub use command::{
    DismissInvitation, EndInvitation, MoveReadMarker, ReceiveInvitation, SetProfile, StartSession,
    UserCommand,
};
pub use rejection::UserRejection;
pub use state::{Invitation, Profile, UserState};

/// The decider of streams of category `user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User;

/// Limits of a user's stream, in characters where they are of a text. They bind new commands only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserLimits {
    /// The longest display name.
    pub display_name_chars_max: usize,
    /// The longest reference to a picture.
    pub avatar_chars_max: usize,
    /// The longest name of a device; what is longer is cut.
    pub device_chars_max: usize,
    /// The most invitations that wait for an answer at a time; further ones are not noticed.
    pub invitations_max: usize,
    /// The most of them that come from one person or persona; of more the oldest gives way.
    pub invitations_per_inviter_max: usize,
}

impl UserLimits {
    /// What is kept of a device's name; none of one that says nothing.
    pub fn device(&self, name: &str) -> Option<String> {
        let kept: String =
            name.trim().chars().filter(|c| fits_a_line(*c)).take(self.device_chars_max).collect();
        (!kept.is_empty()).then_some(kept)
    }
}

impl Default for UserLimits {
    fn default() -> Self {
        Self {
            display_name_chars_max: 80,
            avatar_chars_max: 500,
            device_chars_max: 100,
            invitations_max: 1_000,
            invitations_per_inviter_max: 20,
        }
    }
}

impl Decider for User {
    const NAME: &'static str = "user";
    const STATE_VERSION: u32 = 2;

    type Command = UserCommand;
    type Event = UserEvent;
    type State = UserState;
    type Limits = UserLimits;
    type Rejection = UserRejection;

    fn target(_: &UserCommand) -> Option<Revision> {
        None
    }

    fn decide(
        state: &UserState,
        context: &Context<'_, Self>,
        command: &UserCommand,
    ) -> Result<Vec<UserEvent>, UserRejection> {
        let limits = context.limits;
        match command {
            UserCommand::SetProfile(asked) => rules::set_profile(state, limits, asked),
            UserCommand::DismissInvitation(asked) => rules::dismiss_invitation(state, asked),
            UserCommand::ReceiveInvitation(asked) => rules::receive_invitation(state, limits, asked),
            UserCommand::EndInvitation(asked) => Ok(rules::end_invitation(state, &asked.room, asked.outcome)),
            UserCommand::MoveReadMarker(asked) => Ok(rules::move_read_marker(state, asked)),
            UserCommand::StartSession(asked) => Ok(rules::start_session(limits, asked)),
        }
    }

    fn evolve(state: &mut UserState, event: &UserEvent) -> Result<(), IllegalEvent> {
        state.apply(event);
        Ok(())
    }
}
