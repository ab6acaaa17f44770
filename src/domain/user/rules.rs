//! What each command leads to, given the user it meets.

use dramatis_events::user::{
    InvitationEnded, InvitationOutcome, InvitationReceived, ProfileChanged, ReadMarkerMoved, SessionStarted,
    UserEvent,
};
use dramatis_events::{EntityId, MemberKind, Personal};

use super::{
    DismissInvitation, MoveReadMarker, ReceiveInvitation, SetProfile, StartSession, UserLimits,
    UserRejection, UserState,
};
use crate::domain::line::{check_line, fits_a_line};

type Decision = Result<Vec<UserEvent>, UserRejection>;

/// The longest language tag, in characters: BCP 47 knows none longer that is registered whole.
const LOCALE_CHARS_MAX: usize = 35;

pub(super) fn set_profile(state: &UserState, limits: &UserLimits, asked: &SetProfile) -> Decision {
    if let Some(name) = &asked.display_name {
        let max = limits.display_name_chars_max;
        check_line(name, max).map_err(|fault| UserRejection::display_name(fault, max))?;
    }
    if let Some(avatar) = &asked.avatar {
        check_avatar(avatar, limits.avatar_chars_max)?;
    }
    if let Some(locale) = &asked.locale {
        check_locale(locale)?;
    }
    let personal = |text: &Option<String>| text.as_deref().map(Personal::from);
    let changed = ProfileChanged {
        display_name: personal(&asked.display_name),
        avatar: personal(&asked.avatar),
        locale: personal(&asked.locale),
    };
    if state.is_profile(&changed) {
        return Ok(Vec::new());
    }
    Ok(vec![changed.into()])
}

fn check_avatar(avatar: &str, max: usize) -> Result<(), UserRejection> {
    let visible = avatar.chars().all(|c| !c.is_whitespace() && fits_a_line(c));
    if visible && !avatar.is_empty() && avatar.chars().nth(max).is_none() {
        return Ok(());
    }
    Err(UserRejection::AvatarInvalid { max })
}

/// The shape of a tag: subtags of letters and digits, the first of letters. Which are registered
/// changes too often to ask.
fn check_locale(locale: &str) -> Result<(), UserRejection> {
    let is_subtag =
        |tag: &str| (1..=8).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric());
    let language = locale.split('-').next().unwrap_or_default();
    let is_language = (2..=8).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_alphabetic());
    if is_language && locale.len() <= LOCALE_CHARS_MAX && locale.split('-').all(is_subtag) {
        return Ok(());
    }
    Err(UserRejection::LocaleInvalid { max: LOCALE_CHARS_MAX })
}

/// Nobody keeps a user from hearing of others by inviting to ever more rooms.
pub(super) fn receive_invitation(
    state: &UserState,
    limits: &UserLimits,
    asked: &ReceiveInvitation,
) -> Decision {
    let ReceiveInvitation { room, title, by } = asked;
    let mut from_inviter = match by.kind() {
        MemberKind::User | MemberKind::Persona => state.invited_by(by),
        MemberKind::Integration | MemberKind::System => Vec::new(),
    };
    from_inviter.retain(|other| *other != room);
    let give_way = (from_inviter.len() + 1).saturating_sub(limits.invitations_per_inviter_max);
    let max = limits.invitations_max;
    let others = state.invitations().filter(|(other, _)| *other != room).count();
    if others.saturating_sub(give_way) >= max {
        return Err(UserRejection::TooManyInvitations { max });
    }
    let ended = from_inviter.into_iter().take(give_way).map(|room| {
        let outcome = InvitationOutcome::Dismissed;
        UserEvent::from(InvitationEnded { room: room.clone(), outcome })
    });
    let received = InvitationReceived { room: room.clone(), title: title.clone(), by: by.clone() };
    Ok(ended.chain([received.into()]).collect())
}

/// An invitation may have been dismissed before its room ends it.
pub(super) fn end_invitation(
    state: &UserState,
    room: &EntityId,
    outcome: InvitationOutcome,
) -> Vec<UserEvent> {
    if state.invitation(room).is_none() {
        return Vec::new();
    }
    vec![InvitationEnded { room: room.clone(), outcome }.into()]
}

pub(super) fn dismiss_invitation(state: &UserState, asked: &DismissInvitation) -> Decision {
    if state.invitation(&asked.room).is_none() {
        return Err(UserRejection::InvitationNotFound { room: asked.room.clone() });
    }
    Ok(end_invitation(state, &asked.room, InvitationOutcome::Dismissed))
}

/// A marker moves only forward: of two devices, the one that has read less says nothing new.
pub(super) fn move_read_marker(state: &UserState, asked: &MoveReadMarker) -> Vec<UserEvent> {
    if state.read_marker(&asked.room).is_some_and(|read| read >= asked.revision) {
        return Vec::new();
    }
    vec![ReadMarkerMoved { room: asked.room.clone(), revision: asked.revision }.into()]
}

pub(super) fn start_session(limits: &UserLimits, asked: &StartSession) -> Vec<UserEvent> {
    let device = asked.device.as_deref().and_then(|device| limits.device(device)).map(Personal::from);
    vec![SessionStarted { session: asked.session.clone(), device }.into()]
}
