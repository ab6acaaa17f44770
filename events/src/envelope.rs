//! Envelopes: an event with its metadata, on its way to the log and as read back.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{CommandId, ContentHash, EventId, MemberId, Position, Revision, StreamId, UnixMillis, UserId};

/// An event's name, such as `MessagePosted`. At most 64 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName(Cow<'static, str>);

impl EventName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// A name known at compile time.
    pub const fn known(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// Parses a name: 1 to 64 ASCII letters and digits.
    pub fn parse(text: &str) -> Result<Self, crate::IdError> {
        let valid =
            (1..=Self::BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !valid {
            return Err(crate::IdError::new("an event name", "1 to 64 ASCII letters and digits", text));
        }
        let known =
            crate::room::RoomEvent::known_name(text).or_else(|| crate::user::UserEvent::known_name(text));
        Ok(Self(known.map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for EventName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The command that an event came from: its id, and the hash of what it asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandStamp {
    /// The client's id for the command.
    pub id: CommandId,
    /// The hash of target, name and canonical data: the same id with another hash is a conflict.
    pub hash: ContentHash,
}

/// An event with its metadata, on its way to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Derived from the command's key and the event's index.
    pub id: EventId,
    /// The event's name.
    pub name: EventName,
    /// The payload's schema version, from 1.
    pub version: u16,
    /// When it happened by its author's account; only imports and trusted integrations set it.
    pub occurred_at: Option<UnixMillis>,
    /// Who did it.
    pub author: MemberId,
    /// The command it came from.
    pub command: Option<CommandStamp>,
    /// The event that began the chain this one belongs to.
    pub correlation_id: Option<EventId>,
    /// The event that directly caused this one.
    pub causation_id: Option<EventId>,
    /// The person whose personal data it holds.
    pub subject: Option<UserId>,
    /// The payload, JSON.
    pub data: Bytes,
}

/// An envelope as read back from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The stream it is in.
    pub stream: StreamId,
    /// Its place in the stream.
    pub revision: Revision,
    /// Its place in the log.
    pub position: Position,
    /// When the log's writer took it; never runs backwards.
    pub recorded_at: UnixMillis,
    /// The event.
    pub envelope: Envelope,
}

/// The JSON form of a recorded event: one flat object, one line of an export.
#[derive(Serialize, Deserialize)]
struct RecordedJson<'a> {
    stream: Cow<'a, StreamId>,
    revision: Revision,
    position: Position,
    recorded_at: UnixMillis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    occurred_at: Option<UnixMillis>,
    id: EventId,
    name: Cow<'a, EventName>,
    version: u16,
    by: Cow<'a, MemberId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command_id: Option<Cow<'a, CommandId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command_hash: Option<ContentHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causation_id: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, UserId>>,
    data: Cow<'a, RawValue>,
}

impl Serialize for Recorded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = &self.envelope;
        let data: &RawValue = serde_json::from_slice(&event.data).map_err(serde::ser::Error::custom)?;
        RecordedJson {
            stream: Cow::Borrowed(&self.stream),
            revision: self.revision,
            position: self.position,
            recorded_at: self.recorded_at,
            occurred_at: event.occurred_at,
            id: event.id,
            name: Cow::Borrowed(&event.name),
            version: event.version,
            by: Cow::Borrowed(&event.author),
            command_id: event.command.as_ref().map(|stamp| Cow::Borrowed(&stamp.id)),
            command_hash: event.command.as_ref().map(|stamp| stamp.hash),
            correlation_id: event.correlation_id,
            causation_id: event.causation_id,
            subject: event.subject.as_ref().map(Cow::Borrowed),
            data: Cow::Borrowed(data),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Recorded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = RecordedJson::deserialize(deserializer)?;
        let command = match (json.command_id, json.command_hash) {
            (Some(id), Some(hash)) => Some(CommandStamp { id: id.into_owned(), hash }),
            (None, None) => None,
            _ => return Err(D::Error::custom("command_id and command_hash must stand together")),
        };
        let envelope = Envelope {
            id: json.id,
            name: json.name.into_owned(),
            version: json.version,
            occurred_at: json.occurred_at,
            author: json.by.into_owned(),
            command,
            correlation_id: json.correlation_id,
            causation_id: json.causation_id,
            subject: json.subject.map(Cow::into_owned),
            data: Bytes::copy_from_slice(json.data.get().as_bytes()),
        };
        Ok(Self {
            stream: json.stream.into_owned(),
            revision: json.revision,
            position: json.position,
            recorded_at: json.recorded_at,
            envelope,
        })
    }
}
