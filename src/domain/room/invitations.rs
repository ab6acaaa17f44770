//! The rules of who may read a room, and of those who are asked to come in.

use dramatis_events::room::{
    InvitationAccepted, InvitationDeclined, InvitationWithdrawn, MemberInvited, RoomVisibilitySet, Visibility,
};
use dramatis_events::{MemberId, MemberKind};

use super::rules::{Decision, Rules, one};
use super::words::check_reason;
use super::{DeclineInvitation, InviteMember, RoomRejection, SetVisibility, WithdrawInvitation};

impl Rules<'_> {
    pub(super) fn set_visibility(&self, asked: &SetVisibility) -> Decision {
        self.owner_only()?;
        if asked.visibility == self.room.visibility {
            return Ok(Vec::new());
        }
        Ok(one(RoomVisibilitySet { visibility: asked.visibility }))
    }

    pub(super) fn invite_member(&self, asked: &InviteMember) -> Decision {
        let room = self.room;
        // An owner keeps order in a room they need not be in: whom they sent away, they ask back.
        if room.removed.contains(&asked.member) {
            self.owner_only()?;
        } else if *self.author != room.owner {
            self.members_only()?;
        }
        match asked.member.kind() {
            MemberKind::User | MemberKind::Persona => {}
            MemberKind::Integration | MemberKind::System => {
                return Err(RoomRejection::NotInvitable { member: asked.member.clone() });
            }
        }
        if room.members.contains_key(&asked.member) || room.invited.contains(&asked.member) {
            return Ok(Vec::new());
        }
        let (got, max) = (room.invited.len(), self.limits.invitations_max);
        if got >= max {
            return Err(RoomRejection::TooManyInvitations { max, got });
        }
        Ok(one(MemberInvited { member: asked.member.clone(), title: room.title.clone() }))
    }

    pub(super) fn decline_invitation(&self, asked: &DeclineInvitation) -> Decision {
        self.invited_only(self.author)?;
        check_reason(asked.reason.as_deref(), self.limits)?;
        Ok(one(InvitationDeclined { member: self.author.clone(), reason: asked.reason.clone() }))
    }

    pub(super) fn withdraw_invitation(&self, asked: &WithdrawInvitation) -> Decision {
        self.owner_only()?;
        self.invited_only(&asked.member)?;
        Ok(one(InvitationWithdrawn { member: asked.member.clone() }))
    }

    /// Whether the author may come in, or is in.
    pub(super) fn may_join(&self) -> Result<(), RoomRejection> {
        let room = self.room;
        let welcome = match room.visibility {
            Visibility::Open => true,
            Visibility::Invited => {
                *self.author == room.owner
                    || room.members.contains_key(self.author)
                    || room.invited.contains(self.author)
            }
        };
        if welcome { Ok(()) } else { Err(RoomRejection::InvitationNeeded { author: self.author.clone() }) }
    }

    /// That the author, coming in, was invited.
    pub(super) fn accepted(&self) -> Option<InvitationAccepted> {
        self.room.invited.contains(self.author).then(|| InvitationAccepted { member: self.author.clone() })
    }

    fn invited_only(&self, member: &MemberId) -> Result<(), RoomRejection> {
        if self.room.invited.contains(member) {
            return Ok(());
        }
        Err(RoomRejection::InvitationNotFound { member: member.clone() })
    }
}
