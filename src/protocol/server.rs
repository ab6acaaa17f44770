//! What the server sends.

use std::time::Duration;

use bytes::Bytes;
use dramatis_events::{CommandId, EntityId, Epoch, MemberId, Position, Recorded, Revision, UnixMillis};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    AuthenticateBy, Authenticated, Closed, Drain, EphemeralFrame, ErrorCode, Followed, Presence, RoomState,
};

/// One message of the server, events apart: those are [`EventFrame`]s.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage<'a> {
    /// The answer to `hello`.
    Ready(Ready),
    /// The answer to `subscribe`.
    Subscribed(Subscribed),
    /// The answer to `unsubscribe`.
    Unsubscribed(Unsubscribed),
    /// History is done, what follows is live.
    Live(Live),
    /// The command is durable.
    Ack(Ack<'a>),
    /// Nothing was recorded (`unknown_outcome` apart).
    Reject(Reject),
    /// A page of the past.
    Page(Page),
    /// A room's public state, for a latecomer.
    RoomState(RoomState),
    /// A room is no longer the client's to read.
    Closed(Closed),
    /// What somebody does just now.
    Ephemeral(EphemeralFrame<'a>),
    /// Who is there.
    Presence(Presence<'a>),
    /// The token runs out.
    Authenticate(AuthenticateBy),
    /// The answer to `authenticate`.
    Authenticated(Authenticated),
    /// The node is going away.
    Drain(Drain),
    /// Answer with `pong`, or with anything.
    Ping,
}

impl ServerMessage<'_> {
    /// The message as JSON text.
    pub fn encode(&self) -> Bytes {
        // These types hold strings, numbers and raw JSON only: serializing them cannot fail.
        serde_json::to_vec(self).map(Bytes::from).unwrap_or_default()
    }
}

/// See [`ServerMessage::Ready`].
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// This connection's id, as logs and metrics name it.
    pub connection: String,
    /// Who the server takes the client for.
    pub user: MemberId,
    /// After this much silence the server pings, in milliseconds.
    pub heartbeat_ms: u64,
    /// When the token runs out; left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<UnixMillis>,
    /// What a client must keep to.
    pub limits: Limits,
    /// How to come back after an interruption.
    pub reconnect: Reconnect,
    /// One entry a room of the hello, in its order.
    pub rooms: Vec<RoomEntry>,
}

/// Limits a client must keep to.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Limits {
    /// Bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of one frame.
    pub frame_bytes_max: usize,
    /// Commands sent and not yet answered; more are read later.
    pub in_flight_commands_max: usize,
    /// Rooms one connection may follow.
    pub rooms_max: usize,
    /// Events of one history page.
    pub history_events_max: u32,
}

/// Exponential backoff with jitter.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Reconnect {
    /// The first delay's upper bound, in milliseconds.
    pub base_ms: u64,
    /// No delay's upper bound is above this, in milliseconds.
    pub cap_ms: u64,
    /// `full`: draw uniformly between 0 and the bound.
    #[schema(value_type = String)]
    pub jitter: &'static str,
}

/// How a room's cursor was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Every event past the cursor follows.
    Events,
    /// A `room_state` follows, then every event past it.
    State,
    /// The cursor was of another epoch: drop what you hold of the room and take what follows.
    Reset,
    /// The room is not followed, as `code` says: it is not there (`not_found`), not to be read (`forbidden`,
    /// `not_a_member`), what names it is `malformed`, or the cursor is `ahead_of_log`; or for now alone, so
    /// that it may be asked for again: `unavailable`, or `rate_limited` where no more rooms may be followed.
    Denied,
}

/// One room of a `ready`, or of a `subscribed`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RoomEntry {
    /// The room, or `me`; of a hello, the name that was given, whether or not it can be one.
    #[schema(value_type = Followed)]
    pub room: String,
    /// The epoch of its revisions.
    pub epoch: Epoch,
    /// Its last revision now; null when it is not there.
    pub head: Option<Revision>,
    /// How the cursor was taken.
    pub how: How,
    /// The events that follow come after this revision; without it, from the first on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Revision>,
    /// How far the user has read, on whichever device; left out where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Revision>,
    /// Messages of others past `seen`, up to `head`; those of the last
    /// [`UNREAD_EVENTS_MAX`](super::UNREAD_EVENTS_MAX) events are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<u32>,
    /// Whether there may be more unread messages, which were not counted.
    #[serde(skip_serializing_if = "is_false")]
    pub unread_more: bool,
    /// Why it was denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// See [`ServerMessage::Subscribed`].
#[derive(Debug, Serialize, ToSchema)]
pub struct Subscribed {
    /// The request's id.
    pub id: CommandId,
    /// The room's entry.
    #[serde(flatten)]
    pub entry: RoomEntry,
}

/// See [`ServerMessage::Unsubscribed`].
#[derive(Debug, Serialize, ToSchema)]
pub struct Unsubscribed {
    /// The request's id.
    pub id: CommandId,
    /// The room, or `me`.
    pub room: Followed,
}

/// See [`ServerMessage::Live`].
#[derive(Debug, Serialize, ToSchema)]
pub struct Live {
    /// The room, or `me`.
    pub room: Followed,
    /// The last revision of the history sent; null in an empty room.
    pub revision: Option<Revision>,
}

/// See [`ServerMessage::Ack`].
#[derive(Debug, Serialize, ToSchema)]
pub struct Ack<'a> {
    /// The command's id.
    #[schema(value_type = CommandId)]
    pub id: &'a CommandId,
    /// The room.
    #[schema(value_type = EntityId)]
    pub room: &'a str,
    /// The revision of the command's last event; where nothing was to be done, the room's head.
    pub revision: Option<Revision>,
    /// The position of that event; null where nothing was to be done.
    pub position: Option<Position>,
    /// It had been recorded before.
    pub duplicate: bool,
}

/// See [`ServerMessage::Reject`].
#[derive(Debug, Serialize, ToSchema)]
pub struct Reject {
    /// The id of what is refused, if it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// The stable word.
    pub code: ErrorCode,
    /// For `rule`, the rule's own stable word; else a sentence.
    pub message: String,
    /// For `rule`, the sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Whether asking again may help.
    pub retry: bool,
    /// When to ask again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// With `ahead_of_log`, the room's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Revision>,
}

impl Reject {
    /// A refusal with a sentence.
    pub fn new(id: Option<CommandId>, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            id,
            code,
            message: message.into(),
            detail: None,
            retry: code.may_retry(),
            after_ms: None,
            head: None,
        }
    }

    /// The same, to be sent again after this.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        self
    }
}

/// See [`ServerMessage::Page`].
#[derive(Debug, Serialize, ToSchema)]
pub struct Page {
    /// The request's id.
    pub id: CommandId,
    /// The room.
    pub room: EntityId,
    /// `event` messages, ascending by revision.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub events: Vec<Box<RawValue>>,
    /// Whether there are older ones.
    pub more: bool,
}

/// A recorded event as clients see it, encoded once and shared by all who follow its room.
#[derive(Debug, Clone)]
pub struct EventFrame {
    /// The message.
    pub text: Bytes,
    /// Whose event it is.
    pub author: MemberId,
    /// The command it came from, which only the author is told.
    command: Option<CommandId>,
}

/// The fields that every `event` has.
#[derive(Serialize, ToSchema)]
pub(super) struct EventHead<'a> {
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: &'static str,
    #[schema(value_type = EntityId)]
    room: &'a str,
    revision: Revision,
    position: Position,
    #[schema(value_type = String)]
    name: &'a str,
    #[schema(value_type = MemberId)]
    by: &'a MemberId,
    recorded_at: UnixMillis,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<UnixMillis>,
}

impl EventFrame {
    /// Encodes an event for everyone but its author.
    pub fn encode(event: &Recorded) -> Self {
        let head = EventHead {
            kind: "event",
            room: Followed::name_of(&event.stream),
            revision: event.revision,
            position: event.position,
            name: event.envelope.name.as_str(),
            by: &event.envelope.author,
            recorded_at: event.recorded_at,
            occurred_at: event.envelope.occurred_at,
        };
        let mut text = Vec::with_capacity(192 + event.envelope.data.len());
        // Writing strings and numbers to a vector cannot fail.
        let _ = serde_json::to_writer(&mut text, &head);
        text.pop();
        text.extend_from_slice(b",\"data\":");
        text.extend_from_slice(&event.envelope.data);
        text.push(b'}');
        Self {
            text: text.into(),
            author: event.envelope.author.clone(),
            command: event.envelope.command.as_ref().map(|stamp| stamp.id.clone()),
        }
    }

    /// Whether it came from a command, which its author is told.
    pub fn has_command(&self) -> bool {
        self.command.is_some()
    }

    /// Appends the message for this reader: its author is told the command too.
    pub fn write_for(&self, reader: &MemberId, out: &mut Vec<u8>) {
        match &self.command {
            Some(command) if *reader == self.author => {
                out.extend_from_slice(self.text.get(..self.text.len().saturating_sub(1)).unwrap_or_default());
                out.extend_from_slice(b",\"command\":");
                let _ = serde_json::to_writer(&mut *out, command);
                out.push(b'}');
            }
            _ => out.extend_from_slice(&self.text),
        }
    }

    /// How many bytes the message has for this reader, at the most.
    pub fn bytes_for(&self, reader: &MemberId) -> usize {
        let own = self.command.as_ref().filter(|_| *reader == self.author);
        // Of the command's id every letter may need a backslash.
        self.text.len() + own.map_or(0, |command| 16 + command.as_str().len() * 2)
    }

    /// The message for this reader as JSON.
    pub fn to_json(&self, reader: &MemberId) -> Option<Box<RawValue>> {
        let mut text = Vec::new();
        self.write_for(reader, &mut text);
        String::from_utf8(text).ok().and_then(|text| RawValue::from_string(text).ok())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn an_event_frame_is_json_and_tells_its_command_to_the_author_only() {
        let recorded: Recorded = serde_json::from_str(
            r#"{"stream":"room-main.lobby","revision":3,"position":"42","recorded_at":1000,"occurred_at":900,
            "id":"00000000-0000-8000-8000-000000000000","name":"MessagePosted","version":1,"by":"alice",
            "command_id":"c1","command_hash":"00000000000000000000000000000000","data":{"kind":"text","text":"hi"}}"#,
        )
        .unwrap();
        let frame = EventFrame::encode(&recorded);
        let (alice, bob) = (MemberId::parse("alice").unwrap(), MemberId::parse("bob").unwrap());
        let for_bob: serde_json::Value = serde_json::from_str(frame.to_json(&bob).unwrap().get()).unwrap();
        let for_alice: serde_json::Value =
            serde_json::from_str(frame.to_json(&alice).unwrap().get()).unwrap();
        assert_eq!(
            for_bob,
            serde_json::json!({"type":"event","room":"lobby","revision":3,"position":"42","name":"MessagePosted",
                "by":"alice","recorded_at":1000,"occurred_at":900,"data":{"kind":"text","text":"hi"}})
        );
        assert_eq!(for_alice.get("command"), Some(&"c1".into()));
    }
}
