//! How a session without a socket begins: with a `hello` as a body, or with a cursor or the
//! names of rooms, of which a `hello` is made here.

use std::net::IpAddr;

use actix_web::http::header::HeaderName;
use actix_web::{HttpMessage as _, HttpRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Key;
use super::caller::{self, malformed};
use crate::auth::Pass;
use crate::protocol::{ClientMessage, ErrorCode, Hello, Reject, RoomCursor, Wanted, parse_message};
use crate::web::body;
use crate::web::peer::ClientAddress;

/// Where an `EventSource` puts the `id` of the last event it got.
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The first message of a session and whose it is.
pub(in crate::web) struct Opening {
    /// The user and the session.
    pub(in crate::web) key: Key,
    /// The cursor it goes on from.
    pub(in crate::web) cursor: Option<String>,
    /// The rooms it asks for, and where it stands in them.
    pub(in crate::web) rooms: Vec<RoomCursor>,
    /// From where the request came.
    pub(in crate::web) address: Option<IpAddr>,
    /// What the request has shown, where the server has a key.
    pub(in crate::web) pass: Option<Pass>,
    /// The `hello`, on one line.
    pub(in crate::web) hello: String,
}

impl Opening {
    /// From a `hello` as a body, of at most so many bytes.
    pub(in crate::web) fn of_body(request: &HttpRequest, body: &str, max: usize) -> Result<Self, Reject> {
        body::json(request)?;
        body::within(body, max)?;
        match parse_message(body) {
            // Line breaks of JSON stand between its tokens only; here a line is a message.
            Ok(ClientMessage::Hello(hello)) => {
                Self::checked(request, hello, None, body.replace(['\n', '\r'], " "))
            }
            Ok(_) => Err(malformed("a session begins with a hello: its type is hello")),
            Err(error) => Err(malformed(&error.reason)),
        }
    }

    /// The same, or from a cursor as a body, which may be longer than an address.
    pub(in crate::web) fn of_hello_or_cursor(
        request: &HttpRequest,
        query: &Query,
        body: &str,
        max: usize,
    ) -> Result<Self, Reject> {
        match serde_json::from_str(body) {
            Ok(Resumed { cursor }) => {
                body::json(request)?;
                Self::of_cursor(request, query, Some(&cursor))
            }
            Err(_) => Self::of_body(request, body, max),
        }
    }

    /// From what a `GET` says.
    pub(in crate::web) fn of_query(request: &HttpRequest, query: &Query) -> Result<Self, Reject> {
        let last = request.headers().get(&LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        Self::of_cursor(request, query, last.filter(|id| !id.is_empty()).or(query.cursor.as_deref()))
    }

    fn of_cursor(request: &HttpRequest, query: &Query, cursor: Option<&str>) -> Result<Self, Reject> {
        let (user, session) = (caller::user(request)?, caller::session(request, query.session.as_deref())?);
        let rooms = if cursor.is_some() { &[][..] } else { &query.rooms };
        let rooms: Vec<_> = rooms.iter().map(|room| json!({"room": room})).collect();
        let hello =
            json!({"type": "hello", "user": user, "session": session, "rooms": rooms, "cursor": cursor});
        let text = hello.to_string();
        let hello = serde_json::from_value(hello).map_err(|error| malformed(&error.to_string()))?;
        Self::checked(request, hello, cursor.map(str::to_owned), text)
    }

    fn checked(
        request: &HttpRequest,
        mut hello: Hello,
        cursor: Option<String>,
        mut text: String,
    ) -> Result<Self, Reject> {
        let shown = caller::shown(request);
        let pass = shown.as_ref().map(|(pass, _)| pass.clone());
        let user = match shown {
            // The session would close without a word.
            Some((pass, _)) if hello.user.as_ref().is_some_and(|user| *user != pass.user) => {
                let message = "the token is not that of the user that the hello names";
                return Err(Reject::new(None, ErrorCode::Forbidden, message));
            }
            // The session checks the token of its hello; here that is the one of the request.
            Some((pass, token)) => {
                let mut fields: Map<String, Value> =
                    serde_json::from_str(&text).map_err(|error| malformed(&error.to_string()))?;
                fields.insert("token".to_owned(), token.into());
                text = Value::Object(fields).to_string();
                pass.user
            }
            None => hello.user.clone().filter(|_| hello.token.is_none()).ok_or_else(|| {
                malformed("this server has no key for tokens: a hello names its user and has no token")
            })?,
        };
        let rooms = hello.take_rooms(&user).map_err(|error| malformed(&error.to_string()))?;
        let rooms = rooms.iter().filter_map(Wanted::cursor).cloned().collect();
        let address = request.extensions().get::<ClientAddress>().map(|address| address.0);
        Ok(Self { key: (user, hello.session), cursor, rooms, address, pass, hello: text })
    }
}

/// A cursor as a body: that of the last answer handled, or an id of a stream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resumed {
    cursor: String,
}

/// The parameters of a stream or poll.
#[derive(Debug, Default)]
pub(in crate::web) struct Query {
    cursor: Option<String>,
    session: Option<String>,
    rooms: Vec<String>,
    /// How long a poll waits, in seconds.
    pub(in crate::web) wait: Option<u64>,
}

impl Query {
    /// From pairs in which `room` may be there several times.
    pub(in crate::web) fn of_pairs(pairs: Vec<(String, String)>) -> Result<Self, Reject> {
        let mut query = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "cursor" => query.cursor = Some(value),
                "session" => query.session = Some(value),
                "room" => query.rooms.push(value),
                "wait" => {
                    let seconds = value.parse().map_err(|_| malformed("wait must be a number of seconds"))?;
                    query.wait = Some(seconds);
                }
                _ => return Err(malformed("the parameters are cursor, session, room and, for a poll, wait")),
            }
        }
        Ok(query)
    }
}
