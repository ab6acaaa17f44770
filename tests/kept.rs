//! Connections that are answered and go on: how long what is still to come over them is waited for, and how
//! many of them an address has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "support/raw.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of it is used")]
mod raw;
mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use raw::{Raw, TEXT, put_frame};
use serde_json::json;
use support::http::{Answer, Events, Request};
use support::{Client, PATIENCE, Server};
use tempfile::TempDir;

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn start(environment: &[(&str, &str)]) -> (TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], environment);
    (data, server)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The head of a request up to what every one has, with its body still to come.
fn head(server: &Server, what: &str, more: &str) -> String {
    format!("{what} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", server.address)
}

/// A connection over which one request was answered.
fn answered(server: &Server) -> TcpStream {
    let mut stream = connect(server);
    stream.write_all(head(server, "GET /api/health", "").as_bytes()).unwrap();
    let answer = Answer::read(stream.try_clone().unwrap()).unwrap();
    assert_eq!(answer.status, 200);
    answer.body().unwrap();
    stream
}

/// Sends this; what comes until the server closes.
fn heard_after(mut stream: &TcpStream, said: &str) -> String {
    stream.write_all(said.as_bytes()).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).expect("the server closes it");
    heard
}

#[test]
fn what_does_not_come_after_an_answer_is_not_waited_for() {
    let (_data, server) = start(&[("DRAMATIS__SOCKET__HEAD_TIMEOUT_MS", "1000")]);
    let part = "GET / HTTP/1.1\r\nHos";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let said = [
        head(&server, "GET /ui/icon.svg", "") + part,
        head(&server, "GET /ui/icon.svg", "") + &head(&server, "GET /api/health", "") + part,
        head(&server, "GET /api/health", chunked) + "5\r\nhel",
        head(&server, "POST /nothing", chunked) + "5\r\nhello\r\n",
    ];
    std::thread::scope(|scope| {
        for said in &said {
            let server = &server;
            scope.spawn(move || {
                let heard = heard_after(&connect(server), said);
                assert!(heard.starts_with("HTTP/1.1 "), "{said}: {heard}");
            });
        }
        scope.spawn(|| assert_eq!(heard_after(&answered(&server), part), ""));
    });
}

#[test]
fn what_is_under_way_is_waited_for() {
    let (_data, server) = start(&[("DRAMATIS__SOCKET__HEAD_TIMEOUT_MS", "1000")]);
    server.open_room("den", "alice");
    // Each comes over a connection that was answered, before the one that is closed.
    let hello =
        json!({"type": "hello", "user": "bob", "session": "s", "rooms": [{"room": "den"}]}).to_string();
    let stream = Request { method: "POST", path: "/api/stream", headers: &[JSON], body: &hello };
    let mut stream = Events::new(stream.send_over(answered(&server)).unwrap());
    let mut frame = Vec::new();
    put_frame(&mut frame, TEXT, hello.replace("bob", "carol").as_bytes());
    let mut socket = Raw::connect_over(answered(&server), server.address, &frame).into_stream();
    let mut upload = answered(&server);
    let said = json!({"type": "command", "id": "c1", "room": "den", "name": "post_message", "data": {"text": "late"}});
    let (first, rest) = (said.to_string(), "}");
    let first = first.strip_suffix(rest).unwrap();
    let more = format!(
        "Content-Type: application/json\r\nDramatis-User: alice\r\nContent-Length: {}\r\n",
        first.len() + rest.len()
    );
    upload.write_all((head(&server, "POST /api/commands", &more) + first).as_bytes()).unwrap();

    assert_eq!(heard_after(&answered(&server), "GET"), "");

    upload.write_all(rest.as_bytes()).unwrap();
    let answer = Answer::read(upload).unwrap();
    let (status, answer) = (answer.status, answer.body().unwrap());
    assert_eq!(status, 200, "{answer}");
    while !stream.next().unwrap().expect("the stream goes on").data.contains("late") {}
    let mut heard = Vec::new();
    while !heard.ends_with(b"late") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("the socket goes on");
        heard.push(byte[0]);
    }
}

/// So many requests at once.
fn requests(server: &Server, count: usize) -> String {
    head(server, "GET /ui/icon.svg", "").repeat(count)
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let (_data, server) = start(&[]);
    let mut stream = connect(&server);
    let asked = 5_000;
    let last = head(&server, "GET /ui/icon.svg", "Connection: close\r\n");
    let requests = requests(&server, asked - 1) + &last;
    let mut writing = stream.try_clone().unwrap();
    let heard = std::thread::scope(|scope| {
        scope.spawn(move || writing.write_all(requests.as_bytes()).unwrap());
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("the server closes it");
        heard
    });
    assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), asked);
}

#[test]
fn who_sends_more_than_is_kept_behind_a_stream_is_let_go() {
    let (_data, server) = start(&[]);
    let mut stream = connect(&server);
    let said = head(&server, "GET /api/events?follow=true", "") + &requests(&server, 50_000);
    // It may be closed before all of that is taken.
    let _ = stream.write_all(said.as_bytes());
    let closed = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert!(matches!(closed, Ok(_) | Err(ErrorKind::ConnectionReset)), "{closed:?}");
}

/// Asks for a stream of events that does not end.
fn follow(server: &Server, headers: &[(&str, &str)]) -> Answer {
    Request { method: "GET", path: "/api/events?follow=true", headers, body: "" }
        .send(server.address)
        .unwrap()
}

/// Does this until it comes to something: who has left may not be noticed at once.
fn until<T>(mut done: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(began.elapsed() < PATIENCE, "there is no place");
    }
}

fn follow_once_there_is_room(server: &Server) -> Answer {
    until(|| Some(follow(server, &[])).filter(|answer| answer.status == 200))
}

const TWO: [(&str, &str); 2] = [
    ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
    ("DRAMATIS__LIMITS__ADDRESS__HTTP_CONNECTIONS_MAX", "2"),
];

#[test]
fn an_address_has_so_many_connections_whatever_it_asks() {
    let (_data, server) = start(&TWO);
    let mut held = vec![follow_once_there_is_room(&server), follow_once_there_is_room(&server)];
    // It is told before it says anything.
    let heard = heard_after(&connect(&server), "");
    assert!(heard.starts_with("HTTP/1.1 503 ") && heard.contains("\"unavailable\""), "{heard}");
    assert_eq!(follow(&server, &[]).status, 503);
    held.pop();
    held.push(follow_once_there_is_room(&server));
}

#[test]
fn a_socket_is_no_connection_of_http() {
    let (_data, server) = start(&TWO);
    let open: Vec<_> = (0..6).map(|_| until(|| Client::try_connect(server.address, &[]).ok())).collect();
    let _held = follow_once_there_is_room(&server);
    drop(open);
}

#[test]
fn connections_of_a_proxy_are_those_of_everyone() {
    let (_data, server) = start(&[&TWO[..], &[("DRAMATIS__SERVER__PROXIES__TRUSTED", "127.0.0.1")]].concat());
    let held: Vec<_> = (0..6).map(|_| follow(&server, &[("X-Forwarded-For", "203.0.113.1")])).collect();
    assert!(held.iter().all(|answer| answer.status == 200));
}
