//! How commands are read from their names and JSON data, and written again.
//!
//! A command's canonical data is its typed form written again: fields in the order declared,
//! absent options left out. Two spellings of the same wish have one content hash.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Declares an enum of commands, each variant holding one struct of its name. Those after
/// `internal` are the platform's own: no client can name them.
macro_rules! commands {
    (
        $(#[$of:meta])* $enum:ident, $whose:literal;
        $($(#[$doc:meta])* $name:literal => $variant:ident),+ $(,)?
        $(; internal: $($(#[$own_doc:meta])* $own_name:literal => $own:ident),+ $(,)?)?
    ) => {
        $(#[$of])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $enum {
            $($(#[$doc])* $variant($variant),)+
            $($($(#[$own_doc])* $own($own),)+)?
        }

        impl $enum {
            /// Every name that a client may send.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// Reads a command from its name and its JSON data.
            pub fn parse(
                name: &str,
                data: &serde_json::value::RawValue,
            ) -> Result<Self, $crate::domain::CommandError> {
                match name {
                    $($name => $crate::domain::command::read($name, data).map(Self::$variant),)+
                    _ => Err($crate::domain::CommandError::unknown_name($whose, Self::NAMES, name)),
                }
            }

            /// The command's name, such as `post_message`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                    $($(Self::$own(_) => $own_name,)+)?
                }
            }

            /// The command's data in its canonical JSON form.
            pub fn data(&self) -> Box<serde_json::value::RawValue> {
                match self {
                    $(Self::$variant(data) => $crate::domain::command::write(data),)+
                    $($(Self::$own(data) => $crate::domain::command::write(data),)+)?
                }
            }

            /// The hash of what is asked: the stream, the name and the canonical data. The
            /// expected revision is no part of it: it says when to do a thing, not which.
            pub fn content_hash(&self, stream: &dramatis_events::StreamId) -> dramatis_events::ContentHash {
                let (name, data) = (self.name(), self.data());
                dramatis_events::ContentHash::of(&[
                    stream.as_str().as_bytes(),
                    name.as_bytes(),
                    data.get().as_bytes(),
                ])
            }
        }

        $(impl From<$variant> for $enum {
            fn from(data: $variant) -> Self {
                Self::$variant(data)
            }
        })+
        $($(impl From<$own> for $enum {
            fn from(data: $own) -> Self {
                Self::$own(data)
            }
        })+)?
    };
}
pub(super) use commands;

/// Why a name and its data are no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such command.
    #[error("unknown command {name:?}: {whose} takes {}", known.join(", "))]
    UnknownName {
        /// Who was asked, such as "a room".
        whose: &'static str,
        /// What they take.
        known: &'static [&'static str],
        /// What came, cut to what is worth showing.
        name: String,
    },
    /// A field is missing, mistyped or unknown.
    #[error("the data of {name} does not fit: {reason}")]
    Data {
        /// The command's name.
        name: &'static str,
        /// Which field, what was expected and what came.
        reason: String,
    },
}

/// How much of an unknown name an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 64;

impl CommandError {
    pub(super) fn unknown_name(whose: &'static str, known: &'static [&'static str], name: &str) -> Self {
        Self::UnknownName { whose, known, name: name.chars().take(SHOWN_CHARS_MAX).collect() }
    }
}

pub(super) fn read<'de, T: Deserialize<'de>>(
    name: &'static str,
    data: &'de RawValue,
) -> Result<T, CommandError> {
    let error = |reason: String| CommandError::Data { name, reason };
    // Serde would also take an array for a struct, field by field in order.
    if !data.get().starts_with('{') {
        return Err(error("expected a JSON object".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_str(data.get());
    serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let field = e.path().to_string();
        let reason = e.into_inner().to_string();
        // A missing field has no path; the parser's own words name it.
        if field == "." { error(reason) } else { error(format!("field {field}: {reason}")) }
    })
}

#[expect(clippy::expect_used, reason = "command data is texts and numbers, which always serialize")]
pub(super) fn write(data: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(data).expect("command data serializes")
}
