//! Tokens in frames: how a client shows who it is, and renews that in place.

use std::fmt;

use dramatis_events::{CommandId, UnixMillis};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A token as it came. It is never shown: not in logs, not in errors.
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
pub struct Token(String);

impl Token {
    /// The secret itself, for who verifies it.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token must be 1 to {TOKEN_BYTES_MAX} visible ASCII characters")]
pub struct TokenError;

impl TryFrom<String> for Token {
    type Error = TokenError;
    fn try_from(text: String) -> Result<Self, TokenError> {
        let good = (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if good { Ok(Self(text)) } else { Err(TokenError) }
    }
}

/// A client's `authenticate`: a fresh token for this connection.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Authenticate {
    #[serde(rename = "type", default)]
    #[schema(value_type = String)]
    _type: IgnoredAny,
    /// Comes back in the answer.
    pub id: CommandId,
    /// The fresh token, of the same user.
    pub token: Token,
}

/// The answer to it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Authenticated {
    /// The request's id.
    pub id: CommandId,
    /// When the fresh token runs out; left out where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<UnixMillis>,
}

/// The server's `authenticate`: the token runs out.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuthenticateBy {
    /// Send a fresh one by then.
    pub by: UnixMillis,
}
