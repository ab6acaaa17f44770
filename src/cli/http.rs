//! HTTP to a running server: its problems become errors that say what it said.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, RequestBuilder, Timeout};

use super::{Failure, ServerUrl};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take before it is looked whether anybody is there, and how long that may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of an answer is read, bytes: pages of documents and events end far before that.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How much of an error's body is read, bytes.
const PROBLEM_BYTES_MAX: u64 = 64 * 1024;

/// `GET` with a query: the whole answer.
pub(super) fn get(url: &ServerUrl, path: &str, query: &[(&str, String)]) -> anyhow::Result<String> {
    let request = dressed(agent(url).get(url.http(path)), query);
    watched(url, PATIENCE, move |url| whole(answered(url, request.call())?))
}

/// `GET` with a query: an answer that may go on for as long as it will, once it has begun.
pub(super) fn stream(url: &ServerUrl, path: &str, query: &[(&str, String)]) -> anyhow::Result<Body> {
    let request = dressed(agent(url).get(url.http(path)), query);
    watched(url, PATIENCE, move |url| answered(url, request.call()))
}

/// `POST` with a query and without a body: the whole answer.
pub(super) fn post(url: &ServerUrl, path: &str, query: &[(&str, String)]) -> anyhow::Result<String> {
    let request = dressed(agent(url).post(url.http(path)), query);
    watched(url, PATIENCE, move |url| whole(answered(url, request.send_empty())?))
}

/// With the token that there is, and the query.
fn dressed<Any>(mut request: RequestBuilder<Any>, query: &[(&str, String)]) -> RequestBuilder<Any> {
    if let Some(token) = super::token::shown() {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    for (name, value) in query {
        request = request.query(*name, value);
    }
    request
}

fn whole(mut body: Body) -> anyhow::Result<String> {
    body.with_config().limit(ANSWER_BYTES_MAX).read_to_string().context("cannot read the answer")
}

/// Waits for an answer as long as it takes, and only while the server tells of its health meanwhile: what
/// it has to do may be long, and what takes a connection and says nothing may be no server at all.
fn watched<T: Send + 'static>(
    url: &ServerUrl,
    patience: Duration,
    ask: impl FnOnce(&ServerUrl) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (tell, told) = mpsc::channel();
    let asked = url.clone();
    // Nobody waits for it where this one gives up.
    std::thread::spawn(move || drop(tell.send(ask(&asked))));
    loop {
        match told.recv_timeout(patience) {
            Ok(answer) => return answer,
            Err(mpsc::RecvTimeoutError::Disconnected) => anyhow::bail!("nobody asks {url} any more"),
            Err(mpsc::RecvTimeoutError::Timeout) if is_there(url, patience) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(Failure::Silent { url: url.clone(), patience }.into());
            }
        }
    }
}

/// Whether a server says anything at all of its health.
fn is_there(url: &ServerUrl, patience: Duration) -> bool {
    let request = agent(url).get(url.http("/api/health"));
    request.config().timeout_global(Some(patience)).build().call().is_ok()
}

/// Goes through the proxy that the environment names (`ALL_PROXY`, `HTTP_PROXY`, not where `NO_PROXY`
/// says so). What is on this machine no proxy reaches.
fn agent(url: &ServerUrl) -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).timeout_connect(Some(CONNECT_TIMEOUT));
    let config = if url.is_loopback() { config.proxy(None) } else { config };
    config.build().new_agent()
}

fn answered(url: &ServerUrl, result: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Body> {
    let answer = result.map_err(|error| match error {
        ureq::Error::Io(_)
        | ureq::Error::ConnectionFailed
        | ureq::Error::HostNotFound
        | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            Failure::NoServer { url: url.clone(), reason: error.to_string() }.into()
        }
        error => anyhow::Error::new(error).context(format!("cannot ask {url}")),
    })?;
    let status = answer.status();
    let mut body = answer.into_body();
    if status.is_success() {
        return Ok(body);
    }
    let text =
        body.with_config().limit(PROBLEM_BYTES_MAX).read_to_string().context("cannot read the answer")?;
    if let Some(reason) = from_proxy(status)
        && !is_ours(&text)
    {
        return Err(Failure::NoServer { url: url.clone(), reason }.into());
    }
    let told = told(status, &text);
    if status == StatusCode::UNAUTHORIZED {
        anyhow::bail!("{told}. {}", super::token::remedy(super::token::shown().is_some()));
    }
    Err(anyhow::anyhow!(told))
}

/// What is said by a proxy whose server is not there, as while that restarts; `None` for other answers.
pub(super) fn from_proxy(status: StatusCode) -> Option<String> {
    let gone = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    gone.contains(&status).then(|| format!("what stands before it answered {status}"))
}

/// Whether it is a server of ours that says so: its problems have a code.
fn is_ours(body: &str) -> bool {
    serde_json::from_str::<Problem>(body).is_ok_and(|problem| problem.code.is_some())
}

/// A problem as RFC 9457 has it, as far as it is shown.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

/// What a refusal says: the problem's own words, or else the body's beginning.
fn told(status: StatusCode, body: &str) -> String {
    const CHARS_MAX: usize = 300;
    let mut said = vec![format!("the server answered {status}")];
    match serde_json::from_str::<Problem>(body) {
        Ok(problem) => {
            // A rule's own word is told; what the status says already is not.
            let plain = |word: &str| word.replace('_', " ").to_lowercase();
            let reason = plain(status.canonical_reason().unwrap_or_default());
            let code = problem.code.filter(|code| !reason.contains(&plain(code)));
            let known = code.as_deref().map(plain);
            let title =
                problem.title.filter(|title| !reason.contains(&plain(title)) && Some(plain(title)) != known);
            said.extend([code, title, problem.detail].into_iter().flatten());
        }
        Err(_) => said.extend(Some(body.trim().chars().take(CHARS_MAX).collect())),
    }
    said.retain(|part: &String| !part.is_empty());
    said.join(": ")
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn problems_are_told_in_their_own_words() {
        for (status, body, wanted) in [
            (
                404,
                r#"{"type":"about:blank","title":"Not Found","status":404,"code":"not_found","detail":"no room den"}"#,
                "the server answered 404 Not Found: no room den",
            ),
            (
                400,
                r#"{"title":"malformed","status":400,"code":"malformed","detail":"no such time"}"#,
                "the server answered 400 Bad Request: malformed: no such time",
            ),
            (
                422,
                r#"{"title":"text_empty","status":422,"code":"rule","detail":"text must hold more"}"#,
                "the server answered 422 Unprocessable Entity: rule: text_empty: text must hold more",
            ),
            (400, "plain words\n", "the server answered 400 Bad Request: plain words"),
            (503, "", "the server answered 503 Service Unavailable"),
        ] {
            assert_eq!(told(StatusCode::from_u16(status).unwrap(), body), wanted);
        }
    }

    #[test]
    fn no_proxy_is_asked_for_what_is_on_this_machine() {
        let proxied = |url: &str| agent(&url.parse().unwrap()).config().proxy().is_some();
        let from_environment = ureq::Proxy::try_from_env().is_some();
        assert_eq!(proxied("http://db.example.org:7400"), from_environment);
        assert!(!proxied("http://127.0.0.1:7400"));
    }

    /// Takes every connection, and answers where `answer` gives something.
    fn taking(answer: impl Fn(&str) -> Option<&'static str> + Send + 'static) -> ServerUrl {
        saying("200 OK", answer)
    }

    fn saying(
        status: &'static str,
        answer: impl Fn(&str) -> Option<&'static str> + Send + 'static,
    ) -> ServerUrl {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        std::thread::spawn(move || {
            let mut clients = Vec::new();
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                BufReader::new(&client).read_line(&mut line).unwrap();
                if let Some(body) = answer(&line) {
                    let length = body.len();
                    let head =
                        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                    client.write_all((head + body).as_bytes()).unwrap();
                }
                clients.push(client);
            }
        });
        url
    }

    #[test]
    fn who_takes_a_connection_and_says_nothing_is_no_server() {
        let url = taking(|_| None);
        let ask = |url: &ServerUrl| answered(url, agent(url).get(url.http("/api/projections")).call());
        let error = watched(&url, Duration::from_millis(50), ask).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("takes the connection and gives no answer within 50ms"), "{text}");
    }

    #[test]
    fn a_server_that_is_well_is_waited_for() {
        let (told, health) = mpsc::channel();
        let url = taking(move |head| told.send(head.contains("/api/health")).ok().map(|()| "{}"));
        let (done, ends) = mpsc::channel();
        let slow = move |_: &ServerUrl| Ok(ends.recv()?);
        let waits = std::thread::spawn(move || watched(&url, Duration::from_secs(1), slow));
        assert!(health.recv().unwrap() && health.recv().unwrap(), "it is asked for its health alone");
        done.send("done").unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), "done");
    }

    #[test]
    fn a_long_answer_is_read_whole() {
        let long: &str = "x".repeat(11 << 20).leak();
        let url = taking(|_| Some(long));
        assert!(get(&url, "/api/projections", &[]).unwrap() == long);
    }

    #[test]
    fn a_proxy_without_its_server_is_no_server() {
        let ours = r#"{"code":"unavailable","title":"unavailable","detail":"rooms is not kept"}"#;
        for (status, body, is_none) in [
            ("502 Bad Gateway", "<html>", true),
            ("503 Service Unavailable", "{}", true),
            ("504 Gateway Timeout", "", true),
            ("503 Service Unavailable", ours, false),
            ("500 Internal Server Error", "", false),
        ] {
            let url = saying(status, move |_| Some(body));
            let error = get(&url, "/api/projections", &[]).unwrap_err();
            let none = matches!(error.downcast_ref(), Some(Failure::NoServer { .. }));
            assert!(none == is_none && error.to_string().contains(status), "{status}: {error}");
        }
    }

    #[test]
    fn where_nobody_takes_the_connection_is_no_server() {
        // It accepts none: what its queue has no place for is not answered.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let waiting =
            std::iter::repeat_with(|| TcpStream::connect_timeout(&address, Duration::from_millis(200)));
        let waiting: Vec<_> = waiting.map_while(Result::ok).collect();
        assert!(!waiting.is_empty());
        let url: ServerUrl = format!("http://{address}").parse().unwrap();
        let request = agent(&url).get(url.http("/api/projections"));
        let request = request.config().timeout_connect(Some(Duration::from_millis(200))).build();
        let error = answered(&url, request.call()).unwrap_err();
        assert_eq!(error.downcast_ref().map(Failure::exit_code), Some(2), "{error:#}");
        assert!(error.to_string().starts_with("no dramatis server answers at"), "{error}");
    }

    #[test]
    fn nobody_there_has_an_exit_code_of_its_own() {
        let url: ServerUrl = "http://127.0.0.1:7400".parse().unwrap();
        let error = answered(&url, Err(ureq::Error::ConnectionFailed)).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().exit_code(), 2);
        let text = error.to_string();
        assert!(text.starts_with("no dramatis server answers at http://127.0.0.1:7400 ("), "{text}");
    }
}
