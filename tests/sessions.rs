//! Sessions over their whole life: cursors, catching up, order within a frame, silence,
//! replacement, and a client that does not read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use serde_json::{Value, json};
use support::{Client, PATIENCE, Server};
use tempfile::TempDir;

fn start(environment: &[(&str, &str)]) -> (TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], environment);
    (data, server)
}

/// A server with a room of so many messages by alice, at revisions 2 and on.
fn room_of(messages: usize) -> (TempDir, Server, Client) {
    let (data, server) = start(&[]);
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    for number in 0..messages {
        alice.command("lobby", "post_message", &json!({"text": format!("number {number}")}));
    }
    for _ in 0..messages {
        assert_eq!(alice.receive_type("ack")["duplicate"], false);
    }
    (data, server, alice)
}

/// The revisions of the events that come before `live`, and what `live` says.
fn until_live(client: &mut Client) -> (Vec<u64>, Value) {
    let mut revisions = Vec::new();
    loop {
        let message = client.receive();
        match message["type"].as_str() {
            Some("event") => revisions.push(message["revision"].as_u64().unwrap()),
            Some("live") => return (revisions, message["revision"].clone()),
            _ => {}
        }
    }
}

fn revisions(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["revision"].as_u64().unwrap()).collect()
}

#[test]
fn every_room_of_a_hello_is_answered_for() {
    let (_data, server, _alice) = room_of(70);
    let mut bob = Client::connect(server.address);
    let ready = bob.hello(
        "bob",
        "s",
        &json!([{"room": "lobby", "after": 68}, {"room": "nowhere"}, {"room": "lobby", "after": 999}]),
    );
    let rooms = ready["rooms"].as_array().unwrap();
    assert_eq!((&rooms[0]["how"], &rooms[0]["head"]), (&json!("events"), &json!(71)));
    assert_eq!((&rooms[1]["how"], &rooms[1]["code"]), (&json!("denied"), &json!("not_found")));
    assert_eq!((&rooms[2]["how"], &rooms[2]["code"]), (&json!("denied"), &json!("ahead_of_log")));
    assert_eq!(until_live(&mut bob), (vec![69, 70, 71], json!(71)));
}

#[test]
fn a_cursor_decides_what_comes() {
    let (_data, server, _alice) = room_of(70);
    let mut bob = server.client("bob", &json!([]));
    let mut subscribe = |after: Option<u64>, epoch: Option<&str>| {
        bob.send(&json!({"type": "subscribe", "id": "s", "room": "lobby", "after": after, "epoch": epoch}));
        let answer = bob.answer("s");
        assert_eq!(answer["type"], "subscribed", "{answer}");
        (answer, until_live(&mut bob))
    };
    let (answer, latest) = subscribe(None, None);
    assert_eq!(latest, ((22..=71).collect(), json!(71)), "the latest fifty");
    let epoch = answer["epoch"].as_str().unwrap().to_owned();
    assert_eq!(subscribe(Some(0), Some(&epoch)).1, ((1..=71).collect(), json!(71)));
    assert_eq!(subscribe(Some(71), Some(&epoch)).1, (vec![], json!(71)));
    let (answer, after_reset) = subscribe(Some(500), Some("00000000deadbeef.1"));
    assert_eq!((&answer["how"], &answer["epoch"]), (&json!("reset"), &json!(epoch)));
    assert_eq!(after_reset, ((22..=71).collect(), json!(71)));

    let mut carol = Client::connect(server.address);
    let rooms = json!([{"room": "lobby", "after": 70, "epoch": "00000000deadbeef.1"}]);
    assert_eq!(carol.hello("carol", "s", &rooms)["rooms"][0]["how"], "reset");
    assert_eq!(until_live(&mut carol).0.first(), Some(&22));
}

#[test]
fn history_comes_in_pages() {
    let (_data, server, _alice) = room_of(70);
    let mut bob = server.client("bob", &json!([]));
    let mut page = |before: Option<u64>, limit: Option<u64>| {
        let mut request = json!({"type": "history", "id": "h", "room": "lobby"});
        if let Some(before) = before {
            request["before"] = json!(before);
        }
        if let Some(limit) = limit {
            request["limit"] = json!(limit);
        }
        bob.send(&request);
        let page = bob.answer("h");
        assert_eq!((&page["type"], &page["room"]), (&json!("page"), &json!("lobby")), "{page}");
        (revisions(&page), page["more"].as_bool().unwrap())
    };
    assert_eq!(page(None, None), ((22..=71).collect(), true));
    assert_eq!(page(Some(22), Some(20)), ((2..=21).collect(), true));
    assert_eq!(page(Some(2), Some(20)), (vec![0, 1], false));
    assert_eq!(page(Some(1), Some(1)), (vec![0], false));
    assert_eq!(page(Some(0), Some(20)), (vec![], false));
    assert_eq!(page(Some(70), Some(0)), (vec![69], true));
    assert_eq!(page(None, Some(100_000)), ((0..=71).collect(), false));
}

#[test]
fn unsubscribing_stops_the_events_and_subscribing_twice_does_not_double_them() {
    let (_data, server, mut alice) = room_of(1);
    let mut bob = server.client("bob", &json!([{"room": "lobby"}]));
    until_live(&mut bob);
    bob.send(&json!({"type": "subscribe", "id": "again", "room": "lobby", "after": 2}));
    bob.answer("again");
    until_live(&mut bob);
    alice.ask("lobby", "post_message", &json!({"text": "once"}));
    alice.ask("lobby", "post_message", &json!({"text": "and once"}));
    assert_eq!(bob.receive_type("event")["revision"], 3);
    assert_eq!(bob.receive_type("event")["revision"], 4);

    bob.send(&json!({"type": "unsubscribe", "id": "u", "room": "lobby"}));
    bob.answer("u");
    alice.ask("lobby", "post_message", &json!({"text": "unheard"}));
    // What is heard of another room comes behind whatever the first would have sent.
    server.open_room("den", "alice");
    bob.send(&json!({"type": "subscribe", "id": "den", "room": "den"}));
    let mut between = Vec::new();
    while between.last().is_none_or(|message: &Value| message["type"] != "live") {
        between.push(bob.receive());
    }
    assert!(between.iter().all(|message| message["room"] == "den"), "{between:?}");
}

#[test]
fn messages_of_one_frame_are_taken_in_their_order() {
    let (_data, server, mut alice) = room_of(1);
    let hello = json!({"type": "hello", "user": "alice", "session": "s", "rooms": [{"room": "lobby"}]});
    let post = |id: &str| json!({"type": "command", "id": id, "room": "lobby", "name": "post_message", "data": {"text": id}});
    let unknown = json!({"type": "dance", "id": "m"});
    let mut piped = Client::connect(server.address);
    piped.send_text(&format!("{hello}\n{unknown}\n\n{}\r\n{}\n", post("p1"), post("p2")));
    let mut order = Vec::new();
    while order.len() < 4 {
        let message = piped.receive();
        match message["type"].as_str().unwrap() {
            "ready" => order.push("ready".to_owned()),
            "ack" | "reject" => order.push(message["id"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }
    assert_eq!(order, ["ready", "m", "p1", "p2"]);

    let subscribe =
        |id: &str, after: u64| json!({"type": "subscribe", "id": id, "room": "lobby", "after": after});
    let unsubscribe = json!({"type": "unsubscribe", "id": "u", "room": "lobby"});
    let mut bob = server.client("bob", &json!([]));
    bob.send_text(&format!("{}\n{}\n{unsubscribe}\n{unknown}", subscribe("s1", 0), subscribe("s2", 3)));
    for id in ["s1", "s2", "u", "m"] {
        let message = bob.receive();
        let answer = if message["id"].is_null() { bob.answer(id) } else { message };
        assert_eq!(answer["id"], id, "{answer}");
    }
    alice.ask("lobby", "post_message", &json!({"text": "unheard"}));
    bob.send(&json!({"type": "history", "id": "h", "room": "lobby", "limit": 1}));
    assert_eq!(bob.receive()["type"], "page", "nothing of a room that was left");
}

#[test]
fn a_hello_may_be_taken_back_in_its_own_frame() {
    let (_data, server, mut alice) = room_of(1);
    let hello =
        json!({"type": "hello", "user": "bob", "session": "s", "rooms": [{"room": "lobby", "after": 2}]});
    let unsubscribe = json!({"type": "unsubscribe", "id": "u", "room": "lobby"});
    let mut bob = Client::connect(server.address);
    bob.send_text(&format!("{hello}\n{unsubscribe}"));
    assert_eq!(bob.receive()["type"], "ready");
    assert_eq!(bob.receive()["type"], "unsubscribed");
    alice.ask("lobby", "post_message", &json!({"text": "unheard"}));
    bob.send(&json!({"type": "history", "id": "h", "room": "lobby", "limit": 1}));
    assert_eq!(bob.receive()["type"], "page");
}

#[test]
fn the_same_session_replaces_its_older_connection() {
    let (_data, server) = start(&[]);
    let mut first = Client::connect(server.address);
    first.hello("alice", "tab-1", &json!([]));
    let (mut other_tab, mut other_user) = (Client::connect(server.address), Client::connect(server.address));
    other_tab.hello("alice", "tab-2", &json!([]));
    other_user.hello("bob", "tab-1", &json!([]));
    let mut second = Client::connect(server.address);
    second.hello("alice", "tab-1", &json!([]));
    assert_eq!(first.closed(), 4507);
    for client in [&mut other_tab, &mut other_user, &mut second] {
        assert_eq!(client.ask("nowhere", "join", &json!({}))["code"], "not_found");
    }
    let mut third = Client::connect(server.address);
    third.hello("alice", "tab-1", &json!([]));
    assert_eq!(second.closed(), 4507);
}

#[test]
fn silence_after_a_ping_ends_a_connection_and_an_answer_keeps_it() {
    let (_data, server) =
        start(&[("DRAMATIS__SOCKET__HEARTBEAT_MS", "100"), ("DRAMATIS__SOCKET__HEARTBEAT_GRACE_MS", "2000")]);
    let mut silent = server.client("alice", &json!([]));
    let mut lively = server.client("bob", &json!([]));
    let mut pings = 0;
    let reason = loop {
        match silent.socket().read().unwrap() {
            tokio_tungstenite::tungstenite::Message::Text(text) => {
                assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"type": "ping"}));
                pings += 1;
                // The other client answers its own pings on the way to this answer.
                assert_eq!(lively.ask("nowhere", "join", &json!({}))["code"], "not_found");
            }
            tokio_tungstenite::tungstenite::Message::Close(reason) => break reason.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((pings, u16::from(reason.code)), (1, 4002));
}

/// Open connections, as the server counts them.
fn connections(server: &Server) -> u64 {
    let (_, metrics) = server.get("/metrics");
    let line = metrics.lines().find(|line| line.starts_with("dramatis_connections ")).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_loses_nothing() {
    let (_data, server) = start(&[("DRAMATIS__SOCKET__WRITE_TIMEOUT_MS", "1000")]);
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    let mut slow = server.client("bob", &json!([{"room": "lobby", "after": 0}]));
    let mut witness = server.client("carol", &json!([{"room": "lobby", "after": 0}]));
    let text = "\u{1F40C}".repeat(8_000);
    let started = std::time::Instant::now();
    let mut head = 1;
    let mut seen = 0;
    while connections(&server) == 3 {
        assert!(started.elapsed() < PATIENCE, "the client that does not read is still there at {head}");
        head = alice.ask("lobby", "post_message", &json!({"text": text}))["revision"].as_u64().unwrap();
        while seen < head {
            seen += 1;
            assert_eq!(witness.receive_type("event")["revision"], seen, "others are served meanwhile");
        }
    }
    let mut handled = 0;
    while let Ok(message) = slow.try_receive() {
        if message["type"] == "event" {
            handled += 1;
            assert_eq!(message["revision"], handled);
        }
    }
    assert!(handled < head, "it was dropped before it had everything");
    let mut again = server.client("bob", &json!([{"room": "lobby", "after": handled}]));
    let (rest, live) = until_live(&mut again);
    assert_eq!((rest, live), ((handled + 1..=head).collect(), json!(head)));
}

#[test]
fn a_server_that_ends_says_goodbye_and_leaves_at_once() {
    let (data, server) = start(&[]);
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([{"room": "lobby"}]));
    alice.receive_type("live");
    let ack = alice.ask("lobby", "post_message", &json!({"text": "last words"}));
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(alice.closed(), 4001);
    let server = Server::start(data.path());
    let mut alice = server.client("alice", &json!([{"room": "lobby", "after": 1}]));
    assert_eq!(alice.receive_type("event")["position"], ack["position"], "what was acknowledged is there");
}

#[test]
fn a_connection_too_many_is_told_so() {
    let (_data, server) = start(&[("DRAMATIS__SERVER__CONNECTIONS_MAX", "2")]);
    let _first = server.client("alice", &json!([]));
    let second = server.client("bob", &json!([]));
    assert_eq!(Client::connect(server.address).closed(), 4505);
    drop(second);
    let started = std::time::Instant::now();
    loop {
        let mut next = Client::connect(server.address);
        next.send(&json!({"type": "hello", "user": "carol", "session": "s", "rooms": []}));
        if next.try_receive().is_ok() {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the place of a connection that ended is free again");
    }
}

#[test]
fn who_is_turned_away_and_says_goodbye_is_not_kept() {
    let (_data, server) = start(&[("DRAMATIS__SERVER__CONNECTIONS_MAX", "1")]);
    let _only = server.client("alice", &json!([]));
    let started = std::time::Instant::now();
    // Each would be waited for if nobody heard its answer: together for longer than there is patience.
    for _ in 0..20 {
        let mut next = Client::connect(server.address);
        next.send(&json!({"type": "hello", "user": "carol", "session": "s", "rooms": []}));
        assert_eq!(next.closed(), 4505);
        assert_eq!(next.closed(), 1005, "the server ends what was said goodbye to on both sides");
        assert!(started.elapsed() < PATIENCE, "each is kept until it is given up");
    }
}

#[test]
fn a_room_too_many_is_refused_and_those_followed_stay() {
    let (_data, server) = start(&[("DRAMATIS__SOCKET__ROOMS_PER_SESSION_MAX", "1")]);
    server.open_room("lobby", "alice");
    server.open_room("attic", "alice");
    let mut alice = Client::connect(server.address);
    let ready = alice.hello("alice", "s", &json!([{"room": "lobby"}, {"room": "attic"}]));
    assert_eq!(ready["rooms"][1]["code"], "rate_limited");
    alice.receive_type("live");
    alice.send(&json!({"type": "subscribe", "id": "s1", "room": "attic"}));
    assert_eq!(alice.answer("s1")["code"], "rate_limited");
    alice.command("lobby", "post_message", &json!({"text": "still here"}));
    assert_eq!(alice.receive_type("event")["data"]["text"], "still here");
}
