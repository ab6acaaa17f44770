//! Bodies: JSON, said to be, within their limit and their time.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, HttpResponse, error};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::api::{answer_with, refused};
use super::fallback::caller::malformed;
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
        Some(late) if is_late(late) => too_late(),
        Some(PayloadError::Overflow) => refused(too_large(max)),
        _ => refused(malformed(&format!("the body must be JSON in UTF-8: {error}"))),
    };
    error::InternalError::from_response(error, answer).into()
}

/// Gives the body of a request so long to come. Who sends one byte by byte would hold a connection
/// for as long as they like.
pub(super) fn hurry(request: &mut ServiceRequest, within: Duration) -> Hurried {
    let body = request.take_payload();
    if matches!(body, Payload::None) {
        return Hurried(None);
    }
    let body = Rc::new(RefCell::new(body));
    let (held, mut over) = (body.clone(), Box::pin(actix_rt::time::sleep(within)));
    let hurried = stream::poll_fn(move |cx| {
        let come = body.borrow_mut().poll_next_unpin(cx);
        if come.is_ready() {
            return come;
        }
        over.as_mut().poll(cx).map(|()| Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))))
    });
    request.set_payload(Payload::Stream { payload: Box::pin(hurried) });
    Hurried(Some(held))
}

/// A body whose time is measured.
pub(super) struct Hurried(Option<Rc<RefCell<Payload>>>);

impl Hurried {
    /// Has an answer that it came too late end the connection: of a body of chunks that nobody holds
    /// any more, the listener would wait for the rest.
    pub(super) fn held_by<B>(self, answer: ServiceResponse<B>) -> ServiceResponse<EitherBody<B>>
    where
        B: MessageBody + 'static,
    {
        match self.0 {
            Some(held) if answer.status() == StatusCode::REQUEST_TIMEOUT => answer.map_body(|_, body| {
                EitherBody::right(BoxBody::new(Holding { body: Box::pin(body), _held: held }))
            }),
            _ => answer.map_into_left_body(),
        }
    }
}

/// An answer, and what is to be there for as long.
struct Holding<B> {
    body: Pin<Box<B>>,
    _held: Rc<RefCell<Payload>>,
}

impl<B: MessageBody> MessageBody for Holding<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}

/// Whether a body did not come in its time.
pub(super) fn is_late(error: &PayloadError) -> bool {
    matches!(error, PayloadError::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// The answer to such a request; what else comes of it is not waited for.
pub(super) fn too_late() -> HttpResponse {
    let why = "the body did not come within its time: send it again over a better line, or less at a time";
    let mut answer = answer_with(StatusCode::REQUEST_TIMEOUT, malformed(why));
    answer.head_mut().set_connection_type(ConnectionType::Close);
    answer
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
