//! The rules by example, and the promises that hold for every history.

use std::collections::BTreeSet;

use dramatis_events::room::*;
use dramatis_events::{Event, MemberId, Personal, Revision, SealedField, StreamId};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::domain::{Rejection, RejectionClass, Target};

mod histories;
mod invitations;
mod state_form;

const OWNER: &str = "olga";
const MEMBER: &str = "max";
const STRANGER: &str = "sue";

fn id(text: &str) -> MemberId {
    MemberId::parse(text).unwrap()
}

fn command(name: &str, data: &Value) -> RoomCommand {
    RoomCommand::parse(name, &RawValue::from_string(data.to_string()).unwrap()).unwrap()
}

fn opened() -> RoomEvent {
    RoomOpened { title: "Lobby".into(), owner: id(OWNER) }.into()
}

fn joined(member: &str) -> RoomEvent {
    MemberJoined { member: id(member), display_name: Personal::from(member) }.into()
}

fn left(member: &str) -> RoomEvent {
    MemberLeft { member: id(member), reason: None }.into()
}

fn removed(member: &str) -> RoomEvent {
    MemberRemoved { member: id(member), reason: None }.into()
}

fn renamed(member: &str, name: &str) -> RoomEvent {
    MemberRenamed { member: id(member), display_name: Personal::from(name) }.into()
}

fn posted(text: &str) -> MessagePosted {
    let text = Personal::from(text);
    MessagePosted { kind: MessageKind::Text, text, reply_to: None, thread_root: None }
}

fn closed() -> RoomEvent {
    RoomClosed { reason: None }.into()
}

/// An open room with its owner and one member.
fn room() -> Vec<RoomEvent> {
    vec![opened(), joined(OWNER), joined(MEMBER)]
}

fn with(event: impl Into<RoomEvent>) -> Vec<RoomEvent> {
    let mut history = room();
    history.push(event.into());
    history
}

fn fold(history: &[RoomEvent]) -> RoomState {
    let mut state = RoomState::default();
    for event in history {
        Room::evolve(&mut state, event).unwrap();
    }
    state
}

fn limits() -> RoomLimits {
    RoomLimits {
        text_chars_max: 10,
        title_chars_max: 8,
        display_name_chars_max: 6,
        emoji_chars_max: 2,
        reason_chars_max: 5,
        members_max: 3,
        invitations_max: 2,
    }
}

/// Decides on this history. Every event of it counts as done by `MEMBER`, should it be referred to.
fn decide(
    given: &[RoomEvent],
    author: &str,
    (name, data): (&str, Value),
) -> Result<Vec<RoomEvent>, RoomRejection> {
    let command = command(name, &data);
    let target = Room::target(&command).and_then(|revision| {
        let event = given.get(usize::try_from(revision.get()).unwrap())?.clone();
        Some(Target { revision, author: id(MEMBER), event })
    });
    let author = id(author);
    let context = Context::<Room> { author: &author, target: target.as_ref(), limits: &limits() };
    Room::decide(&fold(given), &context, &command)
}

#[track_caller]
fn check(given: &[RoomEvent], author: &str, when: (&str, Value), then: &[RoomEvent]) {
    let shown = format!("{when:?}");
    let events = decide(given, author, when).unwrap();
    assert_eq!(events, then, "{shown}");
    let mut history = given.to_vec();
    history.extend(events);
    fold(&history);
}

#[track_caller]
fn check_rejected(given: &[RoomEvent], author: &str, when: (&str, Value), word: &str) -> RoomRejection {
    let shown = format!("{when:?} by {author}");
    let rejection = decide(given, author, when).expect_err(&shown);
    assert_eq!(rejection.word(), word, "{shown}");
    rejection
}

#[test]
fn opening_makes_the_author_owner_and_people_members() {
    let open = || ("open_room", json!({"title": "Lobby"}));
    check(&[], OWNER, open(), &[opened(), joined(OWNER)]);
    for (author, joins) in [("persona:zeno", Some("zeno")), ("integration:irc", None), ("system:jobs", None)]
    {
        let mut then = vec![RoomOpened { title: "Lobby".into(), owner: id(author) }.into()];
        then.extend(
            joins.map(|name| MemberJoined { member: id(author), display_name: Personal::from(name) }.into()),
        );
        check(&[], author, open(), &then);
    }
}

#[test]
fn members_come_go_and_change_names() {
    let sam: RoomEvent = MemberJoined { member: id(STRANGER), display_name: Personal::from("Sam") }.into();
    check(&room(), STRANGER, ("join", json!({})), &[joined(STRANGER)]);
    check(&room(), STRANGER, ("join", json!({"display_name": "Sam"})), &[sam]);
    check(&room(), MEMBER, ("join", json!({})), &[]);
    check(&room(), MEMBER, ("join", json!({"display_name": MEMBER})), &[]);
    check(&room(), MEMBER, ("join", json!({"display_name": "Moe"})), &[renamed(MEMBER, "Moe")]);
    check(&room(), MEMBER, ("rename_member", json!({"display_name": "Moe"})), &[renamed(MEMBER, "Moe")]);
    check(&room(), MEMBER, ("rename_member", json!({"display_name": MEMBER})), &[]);
    check(&room(), MEMBER, ("leave", json!({})), &[left(MEMBER)]);
    check(&room(), OWNER, ("remove_member", json!({"member": MEMBER})), &[removed(MEMBER)]);
    let bored = MemberLeft { member: id(MEMBER), reason: Some("bored".into()) };
    check(&room(), MEMBER, ("leave", json!({"reason": "bored"})), &[bored.into()]);
}

#[test]
fn a_long_id_is_no_reason_to_keep_someone_out() {
    let long = "x".repeat(128);
    check(&room(), &long, ("join", json!({})), &[joined(&long)]);
}

#[test]
fn an_owner_who_left_still_owns() {
    let given = with(left(OWNER));
    let title = RoomRenamed { title: "Attic".into() };
    check(&given, OWNER, ("rename_room", json!({"title": "Attic"})), &[title.into()]);
    check(&given, OWNER, ("remove_member", json!({"member": MEMBER})), &[removed(MEMBER)]);
    check(&given, OWNER, ("close_room", json!({})), &[closed()]);
    check_rejected(&given, OWNER, ("post_message", json!({"text": "hi"})), "not_a_member");
    let mut given = with(posted("rude"));
    given.push(left(OWNER));
    let redacted = MessageRedacted { target: Revision::new(3), reason: None };
    check(&given, OWNER, ("redact_message", json!({"target": 3})), &[redacted.into()]);
}

#[test]
fn a_room_keeps_its_title_when_renamed_to_it() {
    check(&room(), OWNER, ("rename_room", json!({"title": "Lobby"})), &[]);
}

#[test]
fn messages_may_hold_any_character() {
    let said = posted("\u{3}04red\u{0}");
    check(&room(), MEMBER, ("post_message", json!({"text": "\u{3}04red\u{0}"})), &[said.into()]);
    let done = MessagePosted { kind: MessageKind::Action, ..posted("waves") };
    check(&room(), MEMBER, ("post_message", json!({"text": "waves", "kind": "action"})), &[done.into()]);
}

#[test]
fn a_reply_stays_in_its_thread() {
    let first = MessagePosted {
        reply_to: Some(Revision::new(3)),
        thread_root: Some(Revision::new(3)),
        ..posted("first")
    };
    check(
        &with(posted("root")),
        OWNER,
        ("post_message", json!({"text": "first", "reply_to": 3})),
        &[first.clone().into()],
    );
    let mut given = with(posted("root"));
    given.push(first.into());
    let second = MessagePosted {
        reply_to: Some(Revision::new(4)),
        thread_root: Some(Revision::new(3)),
        ..posted("second")
    };
    check(&given, OWNER, ("post_message", json!({"text": "second", "reply_to": 4})), &[second.into()]);
}

#[test]
fn messages_are_edited_redacted_and_reacted_to() {
    let (given, target) = (with(posted("helo")), Revision::new(3));
    let edited = MessageEdited { target, text: Personal::from("hello") };
    check(&given, MEMBER, ("edit_message", json!({"target": 3, "text": "hello"})), &[edited.into()]);
    for author in [MEMBER, OWNER] {
        let redacted = MessageRedacted { target, reason: Some("spam".into()) };
        let when = ("redact_message", json!({"target": 3, "reason": "spam"}));
        check(&given, author, when, &[redacted.into()]);
    }
    let emoji = "\u{1f44d}\u{1f3fd}";
    let added = ReactionAdded { target, emoji: emoji.into() };
    check(&given, OWNER, ("add_reaction", json!({"target": 3, "emoji": emoji})), &[added.into()]);
    let removed = |emoji: &str| RoomEvent::from(ReactionRemoved { target, emoji: emoji.into() });
    check(&given, OWNER, ("remove_reaction", json!({"target": 3, "emoji": emoji})), &[removed(emoji)]);
    for odd in ["\u{202e}", "+\u{200b}", "\u{2066}+", "\u{feff}"] {
        check_rejected(&given, OWNER, ("add_reaction", json!({"target": 3, "emoji": odd})), "emoji_invalid");
        check(&given, OWNER, ("remove_reaction", json!({"target": 3, "emoji": odd})), &[removed(odd)]);
    }
}

/// One acceptable example of every command, for a room with a message at revision 3.
fn examples() -> Vec<(&'static str, Value)> {
    vec![
        ("open_room", json!({"title": "Lobby"})),
        ("rename_room", json!({"title": "Attic"})),
        ("close_room", json!({"reason": "late"})),
        ("set_visibility", json!({"visibility": "invited"})),
        ("join", json!({"display_name": "Sam"})),
        ("leave", json!({"reason": "bye"})),
        ("remove_member", json!({"member": MEMBER, "reason": "rude"})),
        ("invite_member", json!({"member": STRANGER})),
        ("decline_invitation", json!({"reason": "busy"})),
        ("withdraw_invitation", json!({"member": STRANGER})),
        ("rename_member", json!({"display_name": "Moe"})),
        ("post_message", json!({"text": "hi", "kind": "action", "reply_to": 3})),
        ("edit_message", json!({"target": 3, "text": "hi"})),
        ("redact_message", json!({"target": 3, "reason": "spam"})),
        ("add_reaction", json!({"target": 3, "emoji": "+"})),
        ("remove_reaction", json!({"target": 3, "emoji": "+"})),
    ]
}

#[test]
fn a_room_lives_from_its_opening_to_its_closing() {
    let mut ended = with(posted("hi"));
    ended.push(closed());
    for (name, data) in examples() {
        if name != "open_room" {
            check_rejected(&[], OWNER, (name, data.clone()), "room_not_found");
        }
        check_rejected(&ended, OWNER, (name, data), "room_closed");
    }
    check_rejected(&room(), STRANGER, ("open_room", json!({"title": "Mine"})), "room_exists");
}

#[test]
fn only_those_who_may_do() {
    let given = with(posted("hi"));
    for (name, data) in examples() {
        let (member, stranger) = match name {
            "open_room" | "join" => continue,
            "rename_room" | "close_room" | "set_visibility" | "remove_member" | "withdraw_invitation" => {
                (Some("owner_only"), "owner_only")
            }
            "decline_invitation" => (Some("invitation_not_found"), "invitation_not_found"),
            _ => (None, "not_a_member"),
        };
        check_rejected(&given, STRANGER, (name, data.clone()), stranger);
        if let Some(word) = member {
            check_rejected(&given, MEMBER, (name, data), word);
        }
    }
    check_rejected(&given, "integration:irc", ("post_message", json!({"text": "hi"})), "not_a_member");
    check_rejected(&given, OWNER, ("edit_message", json!({"target": 3, "text": "ho"})), "author_only");
    let mut given = given;
    given.push(joined(STRANGER));
    check_rejected(&given, STRANGER, ("redact_message", json!({"target": 3})), "author_or_owner_only");
    check_rejected(&given, "tom", ("join", json!({})), "room_full");
    check(&given, MEMBER, ("join", json!({})), &[]);
}

#[test]
fn what_is_referred_to_must_exist() {
    check_rejected(&room(), OWNER, ("remove_member", json!({"member": STRANGER})), "member_not_found");
    // Revision 2 is a joining, revision 9 is past the end.
    for target in [2, 9] {
        for (name, data) in [
            ("post_message", json!({"text": "hi", "reply_to": target})),
            ("edit_message", json!({"target": target, "text": "hi"})),
            ("redact_message", json!({"target": target})),
            ("add_reaction", json!({"target": target, "emoji": "+"})),
            ("remove_reaction", json!({"target": target, "emoji": "+"})),
        ] {
            check_rejected(&room(), MEMBER, (name, data), "message_not_found");
        }
    }
}

#[test]
fn another_event_than_the_one_named_does_not_count() {
    let message = Target { revision: Revision::new(4), author: id(MEMBER), event: posted("hi").into() };
    let author = id(MEMBER);
    let context = Context::<Room> { author: &author, target: Some(&message), limits: &limits() };
    let asked = command("edit_message", &json!({"target": 3, "text": "ho"}));
    let rejection = Room::decide(&fold(&room()), &context, &asked).unwrap_err();
    assert_eq!(rejection, RoomRejection::MessageNotFound { target: Revision::new(3) });
}

#[test]
fn texts_keep_to_their_limits() {
    let given = with(posted("hi"));
    let cases: &[(&str, Value, &str)] = &[
        ("rename_room", json!({"title": " \t"}), "title_empty"),
        ("rename_room", json!({"title": "123456789"}), "title_too_long"),
        ("rename_room", json!({"title": "a\nb"}), "title_invalid"),
        ("rename_room", json!({"title": "a\u{202e}b"}), "title_invalid"),
        ("rename_member", json!({"display_name": ""}), "display_name_empty"),
        ("rename_member", json!({"display_name": "1234567"}), "display_name_too_long"),
        ("rename_member", json!({"display_name": "a\u{7}b"}), "display_name_invalid"),
        ("join", json!({"display_name": "  "}), "display_name_empty"),
        ("post_message", json!({"text": " \n\u{3000}"}), "text_empty"),
        ("post_message", json!({"text": "12345678901"}), "text_too_long"),
        ("add_reaction", json!({"target": 3, "emoji": ""}), "emoji_invalid"),
        ("add_reaction", json!({"target": 3, "emoji": "a b"}), "emoji_invalid"),
        ("add_reaction", json!({"target": 3, "emoji": "\u{7}"}), "emoji_invalid"),
        ("remove_reaction", json!({"target": 3, "emoji": "+++"}), "emoji_invalid"),
        ("close_room", json!({"reason": "123456"}), "reason_too_long"),
        ("leave", json!({"reason": "123456"}), "reason_too_long"),
        ("remove_member", json!({"member": MEMBER, "reason": "123456"}), "reason_too_long"),
        ("redact_message", json!({"target": 3, "reason": "123456"}), "reason_too_long"),
    ];
    for (name, data, word) in cases {
        let rejection = check_rejected(&given, OWNER, (name, data.clone()), word);
        assert_eq!(rejection.class(), RejectionClass::Rule, "{word}");
    }
    check_rejected(&[], OWNER, ("open_room", json!({"title": ""})), "title_empty");
    check_rejected(&given, MEMBER, ("edit_message", json!({"target": 3, "text": " "})), "text_empty");
    // An action's author is enough of one: "* alice".
    let named = decide(&given, MEMBER, ("post_message", json!({"text": "", "kind": "action"})));
    assert_eq!(named.map(|events| events.len()), Ok(1));
    // Characters count, not bytes: ten of three bytes each still fit.
    let wide = "\u{20ac}".repeat(10);
    check(&given, OWNER, ("post_message", json!({"text": wide})), &[posted(&wide).into()]);
}

#[test]
fn rejections_have_a_class_and_say_what_came() {
    let given = with(posted("hi"));
    let too_long =
        check_rejected(&given, MEMBER, ("post_message", json!({"text": "12345678901"})), "text_too_long");
    assert_eq!(too_long.to_string(), "text may have at most 10 characters, got 11: shorten it");
    for (author, when, word, class) in [
        (STRANGER, ("leave", json!({})), "not_a_member", RejectionClass::NotAMember),
        (MEMBER, ("close_room", json!({})), "owner_only", RejectionClass::Forbidden),
        (MEMBER, ("redact_message", json!({"target": 9})), "message_not_found", RejectionClass::NotFound),
    ] {
        let rejection = check_rejected(&given, author, when, word);
        assert_eq!(rejection.class(), class);
    }
    assert_eq!(RoomRejection::RoomNotFound.class(), RejectionClass::NotFound);
}

#[test]
fn illegal_histories_are_refused_and_change_nothing() {
    let mut ended = room();
    ended.push(closed());
    let cases: Vec<(Vec<RoomEvent>, RoomEvent)> = vec![
        (vec![], joined(OWNER)),
        (vec![], posted("hi").into()),
        (room(), opened()),
        (room(), joined(MEMBER)),
        (room(), left(STRANGER)),
        (room(), renamed(STRANGER, "Sam")),
        (ended.clone(), posted("hi").into()),
        (ended.clone(), opened()),
        (ended, closed()),
    ];
    for (given, event) in cases {
        let before = fold(&given);
        let mut state = before.clone();
        let refused = Room::evolve(&mut state, &event).unwrap_err();
        assert!(matches!(refused, IllegalEvent::OutOfPlace { .. }), "{refused}");
        assert!(refused.to_string().contains(event.name()), "{refused}");
        assert_eq!(state, before);
    }
}

#[test]
fn sealed_names_are_kept_and_compared_unread() {
    let field = Box::new(SealedField { key: "k1".into(), nonce: "AA==".into(), ciphertext: "AAEC".into() });
    let sealed = Personal::Sealed { sealed: field };
    let given = [opened(), MemberJoined { member: id(MEMBER), display_name: sealed.clone() }.into()];
    let state = fold(&given);
    assert_eq!(state.members().collect::<Vec<_>>(), [(&id(MEMBER), &sealed)]);
    check(&given, MEMBER, ("join", json!({})), &[]);
    check(&given, MEMBER, ("rename_member", json!({"display_name": "Moe"})), &[renamed(MEMBER, "Moe")]);
}

#[test]
fn state_answers_who_is_there() {
    let state = fold(&room());
    assert_eq!((state.exists(), state.is_open(), state.title()), (true, true, Some("Lobby")));
    assert_eq!(state.owner(), Some(&id(OWNER)));
    assert!(state.is_member(&id(MEMBER)) && !state.is_member(&id(STRANGER)));
    let state = fold(&with(closed()));
    assert_eq!((state.exists(), state.is_open(), state.title()), (true, false, Some("Lobby")));
    let none = RoomState::default();
    assert_eq!((none.exists(), none.is_open(), none.title(), none.owner()), (false, false, None, None));
}

#[test]
fn commands_come_back_from_their_canonical_form() {
    let names: Vec<&str> = examples().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, RoomCommand::NAMES);
    for (name, data) in examples() {
        let asked = command(name, &data);
        assert_eq!(asked.name(), name);
        assert_eq!(serde_json::from_str::<Value>(asked.data().get()).unwrap(), data);
        assert_eq!(RoomCommand::parse(name, &asked.data()).unwrap(), asked);
    }
}

#[test]
fn the_content_hash_tells_wishes_apart_not_spellings() {
    let (lobby, attic) =
        (StreamId::parse("room-main.lobby").unwrap(), StreamId::parse("room-main.attic").unwrap());
    let plain = command("post_message", &json!({"text": "hi"})).content_hash(&lobby);
    let spelled =
        RawValue::from_string(r#"{ "reply_to": null, "kind": "text", "text": "\u0068i" }"#.into()).unwrap();
    assert_eq!(RoomCommand::parse("post_message", &spelled).unwrap().content_hash(&lobby), plain);
    let mut hashes = BTreeSet::from([plain.to_bytes()]);
    assert!(hashes.insert(command("post_message", &json!({"text": "hi"})).content_hash(&attic).to_bytes()));
    assert!(hashes.insert(command("post_message", &json!({"text": "ho"})).content_hash(&lobby).to_bytes()));
    for (name, data) in examples() {
        assert!(hashes.insert(command(name, &data).content_hash(&lobby).to_bytes()), "{name}");
    }
}

#[test]
fn what_is_no_command_is_refused_by_field() {
    for (name, data, expected) in [
        ("shout", json!({}), "open_room, rename_room"),
        ("post_message", json!({}), "missing field `text`"),
        ("post_message", json!({"text": 5}), "field text: invalid type: integer `5`, expected a string"),
        ("post_message", json!({"text": "hi", "reply_to": -1}), "field reply_to"),
        ("post_message", json!({"text": "hi", "kind": "shout"}), "field kind"),
        ("post_message", json!({"text": "hi", "loud": true}), "unknown field `loud`"),
        ("remove_member", json!({"member": "a b"}), "a member id must be"),
        ("open_room", json!(["Lobby"]), "expected a JSON object"),
        ("leave", json!(null), "expected a JSON object"),
    ] {
        let raw = RawValue::from_string(data.to_string()).unwrap();
        let error = RoomCommand::parse(name, &raw).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
}

#[test]
fn limits_come_from_partial_settings_and_refuse_unknown_ones() {
    let limits: RoomLimits = serde_json::from_value(json!({"members_max": 5})).unwrap();
    assert_eq!(limits, RoomLimits { members_max: 5, ..RoomLimits::default() });
    assert!(serde_json::from_value::<RoomLimits>(json!({"member_max": 5})).is_err());
}
