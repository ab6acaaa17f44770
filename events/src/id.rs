//! Ids of people, commands and events.
//!
//! Every id has a private field and one door, `parse`, which deserializing goes through too:
//! an id that exists is a valid id.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Revision, StreamId};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {allowed}; got {got:?}")]
pub struct IdError {
    what: &'static str,
    allowed: &'static str,
    got: String,
}

/// How much of a refused text an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

impl IdError {
    pub(crate) fn new(what: &'static str, allowed: &'static str, got: &str) -> Self {
        Self { what, allowed, got: got.chars().take(SHOWN_CHARS_MAX).collect() }
    }

    /// The same of something that is named by such an id: `what` as `a session`.
    #[must_use]
    pub fn of(self, what: &'static str) -> Self {
        Self { what, ..self }
    }
}

/// Declares a validated string id: shared, cheap to clone, parsed when deserialized.
macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allowed:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        $crate::id::string_form!($name);

        impl $name {
            /// Parses the text form; the error says what is allowed.
            pub fn parse(text: &str) -> Result<Self, $crate::IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err($crate::IdError::new($what, $allowed, text))
                }
            }

            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

    };
}
pub(crate) use string_id;

/// What all ids have by their text form: shown as it is, parsed from it, in JSON as in Rust. Neither
/// way makes a copy besides.
macro_rules! string_form {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::IdError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::id::TextForm(std::marker::PhantomData))
            }
        }
    };
}
pub(crate) use string_form;

/// Reads an id from its text form.
pub(crate) struct TextForm<T>(pub(crate) PhantomData<T>);

impl<T: FromStr<Err = IdError>> Visitor<'_> for TextForm<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// What an entity id, and so a user or room id, may look like.
pub(crate) const ENTITY_ID_ALLOWED: &str =
    "1 to 128 visible ASCII characters other than / % : \" < > (a room or user name such as \"lobby\")";

pub(crate) fn is_entity_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'%' | b':' | b'"' | b'<' | b'>'))
}

string_id!(
    /// A person's id, unique in the tenant.
    UserId, "a user id", ENTITY_ID_ALLOWED, is_entity_id
);

string_id!(
    /// A command's id, chosen by the client; the key under which a retry finds its first outcome.
    CommandId, "a command id", "1 to 128 visible ASCII characters",
    |text| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
);

/// Who acts in a room: a person, a persona, a trusted integration or the system itself.
///
/// The text form is the bare id for a person (`alice`) and `kind:id` for all others
/// (`persona:socrates`, `integration:irc-import`). Ids hold no colon, so the two never meet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(Arc<str>);

string_form!(MemberId);

/// What kind of member a [`MemberId`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// A person.
    User,
    /// An AI character.
    Persona,
    /// A trusted program that speaks for others, an importer for example.
    Integration,
    /// The platform itself.
    System,
}

impl MemberId {
    /// Parses the text form; the error says what is allowed.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let id = match text.split_once(':') {
            None => text,
            Some(("persona" | "integration" | "system", id)) => id,
            Some(_) => return Err(Self::error(text)),
        };
        if is_entity_id(id) { Ok(Self(text.into())) } else { Err(Self::error(text)) }
    }

    fn error(text: &str) -> IdError {
        IdError::new(
            "a member id",
            "a user id, or persona:, integration: or system: and an id \
             (an id is 1 to 128 visible ASCII characters other than / % : \" < >)",
            text,
        )
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind, told by the prefix.
    pub fn kind(&self) -> MemberKind {
        match self.0.split_once(':') {
            None => MemberKind::User,
            Some(("persona", _)) => MemberKind::Persona,
            Some(("integration", _)) => MemberKind::Integration,
            Some(_) => MemberKind::System,
        }
    }

    /// The id without its kind.
    pub fn bare(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, id)| id)
    }

    /// The person, if this is one.
    pub fn user(&self) -> Option<UserId> {
        (self.kind() == MemberKind::User).then(|| UserId(self.0.clone()))
    }
}

impl From<UserId> for MemberId {
    fn from(user: UserId) -> Self {
        Self(user.0)
    }
}

/// A command id with its scope: 128 bits of BLAKE3 over stream (which names the tenant),
/// author and command id. Engines index it; the event's own fields prove a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandKey([u8; 16]);

impl CommandKey {
    /// Derives the key.
    pub fn derive(stream: &StreamId, author: &MemberId, command: &CommandId) -> Self {
        // One call over one buffer: commands are hashed with every append.
        let parts = [stream.as_str(), author.as_str(), command.as_str()];
        let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for part in parts {
            text.extend_from_slice(part.as_bytes());
            text.push(0);
        }
        let hash = blake3::hash(&text);
        Self(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// The raw bits, as an index stores them.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// 128 bits of BLAKE3 over a command's target, name and canonical data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash([u8; 16]);

impl ContentHash {
    /// Hashes the parts, each closed by a zero byte.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part).update(&[0]);
        }
        Self(first_16(&hasher))
    }

    /// From the stored bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> String {
        Uuid::from_bytes(hash.0).simple().to_string()
    }
}

impl TryFrom<String> for ContentHash {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        let error = || IdError::new("a content hash", "32 hexadecimal digits", &text);
        Ok(Self(Uuid::try_parse(&text).map_err(|_| error())?.into_bytes()))
    }
}

/// An event's id: a UUID (version 8) derived from its command's key and its index among the
/// events of that command, so that recording a command again gives the same ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(Uuid);

impl EventId {
    /// Derives the id of the `index`-th event of a command.
    pub fn derive(key: CommandKey, index: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&key.0).update(&index.to_le_bytes());
        Self(uuid::Builder::from_custom_bytes(first_16(&hasher)).into_uuid())
    }

    /// Derives the id of an event without a command, from the place it was recorded at.
    pub fn at(stream: &StreamId, revision: Revision) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(stream.as_str().as_bytes()).update(&revision.get().to_le_bytes());
        Self(uuid::Builder::from_custom_bytes(first_16(&hasher)).into_uuid())
    }

    /// From the stored bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The bytes to store.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn first_16(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use super::*;

    #[test]
    fn member_ids_tell_their_kind() {
        for (text, kind) in [
            ("alice", MemberKind::User),
            ("damy[ubuntu]", MemberKind::User),
            ("persona:socrates", MemberKind::Persona),
            ("integration:irc-import", MemberKind::Integration),
            ("system:jobs", MemberKind::System),
        ] {
            let id: MemberId = serde_json::from_value(text.into()).unwrap();
            assert_eq!(id.kind(), kind);
            assert_eq!(serde_json::to_value(&id).unwrap(), text);
        }
        for bad in ["", "a b", "robot:x", "persona:", "a:b", "a/b", "zoë", "persona:a:b"] {
            assert!(MemberId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_says_what_is_allowed_and_what_came() {
        let error = UserId::parse("a b").unwrap_err().to_string();
        assert!(error.contains("visible ASCII") && error.contains("a b"), "{error}");
        assert!(UserId::parse(&"x".repeat(5_000)).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn event_ids_depend_on_scope_and_index() {
        let stream = StreamId::parse("room-main.lobby").unwrap();
        let other = StreamId::parse("room-main.attic").unwrap();
        let (alice, bob) = (MemberId::parse("alice").unwrap(), MemberId::parse("bob").unwrap());
        let command = CommandId::parse("c1").unwrap();
        let key = CommandKey::derive(&stream, &alice, &command);
        assert_eq!(EventId::derive(key, 0), EventId::derive(key, 0));
        assert_ne!(EventId::derive(key, 0), EventId::derive(key, 1));
        assert_ne!(key, CommandKey::derive(&stream, &bob, &command));
        assert_ne!(key, CommandKey::derive(&other, &alice, &command));
    }
}
