//! The rules of a room: who may open it, speak in it and change what was said.
//!
//! State holds the room's title, its owner, its members, and who was invited or sent away, nothing
//! that grows with messages:
//! the message that a command refers to is read from the log and handed in. Two things follow.
//! The decider does not know whether a message was edited, redacted or reacted to before, so
//! doing it again records it again, and readers fold that to the same result. And a redaction
//! stands for good because readers give it precedence over any edit.

use dramatis_events::Revision;
use dramatis_events::room::RoomEvent;

use super::{Context, Decider, IllegalEvent};

mod command;
mod invitations;
mod limits;
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
mod words;

pub use command::{
    AddReaction, CloseRoom, DeclineInvitation, EditMessage, InviteMember, Join, Leave, OpenRoom, PostMessage,
    RedactMessage, RemoveMember, RemoveReaction, RenameMember, RenameRoom, RoomCommand, SetVisibility,
    WithdrawInvitation,
};
pub use limits::RoomLimits;
pub use rejection::{Field, RoomRejection};
pub use state::{Reading, RoomState};

use rules::Rules;
use state::Phase;

/// The decider of streams of category `room`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room;

impl Decider for Room {
    const NAME: &'static str = "room";
    const STATE_VERSION: u32 = 2;

    type Command = RoomCommand;
    type Event = RoomEvent;
    type State = RoomState;
    type Limits = RoomLimits;
    type Rejection = RoomRejection;

    fn target(command: &RoomCommand) -> Option<Revision> {
        command.target()
    }

    fn decide(
        state: &RoomState,
        context: &Context<'_, Self>,
        command: &RoomCommand,
    ) -> Result<Vec<RoomEvent>, RoomRejection> {
        let room = match (&state.phase, command) {
            (Phase::NotOpened, RoomCommand::OpenRoom(asked)) => return rules::open(context, asked),
            (Phase::NotOpened, _) => return Err(RoomRejection::RoomNotFound),
            (Phase::Closed(room), _) if room.reading(context.author).may_read() => {
                return Err(RoomRejection::RoomClosed);
            }
            (Phase::Open(room) | Phase::Closed(room), _) => room,
        };
        // Whatever else the caller read, only the event that the command names counts.
        let target = context.target.filter(|target| Some(target.revision) == command.target());
        let rules = Rules { room, author: context.author, target, limits: context.limits };
        let decision = match command {
            RoomCommand::OpenRoom(_) => Err(RoomRejection::RoomExists),
            RoomCommand::RenameRoom(asked) => rules.rename_room(asked),
            RoomCommand::CloseRoom(asked) => rules.close_room(asked),
            RoomCommand::SetVisibility(asked) => rules.set_visibility(asked),
            RoomCommand::InviteMember(asked) => rules.invite_member(asked),
            RoomCommand::DeclineInvitation(asked) => rules.decline_invitation(asked),
            RoomCommand::WithdrawInvitation(asked) => rules.withdraw_invitation(asked),
            RoomCommand::Join(asked) => rules.join(asked),
            RoomCommand::Leave(asked) => rules.leave(asked),
            RoomCommand::RemoveMember(asked) => rules.remove_member(asked),
            RoomCommand::RenameMember(asked) => rules.rename_member(asked),
            RoomCommand::PostMessage(asked) => rules.post_message(asked),
            RoomCommand::EditMessage(asked) => rules.edit_message(asked),
            RoomCommand::RedactMessage(asked) => rules.redact_message(asked),
            RoomCommand::AddReaction(asked) => rules.add_reaction(asked),
            RoomCommand::RemoveReaction(asked) => rules.remove_reaction(asked),
        };
        // Who may not read the room is refused as by an open one: whether it was closed is not theirs to know.
        if state.is_open() { decision } else { Err(decision.err().unwrap_or(RoomRejection::RoomClosed)) }
    }

    fn evolve(state: &mut RoomState, event: &RoomEvent) -> Result<(), IllegalEvent> {
        state.apply(event)
    }
}
