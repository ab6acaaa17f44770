//! Who asks, when no frame says so: the header `Dramatis-User`, or the cookie `dramatis_user` of
//! an own page; and which of their sessions: the header `Dramatis-Session` or the parameter
//! `session`.
//!
//! No page elsewhere can make a browser send these headers, or a JSON body, without a preflight,
//! which is answered for named origins only (`web::cross_origin`). It could make a browser send a cookie: so that counts only where
//! the browser says that the page is an own one.

use actix_web::http::header::{COOKIE, HeaderMap};
use actix_web::{HttpMessage as _, HttpRequest};
use dramatis_events::{CommandId, MemberId};

use crate::auth::Pass;
use crate::protocol::{ErrorCode, Reject, session_name};
use crate::web::caller::bearer;

const USER_HEADER: &str = "dramatis-user";
const SESSION_HEADER: &str = "dramatis-session";
const USER_COOKIE: &str = "dramatis_user";

/// Where the server has a key: the verified token of the request, and its text.
pub(super) fn shown(request: &HttpRequest) -> Option<(Pass, String)> {
    let pass = request.extensions().get::<Pass>().cloned()?;
    Some((pass, bearer(request)?.to_owned()))
}

/// The user: whom the token names, where there is one, else who is named.
pub(in crate::web) fn user(request: &HttpRequest) -> Result<MemberId, Reject> {
    if let Some((pass, _)) = shown(request) {
        return Ok(pass.user);
    }
    let headers = request.headers();
    let named = match text(headers, USER_HEADER) {
        Some(user) => user,
        None => cookie(headers, USER_COOKIE)?
            .ok_or_else(|| malformed("say who asks: the header Dramatis-User with a user id"))?,
    };
    MemberId::parse(named).map_err(|error| malformed(&error.to_string()))
}

/// The session; `parameter` is what the query says of it.
pub(in crate::web) fn session(request: &HttpRequest, parameter: Option<&str>) -> Result<CommandId, Reject> {
    let named = text(request.headers(), SESSION_HEADER).or(parameter).ok_or_else(|| {
        malformed("say which session: the header Dramatis-Session, or the parameter session, with its id")
    })?;
    session_name(named).map_err(|error| malformed(&error.to_string()))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Reject> {
    let cookies = headers.get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let Some((_, value)) = pairs.find(|(known, _)| *known == name) else { return Ok(None) };
    match text(headers, "sec-fetch-site") {
        None | Some("same-origin" | "none") => Ok(Some(value)),
        Some(_) => {
            Err(Reject::new(None, ErrorCode::Forbidden, "a cookie is taken from pages of this server only"))
        }
    }
}

pub(in crate::web) fn malformed(what: &str) -> Reject {
    Reject::new(None, ErrorCode::Malformed, what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> HttpRequest {
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        request.to_http_request()
    }

    #[test]
    fn a_header_says_who_asks_and_a_cookie_only_on_own_pages() {
        for (headers, want) in [
            (&[("dramatis-user", "alice")][..], Ok("alice")),
            (&[("dramatis-user", "alice"), ("sec-fetch-site", "cross-site")], Ok("alice")),
            (&[("cookie", "a=b; dramatis_user=bob"), ("cookie", "c=d")], Ok("bob")),
            (&[("cookie", "dramatis_user=bob"), ("sec-fetch-site", "same-origin")], Ok("bob")),
            (&[("cookie", "dramatis_user=bob"), ("sec-fetch-site", "same-site")], Err(403)),
            (&[("cookie", "dramatis_user=bob"), ("sec-fetch-site", "cross-site")], Err(403)),
            (&[("cookie", "not_dramatis_user=bob")], Err(400)),
            (&[("dramatis-user", "a/b")], Err(400)),
            (&[], Err(400)),
        ] {
            let got = user(&request(headers)).map_err(|refusal| refusal.code.http_status());
            assert_eq!(got.as_ref().map(MemberId::as_str).map_err(|status| *status), want, "{headers:?}");
        }
    }
}
