//! Bodies: JSON, said to be, within their limit and their time.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::time::sleep;
use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, HttpResponse, error};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::api::{answer_with, refused};
use super::caller::Refusal;
use super::fallback::caller::malformed;
use super::socket::connection_id;
use crate::actors::hub::{Body, Rooms};
use crate::actors::meters::Account;
use crate::protocol::{ErrorCode, Reject};

/// A body as text, as long as a frame of the socket may be. What is longer, or no text, is
/// answered by a problem document.
pub(super) struct Text(pub(super) String);

impl FromRequest for Text {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let text = String::from_request(request, payload);
        let max = request.app_data::<Max>().map_or(usize::MAX, |max| max.0);
        Box::pin(async move { text.await.map(Self).map_err(|error| explain(error, max)) })
    }
}

/// The length that bodies may have, of which the app is told by its [`actix_web::web::PayloadConfig`] too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Max(pub(super) usize);

fn explain(error: Error, max: usize) -> Error {
    let answer = match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => refused(too_large(max)),
        Some(payload) if let Some(cut) = cut(payload) => cut,
        _ => refused(malformed(&format!("the body must be JSON in UTF-8: {error}"))),
    };
    error::InternalError::from_response(error, answer).into()
}

/// Who pays for the bytes of a body.
#[derive(Clone, Default)]
pub(super) struct Payers(pub(super) Vec<Arc<Account>>);

/// Why the rest of a body is not waited for.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Cut {
    #[error("it did not come in its time")]
    Late,
    #[error("too fast")]
    TooFast(Duration),
    #[error("too much has come in part")]
    Overloaded,
}

impl From<Cut> for PayloadError {
    fn from(cut: Cut) -> Self {
        Self::Io(io::Error::other(cut))
    }
}

/// Gives the body of a request so long to come, and counts what has: who sends one byte by byte would
/// hold a connection for as long as they like, and very many who send no last one would hold all memory.
pub(super) fn watch(request: &mut ServiceRequest, rooms: &Rc<Rooms>, within: Duration) -> Watched {
    let body = request.take_payload();
    if matches!(body, Payload::None) {
        return Watched(None);
    }
    // What a request says of its length it has paid for already.
    let says_length = request.headers().contains_key(CONTENT_LENGTH);
    let payers = request.extensions_mut().remove::<Payers>().filter(|_| !says_length).unwrap_or_default();
    let (body, was_cut) = (Rc::new(RefCell::new(body)), Rc::new(Cell::new(false)));
    let (held, cut_here) = (body.clone(), was_cut.clone());
    let mut come = Body::new(rooms.clone(), connection_id());
    let (mut given_up, mut over) = (Box::pin(come.given_up()), Box::pin(sleep(within)));
    let mut watched = move |cx: &mut Context<'_>| -> Poll<Option<Result<Bytes, PayloadError>>> {
        if let Poll::Ready(next) = body.borrow_mut().poll_next_unpin(cx) {
            let Some(Ok(bytes)) = &next else { return Poll::Ready(next) };
            for payer in &payers.0 {
                if let Err(after) = payer.take_more(bytes.len()) {
                    return Poll::Ready(Some(Err(Cut::TooFast(after).into())));
                }
            }
            let is_kept = come.add(bytes.len());
            return Poll::Ready(if is_kept { next } else { Some(Err(Cut::Overloaded.into())) });
        }
        if given_up.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Cut::Overloaded.into())));
        }
        over.as_mut().poll(cx).map(|()| Some(Err(Cut::Late.into())))
    };
    let watched = stream::poll_fn(move |cx| {
        let next = watched(cx);
        if let Poll::Ready(Some(Err(error))) = &next {
            cut_here.set(cut_here.get() || why(error).is_some());
        }
        next
    });
    request.set_payload(Payload::Stream { payload: Box::pin(watched) });
    Watched(Some(Held { body: held, was_cut }))
}

/// A body that is watched.
pub(super) struct Watched(Option<Held>);

struct Held {
    body: Rc<RefCell<Payload>>,
    /// Whether its rest is not waited for.
    was_cut: Rc<Cell<bool>>,
}

impl Watched {
    /// Has the answer to one whose rest is not waited for end the connection: of a body of chunks that
    /// nobody holds any more, the listener would wait for the rest.
    pub(super) fn held_by<B>(self, answer: ServiceResponse<B>) -> ServiceResponse<EitherBody<B>>
    where
        B: MessageBody + 'static,
    {
        let held = self.0.filter(|held| held.was_cut.get());
        holding(answer.map_into_left_body(), held.map(|held| held.body))
    }
}

/// Has an answer hold this until it has gone out, or is given up.
pub(super) fn holding<B, H>(
    answer: ServiceResponse<EitherBody<B>>,
    held: Option<H>,
) -> ServiceResponse<EitherBody<B>>
where
    B: MessageBody + 'static,
    H: Unpin + 'static,
{
    let Some(held) = held else { return answer };
    answer.map_body(|_, body| EitherBody::right(BoxBody::new(Holding::new(body, held))))
}

/// An answer, and what is to be there for as long.
pub(super) struct Holding<B, H> {
    body: Pin<Box<B>>,
    _held: H,
}

impl<B, H> Holding<B, H> {
    /// Drops `held` once the answer has ended, or nobody takes it any more.
    pub(super) fn new(body: B, held: H) -> Self {
        Self { body: Box::pin(body), _held: held }
    }
}

impl<B: MessageBody, H: Unpin> MessageBody for Holding<B, H> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}

fn why(error: &PayloadError) -> Option<Cut> {
    let PayloadError::Io(error) = error else { return None };
    error.get_ref()?.downcast_ref().copied()
}

/// The answer to a request whose body was cut; what else comes of it is not waited for.
pub(super) fn cut(error: &PayloadError) -> Option<HttpResponse> {
    let mut answer = match why(error)? {
        Cut::Late => {
            let why =
                "the body did not come within its time: send it again over a better line, or less at a time";
            answer_with(StatusCode::REQUEST_TIMEOUT, malformed(why))
        }
        Cut::TooFast(after) => Refusal::TooFast(after).answer(),
        Cut::Overloaded => {
            let why =
                "too much has come in part of all clients, and of this request most: send it again in one go";
            refused(Reject::new(None, ErrorCode::Unavailable, why))
        }
    };
    answer.head_mut().set_connection_type(ConnectionType::Close);
    Some(answer)
}

/// A body or a message in it has more than so many bytes.
pub(super) fn too_large(max: usize) -> Reject {
    Reject::new(None, ErrorCode::TooLarge, format!("at most {max} bytes are taken here: send less at a time"))
}

/// A message is within its limit.
pub(super) fn within(message: &str, max: usize) -> Result<(), Reject> {
    if message.len() <= max { Ok(()) } else { Err(too_large(max)) }
}

/// A body is JSON and said to be.
pub(super) fn json(request: &HttpRequest) -> Result<(), Reject> {
    let said = request.headers().get(CONTENT_TYPE).and_then(|said| said.to_str().ok()).unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim();
    if ["application/json", "application/x-ndjson"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(malformed("the body must be JSON and its Content-Type application/json"))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn what_a_form_can_send_is_no_json() {
        for (said, taken) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/x-ndjson", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data; boundary=application/json", false),
        ] {
            let request = TestRequest::default().append_header(("content-type", said)).to_http_request();
            assert_eq!(json(&request).is_ok(), taken, "{said}");
        }
        assert!(json(&TestRequest::default().to_http_request()).is_err());
    }
}
