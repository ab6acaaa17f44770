//! Who may read a room, who is asked in, and who is out.

use super::*;

const GUEST: &str = "gus";

fn invited(member: &str) -> RoomEvent {
    MemberInvited { member: id(member), title: "Lobby".into() }.into()
}

fn hidden() -> RoomEvent {
    RoomVisibilitySet { visibility: Visibility::Invited }.into()
}

fn invite(member: &str) -> (&'static str, Value) {
    ("invite_member", json!({"member": member}))
}

#[test]
fn a_room_may_be_hidden_from_the_start_or_later() {
    let open = ("open_room", json!({"title": "Lobby", "visibility": "invited"}));
    check(&[], OWNER, open, &[opened(), hidden(), joined(OWNER)]);
    check(
        &[],
        OWNER,
        ("open_room", json!({"title": "Lobby", "visibility": "open"})),
        &[opened(), joined(OWNER)],
    );
    let hide = || ("set_visibility", json!({"visibility": "invited"}));
    check(&room(), OWNER, hide(), &[hidden()]);
    check(&with(hidden()), OWNER, hide(), &[]);
    check_rejected(&room(), MEMBER, hide(), "owner_only");
}

#[test]
fn only_who_is_invited_comes_into_a_hidden_room() {
    let given = with(hidden());
    let no = check_rejected(&given, GUEST, ("join", json!({})), "invitation_needed");
    assert_eq!(no.class(), RejectionClass::Forbidden);
    check(&given, MEMBER, ("join", json!({})), &[]);
    let mut given = given;
    given.push(invited(GUEST));
    let accepted: RoomEvent = InvitationAccepted { member: id(GUEST) }.into();
    check(&given, GUEST, ("join", json!({})), &[accepted, joined(GUEST)]);
    let owner_is_out = [opened(), joined(OWNER), hidden(), left(OWNER)];
    check(&owner_is_out, OWNER, ("join", json!({})), &[joined(OWNER)]);
}

#[test]
fn whether_a_hidden_room_was_closed_is_told_to_those_alone_who_may_know_of_it() {
    let mut given = with(hidden());
    given.push(invited("persona:zeno"));
    let mut ended = given.clone();
    ended.push(closed());
    for (name, data) in examples() {
        let asked = || (name, data.clone());
        let of_open = decide(&given, GUEST, asked()).unwrap_err();
        check_rejected(&ended, GUEST, asked(), of_open.word());
        check_rejected(&ended, MEMBER, asked(), "room_closed");
    }
    check_rejected(&ended, "persona:zeno", ("join", json!({})), "room_closed");
}

#[test]
fn members_invite_people_and_personas() {
    check(&room(), MEMBER, invite(GUEST), &[invited(GUEST)]);
    check(&room(), MEMBER, invite("persona:zeno"), &[invited("persona:zeno")]);
    check(&room(), MEMBER, invite(OWNER), &[]);
    check(&with(invited(GUEST)), OWNER, invite(GUEST), &[]);
    check_rejected(&room(), STRANGER, invite(GUEST), "not_a_member");
    check_rejected(&room(), MEMBER, invite("integration:irc"), "not_invitable");
    let mut full = with(invited(GUEST));
    full.push(invited("persona:zeno"));
    check_rejected(&full, MEMBER, invite(STRANGER), "too_many_invitations");
}

#[test]
fn an_invitation_ends_once() {
    let given = with(invited(GUEST));
    let declined = InvitationDeclined { member: id(GUEST), reason: Some("busy".into()) };
    check(&given, GUEST, ("decline_invitation", json!({"reason": "busy"})), &[declined.into()]);
    let withdraw = || ("withdraw_invitation", json!({"member": GUEST}));
    let withdrawn: RoomEvent = InvitationWithdrawn { member: id(GUEST) }.into();
    check(&given, OWNER, withdraw(), std::slice::from_ref(&withdrawn));
    check_rejected(&given, MEMBER, withdraw(), "owner_only");
    let mut ended = given;
    ended.push(withdrawn);
    for (author, when) in [(GUEST, ("decline_invitation", json!({}))), (OWNER, withdraw())] {
        let no = check_rejected(&ended, author, when, "invitation_not_found");
        assert_eq!(no.class(), RejectionClass::NotFound);
    }
    check(&ended, GUEST, ("join", json!({})), &[joined(GUEST)]);
}

#[test]
fn who_was_sent_away_is_asked_back_by_the_owner_only() {
    let given = with(removed(MEMBER));
    let mut other = given.clone();
    other.push(joined(STRANGER));
    check_rejected(&other, STRANGER, invite(MEMBER), "owner_only");
    check(&given, OWNER, invite(MEMBER), &[invited(MEMBER)]);
    check(&given, MEMBER, ("join", json!({})), &[joined(MEMBER)]);
}

#[test]
fn who_may_read_follows_from_what_happened() {
    let (open, shut) = (true, false);
    for (then, member, guest) in [
        (vec![], open, open),
        (vec![left(MEMBER)], open, open),
        (vec![removed(MEMBER)], shut, open),
        (vec![removed(MEMBER), joined(MEMBER)], open, open),
        (vec![removed(MEMBER), invited(MEMBER)], open, open),
        (vec![hidden()], open, shut),
        (vec![hidden(), left(MEMBER)], shut, shut),
        (vec![hidden(), removed(MEMBER), invited(MEMBER)], shut, shut),
        (vec![hidden(), invited(GUEST)], open, shut),
        (vec![hidden(), joined(GUEST), closed()], open, open),
    ] {
        let mut history = room();
        history.extend(then.clone());
        for (who, want) in [(MEMBER, member), (GUEST, guest)] {
            let reading = fold(&history).reading(&id(who)).unwrap();
            assert_eq!(reading.may_read(), want, "{who} after {then:?}");
        }
    }
    assert_eq!(RoomState::default().reading(&id(MEMBER)), None);
}
