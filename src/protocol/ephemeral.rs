//! Ephemerals: what is broadcast to a room and never recorded, such as typing and carets.

use dramatis_events::{EntityId, MemberId};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What kind of ephemeral it is, such as `typing` or `caret`: 1 to 32 of a-z, 0-9 and _.
///
/// Of those by one member with one name in one room only the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
pub struct EphemeralName(String);

impl EphemeralName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that names no ephemeral.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an ephemeral's name must be 1 to 32 of a-z 0-9 _, such as \"typing\"")]
pub struct EphemeralNameError;

impl TryFrom<String> for EphemeralName {
    type Error = EphemeralNameError;
    fn try_from(text: String) -> Result<Self, EphemeralNameError> {
        let good = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if good { Ok(Self(text)) } else { Err(EphemeralNameError) }
    }
}

/// A client's `ephemeral`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ephemeral {
    #[serde(rename = "type", default)]
    #[schema(value_type = String)]
    _type: IgnoredAny,
    /// The room that is told.
    pub room: EntityId,
    /// What it is.
    pub name: EphemeralName,
    /// Anything; what is left out is sent on as null.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Box<RawValue>>,
}

/// The server's `ephemeral`: as it was sent, with its author.
#[derive(Debug, Serialize, ToSchema)]
pub struct EphemeralFrame<'a> {
    /// The room.
    #[schema(value_type = EntityId)]
    pub room: &'a EntityId,
    /// What it is.
    #[schema(value_type = EphemeralName)]
    pub name: &'a EphemeralName,
    /// Whose it is.
    #[schema(value_type = MemberId)]
    pub by: &'a MemberId,
    /// As it was sent.
    #[schema(value_type = serde_json::Value)]
    pub data: &'a RawValue,
}
