//! What deciding needs to know of a user, folded from their events, and what they are shown of it.

use std::collections::BTreeMap;

use dramatis_events::user::{ProfileChanged, UserEvent};
use dramatis_events::{EntityId, MemberId, Personal, Revision};
use serde::{Deserialize, Serialize};

/// A user as their events have made them. Bounded: neither sessions nor what was read in rooms
/// of long ago stays.
///
/// Its serialized form is kept in entity snapshots: a change of it raises the decider's
/// `STATE_VERSION`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserState {
    profile: Profile,
    invitations: BTreeMap<EntityId, Waiting>,
    /// How many invitations ever came.
    received: u64,
    markers: BTreeMap<EntityId, Marker>,
    /// How often any marker has moved.
    moves: u64,
}

/// What a user tells of themselves. Absent is what they do not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name to go by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Personal>,
    /// Where a picture is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<Personal>,
    /// A language tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<Personal>,
}

/// A room that asks for the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// What the room was called then.
    pub title: String,
    /// Who invited.
    pub by: MemberId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    invitation: Invitation,
    /// Which of those that ever came it was.
    came: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    revision: Revision,
    /// Which of the user's moves it was.
    moved: u64,
}

/// Rooms of which it is known how far the user has read; beyond that, the room they read last
/// the longest ago counts as never read.
const MARKERS_MAX: usize = 5_000;

impl UserState {
    /// What the user tells of themselves.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The invitations that wait for an answer, by room.
    pub fn invitations(&self) -> impl Iterator<Item = (&EntityId, &Invitation)> {
        self.invitations.iter().map(|(room, waiting)| (room, &waiting.invitation))
    }

    /// The rooms that this one invites to, the one that has waited longest first.
    pub(super) fn invited_by(&self, inviter: &MemberId) -> Vec<&EntityId> {
        let of_inviter = self.invitations.iter().filter(|(_, waiting)| waiting.invitation.by == *inviter);
        let mut of_inviter: Vec<_> = of_inviter.map(|(room, waiting)| (waiting.came, room)).collect();
        of_inviter.sort_unstable();
        of_inviter.into_iter().map(|(_, room)| room).collect()
    }

    /// The invitation to this room, if it waits for an answer.
    pub fn invitation(&self, room: &EntityId) -> Option<&Invitation> {
        self.invitations.get(room).map(|waiting| &waiting.invitation)
    }

    /// How far the user has read in this room.
    pub fn read_marker(&self, room: &EntityId) -> Option<Revision> {
        self.markers.get(room).map(|marker| marker.revision)
    }

    /// How far the user has read, by room.
    pub fn read_markers(&self) -> impl Iterator<Item = (&EntityId, Revision)> {
        self.markers.iter().map(|(room, marker)| (room, marker.revision))
    }

    /// Whether the profile is this one already. Values are compared as they stand, plain or
    /// sealed; they are never read.
    pub(super) fn is_profile(&self, changed: &ProfileChanged) -> bool {
        let Profile { display_name, avatar, locale } = &self.profile;
        (display_name, avatar, locale) == (&changed.display_name, &changed.avatar, &changed.locale)
    }

    /// Folds one event. No order of them is illegal.
    pub(super) fn apply(&mut self, event: &UserEvent) {
        match event {
            UserEvent::ProfileChanged(ProfileChanged { display_name, avatar, locale }) => {
                self.profile = Profile {
                    display_name: display_name.clone(),
                    avatar: avatar.clone(),
                    locale: locale.clone(),
                };
            }
            UserEvent::InvitationReceived(received) => {
                let invitation = Invitation { title: received.title.clone(), by: received.by.clone() };
                self.received = self.received.saturating_add(1);
                self.invitations.insert(received.room.clone(), Waiting { invitation, came: self.received });
            }
            UserEvent::InvitationEnded(ended) => {
                self.invitations.remove(&ended.room);
            }
            UserEvent::ReadMarkerMoved(moved) => self.read(&moved.room, moved.revision),
            // A session is known by the command that recorded it, for ever.
            UserEvent::SessionStarted(_) => {}
        }
    }

    fn read(&mut self, room: &EntityId, revision: Revision) {
        self.moves = self.moves.saturating_add(1);
        self.markers.insert(room.clone(), Marker { revision, moved: self.moves });
        if self.markers.len() > MARKERS_MAX {
            let oldest = self.markers.iter().min_by_key(|(_, marker)| marker.moved);
            if let Some(room) = oldest.map(|(room, _)| room.clone()) {
                self.markers.remove(&room);
            }
        }
    }
}
