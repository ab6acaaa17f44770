//! Every frame as it looks on the wire.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use dramatis_events::{CommandId, EntityId, Epoch, MemberId, Position, Revision, UnixMillis};
use serde_json::value::RawValue;

use super::*;

fn room() -> EntityId {
    EntityId::parse("lobby").unwrap()
}

fn id() -> CommandId {
    CommandId::parse("r1").unwrap()
}

fn member(name: &str) -> MemberId {
    MemberId::parse(name).unwrap()
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn line(message: &ServerMessage<'_>) -> String {
    String::from_utf8(message.encode().to_vec()).unwrap()
}

fn ready() -> ServerMessage<'static> {
    let entry = |room: &str, head: Option<u64>, how, code| RoomEntry {
        room: EntityId::parse(room).unwrap().into(),
        epoch: Epoch::first(7),
        head: head.map(Revision::new),
        how,
        after: head.filter(|_| how == How::Events).map(Revision::new),
        seen: None,
        unread: None,
        unread_more: false,
        code,
    };
    ServerMessage::Ready(Ready {
        connection: "00000000000000ff".to_owned(),
        user: member("alice"),
        heartbeat_ms: 25_000,
        token_expires_at: Some(UnixMillis::new(1_700_000_000_000)),
        limits: Limits {
            message_bytes_max: 65_536,
            frame_bytes_max: 524_288,
            in_flight_commands_max: 1_024,
            rooms_max: 1_000,
            history_events_max: HISTORY_EVENTS_MAX,
        },
        reconnect: Reconnect { base_ms: 250, cap_ms: 15_000, jitter: "full" },
        rooms: vec![
            entry("lobby", Some(41), How::Events, None),
            entry("den", Some(9), How::State, None),
            entry("attic", Some(3), How::Reset, None),
            entry("me", Some(0), How::Events, None),
            entry("vault", None, How::Denied, Some(ErrorCode::NotFound)),
        ],
    })
}

#[test]
fn connections() {
    let (id, by) = (id(), UnixMillis::new(1_700_000_000_000));
    let lines = [
        line(&ready()),
        line(&ServerMessage::Authenticate(AuthenticateBy { by })),
        line(&ServerMessage::Authenticated(Authenticated { id: id.clone(), token_expires_at: Some(by) })),
        line(&ServerMessage::Authenticated(Authenticated { id, token_expires_at: None })),
        line(&ServerMessage::Drain(Drain { in_ms: 2_000, slot_ms: 350 })),
        line(&ServerMessage::Ping),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn answers() {
    let id = id();
    let ack = |revision, position, duplicate| {
        line(&ServerMessage::Ack(Ack { id: &id, room: "lobby", revision, position, duplicate }))
    };
    let mut limited = Reject::new(Some(id.clone()), ErrorCode::RateLimited, "too many commands");
    limited.after_ms = Some(250);
    let mut ahead = Reject::new(Some(id.clone()), ErrorCode::AheadOfLog, "ask for nothing after it");
    ahead.head = Some(Revision::new(41));
    let mut rule = Reject::new(Some(id.clone()), ErrorCode::Rule, "room_closed");
    rule.detail = Some("the room is closed".to_owned());
    let expired = Reject::new(None, ErrorCode::TokenExpired, "send a fresh one");
    let page = Page { id: id.clone(), room: room(), events: vec![raw(r#"{"type":"event"}"#)], more: true };
    let lines = [
        ack(Some(Revision::new(42)), Some(Position::from_engine(978)), false),
        ack(None, None, false),
        line(&ServerMessage::Reject(limited)),
        line(&ServerMessage::Reject(ahead)),
        line(&ServerMessage::Reject(rule)),
        line(&ServerMessage::Reject(expired)),
        line(&ServerMessage::Page(page)),
        line(&ServerMessage::Unsubscribed(Unsubscribed { id, room: Followed::Me })),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn rooms() {
    let (alice, bob) = (member("alice"), member("bob"));
    let state = RoomState {
        room: room().into(),
        revision: Revision::new(41),
        state: raw(r#"{"title":"Lobby"}"#),
        events: vec![raw(r#"{"type":"event"}"#)],
    };
    let name = EphemeralName::try_from("typing".to_owned()).unwrap();
    let data = raw(r#"{"on":true}"#);
    let ephemeral = EphemeralFrame { room: &room(), name: &name, by: &alice, data: &data };
    let full = PresenceChange::Full { count: 2, members: vec![&alice, &bob], complete: true };
    let diff = PresenceChange::Diff { count: 1, joined: vec![], left: vec![&bob] };
    let mut lines = vec![
        line(&ServerMessage::RoomState(state)),
        line(&ServerMessage::Live(Live { room: room().into(), revision: Some(Revision::new(41)) })),
        line(&ServerMessage::Ephemeral(ephemeral)),
        line(&ServerMessage::Presence(Presence { room: &room(), change: full })),
        line(&ServerMessage::Presence(Presence { room: &room(), change: diff })),
    ];
    for code in [ClosedCode::Removed, ClosedCode::Erased, ClosedCode::Closed] {
        lines.push(line(&ServerMessage::Closed(Closed { room: room(), code })));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn messages_of_clients_are_read() {
    let read = |text: &str| parse_message(text).unwrap();
    let ClientMessage::Hello(hello) = read(
        r#"{"type":"hello","token":"abc","session":"tab","rooms":[{"room":"me","after":3},{"room":"den","catch_up":"state"}]}"#,
    ) else {
        panic!("not a hello")
    };
    assert_eq!((hello.user, hello.token.unwrap().secret()), (None, "abc"));
    let rooms: Vec<_> = hello.rooms.iter().map(|wanted| wanted.cursor().unwrap()).collect();
    assert_eq!(rooms[0].room, Followed::Me);
    assert_eq!(
        (rooms[1].room.room(), rooms[1].catch_up),
        (EntityId::parse("den").ok().as_ref(), CatchUp::State)
    );
    let ClientMessage::Ephemeral(ephemeral) =
        read(r#"{"type":"ephemeral","room":"den","name":"caret","data":{"at": 7}}"#)
    else {
        panic!("not an ephemeral")
    };
    assert_eq!((ephemeral.name.as_str(), ephemeral.data.unwrap().get()), ("caret", r#"{"at": 7}"#));
    let ClientMessage::Seen(seen) = read(r#"{"type":"seen","room":"den","revision":12}"#) else {
        panic!("not a seen")
    };
    assert_eq!(seen.revision, Revision::new(12));
    let ClientMessage::Authenticate(fresh) = read(r#"{"type":"authenticate","id":"a","token":"secret"}"#)
    else {
        panic!("not an authenticate")
    };
    assert_eq!(fresh.token.secret(), "secret");
    assert!(!format!("{fresh:?}").contains("secret"), "a token is never shown");
}

#[test]
fn what_a_client_may_not_send_is_named() {
    for (text, part) in [
        (r#"{"type":"ephemeral","room":"den","name":"Typing"}"#, "a-z 0-9 _"),
        (r#"{"type":"ephemeral","room":"den","name":""}"#, "1 to 32"),
        (r#"{"type":"seen","room":"den"}"#, "missing field `revision`"),
        (r#"{"type":"hello","user":"alice","session":"a tab"}"#, "a session must be 1 to 128"),
        (r#"{"type":"authenticate","id":"a","token":""}"#, "a token must be"),
        (r#"{"type":"authenticate","id":"a","token":"two words"}"#, "a token must be"),
    ] {
        let error = parse_message(text).unwrap_err().reason;
        assert!(error.contains(part) && !error.contains("two words"), "{text}: {error}");
    }
}
