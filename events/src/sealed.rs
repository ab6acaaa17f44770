//! Personal data inside events: plain, or sealed under its subject's key.
//!
//! The shape is part of the event format from the first recording on, so that a value can be
//! sealed, and destroyed with its key, without a new schema version. Deciders never read it.

use serde::{Deserialize, Serialize};

/// A personal value: the value itself, or its sealed form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Personal<T> {
    /// Readable by anyone who may read the event.
    Plain(T),
    /// Readable only with the subject's key.
    Sealed {
        /// The ciphertext and what is needed to open it.
        #[serde(rename = "$sealed")]
        sealed: SealedField,
    },
}

/// An encrypted value. All three fields are text: a key's name, and base64 for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedField {
    /// The name of the subject's key.
    pub key: String,
    /// The nonce, base64.
    pub nonce: String,
    /// The encrypted JSON of the value, base64.
    pub ciphertext: String,
}

impl<T> Personal<T> {
    /// The value, unless it is sealed.
    pub fn plain(&self) -> Option<&T> {
        match self {
            Self::Plain(value) => Some(value),
            Self::Sealed { .. } => None,
        }
    }
}

impl<T> From<T> for Personal<T> {
    fn from(value: T) -> Self {
        Self::Plain(value)
    }
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
            let value: Personal<String> = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        }
    }
}
