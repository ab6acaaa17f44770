//! What a latecomer is shown of a stream in place of its history: public state, from the entity.

use dramatis_events::room::Visibility;
use dramatis_events::{EntityId, MemberId, Personal, Revision};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::domain::room::RoomState;
use crate::domain::user::{Invitation, Profile, UserState};

/// Members listed in a room's state; the rest is counted, and listed by the API.
const MEMBERS_LISTED_MAX: usize = 500;

#[derive(Serialize)]
struct RoomShown<'a> {
    title: Option<&'a str>,
    owner: Option<&'a MemberId>,
    visibility: Option<Visibility>,
    is_open: bool,
    member_count: usize,
    /// By id; whether these are all, the count tells.
    members: Vec<MemberShown<'a>>,
}

#[derive(Serialize)]
struct MemberShown<'a> {
    member: &'a MemberId,
    display_name: &'a Personal,
}

#[derive(Serialize)]
struct UserShown<'a> {
    profile: &'a Profile,
    invitations: Vec<InvitationShown<'a>>,
    read_markers: Vec<MarkerShown<'a>>,
}

#[derive(Serialize)]
struct InvitationShown<'a> {
    room: &'a EntityId,
    #[serde(flatten)]
    invitation: &'a Invitation,
}

#[derive(Serialize)]
struct MarkerShown<'a> {
    room: &'a EntityId,
    revision: Revision,
}

/// A room as those who may read it see it.
pub(crate) fn room(state: &RoomState) -> Option<Box<RawValue>> {
    let members = state.members().take(MEMBERS_LISTED_MAX);
    let shown = RoomShown {
        title: state.title(),
        owner: state.owner(),
        visibility: state.visibility(),
        is_open: state.is_open(),
        member_count: state.members().count(),
        members: members.map(|(member, display_name)| MemberShown { member, display_name }).collect(),
    };
    to_raw_value(&shown).ok()
}

/// A user as they themselves see it.
pub(crate) fn user(state: &UserState) -> Option<Box<RawValue>> {
    let invitations = state.invitations().map(|(room, invitation)| InvitationShown { room, invitation });
    let markers = state.read_markers().map(|(room, revision)| MarkerShown { room, revision });
    let shown = UserShown {
        profile: state.profile(),
        invitations: invitations.collect(),
        read_markers: markers.collect(),
    };
    to_raw_value(&shown).ok()
}
