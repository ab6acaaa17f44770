//! Personal data inside events: plain, or sealed under its subject's key.
//!
//! The shape is part of the event format from the first recording on, so that a value can be
//! sealed, and destroyed with its key, without a new schema version. Deciders never read it.

use std::fmt;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A personal text: the text itself, or its sealed form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Personal {
    /// Readable by anyone who may read the event. Shared: events hand it on to documents.
    Plain(Arc<str>),
    /// Readable only with the subject's key.
    Sealed {
        /// The ciphertext and what is needed to open it. Boxed: most texts are plain, and all are
        /// as large as this.
        #[serde(rename = "$sealed")]
        sealed: Box<SealedField>,
    },
}

/// An encrypted value. All three fields are text: a key's name, and base64 for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SealedField {
    /// The name of the subject's key.
    pub key: String,
    /// The nonce, base64.
    pub nonce: String,
    /// The encrypted JSON of the value, base64.
    pub ciphertext: String,
}

impl Personal {
    /// The text, unless it is sealed.
    pub fn plain(&self) -> Option<&Arc<str>> {
        match self {
            Self::Plain(value) => Some(value),
            Self::Sealed { .. } => None,
        }
    }
}

impl From<&str> for Personal {
    fn from(text: &str) -> Self {
        Self::Plain(text.into())
    }
}

impl From<String> for Personal {
    fn from(text: String) -> Self {
        Self::Plain(text.into())
    }
}

/// Told apart by their first character: what an untagged enum would copy before it looks.
impl<'de> Deserialize<'de> for Personal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Personal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or an object with \"$sealed\"")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Personal::Plain(value.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let Sealed { sealed } = Sealed::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Personal::Sealed { sealed })
    }
}

#[derive(Deserialize)]
struct Sealed {
    #[serde(rename = "$sealed")]
    sealed: Box<SealedField>,
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
    fn both_forms_come_back() {
        for json in [r#""hello""#, r#"{"$sealed":{"key":"k1","nonce":"AA==","ciphertext":"AAEC"}}"#] {
            let value: Personal = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for json in ["7", "null", r#"["hello"]"#, "{}", r#"{"$sealed":{"key":"k1"}}"#, r#"{"sealed":"x"}"#] {
            assert!(serde_json::from_str::<Personal>(json).is_err(), "{json}");
        }
        let error = serde_json::from_str::<Personal>("7").unwrap_err().to_string();
        assert!(error.contains("a string, or an object"), "{error}");
    }
}
