//! Bodies: JSON, said to be, and within their limit.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{Error, FromRequest, HttpRequest, error};

use super::api::refused;
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
    let refusal = match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(max),
        _ => malformed(&format!("the body must be JSON in UTF-8: {error}")),
    };
    error::InternalError::from_response(error, refused(refusal)).into()
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
