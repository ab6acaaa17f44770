//! Pages of origins that are named may use the HTTP API from a browser; all others may not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::json;
use support::Server;
use support::http::{Answer, Request};

const APP: &str = "https://app.example.org";

fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"type": "command", "id": "1", "room": "lobby", "name": "join", "data": {}}).to_string();
    let body = if method == "POST" { body.as_str() } else { "" };
    Request { method, path, headers, body }.send(server.address).unwrap()
}

#[test]
fn an_origin_or_host_is_taken_as_people_write_it_and_refused_if_no_browser_sends_it() {
    let data = tempfile::tempdir().unwrap();
    let written = [
        ("DRAMATIS__SERVER__ALLOWED_ORIGINS", "HTTPS://App.Example.org:443/"),
        ("DRAMATIS__SERVER__ALLOWED_HOSTS", "Dramatis.Example.ORG"),
    ];
    let server = Server::start_with(data.path(), &[], &written);
    let of_host = |host: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let request =
            format!("GET /api/rooms HTTP/1.1\r\nHost: {host}\r\nOrigin: {APP}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let answer = Answer::read(stream).unwrap();
        (answer.status, answer.head.contains(&format!("access-control-allow-origin: {APP}\r\n")))
    };
    assert_eq!(of_host("dramatis.example.org"), (200, true));
    assert_eq!(of_host("dramatis.example.org:7400"), (200, true));
    assert_eq!(of_host("example.org").0, 403);
    for (name, value, part) in [
        (
            "DRAMATIS__SERVER__ALLOWED_ORIGINS",
            "*",
            "server.allowed_origins must be a list of web origins such as",
        ),
        ("DRAMATIS__SERVER__ALLOWED_ORIGINS", "https://app.example.org/chat", "without paths and wildcards"),
        ("DRAMATIS__SERVER__ALLOWED_ORIGINS", "app.example.org", "got [\"app.example.org\"]"),
        (
            "DRAMATIS__SERVER__ALLOWED_HOSTS",
            "example.org:8080",
            "server.allowed_hosts must be a list of host names",
        ),
        (
            "DRAMATIS__SERVER__ALLOWED_HOSTS",
            "https://example.org",
            "without schemes, ports, paths and wildcards",
        ),
    ] {
        let data = tempfile::tempdir().unwrap();
        let said = Server::try_start(data.path(), &[(name, value)]).err().expect(value);
        assert!(said.contains(part), "{value}: {said}");
    }
}

#[test]
fn a_page_of_a_named_origin_is_asked_and_answered() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__SERVER__ALLOWED_ORIGINS", APP)]);
    server.open_room("lobby", "alice");
    let origin = ("Origin", APP);
    let asks = [
        origin,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "dramatis-user"),
    ];
    for path in ["/api/commands", "/api/stream", "/api/poll", "/api/frames", "/api/rooms"] {
        let answer = ask(&server, "OPTIONS", path, &asks);
        assert_eq!(answer.status, 204, "{path}");
        assert!(answer.head.contains(&format!("access-control-allow-origin: {APP}\r\n")), "{}", answer.head);
        for header in ["dramatis-user", "dramatis-session", "authorization", "content-type", "last-event-id"]
        {
            let allowed = answer.head.lines().find(|line| line.starts_with("access-control-allow-headers"));
            assert!(allowed.unwrap().contains(header), "{}", answer.head);
        }
    }
    let json = ("Content-Type", "application/json");
    let taken = ask(&server, "POST", "/api/commands", &[origin, json, ("Dramatis-User", "bob")]);
    let refused = ask(&server, "GET", "/api/rooms/none", &[origin]);
    for (answer, status) in [(taken, 200), (refused, 404)] {
        assert_eq!(answer.status, status);
        assert!(answer.head.contains(&format!("access-control-allow-origin: {APP}\r\n")), "{}", answer.head);
        assert!(
            answer.head.contains("vary: origin\r\n") && !answer.head.contains("allow-credentials"),
            "{}",
            answer.head
        );
    }
    let events = ask(&server, "GET", "/api/events", &[origin]);
    let exposed =
        events.head.lines().find(|line| line.starts_with("access-control-expose-headers: ")).unwrap();
    for header in ["dramatis-epoch", "dramatis-parked-from", "retry-after", "www-authenticate"] {
        assert!(exposed.contains(header), "{exposed}");
    }
    assert!(events.head.contains("dramatis-epoch: "), "{}", events.head);
    let own = ask(&server, "GET", "/api/rooms", &[]);
    assert!(own.status == 200 && !own.head.contains("access-control"), "{}", own.head);
    for elsewhere in
        ["https://evil.example", "https://app.example.org.evil.example", "http://app.example.org", "null"]
    {
        for method in ["OPTIONS", "POST", "GET"] {
            let headers = [("Origin", elsewhere), json, asks[1], ("Dramatis-User", "bob")];
            let answer = ask(&server, method, "/api/commands", &headers);
            assert!(
                answer.status == 403 && !answer.head.contains("access-control"),
                "{elsewhere}: {}",
                answer.head
            );
        }
    }
}

#[test]
fn a_browser_that_asks_first_is_counted_as_any_request_is() {
    let data = tempfile::tempdir().unwrap();
    let limits = [
        ("DRAMATIS__SERVER__ALLOWED_ORIGINS", APP),
        ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
        ("DRAMATIS__LIMITS__ADDRESS__COMMANDS_PER_S", "1"),
        ("DRAMATIS__LIMITS__BURST_S", "20"),
    ];
    let server = Server::start_with(data.path(), &[], &limits);
    let asks = [("Origin", APP), ("Access-Control-Request-Method", "POST")];
    let statuses: Vec<_> = (0..60).map(|_| ask(&server, "OPTIONS", "/api/rooms", &asks).status).collect();
    assert_eq!(statuses[0], 204);
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[test]
fn who_comes_to_the_wrong_door_is_told_where_to_go() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let answer = ask(&server, "GET", "/socket", &[]);
    assert!(answer.status == 426 && answer.head.contains("upgrade: websocket"), "{}", answer.head);
    assert_eq!(ask(&server, "HEAD", "/api/health", &[]).status, 200);
    let upgrade = [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let host = server.address;
    for (path, more, status, code) in [
        ("/api/rooms", "", 404, "not_found"),
        ("/socket", "Sec-WebSocket-Protocol: chat\r\n", 400, "malformed"),
        ("/socket", "Origin: https://evil.example\r\n", 403, "forbidden"),
        ("/socket", "Sec-WebSocket-Version: 14\r\n", 426, "malformed"),
    ] {
        let lines = upgrade.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n{more}{lines}\r\n");
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let answer = Answer::read(stream).unwrap();
        let (got, head) = (answer.status, answer.head.clone());
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(head.contains("sec-websocket-version: 13"), status == 426, "{head}");
        let problem = answer.json().unwrap();
        assert_eq!(
            (got, &problem["code"], &problem["status"]),
            (status, &json!(code), &json!(status)),
            "{problem}"
        );
        assert!(problem["detail"].is_string(), "{problem}");
    }
    let (_, body) = support::http(
        host,
        &format!(
            "POST /api/rooms HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
    );
    assert!(body.contains("Content-Type application/json"), "{body}");
}
