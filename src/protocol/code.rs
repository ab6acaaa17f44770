//! Stable words for errors, and the numbers a socket is closed with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why something was refused. Stable words; HTTP carries the same in its problem documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, an unknown type, a missing or mistyped field.
    Malformed,
    /// A body or message over its limit. On a socket the close says so.
    TooLarge,
    /// No right to do this.
    Forbidden,
    /// No such room, member or message.
    NotFound,
    /// Only members may.
    NotAMember,
    /// The domain's rule says no; `message` is the rule's own stable word.
    Rule,
    /// The room is past the revision the command expected.
    Conflict,
    /// The same command id came before with other content.
    CommandIdReused,
    /// The revision is beyond the room's head.
    AheadOfLog,
    /// Too fast; `after_ms` says when to come back.
    RateLimited,
    /// What the plan allows is used up.
    QuotaExhausted,
    /// The token has run out: send a fresh one by `authenticate`.
    TokenExpired,
    /// Our side takes nothing now; nothing was recorded.
    Unavailable,
    /// It may or may not be recorded: ask again with the same id.
    UnknownOutcome,
    /// A fault of ours; nothing was recorded.
    Internal,
}

impl ErrorCode {
    /// Whether the same message may be sent again and have another answer.
    pub const fn may_retry(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::UnknownOutcome)
    }

    /// The HTTP status that carries this code.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge => 413,
            Self::TokenExpired => 401,
            Self::Forbidden | Self::NotAMember => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::CommandIdReused => 409,
            Self::AheadOfLog => 416,
            Self::Rule => 422,
            Self::RateLimited | Self::QuotaExhausted => 429,
            Self::Internal => 500,
            Self::Unavailable | Self::UnknownOutcome => 503,
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::NotAMember => "not_a_member",
            Self::Rule => "rule",
            Self::Conflict => "conflict",
            Self::CommandIdReused => "command_id_reused",
            Self::AheadOfLog => "ahead_of_log",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::TokenExpired => "token_expired",
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Internal => "internal",
        }
    }
}

/// Why the server closes a socket. Clients reconnect on 4000 to 4499 and do not on 4500 to 4999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The client closed, or there is nothing more to say.
    Normal = 1000,
    /// The frame sequence breaks the WebSocket protocol.
    Protocol = 1002,
    /// A frame that is not text.
    NotText = 1003,
    /// Text that is not UTF-8.
    NotUtf8 = 1007,
    /// A message or frame over its limit.
    TooBig = 1009,
    /// The node is going away.
    Drain = 4001,
    /// Nothing was heard in time.
    NoHeartbeat = 4002,
    /// A fault of ours.
    Internal = 4004,
    /// No byte was read for too long.
    TooSlow = 4008,
    /// Too much of what clients have sent waits in the process, and this one has sent most of it.
    Overloaded = 4013,
    /// The rest of a message did not come in time.
    Unfinished = 4014,
    /// Far too fast, over and over.
    RateLimited = 4029,
    /// Malformed messages, over and over.
    Malformed = 4500,
    /// The token is bad or was revoked: refresh it once, then give up.
    Token = 4501,
    /// No right to be here.
    Forbidden = 4503,
    /// A version of the protocol that this server does not speak.
    Version = 4504,
    /// More connections than this server takes.
    TooManyConnections = 4505,
    /// No `hello` in time.
    NoHello = 4506,
    /// The same session came back on another connection.
    Replaced = 4507,
}

impl CloseCode {
    /// Whether the client's bytes make no sense from here on.
    pub const fn ends_reading(self) -> bool {
        matches!(self, Self::Protocol | Self::NotUtf8 | Self::TooBig | Self::Overloaded | Self::Unfinished)
    }

    /// What the closing frame tells people, at most 123 bytes.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::Protocol => "the frames break the WebSocket protocol",
            Self::NotText => "messages are text: send no binary frames",
            Self::NotUtf8 => "text must be UTF-8",
            Self::TooBig => "a message or frame is over the limits of ready: send less at a time",
            Self::Drain => "the server is going away: come back in your slot",
            Self::NoHeartbeat => "nothing was heard in time: answer pings",
            Self::Internal => "a fault of the server: come back",
            Self::TooSlow => "nothing was read for too long: come back and resume",
            Self::Overloaded => "too many large messages are under way: come back, and send less at a time",
            Self::Unfinished => {
                "the rest of a message did not come in time: come back, and send less at a time"
            }
            Self::RateLimited => "far too fast: come back later, and keep to after_ms",
            Self::Malformed => "malformed: the reject before this says what was expected",
            Self::Token => "the token is missing, bad or has run out: come back with a fresh one",
            Self::Forbidden => "no right to be here",
            Self::Version => "the server does not speak this version",
            Self::TooManyConnections => "this server, address or user has as many connections as may be",
            Self::NoHello => "no hello came in time: send it first",
            Self::Replaced => "this session came back on another connection",
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_serialized_form() {
        for code in
            [ErrorCode::Malformed, ErrorCode::NotAMember, ErrorCode::CommandIdReused, ErrorCode::AheadOfLog]
        {
            assert_eq!(serde_json::to_value(code).ok(), Some(code.as_str().into()));
        }
    }
}
