//! What every event enum offers: a name, a schema version, and one decode path.

use bytes::Bytes;
use serde_json::error::Category as JsonErrorKind;

use crate::{Envelope, EventName};

/// The events of one stream category.
///
/// [`Event::decode`] is the only way from stored bytes to an event: load, subscription, replay
/// and export all use it. An unknown name or a newer schema version is refused, never skipped.
pub trait Event: Sized {
    /// The stream category these events belong to.
    const CATEGORY: &'static str;

    /// Every event name of the category with its newest schema version.
    const NAMES: &'static [(&'static str, u16)];

    /// The event's name, such as `MessagePosted`.
    fn name(&self) -> &'static str;

    /// The payload as JSON.
    fn encode(&self) -> Result<Bytes, EncodeError>;

    /// Reads a payload of the newest schema version; `name` is one of [`Event::NAMES`].
    fn decode_newest(name: &str, data: &[u8]) -> Result<Self, DecodeError>;

    /// Reads a payload of any version ever recorded.
    fn decode(name: &str, version: u16, data: &[u8]) -> Result<Self, DecodeError> {
        let Some((_, newest)) = Self::NAMES.iter().find(|(known, _)| *known == name) else {
            return Err(DecodeError::UnknownName { category: Self::CATEGORY, name: name.to_owned() });
        };
        if version == 0 || version > *newest {
            return Err(DecodeError::Version { name: name.to_owned(), version, newest: *newest });
        }
        // An older version is lifted here, one upcaster a version, before it is read.
        Self::decode_newest(name, data)
    }

    /// Reads the event inside an envelope.
    fn from_envelope(envelope: &Envelope) -> Result<Self, DecodeError> {
        Self::decode(envelope.name.as_str(), envelope.version, &envelope.data)
    }

    /// The newest schema version of this event.
    fn version(&self) -> u16 {
        Self::NAMES.iter().find(|(known, _)| *known == self.name()).map_or(1, |(_, version)| *version)
    }

    /// The name as an envelope holds it.
    fn event_name(&self) -> EventName {
        EventName::known(self.name())
    }
}

/// A payload that does not serialize.
#[derive(Debug, thiserror::Error)]
#[error("event {name} does not serialize: {reason}")]
pub struct EncodeError {
    /// The event's name.
    pub name: &'static str,
    /// What the serializer said.
    pub reason: String,
}

/// Why stored bytes are no event of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The name is not of this category: recorded by a newer release, or damaged.
    #[error(
        "unknown event {name:?} in category {category}; a newer release wrote it: upgrade before reading on"
    )]
    UnknownName {
        /// The category asked.
        category: &'static str,
        /// The name found.
        name: String,
    },
    /// The schema version is newer than this release knows.
    #[error(
        "event {name} has schema version {version}, this release reads 1 to {newest}: upgrade before reading on"
    )]
    Version {
        /// The event's name.
        name: String,
        /// The version found.
        version: u16,
        /// The newest version known.
        newest: u16,
    },
    /// The payload is not what the schema says.
    #[error("the payload of event {name} is not what its schema says: {reason}")]
    Payload {
        /// The event's name.
        name: String,
        /// What the parser said.
        reason: String,
    },
}

impl DecodeError {
    /// What the messages of those end with that a newer release may not have.
    pub const UPGRADE: &'static str = "upgrade before reading on";

    pub(crate) fn payload(name: &str, error: &serde_json::Error) -> Self {
        let kind = match error.classify() {
            JsonErrorKind::Data => "",
            JsonErrorKind::Io | JsonErrorKind::Syntax | JsonErrorKind::Eof => "not JSON: ",
        };
        Self::Payload { name: name.to_owned(), reason: format!("{kind}{error}") }
    }
}

/// Implements [`Event`] for an enum whose variants each hold one payload struct of that name.
macro_rules! event_enum {
    ($enum:ident, $category:literal, { $($variant:ident = $version:literal),+ $(,)? }) => {
        impl $crate::Event for $enum {
            const CATEGORY: &'static str = $category;
            const NAMES: &'static [(&'static str, u16)] = &[$((stringify!($variant), $version)),+];

            fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant)),+ }
            }

            fn encode(&self) -> Result<bytes::Bytes, $crate::EncodeError> {
                match self { $(Self::$variant(payload) => serde_json::to_vec(payload)),+ }
                    .map(bytes::Bytes::from)
                    .map_err(|e| $crate::EncodeError { name: self.name(), reason: e.to_string() })
            }

            fn decode_newest(name: &str, data: &[u8]) -> Result<Self, $crate::DecodeError> {
                match name {
                    $(stringify!($variant) => serde_json::from_slice(data).map(Self::$variant)
                        .map_err(|e| $crate::DecodeError::payload(name, &e)),)+
                    _ => Err($crate::DecodeError::UnknownName { category: $category, name: name.to_owned() }),
                }
            }
        }

        $(impl From<$variant> for $enum {
            fn from(payload: $variant) -> Self {
                Self::$variant(payload)
            }
        })+
    };
}
pub(crate) use event_enum;
