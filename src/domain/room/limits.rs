//! What an operator may limit in a room.

use serde::{Deserialize, Serialize};

/// Limits of a room. They bind new commands only: what was recorded stays as it is.
///
/// Characters are Unicode scalar values, as `str::chars` counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomLimits {
    /// The longest text of a message, in characters. A character takes up to 6 bytes of JSON,
    /// and the log takes events of up to 1 MiB.
    pub text_chars_max: usize,
    /// The longest title, in characters.
    pub title_chars_max: usize,
    /// The longest display name that may be chosen, in characters.
    pub display_name_chars_max: usize,
    /// The longest reaction, in characters: an emoji may be a sequence of them.
    pub emoji_chars_max: usize,
    /// The longest reason for leaving, removing, redacting or closing, in characters.
    pub reason_chars_max: usize,
    /// The most members at a time.
    pub members_max: usize,
    /// The most invitations that wait for an answer at a time.
    pub invitations_max: usize,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self {
            text_chars_max: 8_000,
            title_chars_max: 200,
            display_name_chars_max: 80,
            emoji_chars_max: 32,
            reason_chars_max: 500,
            members_max: 20_000,
            invitations_max: 1_000,
        }
    }
}
