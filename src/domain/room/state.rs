//! What deciding needs to know of a room, folded from its events.

use std::collections::{BTreeMap, BTreeSet};

use dramatis_events::room::{
    InvitationAccepted, InvitationDeclined, InvitationWithdrawn, RoomEvent, Visibility,
};
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
    pub(super) members: BTreeMap<MemberId, Personal>,
    pub(super) visibility: Visibility,
    /// Who was invited and has not answered.
    pub(super) invited: BTreeSet<MemberId>,
    /// Who was sent away and neither came back nor was invited since, the latest last.
    pub(super) removed: Vec<MemberId>,
}

/// So many are remembered as sent away; beyond that the one of longest ago may read again.
const REMOVED_MAX: usize = 1_000;

impl Details {
    /// How this one stands to its reading while it is open.
    pub(super) fn reading(&self, member: &MemberId) -> Reading {
        Reading {
            visibility: self.visibility,
            is_member: self.members.contains_key(member),
            is_removed: self.removed.contains(member),
            is_closed: false,
        }
    }

    fn come(&mut self, member: &MemberId) {
        self.invited.remove(member);
        self.removed.retain(|gone| gone != member);
    }

    fn send_away(&mut self, member: &MemberId) {
        if self.removed.len() >= REMOVED_MAX {
            self.removed.remove(0);
        }
        self.removed.push(member.clone());
    }
}

/// How somebody stands to the reading of a room, and to being heard in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Who may read the room.
    pub visibility: Visibility,
    /// Whether they are in it.
    pub is_member: bool,
    /// Whether they were sent away.
    pub is_removed: bool,
    /// Whether the room was closed.
    pub is_closed: bool,
}

impl Reading {
    /// Whether they may read it.
    pub fn may_read(self) -> bool {
        match self.visibility {
            Visibility::Open => !self.is_removed,
            Visibility::Invited => self.is_member,
        }
    }

    /// Whether what they do besides is told to all others who follow it: who may read an open room may join
    /// it.
    pub fn may_be_heard(self) -> bool {
        !self.is_closed && self.may_read()
    }

    /// Folds an event that came after, as it concerns this member.
    #[must_use]
    pub fn after(mut self, event: &RoomEvent, member: &MemberId) -> Self {
        match event {
            RoomEvent::RoomVisibilitySet(set) => self.visibility = set.visibility,
            RoomEvent::MemberJoined(joined) if joined.member == *member => {
                (self.is_member, self.is_removed) = (true, false);
            }
            RoomEvent::MemberLeft(left) if left.member == *member => self.is_member = false,
            RoomEvent::MemberRemoved(removed) if removed.member == *member => {
                (self.is_member, self.is_removed) = (false, true);
            }
            RoomEvent::MemberInvited(invited) if invited.member == *member => self.is_removed = false,
            RoomEvent::RoomClosed(_) => self.is_closed = true,
            _ => {}
        }
        self
    }

    /// The names of the events that [`Reading::after`] looks at.
    pub const EVENTS: &'static [&'static str] =
        &["RoomVisibilitySet", "MemberJoined", "MemberLeft", "MemberRemoved", "MemberInvited", "RoomClosed"];
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
    pub fn members(&self) -> impl Iterator<Item = (&MemberId, &Personal)> {
        self.details().into_iter().flat_map(|room| &room.members)
    }

    /// Who may read it, once opened.
    pub fn visibility(&self) -> Option<Visibility> {
        self.details().map(|room| room.visibility)
    }

    /// Whether this one was invited and has not answered.
    pub fn is_invited(&self, member: &MemberId) -> bool {
        self.details().is_some_and(|room| room.invited.contains(member))
    }

    /// How this one stands to the reading of the room; `None` if it was never opened.
    pub fn reading(&self, member: &MemberId) -> Option<Reading> {
        let reading = self.details()?.reading(member);
        Some(Reading { is_closed: !self.is_open(), ..reading })
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
                    visibility: Visibility::default(),
                    invited: BTreeSet::new(),
                    removed: Vec::new(),
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
                room.come(&joined.member);
            }
            RoomEvent::MemberLeft(left) => {
                if room.members.remove(&left.member).is_none() {
                    return refuse("the one who left was no member");
                }
            }
            RoomEvent::MemberRemoved(removed) => {
                if room.members.remove(&removed.member).is_none() {
                    return refuse("the one sent away was no member");
                }
                room.send_away(&removed.member);
            }
            RoomEvent::RoomVisibilitySet(set) => room.visibility = set.visibility,
            RoomEvent::MemberInvited(invited) => {
                room.come(&invited.member);
                room.invited.insert(invited.member.clone());
            }
            RoomEvent::InvitationAccepted(InvitationAccepted { member })
            | RoomEvent::InvitationDeclined(InvitationDeclined { member, .. })
            | RoomEvent::InvitationWithdrawn(InvitationWithdrawn { member }) => {
                if !room.invited.remove(member) {
                    return refuse("there was no such invitation");
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
