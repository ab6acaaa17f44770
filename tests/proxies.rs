//! Behind a proxy that is trusted, limits are those of the address it asks for; whom nobody
//! trusts counts for itself, whatever it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use serde_json::json;
use support::http::{Answer, Request};
use support::{Client, Server};
use tempfile::TempDir;

fn start(environment: &[(&str, &str)]) -> (TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let limited = [
        ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
        ("DRAMATIS__LIMITS__ADDRESS__CONNECTIONS_MAX", "2"),
    ];
    let server = Server::start_with(data.path(), &[], &[&limited, environment].concat());
    (data, server)
}

fn begin(server: &Server, path: &str, session: &str, header: (&str, &str)) -> Answer {
    let hello = json!({"type": "hello", "user": "alice", "session": session, "rooms": []}).to_string();
    let headers = [("Content-Type", "application/json"), header];
    Request { method: "POST", path, headers: &headers, body: &hello }.send(server.address).unwrap()
}

#[test]
fn connections_of_all_transports_count_for_the_address_that_the_proxy_names() {
    let (_data, server) = start(&[("DRAMATIS__SERVER__PROXIES__TRUSTED", "127.0.0.0/8, 10.0.0.0/8")]);
    let from = |address: &'static str| ("X-Forwarded-For", address);
    let socket = |address: &'static str| Client::try_connect(server.address, &[from(address)]).unwrap();
    let (one, other) = ("6.6.6.6, 203.0.113.1, 10.0.0.3", "203.0.113.2");
    let _open = (socket(one), begin(&server, "/api/stream", "a", from(one)));
    assert_eq!(socket(one).closed(), 4505);
    for path in ["/api/stream", "/api/poll?wait=0"] {
        let refused = begin(&server, path, "b", from("203.0.113.1"));
        assert_eq!(refused.status, 503, "{path}");
        let problem = refused.json().unwrap();
        assert!(problem["detail"].as_str().unwrap().contains("your address"), "{problem}");
    }
    // A session between two polls holds its place.
    assert_eq!(begin(&server, "/api/poll?wait=0", "c", from(other)).status, 200);
    assert_eq!(begin(&server, "/api/poll?wait=0", "d", from(other)).status, 200);
    assert_eq!(begin(&server, "/api/poll?wait=0", "e", from(other)).status, 503);
    assert_eq!(socket(other).closed(), 4505);
    socket("203.0.113.3").hello("bob", "f", &json!([]));
}

#[test]
fn the_word_of_who_is_not_trusted_counts_for_nothing() {
    for environment in [
        &[][..],
        &[("DRAMATIS__SERVER__PROXIES__TRUSTED", "10.0.0.0/8")],
        &[
            ("DRAMATIS__SERVER__PROXIES__TRUSTED", "127.0.0.1"),
            ("DRAMATIS__SERVER__PROXIES__HEADER", "forwarded"),
        ],
    ] {
        let (_data, server) = start(environment);
        let open = ["203.0.113.1", "203.0.113.2"]
            .map(|address| Client::try_connect(server.address, &[("X-Forwarded-For", address)]).unwrap());
        let mut third = Client::try_connect(server.address, &[("X-Forwarded-For", "203.0.113.3")]).unwrap();
        assert_eq!(third.closed(), 4505, "{environment:?}");
        drop(open);
    }
}

#[test]
fn a_pace_is_that_of_the_address_too() {
    let (_data, server) = start(&[
        ("DRAMATIS__SERVER__PROXIES__TRUSTED", "127.0.0.1"),
        ("DRAMATIS__SERVER__PROXIES__HEADER", "forwarded"),
        ("DRAMATIS__LIMITS__ADDRESS__COMMANDS_PER_S", "1"),
        ("DRAMATIS__LIMITS__BURST_S", "20"),
    ]);
    let get = |named: &str| {
        let headers = [("Forwarded", named)];
        Request { method: "GET", path: "/api/rooms", headers: &headers, body: "" }
            .send(server.address)
            .unwrap()
            .status
    };
    assert!((0..60).any(|_| get("for=\"[2001:db8::1]:4711\";proto=https") == 429));
    // It may have earned one more meanwhile; a network of its own could spend twenty.
    assert!((0..10).any(|_| get("for=\"[2001:db8::2]\"") == 429), "one network");
    assert_eq!(get("for=\"[2001:db9::1]\""), 200);
}
