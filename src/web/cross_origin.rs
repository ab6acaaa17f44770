//! Pages of other origins that are let in (`server.allowed_origins`) may use the HTTP API as they
//! may open sockets: their browsers are told so (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! Such pages show a token or name their user in a header; cookies are not taken from them.

use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap,
    HeaderValue, VARY,
};
use actix_web::{HttpRequest, HttpResponse};

use super::api::{EPOCH, PARKED_FROM};

/// How long a browser may remember what it was told, in seconds.
const REMEMBERED_S: u64 = 600;
/// What requests may carry.
const HEADERS: &str =
    "authorization, cache-control, content-type, dramatis-session, dramatis-user, last-event-id";
/// What of an answer a page may see besides its body: what the API adds itself, and these.
const EXPOSED: [&str; 4] = [EPOCH, PARKED_FROM, "retry-after", "www-authenticate"];

/// Whether the browser asks before it sends the request itself.
pub(super) fn is_preflight(request: &HttpRequest) -> bool {
    *request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that.
pub(super) fn preflight() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"))
        .insert_header((ACCESS_CONTROL_ALLOW_HEADERS, HEADERS))
        .insert_header((ACCESS_CONTROL_MAX_AGE, REMEMBERED_S))
        .finish()
}

/// Says in any answer that pages of this origin may read it.
pub(super) fn open(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if let Ok(exposed) = HeaderValue::from_str(&EXPOSED.join(", ")) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    headers.append(VARY, HeaderValue::from_static("Origin"));
}
