//! Who sends an HTTP request, and whether it may: its address's pace, its token, its own pace.
//!
//! Every request passes [`admit_address`], and all but a browser's preflight [`admit_user`]. A read
//! passes [`may_read`], and a handler that acts for a user asks [`act`] besides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServiceRequest;
use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use dramatis_events::{CommandId, EntityId, MemberId, MemberKind, StreamId};

use super::api::{answer_with, refused};
use super::body::Payers;
use super::peer::{ClientAddress, Proxies};
use crate::actors::Stage;
use crate::actors::meters::{Account, Permit};
use crate::auth::{Pass, TokenError};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::room::Reading;
use crate::protocol::{ErrorCode, Reject};

/// Of the API, what is open without a token: who watches a server has none.
const OPEN: [&str; 3] = ["/api/health", "/api/openapi.json", "/api/asyncapi.json"];
/// What only integrations may use where there are tokens: it is about all rooms. A token that opens
/// some alone opens of it what names one of these.
const OPERATORS: [&str; 3] = [EVENTS, "/api/projections", METRICS];
/// These are of one room, if the query names one.
const EVENTS: &str = "/api/events";
const SEARCH: &str = "/api/search";
/// Theirs unless it is opened to all.
const METRICS: &str = "/metrics";

/// When to come again if as much as may be is being done.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// Why a request is not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Too fast; it may come again after this.
    TooFast(Duration),
    /// So much of this at a time.
    TooMany(&'static str),
    /// Without a good token.
    Unauthorized(TokenError),
    /// Not with this token.
    Forbidden(String),
}

impl Refusal {
    /// The answer, a problem document.
    pub(super) fn answer(self) -> HttpResponse {
        match self {
            Self::Unauthorized(error) => unauthorized(error),
            refusal => refused(refusal.reject(None)),
        }
    }

    /// The same as a `reject` of the message with this id.
    pub(super) fn reject(self, id: Option<CommandId>) -> Reject {
        match self {
            Self::TooFast(after) => {
                let message =
                    "too many requests: send it again after the time told, and not more than limits allow";
                Reject::new(id, ErrorCode::RateLimited, message).after(after)
            }
            Self::TooMany(what) => {
                let message = format!(
                    "as many {what} of this user or address are being answered as may be at a time: take their \
                     answers, and send it again then"
                );
                Reject::new(id, ErrorCode::RateLimited, message).after(BUSY_FOR)
            }
            Self::Unauthorized(error) => Reject::new(id, ErrorCode::Forbidden, error.to_string()),
            Self::Forbidden(why) => Reject::new(id, ErrorCode::Forbidden, why),
        }
    }
}

/// Whether the address that a request comes from may send one more. Its [`ClientAddress`] is in the
/// request's extensions from then on.
pub(super) fn admit_address(
    stage: &Stage,
    proxies: &Proxies,
    request: &ServiceRequest,
) -> Result<(), Refusal> {
    let client = request.peer_addr().map(|peer| proxies.client(peer.ip(), request.headers()));
    if let Some(client) = client {
        request.extensions_mut().insert(ClientAddress(client));
    }
    if let Some(address) = client.and_then(|client| stage.meters.address(client)) {
        address.take(size(request.request())).map_err(Refusal::TooFast)?;
        pays(request, address);
    }
    Ok(())
}

/// Has this account pay for what comes of the request's body, where it does not say how long that is.
fn pays(request: &ServiceRequest, account: Arc<Account>) {
    let mut extensions = request.extensions_mut();
    match extensions.get_mut::<Payers>() {
        Some(payers) => payers.0.push(account),
        None => drop(extensions.insert(Payers(vec![account]))),
    }
}

/// Checks the token of a request whose path asks for one. A good one's [`Pass`] is in the request's
/// extensions from then on.
pub(super) fn admit_user(stage: &Stage, request: &ServiceRequest) -> Result<(), Refusal> {
    let path = routed_path(request.request());
    let guarded = if path == METRICS { !stage.auth.open_metrics } else { path.starts_with("/api/") };
    let Some(keys) = stage.keys.as_ref().filter(|_| guarded && !OPEN.contains(&path)) else { return Ok(()) };
    let token = bearer(request.request()).ok_or(TokenError::Missing);
    let pass =
        token.and_then(|token| keys.verify(token, SystemClock.now())).map_err(Refusal::Unauthorized)?;
    may_use(&pass, path, request.query_string())?;
    let user = stage.meters.user(&pass.user);
    user.take(size(request.request())).map_err(Refusal::TooFast)?;
    pays(request, user);
    request.extensions_mut().insert(pass);
    Ok(())
}

/// Takes one of the requests that its user, or without a token its address, may have answered at a time. It is
/// held until the answer has gone out: one that nobody takes stays in memory.
pub(super) fn may_be_answered(stage: &Stage, request: &HttpRequest) -> Result<Option<Permit>, Refusal> {
    let payer = payer(stage, request);
    payer.map(|account| account.answer().ok_or(Refusal::TooMany("requests"))).transpose()
}

/// The same of searches, which are made one after the other.
pub(super) fn may_search(stage: &Stage, request: &HttpRequest) -> Result<Option<Permit>, Refusal> {
    let payer = payer(stage, request);
    payer.map(|account| account.search().ok_or(Refusal::TooMany("searches"))).transpose()
}

/// Whose account a request counts in: its user's, if a token says who that is, or its address's, if
/// that is limited.
fn payer(stage: &Stage, request: &HttpRequest) -> Option<Arc<Account>> {
    let extensions = request.extensions();
    match extensions.get::<Pass>() {
        Some(pass) => Some(stage.meters.user(&pass.user)),
        None => extensions.get::<ClientAddress>().and_then(|client| stage.meters.address(client.0)),
    }
}

/// Whether this user may act in this room by this request: with tokens only as who the token
/// names and where it opens; in local mode as anyone, at that user's pace.
pub(super) fn act(
    stage: &Stage,
    request: &HttpRequest,
    user: &MemberId,
    room: Option<&EntityId>,
) -> Result<(), Refusal> {
    if stage.keys.is_none() {
        return stage.meters.user(user).take(size(request)).map_err(Refusal::TooFast);
    }
    match request.extensions().get::<Pass>() {
        Some(pass) if pass.user != *user => {
            Err(Refusal::Forbidden(format!("the token is not that of {user}")))
        }
        Some(pass) if room.is_none_or(|room| pass.opens(room)) => Ok(()),
        _ => Err(not_opened(&room.map_or_else(|| "this".to_owned(), |room| format!("room {room}")))),
    }
}

/// Whether a person may read what this asks for: where there are tokens, documents follow the
/// rights that the socket keeps to. A room's are for those who may follow it, a user's for
/// themselves, and a search over all rooms is for integrations whose token opens all of them.
pub(super) async fn may_read(stage: &Stage, request: &HttpRequest) -> Result<(), Refusal> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Ok(());
    }
    let pass = request.extensions().get::<Pass>().cloned();
    let Some(pass) = pass.filter(|pass| pass.user.kind() != MemberKind::Integration) else { return Ok(()) };
    let path = routed_path(request);
    let room = if path == SEARCH {
        let room = rooms_asked(request.query_string()).into_iter().next();
        Some(room.ok_or_else(|| Refusal::Forbidden("name a room to search in".to_owned()))?)
    } else {
        room_of(path)
    };
    let user = named_after("/api/users/", path);
    if user.is_some_and(|user| user.as_deref() != Ok(pass.user.as_str())) {
        return Err(Refusal::Forbidden("the token is not that of this user".to_owned()));
    }
    match room {
        Some(Ok(room)) if may_follow(stage, &pass, &room).await => Ok(()),
        Some(_) => Err(not_opened(path)),
        None => Ok(()),
    }
}

/// The same of an answer that may have waited for a position, and tells what came meanwhile.
pub(super) async fn may_still_read(stage: &Stage, request: &HttpRequest) -> Result<(), Refusal> {
    let has_waited = !asked(request.query_string(), "min_position").is_empty();
    if has_waited { may_read(stage, request).await } else { Ok(()) }
}

/// Whether the token's user may follow a room, as its entity knows it now. One that was never opened is
/// nobody's secret, and has no entity.
pub(super) async fn may_follow(stage: &Stage, pass: &Pass, room: &EntityId) -> bool {
    if !pass.opens(room) {
        return false;
    }
    let (stream, user) = (StreamId::room(room), pass.user.clone());
    match stage.log.stream_head(&stream).await {
        Ok(Some(_)) => {
            let reading = stage.rooms.look(&stream, move |standing| standing.state.reading(&user)).await;
            reading.is_ok_and(|reading| reading.is_none_or(Reading::may_read))
        }
        Ok(None) => true,
        Err(error) => {
            tracing::error!(%room, %error, "who may read a room is not to be had from the log");
            false
        }
    }
}

/// Whether who asks is told what is wrong inside, in the words of the system and of other servers, with
/// their addresses: where there are tokens, integrations that all rooms are open to.
pub(super) fn looks_after(stage: &Stage, request: &HttpRequest) -> bool {
    let Some(keys) = &stage.keys else { return true };
    let pass = bearer(request).and_then(|token| keys.verify(token, SystemClock.now()).ok());
    pass.is_some_and(|pass| pass.user.kind() == MemberKind::Integration && pass.opens_all())
}

fn may_use(pass: &Pass, path: &str, query: &str) -> Result<(), Refusal> {
    let of_operators = OPERATORS.iter().any(|start| path.starts_with(start));
    if of_operators && pass.user.kind() != MemberKind::Integration {
        let why = "only integrations may use this: show such a token";
        return Err(Refusal::Forbidden(why.to_owned()));
    }
    let opens = |room: &Result<EntityId, ()>| room.as_ref().is_ok_and(|room| pass.opens(room));
    if !of_operators && path != SEARCH {
        let opened = room_of(path).is_none_or(|room| opens(&room));
        return if opened { Ok(()) } else { Err(not_opened(path)) };
    }
    // Named twice, which one counts is the handler's to say.
    let rooms = if path == EVENTS || path == SEARCH { rooms_asked(query) } else { Vec::new() };
    if pass.opens_all() || (!rooms.is_empty() && rooms.iter().all(opens)) {
        return Ok(());
    }
    let why = format!(
        "the token opens some rooms alone, and {path} is about all: searches and events may be asked for with one \
         of them as `room`"
    );
    Err(Refusal::Forbidden(why))
}

/// The rooms that a query names, as the handlers read it; an error for what is none.
fn rooms_asked(query: &str) -> Vec<Result<EntityId, ()>> {
    asked(query, "room").iter().map(|room| EntityId::parse(room).map_err(|_| ())).collect()
}

/// What a query gives under a name, as the handlers read it, whichever letters are percent-encoded.
fn asked(query: &str, name: &str) -> Vec<String> {
    let asked = web::Query::<Vec<(String, String)>>::from_query(query);
    let asked = asked.map_or_else(|_| Vec::new(), web::Query::into_inner);
    asked.into_iter().filter(|(given, _)| given == name).map(|(_, value)| value).collect()
}

/// The path that routes are matched with. That of the request line may have any letter of it
/// percent-encoded, and would pass by what is checked here.
fn routed_path(request: &HttpRequest) -> &str {
    request.match_info().get_ref().path()
}

/// The room that a path names, as the handlers read it; an error if what it names is none.
fn room_of(path: &str) -> Option<Result<EntityId, ()>> {
    let named = named_after("/api/rooms/", path)?;
    Some(named.and_then(|named| EntityId::parse(&named).map_err(|_| ())))
}

/// What a path names after this start, as the handlers read it; an error if that is no text.
fn named_after(start: &str, path: &str) -> Option<Result<String, ()>> {
    let named = path.strip_prefix(start)?.split('/').next()?;
    // In a path a plus is a plus, and an ampersand ends nothing.
    let query = format!("named={}", named.replace('+', "%2B").replace('&', "%26"));
    let decoded = web::Query::<HashMap<String, String>>::from_query(&query).ok();
    Some(decoded.and_then(|decoded| decoded.into_inner().remove("named")).ok_or(()))
}

fn not_opened(what: &str) -> Refusal {
    Refusal::Forbidden(format!("the token does not open {what}, or its user may not read it"))
}

fn unauthorized(error: TokenError) -> HttpResponse {
    let code = if error == TokenError::Expired { ErrorCode::TokenExpired } else { ErrorCode::Forbidden };
    let detail = format!("{error}; it is expected as `Authorization: Bearer TOKEN`");
    let mut answer = answer_with(StatusCode::UNAUTHORIZED, Reject::new(None, code, detail));
    let how = header::HeaderValue::from_static("Bearer");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, how);
    answer
}

/// The token of the `Authorization` header.
pub(super) fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// What a request weighs: its body, as far as it says.
fn size(request: &HttpRequest) -> usize {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    declared.and_then(|length| length.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_the_handlers_read() {
        let named = |path| named_after("/api/users/", path);
        for (path, expected) in [
            ("/api/users/a%2Bb/activity", "a+b"),
            ("/api/users/a+b/activity", "a+b"),
            ("/api/users/a&b=c", "a&b=c"),
            ("/api/users/a%26b", "a&b"),
            ("/api/users/persona%3Aada/activity", "persona:ada"),
        ] {
            assert_eq!(named(path), Some(Ok(expected.to_owned())), "{path}");
        }
        assert_eq!(named("/api/rooms/a"), None);
        let room = |path| room_of(path).map(|room| room.map(|room| room.to_string()));
        assert_eq!(room("/api/rooms/open&secret/timeline"), Some(Ok("open&secret".to_owned())));
        assert_eq!(room("/api/rooms/a%2Fb"), Some(Err(())));
    }
}
