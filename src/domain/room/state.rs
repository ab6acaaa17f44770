//! What deciding needs to know of a room, folded from its events.

use std::collections::BTreeMap;

use dramatis_events::room::RoomEvent;
use dramatis_events::{Event, MemberId, Personal};
use serde::{Deserialize, Serialize};

use crate::domain::IllegalEvent;

/// A room as its events have made it. It grows with members, never with messages.
///
/// Its serialized form is kept in entity snapshots: a change of it raises the decider's
/// `STATE_VERSION`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomState {
    pub(super) phase: Phase,
}

/// A room's life: it is opened once and closed once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    #[default]
    NotOpened,
    Open(Details),
    Closed(Details),
}

/// What is known of a room from its opening on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Details {
    pub(super) title: String,
    pub(super) owner: MemberId,
    /// Names are compared as they stand, plain or sealed; they are never read.
    pub(super) members: BTreeMap<MemberId, Personal<String>>,
}

impl RoomState {
    /// Whether the room was ever opened.
    pub fn exists(&self) -> bool {
        self.details().is_some()
    }

    /// Whether commands may still change it.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// The title, once opened.
    pub fn title(&self) -> Option<&str> {
        self.details().map(|room| room.title.as_str())
    }

    /// The owner, once opened.
    pub fn owner(&self) -> Option<&MemberId> {
        self.details().map(|room| &room.owner)
    }

    /// Whether this one is a member; in a closed room, whether they were when it closed.
    pub fn is_member(&self, member: &MemberId) -> bool {
        self.details().is_some_and(|room| room.members.contains_key(member))
    }

    /// The members with their display names, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = (&MemberId, &Personal<String>)> {
        self.details().into_iter().flat_map(|room| &room.members)
    }

    fn details(&self) -> Option<&Details> {
        match &self.phase {
            Phase::NotOpened => None,
            Phase::Open(room) | Phase::Closed(room) => Some(room),
        }
    }

    /// Folds one event. An event that is refused leaves the state as it was.
    pub(super) fn apply(&mut self, event: &RoomEvent) -> Result<(), IllegalEvent> {
        let refuse = |reason| Err(IllegalEvent::OutOfPlace { event: event.name(), reason });
        let room = match (&mut self.phase, event) {
            (Phase::NotOpened, RoomEvent::RoomOpened(opened)) => {
                self.phase = Phase::Open(Details {
                    title: opened.title.clone(),
                    owner: opened.owner.clone(),
                    members: BTreeMap::new(),
                });
                return Ok(());
            }
            (Phase::NotOpened, _) => return refuse("the room was not opened before it"),
            (Phase::Closed(_), _) => return refuse("the room was closed before it"),
            (Phase::Open(room), _) => room,
        };
        match event {
            RoomEvent::RoomOpened(_) => return refuse("the room was opened before"),
            RoomEvent::RoomRenamed(renamed) => room.title.clone_from(&renamed.title),
            RoomEvent::RoomClosed(_) => self.close(),
            RoomEvent::MemberJoined(joined) => {
                if room.members.contains_key(&joined.member) {
                    return refuse("the member had joined before and not left");
                }
                room.members.insert(joined.member.clone(), joined.display_name.clone());
            }
            RoomEvent::MemberLeft(left) => {
                if room.members.remove(&left.member).is_none() {
                    return refuse("the one who left was no member");
                }
            }
            RoomEvent::MemberRenamed(renamed) => match room.members.get_mut(&renamed.member) {
                Some(display_name) => display_name.clone_from(&renamed.display_name),
                None => return refuse("the one renamed is no member"),
            },
            // What they refer to was checked when they were decided; state knows no messages.
            RoomEvent::MessagePosted(_)
            | RoomEvent::MessageEdited(_)
            | RoomEvent::MessageRedacted(_)
            | RoomEvent::ReactionAdded(_)
            | RoomEvent::ReactionRemoved(_) => {}
        }
        Ok(())
    }

    fn close(&mut self) {
        self.phase = match std::mem::take(&mut self.phase) {
            Phase::Open(room) => Phase::Closed(room),
            other @ (Phase::NotOpened | Phase::Closed(_)) => other,
        };
    }
}
