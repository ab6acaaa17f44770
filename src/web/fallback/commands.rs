//! `POST /api/commands`: one command, and its answer as the answer.

use actix_web::{HttpRequest, HttpResponse, web};

use super::super::api::{Api, Problem, ask, refused};
use super::caller::{self, malformed};
use crate::actors::session::admission::{objected, objection};
use crate::actors::session::commands::{Asked, encode_answer, overloaded, prepare};
use crate::protocol::{ClientMessage, ErrorCode, Reject, ServerMessage, parse_message};
use crate::web::body::{self, Text};
use crate::web::caller::act;

/// Sends a command. The same id has one effect, whichever transport it comes by and however often.
#[utoipa::path(post, path = "/api/commands",
    params(("Dramatis-User" = Option<String>, Header, description = "in local mode: who asks; the cookie dramatis_user says it too")),
    request_body(content = serde_json::Value, description = "A `command` message: `{type, id, room, name, data, expected?}`"),
    responses(
        (status = 200, description = "The `ack` message: it is durable", body = serde_json::Value),
        (status = "4XX", description = "Refused: nothing was recorded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`: send it again later; `unknown_outcome`: send it again with the same id", body = Problem, content_type = "application/problem+json")))]
pub(in crate::web) async fn post(request: HttpRequest, api: web::Data<Api>, body: Text) -> HttpResponse {
    handle(&request, &api, &body.0).await.unwrap_or_else(refused)
}

async fn handle(request: &HttpRequest, api: &Api, body: &str) -> Result<HttpResponse, Reject> {
    body::json(request)?;
    body::within(body, api.stage.limits.message_bytes_max)?;
    let user = caller::user(request)?;
    let message =
        parse_message(body).map_err(|error| Reject::new(error.id, ErrorCode::Malformed, error.reason))?;
    let objection = caller::shown(request).and_then(|(pass, _)| objection(&pass, &message));
    let ClientMessage::Command(frame) = message else {
        return Err(malformed("only a command is taken here: its type is command"));
    };
    let id = frame.id.clone();
    act(&api.stage, request, &user, None).map_err(|refusal| refusal.reject(Some(id.clone())))?;
    if let Some(code) = objection {
        return Err(objected(code, Some(id)));
    }
    let (stream, asked) = prepare(&user, frame)?;
    let answer = match asked {
        Asked::Room(request) => ask(&api.stage.rooms, &stream, request).await,
        Asked::User(request) => ask(&api.stage.users, &stream, request).await,
    };
    let answer = answer.ok_or_else(|| overloaded(id))?;
    match encode_answer(&answer) {
        ServerMessage::Reject(reject) => Err(reject),
        ack => Ok(HttpResponse::Ok().content_type("application/json").body(ack.encode())),
    }
}
