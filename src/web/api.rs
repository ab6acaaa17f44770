//! The HTTP API: rooms, events, projections, health and metrics. Errors are problem documents
//! (RFC 9457) that carry the protocol's stable words.

use std::sync::Arc;

use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER, UPGRADE};
use actix_web::{HttpRequest, HttpResponse, Route, error, guard, web};
use dramatis_events::{CommandId, StreamId};
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use super::body::{cut, too_large};
use super::{fallback, poll, sse};
use crate::actors::Stage;
use crate::actors::answer::{Answer, ReplyTo};
use crate::actors::entity::{Pending, Request};
use crate::actors::registry::Registry;
use crate::domain::Decider;
use crate::projector::Projector;
use crate::protocol::{ErrorCode, Reject};
use crate::read_models::ReadModels;

mod asyncapi;
mod events;
mod insight;
mod me;
mod openapi;
mod operations;
mod projections;
mod reading;
mod rooms;
mod search;
mod threads;
pub(super) mod times;
#[cfg(test)]
mod typescript;

pub(super) use events::EPOCH;
pub(super) use reading::PARKED_FROM;

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    /// What sessions share too.
    pub stage: Arc<Stage>,
    /// The documents.
    pub read_models: Arc<dyn ReadModels>,
    /// What keeps them.
    pub projector: Arc<Projector>,
    /// Why notices of invitations cannot go on, if they cannot.
    pub invitations: watch::Receiver<Option<String>>,
}

/// The largest request body, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Adds the API's routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PathConfig::default().error_handler(|error, _| path_error(error)))
        .app_data(web::QueryConfig::default().error_handler(|error, _| query_error(error)))
        .route("/api/health", get().to(operations::health))
        .route("/socket", web::get().to(no_upgrade))
        .route("/api/me", get().to(me::me))
        .route("/metrics", get().to(operations::metrics))
        .route("/api/openapi.json", get().to(openapi::document))
        .route("/api/asyncapi.json", get().to(asyncapi::document))
        .route("/api/rooms", get().to(rooms::list))
        .route("/api/rooms", web::post().to(rooms::open))
        .route("/api/rooms/{room}", get().to(rooms::one))
        .route("/api/rooms/{room}/timeline", get().to(rooms::timeline))
        .route("/api/rooms/{room}/members", get().to(rooms::members))
        .route("/api/commands", web::post().to(fallback::commands::post))
        .route("/api/frames", web::post().to(fallback::frames::post))
        .route("/api/stream", web::post().to(sse::begin))
        .route("/api/stream", web::get().to(sse::resume))
        .route("/api/poll", web::post().to(poll::begin))
        .route("/api/poll", web::get().to(poll::resume))
        .route("/api/rooms/{room}/threads", get().to(threads::list))
        .route("/api/rooms/{room}/threads/{root}", get().to(threads::one))
        .route("/api/rooms/{room}/activity", get().to(insight::of_room))
        .route("/api/rooms/{room}/statistics", get().to(insight::statistics))
        .route("/api/search", get().to(search::messages))
        .route("/api/users/{user}/activity", get().to(insight::of_user))
        .route("/api/events", web::get().to(events::read))
        .route("/api/projections", get().to(projections::list))
        .configure(of_projections);
}

fn of_projections(config: &mut web::ServiceConfig) {
    use projections::{documents, jobs, letters};
    config
        .route("/api/projections/{name}", get().to(projections::one))
        .route("/api/projections/{name}/rebuild", web::post().to(jobs::rebuild))
        .route("/api/projections/{name}/verify", web::post().to(jobs::verify))
        .route("/api/projections/{name}/as_of", web::post().to(jobs::as_of))
        .route("/api/projections/{name}/pause", web::post().to(jobs::pause))
        .route("/api/projections/{name}/resume", web::post().to(jobs::resume))
        .route("/api/projections/{name}/cancel", web::post().to(jobs::cancel))
        .route("/api/projections/{name}/accept", web::post().to(jobs::accept))
        .route("/api/projections/{name}/rollback", web::post().to(jobs::roll_back))
        .route("/api/projections/{name}/drop", web::post().to(jobs::drop_past))
        .route("/api/projections/{name}/dead_letters", get().to(letters::list))
        .route("/api/projections/{name}/retry", web::post().to(letters::retry))
        .route("/api/projections/{name}/skip", web::post().to(letters::skip))
        .route("/api/projections/{name}/document", get().to(documents::one))
        .route("/api/projections/{name}/documents", get().to(documents::all))
        .route("/api/projections/{name}/why", get().to(documents::why));
}

/// From when on a request counts among those of its user that are answered at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Before it is looked into.
    FromTheStart,
    /// Once there is an answer: it may wait for that for long, and has a place as a connection meanwhile.
    OnceAnswered,
    /// Not at all: it has a place of its own all the time, or is a page, which is in memory once for all.
    Not,
}

/// How a request to this path counts.
pub(super) fn counted(path: &str) -> Counted {
    match path {
        "/api/poll" => Counted::OnceAnswered,
        path if path != "/api/stream" && (path.starts_with("/api/") || path == "/metrics") => {
            Counted::FromTheStart
        }
        _ => Counted::Not,
    }
}

/// By `GET`, and by `HEAD` for who asks about it alone: not for what has no end, or is gone once it was got.
pub(super) fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Bodies are JSON and said to be: so a page elsewhere cannot post one without being asked first.
pub(super) fn json_config() -> web::JsonConfig {
    web::JsonConfig::default().limit(BODY_BYTES_MAX).error_handler(|error, _| json_error(error))
}

/// A problem document.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Problem {
    /// A kind of problem; always `about:blank`, the code tells more.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The HTTP status.
    status: u16,
    /// The protocol's stable word.
    #[schema(value_type = String)]
    code: ErrorCode,
    /// The rule's own stable word, or the code in words.
    title: String,
    /// What was expected, what came, what to do.
    detail: String,
    /// Of a command: its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    id: Option<CommandId>,
    /// Whether asking again may help.
    retry: bool,
    /// When to ask again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<u64>,
}

/// An error answer.
pub(super) fn problem(code: ErrorCode, detail: impl Into<String>) -> HttpResponse {
    titled(code, code.as_str().replace('_', " "), detail)
}

fn titled(code: ErrorCode, title: String, detail: impl Into<String>) -> HttpResponse {
    let reject = Reject::new(None, code, title);
    refused(Reject { detail: Some(detail.into()), ..reject })
}

/// A `reject` as an error answer: the same words.
pub(super) fn refused(reject: Reject) -> HttpResponse {
    let status = StatusCode::from_u16(reject.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer_with(status, reject)
}

/// The same with another status than the code's. The code is in the answer's extensions, to be counted.
pub(super) fn answer_with(status: StatusCode, reject: Reject) -> HttpResponse {
    let code = reject.code;
    let mut answer = HttpResponse::build(status);
    if let Some(after_ms) = reject.after_ms {
        answer.insert_header((RETRY_AFTER, after_ms.div_ceil(1_000)));
    }
    let mut answer = answer.content_type(PROBLEM_TYPE).body(problem_text(status, reject));
    answer.extensions_mut().insert(code);
    answer
}

/// The `Content-Type` of problem documents.
pub(super) const PROBLEM_TYPE: &str = "application/problem+json";

/// A `reject` as a problem document.
pub(super) fn problem_text(status: StatusCode, reject: Reject) -> String {
    let Reject { id, code, message, detail, retry, after_ms, .. } = reject;
    let (title, detail) = match detail {
        Some(detail) => (message, detail),
        None => (code.as_str().replace('_', " "), message),
    };
    let kind = "about:blank";
    let body = Problem { kind, status: status.as_u16(), code, title, detail, id, retry, after_ms };
    serde_json::to_string(&body).unwrap_or_default()
}

/// Sends a command to its entity and waits for the answer; none when too many wait there.
pub(super) async fn ask<D: Decider>(
    to: &Registry<D>,
    stream: &StreamId,
    request: Request<D>,
) -> Option<Answer> {
    let (caller, answer) = oneshot::channel();
    let pending = Pending { request, reply: ReplyTo::Caller(caller) };
    to.submit(stream, vec![pending]).ok()?;
    answer.await.ok()
}

/// What no route is for: another path, or another method.
pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    let nothing = format!("nothing is at {} {}", request.method(), request.path());
    let Some(pattern) = request.match_pattern() else { return problem(ErrorCode::NotFound, nothing) };
    let allowed = openapi::methods(&pattern);
    let why = format!("{nothing}: it takes {allowed}");
    let refusal = Reject::new(None, ErrorCode::Malformed, why);
    let mut answer = answer_with(StatusCode::METHOD_NOT_ALLOWED, refusal);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

async fn no_upgrade() -> HttpResponse {
    let why = "a WebSocket is opened here, subprotocol dramatis.v1.json: ask for the upgrade";
    let mut answer = answer_with(StatusCode::UPGRADE_REQUIRED, Reject::new(None, ErrorCode::Malformed, why));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer
}

fn json_error(error: JsonPayloadError) -> error::Error {
    let answer = match &error {
        JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
            refused(too_large(BODY_BYTES_MAX))
        }
        JsonPayloadError::Payload(error) if let Some(cut) = cut(error) => cut,
        JsonPayloadError::ContentType => {
            problem(ErrorCode::Malformed, "the body must be JSON and its Content-Type application/json")
        }
        error => {
            problem(ErrorCode::Malformed, format!("the body must be JSON as /api/openapi.json says: {error}"))
        }
    };
    error::InternalError::from_response(error, answer).into()
}

fn path_error(error: PathError) -> error::Error {
    let answer = problem(ErrorCode::Malformed, error.to_string());
    error::InternalError::from_response(error, answer).into()
}

fn query_error(error: QueryPayloadError) -> error::Error {
    let answer =
        problem(ErrorCode::Malformed, format!("the query is not as /api/openapi.json says: {error}"));
    error::InternalError::from_response(error, answer).into()
}
