//! What the server says to an importer.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// One message from the server, as far as an importer cares.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Answer<'a> {
    /// The session stands.
    Ready {
        /// After so much silence it sends a ping, milliseconds.
        #[serde(default)]
        heartbeat_ms: u64,
        #[serde(default)]
        limits: Limits,
    },
    /// The command is done.
    Ack {
        #[serde(borrow)]
        id: Cow<'a, str>,
        /// `None` where nothing was recorded.
        #[serde(default)]
        position: Option<IgnoredAny>,
        #[serde(default)]
        duplicate: bool,
    },
    /// The command is not done.
    Reject(#[serde(borrow)] Reject<'a>),
    /// Whether anybody is there.
    Ping,
    /// Anything else: an importer follows no room.
    #[serde(other)]
    Other,
}

/// Limits that the server holds its clients to.
#[derive(Debug, Default, Deserialize)]
#[expect(clippy::struct_field_names, reason = "their names in the protocol")]
pub(super) struct Limits {
    /// Unanswered commands of one connection.
    #[serde(default)]
    pub(super) in_flight_commands_max: Option<usize>,
    /// Bytes of one message.
    #[serde(default)]
    pub(super) message_bytes_max: Option<usize>,
    /// Bytes of one frame.
    #[serde(default)]
    pub(super) frame_bytes_max: Option<usize>,
}

/// Why a command is not done.
#[derive(Debug, Deserialize)]
pub(super) struct Reject<'a> {
    #[serde(default, borrow)]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) code: Cow<'a, str>,
    #[serde(default, borrow)]
    message: Cow<'a, str>,
    #[serde(default)]
    detail: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) retry: bool,
    #[serde(default)]
    pub(super) after_ms: Option<u64>,
}

impl Reject<'_> {
    /// Whether the room was there already.
    pub(super) fn room_exists(&self) -> bool {
        self.code == "rule" && self.message == "room_exists"
    }

    /// Whether the room has no place for who wants to come in.
    pub(super) fn room_full(&self) -> bool {
        self.code == "rule" && self.message == "room_full"
    }

    /// Whether who it is by is not in the room.
    pub(super) fn not_a_member(&self) -> bool {
        self.code == "not_a_member"
    }

    /// Whether the token has run out: no command is taken any more.
    pub(super) fn token_expired(&self) -> bool {
        self.code == "token_expired"
    }

    /// Whether what was sent is nothing that the server understands.
    pub(super) fn malformed(&self) -> bool {
        self.code == "malformed"
    }

    /// The reason for people.
    pub(super) fn reason(&self) -> String {
        let said = match (&*self.code, &*self.message) {
            ("rule", word) => word.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        match &self.detail {
            None | Some(serde_json::Value::Null) => said,
            Some(serde_json::Value::String(detail)) => format!("{said}: {detail}"),
            Some(detail) => format!("{said}: {detail}"),
        }
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
    fn answers_are_read() {
        let read = |json| serde_json::from_str::<Answer<'_>>(json).unwrap();
        let recorded =
            read(r#"{"type":"ack","id":"a","room":"r","revision":1,"position":"7","duplicate":true}"#);
        assert!(matches!(recorded, Answer::Ack { position: Some(_), duplicate: true, .. }));
        let nothing =
            read(r#"{"type":"ack","id":"a","room":"r","revision":1,"position":null,"duplicate":false}"#);
        assert!(matches!(nothing, Answer::Ack { position: None, duplicate: false, .. }));
        let Answer::Ready { limits, .. } = read(
            r#"{"type":"ready","rooms":[],"limits":{"in_flight_commands_max":9,"message_bytes_max":7,"x":1}}"#,
        ) else {
            panic!()
        };
        let told = (limits.in_flight_commands_max, limits.message_bytes_max, limits.frame_bytes_max);
        assert_eq!(told, (Some(9), Some(7), None));
        assert!(matches!(read(r#"{"type":"live","room":"r","revision":1}"#), Answer::Other));
        assert!(matches!(read(r#"{"type":"ping"}"#), Answer::Ping));
    }

    #[test]
    fn reasons_are_said_with_the_rules_own_word() {
        for (json, wanted) in [
            (
                r#"{"id":"a","code":"rule","message":"text_empty","detail":"expected a text","retry":false}"#,
                "text_empty: expected a text",
            ),
            (
                r#"{"code":"unavailable","message":"try \"later\"","detail":null,"retry":true,"after_ms":5}"#,
                "unavailable: try \"later\"",
            ),
            (r#"{"code":"forbidden"}"#, "forbidden"),
        ] {
            assert_eq!(serde_json::from_str::<Reject<'_>>(json).unwrap().reason(), wanted);
        }
    }
}
