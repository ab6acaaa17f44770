//! The state's serialized form, which entity snapshots keep.
//!
//! If a snapshot here changes, `Room::STATE_VERSION` must be raised with it: the version stands
//! in what is pinned. Old snapshots are then not used any more, and rooms are folded anew.

use super::*;

/// A history in which everything happens that a state may depend on.
fn history() -> Vec<RoomEvent> {
    let sealed =
        Box::new(SealedField { key: "sue.1".into(), nonce: "AA==".into(), ciphertext: "AAEC".into() });
    let mut history = room();
    history.extend([
        joined(STRANGER),
        joined("persona:zeno"),
        left("persona:zeno"),
        renamed(MEMBER, "Maximilian"),
        RoomEvent::from(MemberRenamed { member: id(STRANGER), display_name: Personal::Sealed { sealed } }),
        RoomRenamed { title: "Agora".into() }.into(),
        posted("hi").into(),
        ReactionAdded { target: Revision::new(9), emoji: "!".into() }.into(),
        ReactionRemoved { target: Revision::new(9), emoji: "!".into() }.into(),
        MessageEdited { target: Revision::new(9), text: Personal::from("ho") }.into(),
        MessageRedacted { target: Revision::new(9), reason: None }.into(),
        RoomVisibilitySet { visibility: Visibility::Invited }.into(),
        joined("ida"),
        removed("ida"),
        invite("gus"),
        InvitationAccepted { member: id("gus") }.into(),
        invite("gus"),
        InvitationDeclined { member: id("gus"), reason: None }.into(),
        invite("gus"),
        InvitationWithdrawn { member: id("gus") }.into(),
        invite("persona:zeno"),
    ]);
    history
}

fn invite(member: &str) -> RoomEvent {
    MemberInvited { member: id(member), title: "Agora".into() }.into()
}

fn pinned(state: &RoomState) -> String {
    let text = serde_json::to_string(state).unwrap();
    assert_eq!(serde_json::from_str::<RoomState>(&text).unwrap(), *state);
    format!("{} {} {text}", Room::NAME, Room::STATE_VERSION)
}

#[test]
fn the_form_changes_only_with_the_version() {
    let mut history = history();
    insta::assert_snapshot!(pinned(&RoomState::default()), @r#"room 2 {"phase":"not_opened"}"#);
    insta::assert_snapshot!(pinned(&fold(&history)), @r#"room 2 {"phase":{"open":{"title":"Agora","owner":"olga","members":{"max":"Maximilian","olga":"olga","sue":{"$sealed":{"key":"sue.1","nonce":"AA==","ciphertext":"AAEC"}}},"visibility":"invited","invited":["persona:zeno"],"removed":["ida"]}}}"#);
    history.push(closed());
    insta::assert_snapshot!(pinned(&fold(&history)), @r#"room 2 {"phase":{"closed":{"title":"Agora","owner":"olga","members":{"max":"Maximilian","olga":"olga","sue":{"$sealed":{"key":"sue.1","nonce":"AA==","ciphertext":"AAEC"}}},"visibility":"invited","invited":["persona:zeno"],"removed":["ida"]}}}"#);
    let names: BTreeSet<_> = history.iter().map(Event::name).collect();
    assert_eq!(names, RoomEvent::NAMES.iter().map(|(name, _)| *name).collect(), "everything happens in it");
}

#[test]
fn a_state_with_unknown_parts_is_refused() {
    for text in [
        r#"{"phase":"not_opened","topic":"x"}"#,
        r#"{"phase":"archived"}"#,
        r#"{"phase":{"open":{"title":"T","owner":"o","members":{},"visibility":"open","invited":[],"removed":[],"topic":"x"}}}"#,
        r#"{"phase":{"open":{"title":"T","owner":"o","members":{}}}}"#,
        r#"{"phase":{"open":{"title":"T","owner":"no id","members":{},"visibility":"open","invited":[],"removed":[]}}}"#,
        r#"{"phase":{"open":{"title":"T","owner":"o","members":{"a":5},"visibility":"open","invited":[],"removed":[]}}}"#,
    ] {
        assert!(serde_json::from_str::<RoomState>(text).is_err(), "{text}");
    }
}
