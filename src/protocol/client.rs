//! What clients send.

use std::collections::HashSet;

use dramatis_events::{CommandId, EntityId, Epoch, IdError, MemberId, Revision, UnixMillis};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::cursor::{Cursor, CursorError};
use super::{Authenticate, Ephemeral, Followed, Seen, Token};

/// One message of a client.
#[derive(Debug)]
pub enum ClientMessage {
    /// The first message of a connection.
    Hello(Hello),
    /// Follow a room.
    Subscribe(Subscribe),
    /// Stop following a room.
    Unsubscribe(Unsubscribe),
    /// A wish.
    Command(CommandFrame),
    /// A page of a room's past.
    History(HistoryRequest),
    /// Something for those who are there now, never recorded.
    Ephemeral(Ephemeral),
    /// How far the person has read.
    Seen(Seen),
    /// A fresh token.
    Authenticate(Authenticate),
    /// The answer to a ping.
    Pong,
}

/// Who is there, and where they stand in each room.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    #[serde(rename = "type", default)]
    #[schema(value_type = String)]
    _type: IgnoredAny,
    /// Who this is, with accounts.
    #[serde(default)]
    pub token: Option<Token>,
    /// In local mode: who this is.
    #[serde(default)]
    pub user: Option<MemberId>,
    /// Made by the client, unique to tab and user, stable over reconnects: 1 to 128 visible ASCII characters.
    #[serde(deserialize_with = "session")]
    pub session: CommandId,
    /// What the person would call the device.
    #[serde(default)]
    pub device: Option<String>,
    /// The rooms to follow from the start.
    #[serde(default)]
    #[schema(value_type = Vec<RoomCursor>)]
    pub rooms: Vec<Wanted>,
    /// A cursor of a stream or poll: its rooms are followed too, from where it stands.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub cursor: Option<Cursor>,
}

/// A session's name, which is of the form of a command's id.
pub fn session_name(text: &str) -> Result<CommandId, IdError> {
    CommandId::parse(text).map_err(|error| error.of("a session"))
}

fn session<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CommandId, D::Error> {
    session_name(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

impl Hello {
    /// All rooms to follow, for the user that this is; those named besides the cursor count.
    pub fn take_rooms(&mut self, user: &MemberId) -> Result<Vec<Wanted>, CursorError> {
        let mut rooms = std::mem::take(&mut self.rooms);
        let named: HashSet<Followed> =
            rooms.iter().filter_map(|wanted| Some(wanted.cursor()?.room.clone())).collect();
        let carried = self.cursor.take().map_or(Ok(Vec::new()), |cursor| cursor.rooms(user))?;
        let carried = carried.into_iter().filter(|cursor| !named.contains(&cursor.room));
        rooms.extend(carried.map(Wanted::Cursor));
        Ok(rooms)
    }
}

/// One room of a hello. What cannot be read of one is denied, and no reason to refuse the others: a
/// client that keeps a name that is none would never get in again.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// A room, and where the client stands in it.
    Cursor(RoomCursor),
    /// The name of what is malformed, as far as it is shown.
    Malformed(String),
}

impl Wanted {
    /// The cursor, if it is one.
    pub const fn cursor(&self) -> Option<&RoomCursor> {
        match self {
            Self::Cursor(cursor) => Some(cursor),
            Self::Malformed(_) => None,
        }
    }
}

/// What a client sent that is none of what it should be may be as long as a frame: so much of it is said
/// back, in characters.
const SHOWN_CHARS_MAX: usize = 200;

fn shown(text: String) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            room: String,
        }
        let entry = Box::<RawValue>::deserialize(deserializer)?;
        serde_json::from_str(entry.get()).map(Self::Cursor).or_else(|error| {
            // Without a name there is nothing to answer for.
            let named = serde_json::from_str::<Named>(entry.get());
            named.map(|named| Self::Malformed(shown(named.room))).map_err(|_| D::Error::custom(error))
        })
    }
}

/// Where a client stands in a room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomCursor {
    /// The room, or `me`.
    pub room: Followed,
    /// The epoch that `after` belongs to.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// The last revision handled; without it the room's latest page comes.
    #[serde(default)]
    pub after: Option<Revision>,
    /// How to catch up.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Where there is no `after`, whether the client stands before the first event of the epoch: only a
    /// cursor of a stream or poll can say that.
    #[serde(skip)]
    pub from_first: bool,
}

/// How a client wants to catch up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// By every event missed.
    #[default]
    Events,
    /// By the room's public state and its last events, where the server has it; `how` says what comes.
    State,
}

/// See [`ClientMessage::Subscribe`].
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    #[serde(rename = "type", default)]
    #[schema(value_type = String)]
    _type: IgnoredAny,
    /// Comes back in the answer.
    pub id: CommandId,
    /// The room, or `me`.
    pub room: Followed,
    /// The epoch that `after` belongs to.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// The last revision handled.
    #[serde(default)]
    pub after: Option<Revision>,
    /// How to catch up.
    #[serde(default)]
    pub catch_up: CatchUp,
}

impl Subscribe {
    /// The id to answer to, and the cursor.
    pub fn into_parts(self) -> (CommandId, RoomCursor) {
        let Self { id, room, epoch, after, catch_up, .. } = self;
        (id, RoomCursor { room, epoch, after, catch_up, from_first: false })
    }
}

/// See [`ClientMessage::Unsubscribe`].
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    #[serde(rename = "type", default)]
    #[schema(value_type = String)]
    _type: IgnoredAny,
    /// Comes back in the answer.
    pub id: CommandId,
    /// The room, or `me`.
    pub room: Followed,
}

impl Unsubscribe {
    /// The id to answer to, and the room.
    pub fn into_parts(self) -> (CommandId, Followed) {
        (self.id, self.room)
    }
}

/// See [`ClientMessage::Command`].
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandFrame {
    #[serde(rename = "type", default)]
    #[schema(value_type = String)]
    _type: IgnoredAny,
    /// Unique; the key under which a retry finds its first outcome.
    pub id: CommandId,
    /// The room it is for.
    pub room: EntityId,
    /// What to do, such as `post_message`.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Box<RawValue>>,
    /// The revision the room must stand at.
    #[serde(default)]
    pub expected: Option<Revision>,
    /// On whose behalf; integrations only.
    #[serde(default)]
    pub by: Option<MemberId>,
    /// When it happened by its author's account, in milliseconds since 1970, of the years 1 to 9999 up to
    /// 9999-12-30T22:00Z; integrations only.
    #[serde(default)]
    pub occurred_at: Option<UnixMillis>,
}

/// See [`ClientMessage::History`].
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryRequest {
    #[serde(rename = "type", default)]
    #[schema(value_type = String)]
    _type: IgnoredAny,
    /// Comes back in the answer.
    pub id: CommandId,
    /// The room.
    pub room: EntityId,
    /// Only events below this revision; without it, from the end.
    #[serde(default)]
    pub before: Option<Revision>,
    /// Events at the most.
    #[serde(default = "history_default")]
    pub limit: u32,
}

const fn history_default() -> u32 {
    50
}

/// A message that cannot be understood, with its id if that could be read.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct MalformedMessage {
    /// The message's id.
    pub id: Option<CommandId>,
    /// What was expected and what came.
    pub reason: String,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct IdOnly {
    id: CommandId,
}

/// A message's id, if it can be read, whatever else the message is.
pub fn message_id(text: &str) -> Option<CommandId> {
    serde_json::from_str::<IdOnly>(text).ok().map(|head| head.id)
}

/// Reads one message.
pub fn parse_message(text: &str) -> Result<ClientMessage, MalformedMessage> {
    let malformed = |reason: String| MalformedMessage { id: message_id(text), reason: shown(reason) };
    let head: Head<'_> = serde_json::from_str(text).map_err(|error| malformed(no_message(text, &error)))?;
    let parsed = match &*head.kind {
        "command" => body(text).map(ClientMessage::Command),
        "hello" => body(text).map(ClientMessage::Hello),
        "subscribe" => body(text).map(ClientMessage::Subscribe),
        "unsubscribe" => body(text).map(ClientMessage::Unsubscribe),
        "history" => body(text).map(ClientMessage::History),
        "ephemeral" => body(text).map(ClientMessage::Ephemeral),
        "seen" => body(text).map(ClientMessage::Seen),
        "authenticate" => body(text).map(ClientMessage::Authenticate),
        "pong" => Ok(ClientMessage::Pong),
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(malformed(format!(
                "type must be hello, subscribe, unsubscribe, command, history, ephemeral, seen, authenticate or pong; got {shown:?}"
            )));
        }
    };
    parsed.map_err(|e| malformed(format!("{}: {e}", head.kind)))
}

fn no_message(text: &str, error: &serde_json::Error) -> String {
    let wanted = "a message must be a JSON object with a \"type\"";
    if text.trim_ascii_start().starts_with('{') {
        return format!("{wanted}: {error}");
    }
    let shown: String = text.chars().take(40).collect();
    format!("{wanted}; got {shown:?}")
}

fn body<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_command_keeps_its_data_as_it_came() {
        let text =
            r#"{"type":"command","id":"c1","room":"lobby","name":"post_message","data":{"text":"hi"}}"#;
        let ClientMessage::Command(command) = parse_message(text).unwrap() else { panic!("not a command") };
        assert_eq!((command.id.as_str(), command.name.as_str()), ("c1", "post_message"));
        assert_eq!(command.data.unwrap().get(), r#"{"text":"hi"}"#);
    }

    #[test]
    fn a_room_of_a_hello_that_is_none_is_kept_by_its_name() {
        let read = |rooms: &str| {
            let text = format!(r#"{{"type":"hello","user":"alice","session":"s","rooms":{rooms}}}"#);
            parse_message(&text).map(|message| {
                let ClientMessage::Hello(hello) = message else { panic!("not a hello") };
                let cursors = hello.rooms.into_iter().map(|wanted| match wanted {
                    Wanted::Cursor(cursor) => Ok(cursor.room.to_string()),
                    Wanted::Malformed(room) => Err(room),
                });
                cursors.collect::<Vec<_>>()
            })
        };
        for (entry, want) in [
            (r#"{"room":"a"}"#, Ok("a")),
            (r#"{"room":"a b"}"#, Err("a b")),
            (r#"{"room":"a","after":-1}"#, Err("a")),
            (r#"{"room":"a","epoch":"yesterday"}"#, Err("a")),
            (r#"{"colour":["red"],"room":"a"}"#, Err("a")),
        ] {
            let rooms = read(&format!(r#"[{{"room":"me"}},{entry},{{"room":"z"}}]"#)).unwrap();
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(rooms, [Ok("me".to_owned()), want, Ok("z".to_owned())], "{entry}");
        }
        let long = "ö ".repeat(200_000);
        let told = read(&format!(r#"[{{"room":"{long}"}}]"#)).unwrap();
        assert_eq!(told, [Err(format!("{}…", "ö ".repeat(100)))]);
        let error = parse_message(&format!(r#"{{"type":"hello","{long}":1}}"#)).unwrap_err();
        assert!(error.reason.len() < 500, "{} bytes", error.reason.len());
        for nameless in [r#"[{"after":1}]"#, r#"[{"room":7}]"#, r#"["a"]"#, "[null]", "{}", "7"] {
            let error = read(nameless).unwrap_err();
            assert!(error.reason.starts_with("hello: "), "{nameless}: {}", error.reason);
        }
    }

    #[test]
    fn malformed_messages_say_why_and_keep_their_id() {
        for (text, id, part) in [
            ("hello", None, "JSON object"),
            ("[]", None, "JSON object"),
            ("{}", None, "missing field `type`"),
            (r#"{"type":"dance","id":"7"}"#, Some("7"), "dance"),
            (r#"{"type":"command","id":"c"}"#, Some("c"), "missing field `room`"),
            (r#"{"type":"command","id":"c","room":"a b","name":"x"}"#, Some("c"), "entity id"),
            (
                r#"{"type":"command","id":"c","room":"a","name":"x","extra":1}"#,
                Some("c"),
                "unknown field `extra`",
            ),
            (r#"{"type":"command","id":5,"room":"a","name":"x"}"#, None, "invalid type"),
            (r#"{"type":"history","id":"h","room":"a","limit":-1}"#, Some("h"), "limit"),
        ] {
            let error = parse_message(text).unwrap_err();
            assert_eq!(error.id.as_ref().map(CommandId::as_str), id, "{text}");
            assert!(error.reason.contains(part) || part == "limit", "{text}: {}", error.reason);
        }
    }
}
