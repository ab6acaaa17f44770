//! `POST /api/frames`: what a client without a socket says besides commands.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};

use super::super::api::{Problem, refused};
use super::Fallbacks;
use super::caller::{self, malformed};
use crate::actors::session::Inbound;
use crate::actors::session::admission::{objected, objection};
use crate::clock::{Clock as _, SystemClock};
use crate::protocol::{ClientMessage, ErrorCode, Reject, parse_message};
use crate::web::body::{self, Text};
use crate::web::socket::Door;

/// How long a body may wait for its session to take it.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// Says something for the stream or poll of the same session, which carries the answers.
#[utoipa::path(post, path = "/api/frames",
    params(
        ("Dramatis-User" = Option<String>, Header, description = "in local mode: who asks; the cookie dramatis_user says it too"),
        ("Dramatis-Session" = String, Header, description = "of which session")),
    request_body(content = serde_json::Value, description = "A `subscribe`, `unsubscribe`, `ephemeral`, `seen`, `authenticate`, `history` or `pong` message, or several, newline-joined"),
    responses(
        (status = 202, description = "Handed to the session"),
        (status = 404, description = "No stream or poll of this session is open: open one, its `ready` says what it follows", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused; nothing was handed on", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session takes nothing now", body = Problem, content_type = "application/problem+json")))]
pub(in crate::web) async fn post(
    request: HttpRequest,
    door: web::ThinData<Door>,
    fallbacks: web::Data<Fallbacks>,
    Text(body): Text,
) -> HttpResponse {
    handle(&request, &door, &fallbacks, body).await.unwrap_or_else(refused)
}

async fn handle(
    request: &HttpRequest,
    door: &Door,
    fallbacks: &Fallbacks,
    body: String,
) -> Result<HttpResponse, Reject> {
    body::json(request)?;
    let key = (caller::user(request)?, caller::session(request, None)?);
    // Whatever the session was opened to, this opens no more than what comes with it does.
    let mut shown = caller::shown(request).map(|(pass, _)| pass);
    for message in body.lines().filter(|line| !line.trim_ascii().is_empty()) {
        body::within(message, door.stage.limits.message_bytes_max)?;
        let message = check(message)?;
        if let Some(code) = shown.as_ref().and_then(|pass| objection(pass, &message)) {
            return Err(objected(code, None));
        }
        if let (ClientMessage::Authenticate(fresh), Some(keys)) = (&message, &door.stage.keys)
            && let Ok(fresh) = keys.verify(fresh.token.secret(), SystemClock.now())
            && fresh.user == key.0
        {
            fallbacks.may_open(&key, fresh.clone());
            shown = shown.map(|pass| pass.or(fresh));
        }
    }
    let frames = fallbacks.frames(&key).ok_or_else(|| {
        let message = format!("no stream or poll of session {} is open: open one first", key.1);
        Reject::new(None, ErrorCode::NotFound, message)
    })?;
    let sent = actix_rt::time::timeout(TAKEN_WITHIN, frames.send(Inbound::Text(body))).await;
    if !matches!(sent, Ok(Ok(()))) {
        let message = "the session takes nothing now: send it again a little later";
        return Err(Reject::new(None, ErrorCode::Unavailable, message));
    }
    Ok(HttpResponse::Accepted().finish())
}

fn check(message: &str) -> Result<ClientMessage, Reject> {
    match parse_message(message) {
        Ok(ClientMessage::Command(_)) => Err(malformed("commands go to /api/commands, which answers them")),
        Ok(ClientMessage::Hello(_)) => {
            Err(malformed("a hello begins a session: it goes to /api/stream or /api/poll"))
        }
        Ok(message) => Ok(message),
        Err(error) => Err(malformed(&error.reason)),
    }
}
