//! Why a connection ended before the import was done, and what is to be done about that.

use tokio_tungstenite::tungstenite::Error as SocketError;

/// See the module.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nothing listens.
    NoServer(String),
    /// The connection broke: what was not answered may go again.
    Lost(String),
    /// The server does not understand the greeting.
    Malformed(String),
    /// The server does not take the token, or no longer.
    Token(String),
    /// The server will have nothing of it: going again as before would end the same.
    Refused(String),
    /// Going on makes no sense.
    Stop(anyhow::Error),
}

/// Codes that say that the token is bad or was revoked.
const TOKEN: u16 = 4501;
/// Codes from here on say not to come back.
const FOR_GOOD: u16 = 4500;

/// The end that a close code of the server stands for.
pub(super) fn closed(code: u16, reason: &str) -> Ended {
    let reason = format!("the server closed the connection: {code} {reason}");
    match code {
        TOKEN => Ended::Token(reason),
        // What was sent is what it does not take (RFC 6455, 7.4.1).
        1002 | 1003 | 1007..=1009 | FOR_GOOD.. => Ended::Refused(reason),
        _ => Ended::Lost(reason),
    }
}

/// The end by an error of the socket.
pub(super) fn lost(error: &SocketError) -> Ended {
    Ended::Lost(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_end_otherwise_is_tried_again() {
        for code in [1000, 1001, 1006, 1011, 4001, 4004, 4008, 4013, 4029] {
            assert!(matches!(closed(code, ""), Ended::Lost(_)), "{code}");
        }
        for code in [1002, 1003, 1007, 1009, 4500, 4503, 4507] {
            assert!(matches!(closed(code, ""), Ended::Refused(_)), "{code}");
        }
        assert!(matches!(closed(4501, "why"), Ended::Token(reason) if reason.ends_with("4501 why")));
    }
}
