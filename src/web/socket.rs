//! The WebSocket transport: takes a connection over at the HTTP upgrade and gives it to a
//! session. It frames bytes and knows nothing of what they say.
//!
//! Taking over at the upgrade, in place of a handler inside the HTTP dispatcher, leaves one
//! small reader and one small writer a connection: an eighth of the memory, and writes that
//! carry everything that waits.

mod frames;
mod reader;
mod writer;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::body::{BodySize, BoxBody, MessageBody as _};
use actix_http::header::{self, HeaderMap, HeaderValue};
use actix_http::{ConnectionType, HttpMessage as _, Request, Response, StatusCode, h1, ws};
use actix_rt::net::TcpStream;
use bytes::BytesMut;
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::api::{PROBLEM_TYPE, problem_text};
use super::guard::Guard;
use super::kept::Kept;
use super::peer::Proxies;
use crate::actors::Stage;
use crate::actors::directory::Arrival;
use crate::actors::hub::Rooms;
use crate::actors::meters::{Account, Seat};
use crate::actors::outbox::Outbox;
use crate::actors::places::{Place, Places};
use crate::actors::session::{Inbound, Origin, Session};
use crate::actors::unfinished::Unfinished;
use crate::config::SocketConfig;
use crate::protocol::{CloseCode, ErrorCode, Reject, SUBPROTOCOL, ServerMessage};
use reader::Reader;
pub use writer::Patience;
use writer::Wire;

/// What an upgrade needs on its worker thread.
#[derive(Clone)]
pub struct Door {
    /// What sessions share.
    pub stage: Arc<Stage>,
    /// This thread's hub.
    pub rooms: Rc<Rooms>,
    /// Which `Host` and `Origin` may come in.
    pub guard: Arc<Guard>,
    /// Whose word is taken for a client's address.
    pub proxies: Arc<Proxies>,
    /// Connections open in the whole process, and how many may be.
    pub connections: Arc<Places>,
}

impl Door {
    /// An outbox for a connection of this thread. On a server that is going away it holds only when
    /// to come back, and then closes.
    pub(super) fn outbox(&self) -> Rc<Outbox> {
        let (outbox, drain) = (self.rooms.outbox(), &self.stage.drain);
        if drain.has_begun() {
            outbox.push(ServerMessage::Drain(drain.slot()).encode());
            outbox.leave();
        }
        outbox
    }
}

/// The connection broke during the handshake; nobody is left to answer.
#[derive(Debug, thiserror::Error)]
#[error("the handshake could not be finished: {0}")]
pub struct TakeOverError(String);

impl From<TakeOverError> for Response<BoxBody> {
    fn from(_: TakeOverError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Takes a connection over, or answers why not. Returning frees the HTTP dispatcher.
pub(super) async fn take_over(
    door: Rc<Door>,
    request: Request,
    framed: Framed<Kept, h1::Codec>,
) -> Result<(), TakeOverError> {
    if let Err(refusal) = admit(&door, &request) {
        return refuse(framed, refusal).await;
    }
    let address = account(&door, framed.io_ref().get_ref(), request.headers());
    if let Some(Err(after)) = address.as_ref().map(|address| address.take(0)) {
        return refuse(framed, Refusal::too_fast(after)).await;
    }
    door.rooms.newcomers().turn().await;
    // Before the client hears that it is connected: what it connects after that comes later.
    let (arrival, entry) = (door.stage.directory.arrive(), Entry::take(&door, address));
    let (io, early) = shake_hands(&request, framed).await?;
    open(&door, io.into_inner(), &early, arrival, entry);
    Ok(())
}

/// The account of the client's address, if that is limited.
fn account(door: &Door, io: &TcpStream, headers: &HeaderMap) -> Option<Arc<Account>> {
    let client = io.peer_addr().ok().map(|peer| door.proxies.client(peer.ip(), headers));
    client.and_then(|client| door.stage.meters.address(client))
}

/// What a connection takes up: a place in the process, and one of its address.
struct Entry {
    address: Option<Arc<Account>>,
    places: (Option<Place>, Option<Seat>),
    refused: bool,
}

impl Entry {
    fn take(door: &Door, address: Option<Arc<Account>>) -> Self {
        let places = (door.connections.enter(), address.as_ref().and_then(Account::connect));
        let refused = places.0.is_none() || (address.is_some() && places.1.is_none());
        Self { address, places, refused }
    }
}

/// Answers a handshake that is let in: the connection, and what came right behind the request.
pub async fn shake_hands<Io: AsyncRead + AsyncWrite + Unpin>(
    request: &Request,
    mut framed: Framed<Io, h1::Codec>,
) -> Result<(Io, BytesMut), TakeOverError> {
    let mut answer = ws::handshake_response(request.head());
    if offers_subprotocol(request.headers()) {
        answer.insert_header((header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL));
    }
    let answer = answer.message_body(()).map_err(|error| TakeOverError(error.to_string()))?;
    framed
        .send(h1::Message::Item((answer, BodySize::None)))
        .await
        .map_err(|error| TakeOverError(error.to_string()))?;
    let parts = framed.into_parts();
    Ok((parts.io, parts.read_buf))
}

/// Carries a connection: writes what `outbox` holds until its end, then drops `kept`; what the
/// client sends is the stream, read as it is pulled. What has come of it in part is counted in
/// `unfinished`.
pub fn carry<Kept: 'static>(
    io: TcpStream,
    early: &[u8],
    outbox: &Rc<Outbox>,
    limits: &SocketConfig,
    patience: Patience,
    unfinished: &Rc<Unfinished>,
    kept: Kept,
) -> impl Stream<Item = Inbound> + use<Kept> {
    let _ = io.set_nodelay(true);
    let wire = Rc::new(Wire::new(io, patience, kept));
    outbox.carried_by(wire.clone());
    Reader::new(wire, outbox.clone(), limits, unfinished.clone(), early)
}

fn open(door: &Door, io: TcpStream, early: &[u8], arrival: Arrival, entry: Entry) {
    let outbox = door.outbox();
    let Entry { address, places, refused } = entry;
    if refused {
        outbox.close(CloseCode::TooManyConnections);
    }
    let Stage { limits, drain, .. } = &*door.stage;
    let patience = Patience::new(Duration::from_millis(limits.write_timeout_ms), drain.successor());
    let inbound = carry(io, early, &outbox, limits, patience, door.rooms.unfinished(), places);
    if outbox.is_closing() {
        // Who is turned away is heard until they have said goodbye too, and nothing else of what they say.
        actix_rt::spawn(inbound.for_each(|_| std::future::ready(())));
        return;
    }
    let connection = connection_id();
    Session::start_here(
        door.stage.clone(),
        door.rooms.clone(),
        outbox,
        connection,
        arrival,
        Origin { address, has_paid: false },
        inbound,
    );
}

/// A number no two connections share, drawn by chance so that it tells nothing of others.
pub(super) fn connection_id() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

struct Refusal {
    status: StatusCode,
    why: &'static str,
    after: Option<Duration>,
}

impl Refusal {
    fn too_fast(after: Duration) -> Self {
        let why = "too many connections at once from this address: come again after the time told";
        Self { status: StatusCode::TOO_MANY_REQUESTS, why, after: Some(after) }
    }
}

const fn refusal(status: StatusCode, why: &'static str) -> Refusal {
    Refusal { status, why, after: None }
}

fn admit(door: &Door, request: &Request) -> Result<(), Refusal> {
    if request.path() != "/socket" {
        return Err(refusal(StatusCode::NOT_FOUND, "no such upgrade: the socket is at /socket"));
    }
    door.guard
        .check(request.headers(), request.head().uri.authority().map(actix_http::uri::Authority::as_str))
        .map_err(|why| refusal(StatusCode::FORBIDDEN, why))?;
    ws::verify_handshake(request.head()).map_err(|error| match error {
        ws::HandshakeError::NoVersionHeader | ws::HandshakeError::UnsupportedVersion => {
            refusal(StatusCode::UPGRADE_REQUIRED, "this server speaks version 13 of WebSocket: ask for it")
        }
        _ => refusal(StatusCode::BAD_REQUEST, "not a WebSocket handshake of version 13"),
    })?;
    let offered = request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    if offered && !offers_subprotocol(request.headers()) {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "unknown subprotocol: this server speaks dramatis.v1.json",
        ));
    }
    Ok(())
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offer| offer.trim() == SUBPROTOCOL)
}

async fn refuse(
    mut framed: Framed<Kept, h1::Codec>,
    Refusal { status, why, after }: Refusal,
) -> Result<(), TakeOverError> {
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::FORBIDDEN => ErrorCode::Forbidden,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited,
        _ => ErrorCode::Malformed,
    };
    let reject = Reject::new(None, code, why);
    let reject = match after {
        Some(after) => reject.after(after),
        None => reject,
    };
    let after_ms = reject.after_ms;
    let body = problem_text(status, reject);
    let mut answer = Response::with_body(status, BoxBody::new(()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
    if let Some(after_ms) = after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after_ms.div_ceil(1_000)));
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    answer.head_mut().set_connection_type(ConnectionType::Close);
    let size = BodySize::Sized(u64::try_from(body.len()).unwrap_or(0));
    let head = answer.map_body(|_, body| body.boxed()).drop_body();
    framed.send(h1::Message::Item((head, size))).await.map_err(|error| TakeOverError(error.to_string()))?;
    framed
        .send(h1::Message::Chunk(Some(body.into())))
        .await
        .map_err(|error| TakeOverError(error.to_string()))?;
    framed.send(h1::Message::Chunk(None)).await.map_err(|error| TakeOverError(error.to_string()))?;
    framed.into_parts().io.shutdown().await.map_err(|error| TakeOverError(error.to_string()))
}
