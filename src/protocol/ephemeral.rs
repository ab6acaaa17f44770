//! Ephemerals: what is broadcast to a room and never recorded, such as typing and carets.

use dramatis_events::{EntityId, MemberId};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
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

/// A client's `ephemeral`. It is dropped if the room was closed.
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
    /// Anything, of lists and objects at most 64 in each other; what is left out is sent on as null.
    #[serde(default, deserialize_with = "data")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Box<RawValue>>,
}

/// Lists and objects of its data that may lie in each other. It is sent on as it came, in a frame with what
/// else there is: a reader that goes no deeper, as many do not, would lose all of that.
const DEPTH_MAX: usize = 64;

fn data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    let data = Option::<Box<RawValue>>::deserialize(deserializer)?;
    match data.as_ref().map_or(0, |data| depth(data.get())) {
        ..=DEPTH_MAX => Ok(data),
        deeper => Err(D::Error::custom(format!(
            "at most {DEPTH_MAX} lists and objects of data may lie in each other, got {deeper}"
        ))),
    }
}

/// How many lists and objects of a JSON text lie in each other.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth = depth.saturating_add(1);
                deepest = depth.max(deepest);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn data_is_as_deep_as_its_lists_and_objects() {
        for (json, deep) in [
            ("null", 0),
            (r#""[[{\"[""#, 0),
            ("[]", 1),
            (r#"{"a":[1,{}],"b":[]}"#, 3),
            (r#"[["\\",[],"]]"],[]]"#, 3),
        ] {
            assert_eq!(depth(json), deep, "{json}");
        }
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let read = |data: &str| {
            serde_json::from_str::<Ephemeral>(&format!(r#"{{"room":"a","name":"caret","data":{data}}}"#))
        };
        assert_eq!(read(&nested(DEPTH_MAX)).unwrap().data.unwrap().get(), nested(DEPTH_MAX));
        assert!(read("null").unwrap().data.is_none());
        let error = read(&nested(2_000)).unwrap_err().to_string();
        assert!(error.contains("at most 64") && error.contains("got 2000"), "{error}");
    }
}
