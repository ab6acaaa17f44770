//! The rules by example, and the promises that hold for every history.

use std::collections::BTreeSet;

use dramatis_events::user::*;
use dramatis_events::{CommandId, EntityId, Event, MemberId, Personal, Revision, SealedField};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::domain::Rejection;

fn room(id: &str) -> EntityId {
    EntityId::parse(id).unwrap()
}

fn limits() -> UserLimits {
    UserLimits {
        display_name_chars_max: 6,
        avatar_chars_max: 10,
        device_chars_max: 5,
        invitations_max: 3,
        invitations_per_inviter_max: 2,
    }
}

fn plain(text: &str) -> Personal {
    Personal::from(text)
}

fn invited(id: &str) -> UserEvent {
    invited_by("alice", id)
}

fn invited_by(by: &str, id: &str) -> UserEvent {
    InvitationReceived { room: room(id), title: "Den".into(), by: MemberId::parse(by).unwrap() }.into()
}

fn receive(by: &str, id: &str) -> ReceiveInvitation {
    ReceiveInvitation { room: room(id), title: "Den".into(), by: MemberId::parse(by).unwrap() }
}

fn ended(id: &str, outcome: InvitationOutcome) -> UserEvent {
    InvitationEnded { room: room(id), outcome }.into()
}

fn read(id: &str, revision: u64) -> UserEvent {
    ReadMarkerMoved { room: room(id), revision: Revision::new(revision) }.into()
}

fn command(name: &str, data: &Value) -> UserCommand {
    UserCommand::parse(name, &RawValue::from_string(data.to_string()).unwrap()).unwrap()
}

fn fold(history: &[UserEvent]) -> UserState {
    let mut state = UserState::default();
    for event in history {
        User::evolve(&mut state, event).unwrap();
    }
    state
}

fn decide(state: &UserState, command: &UserCommand) -> Result<Vec<UserEvent>, UserRejection> {
    let author = MemberId::parse("bob").unwrap();
    let context = Context::<User> { author: &author, target: None, limits: &limits() };
    User::decide(state, &context, command)
}

#[track_caller]
fn check(given: &[UserEvent], when: impl Into<UserCommand>, then: &[UserEvent]) {
    let when = when.into();
    assert_eq!(decide(&fold(given), &when).unwrap(), then, "{when:?}");
}

#[track_caller]
fn check_rejected(given: &[UserEvent], when: &UserCommand, word: &str) {
    let rejection = decide(&fold(given), when).expect_err(word);
    assert_eq!(rejection.word(), word, "{when:?}");
}

#[test]
fn a_profile_is_told_as_a_whole() {
    let set = |data: Value| command("set_profile", &data);
    let whole = ProfileChanged {
        display_name: Some(plain("Bob")),
        avatar: Some(plain("cat.png")),
        locale: Some(plain("pt-BR")),
    };
    let given = [UserEvent::from(whole.clone())];
    let told = json!({"display_name": "Bob", "avatar": "cat.png", "locale": "pt-BR"});
    check(&[], set(told.clone()), &given);
    check(&given, set(told), &[]);
    let only_name = ProfileChanged { display_name: Some(plain("Bob")), ..ProfileChanged::default() };
    check(&given, set(json!({"display_name": "Bob"})), &[only_name.into()]);
    check(&given, set(json!({})), &[ProfileChanged::default().into()]);
    check(&[], set(json!({})), &[]);
    for (data, word) in [
        (json!({"display_name": "  "}), "display_name_empty"),
        (json!({"display_name": "Robert B"}), "display_name_too_long"),
        (json!({"display_name": "B\u{202e}b"}), "display_name_invalid"),
        (json!({"avatar": ""}), "avatar_invalid"),
        (json!({"avatar": "a b"}), "avatar_invalid"),
        (json!({"avatar": "01234567890"}), "avatar_invalid"),
        (json!({"locale": ""}), "locale_invalid"),
        (json!({"locale": "p"}), "locale_invalid"),
        (json!({"locale": "pt_BR"}), "locale_invalid"),
        (json!({"locale": "pt-"}), "locale_invalid"),
        (json!({"locale": "en-a-bb-cc-dd-ee-ff-gg-hh-ii-jj-kk-ll"}), "locale_invalid"),
    ] {
        check_rejected(&[], &set(data), word);
    }
}

#[test]
fn invitations_are_noticed_and_end() {
    let dismiss = |id| UserCommand::from(DismissInvitation { room: room(id) });
    let accept = |id| EndInvitation { room: room(id), outcome: InvitationOutcome::Accepted };
    check(&[], receive("alice", "den"), &[invited("den")]);
    check(&[invited("den")], accept("den"), &[ended("den", InvitationOutcome::Accepted)]);
    check(&[], accept("den"), &[]);
    check(&[invited("den")], dismiss("den"), &[ended("den", InvitationOutcome::Dismissed)]);
    check_rejected(&[], &dismiss("den"), "invitation_not_found");
    let full = [invited("den"), invited("attic"), invited_by("carol", "hall")];
    check_rejected(&full, &receive("dave", "yard").into(), "too_many_invitations");
    check(&full, receive("alice", "den"), &[invited("den")]);
}

#[test]
fn of_very_many_from_one_inviter_the_oldest_gives_way() {
    let gone = |id| ended(id, InvitationOutcome::Dismissed);
    let from_alice = [invited("hall"), invited("attic")];
    check(&from_alice, receive("alice", "den"), &[gone("hall"), invited("den")]);
    check(&from_alice, receive("alice", "attic"), &[invited("attic")]);
    check(&from_alice, receive("carol", "den"), &[invited_by("carol", "den")]);
    let again = [invited("hall"), invited("attic"), invited("hall")];
    check(&again, receive("alice", "den"), &[gone("attic"), invited("den")]);
    // What was recorded before there was such a limit stands, until more comes from there.
    let before = ["hall", "attic", "den", "yard"].map(invited);
    assert_eq!(fold(&before).invitations().count(), 4);
    let more = [gone("hall"), gone("attic"), gone("den"), invited("loft")];
    check(&before, receive("alice", "loft"), &more);
    let program = ["hall", "attic"].map(|id| invited_by("integration:hr", id));
    check(&program, receive("integration:hr", "den"), &[invited_by("integration:hr", "den")]);
}

#[test]
fn a_read_marker_never_moves_back() {
    let seen = |id, revision| MoveReadMarker { room: room(id), revision: Revision::new(revision) };
    let given = [read("den", 7)];
    check(&[], seen("den", 0), &[read("den", 0)]);
    check(&given, seen("den", 8), &[read("den", 8)]);
    check(&given, seen("den", 7), &[]);
    check(&given, seen("den", 3), &[]);
    check(&given, seen("attic", 3), &[read("attic", 3)]);
}

#[test]
fn of_very_many_rooms_the_one_read_longest_ago_is_forgotten() {
    let mut state = UserState::default();
    for number in 0..5_000 {
        state.apply(&read(&format!("room-{number}"), 1));
    }
    state.apply(&read("room-0", 2));
    state.apply(&read("one-more", 1));
    assert_eq!(state.read_marker(&room("room-0")), Some(Revision::new(2)));
    assert_eq!(state.read_marker(&room("room-1")), None);
    assert_eq!(state.read_markers().count(), 5_000);
}

#[test]
fn a_device_is_named_within_limits() {
    let start = |device: Option<&str>| {
        let session = CommandId::parse("tab-1").unwrap();
        StartSession { session, device: device.map(str::to_owned) }
    };
    for (said, recorded) in [
        (None, None),
        (Some(" "), None),
        (Some("\u{1b}Phone 12"), Some(plain("Phone"))),
        (Some("PC"), Some(plain("PC"))),
    ] {
        let started = SessionStarted { session: CommandId::parse("tab-1").unwrap(), device: recorded };
        check(&[], start(said), &[started.into()]);
    }
}

#[test]
fn clients_can_name_only_what_is_theirs_to_ask() {
    for name in ["receive_invitation", "end_invitation", "move_read_marker", "start_session", "open_room"] {
        let data = RawValue::from_string(json!({"room": "den", "revision": 1}).to_string()).unwrap();
        let error = UserCommand::parse(name, &data).unwrap_err().to_string();
        assert!(error.contains("me takes set_profile, dismiss_invitation"), "{error}");
    }
}

/// If a snapshot here changes, `User::STATE_VERSION` must be raised with it.
#[test]
fn the_form_changes_only_with_the_version() {
    let sealed =
        Box::new(SealedField { key: "bob.1".into(), nonce: "AA==".into(), ciphertext: "AAEC".into() });
    let history = [
        SessionStarted { session: CommandId::parse("tab-1").unwrap(), device: None }.into(),
        ProfileChanged {
            display_name: Some(Personal::Sealed { sealed }),
            avatar: None,
            locale: Some(plain("pt-BR")),
        }
        .into(),
        invited("den"),
        invited("attic"),
        ended("attic", InvitationOutcome::Declined),
        read("den", 3),
    ];
    let state = fold(&history);
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<UserState>(&text).unwrap(), state);
    let pinned = format!("{} {} {text}", User::NAME, User::STATE_VERSION);
    insta::assert_snapshot!(pinned, @r#"user 2 {"profile":{"display_name":{"$sealed":{"key":"bob.1","nonce":"AA==","ciphertext":"AAEC"}},"locale":"pt-BR"},"invitations":{"den":{"invitation":{"title":"Den","by":"alice"},"came":1}},"received":2,"markers":{"den":{"revision":3,"moved":1}},"moves":1}"#);
    let names: BTreeSet<_> = history.iter().map(Event::name).collect();
    assert_eq!(names, UserEvent::NAMES.iter().map(|(name, _)| *name).collect(), "everything happens in it");
}

fn any_command() -> impl Strategy<Value = UserCommand> {
    let a_room = || prop_oneof!["den", "attic", "hall"].prop_map(|id| room(&id));
    let text = || proptest::option::of("[a-c]{0,3}");
    let outcome = || {
        use InvitationOutcome::{Accepted, Declined, Dismissed, Withdrawn};
        proptest::sample::select(vec![Accepted, Declined, Withdrawn, Dismissed])
    };
    prop_oneof![
        1 => (text(), text()).prop_map(|(display_name, locale)| {
            SetProfile { display_name, avatar: None, locale }.into()
        }),
        1 => a_room().prop_map(|room| DismissInvitation { room }.into()),
        1 => a_room().prop_map(|room| {
            ReceiveInvitation { room, title: "T".into(), by: MemberId::parse("alice").unwrap() }.into()
        }),
        1 => ("[b-e]", "[a-e]").prop_map(|(by, id)| receive(&by, &id).into()),
        1 => (a_room(), outcome()).prop_map(|(room, outcome)| EndInvitation { room, outcome }.into()),
        4 => (a_room(), 0..20_u64).prop_map(|(room, revision)| {
            MoveReadMarker { room, revision: Revision::new(revision) }.into()
        }),
        1 => "[a-z]{1,3}".prop_map(|name| {
            StartSession { session: CommandId::parse(&name).unwrap(), device: None }.into()
        }),
    ]
}

proptest! {
    #[test]
    fn every_history_keeps_the_rules(script in vec(any_command(), 0..80)) {
        let (mut state, mut history) = (UserState::default(), Vec::new());
        for command in &script {
            for event in decide(&state, command).unwrap_or_default() {
                if let UserEvent::ReadMarkerMoved(moved) = &event {
                    prop_assert!(state.read_marker(&moved.room) < Some(moved.revision));
                }
                if let UserEvent::InvitationEnded(ended) = &event {
                    prop_assert!(state.invitation(&ended.room).is_some());
                }
                User::evolve(&mut state, &event).unwrap();
                history.push(event);
            }
            prop_assert!(state.invitations().count() <= limits().invitations_max);
            for (_, invitation) in state.invitations() {
                let from_inviter = state.invited_by(&invitation.by).len();
                prop_assert!(from_inviter <= limits().invitations_per_inviter_max);
            }
            // Asked again at once, what only says how things stand has nothing more to say.
            if matches!(command, UserCommand::SetProfile(_) | UserCommand::MoveReadMarker(_) | UserCommand::EndInvitation(_)) {
                prop_assert_eq!(decide(&state, command).unwrap_or_default(), Vec::new());
            }
        }
        let stored = history.iter().map(|event| {
            UserEvent::decode(event.name(), event.version(), &event.encode().unwrap()).unwrap()
        });
        prop_assert_eq!(fold(&stored.collect::<Vec<_>>()), state.clone());
        let text = serde_json::to_vec(&state).unwrap();
        prop_assert_eq!(serde_json::from_slice::<UserState>(&text).unwrap(), state);
    }
}
