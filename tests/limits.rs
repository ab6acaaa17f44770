//! Who is too fast is told when to come back, who goes on is closed, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;
#[path = "support/raw.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of it is used")]
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use support::http::Request;
use support::{Client, PATIENCE, Server};
use wire::{Raw, TEXT, put_frame};

/// Limits that suit people, and that a test can reach.
const PEOPLE: [(&str, &str); 2] =
    [("DRAMATIS__LIMITS__SESSION__COMMANDS_PER_S", "200"), ("DRAMATIS__LIMITS__USER__COMMANDS_PER_S", "400")];

fn start(environment: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[&PEOPLE, environment].concat());
    server.open_room("lobby", "alice");
    (data, server)
}

fn assert_served(client: &mut Client) {
    let answer = client.ask("lobby", "post_message", &json!({"text": "good evening"}));
    assert_eq!(answer["type"], "ack", "{answer}");
}

/// Sends so many posts at once and returns the answers.
fn burst(client: &mut Client, count: usize) -> Vec<Value> {
    for _ in 0..count {
        client.command("lobby", "post_message", &json!({"text": "quick"}));
    }
    answers(client, count)
}

/// The same in one frame: however slow the machine is, the server has them together.
fn burst_in_a_frame(client: &mut Client, count: usize) -> Vec<Value> {
    let post = |number| {
        let (room, data) = ("lobby", json!({"text": "quick"}));
        let id = format!("burst-{number}");
        json!({"type": "command", "id": id, "room": room, "name": "post_message", "data": data}).to_string()
    };
    client.send_text(&(0..count).map(post).collect::<Vec<_>>().join("\n"));
    answers(client, count)
}

fn answers(client: &mut Client, count: usize) -> Vec<Value> {
    let mut answers = Vec::new();
    while answers.len() < count {
        let message = client.receive();
        answers.extend(Some(message).filter(|message| message.get("id").is_some()));
    }
    answers
}

#[test]
fn a_client_over_its_rate_is_told_when_to_come_back_and_its_retry_holds() {
    let (_data, server) =
        start(&[("DRAMATIS__LIMITS__SESSION__COMMANDS_PER_S", "5"), ("DRAMATIS__LIMITS__BURST_S", "2")]);
    let mut alice = server.client("alice", &json!([]));
    let answers = burst_in_a_frame(&mut alice, 20);
    let rejects: Vec<_> = answers.iter().filter(|answer| answer["type"] == "reject").collect();
    assert!((1..=10).contains(&rejects.len()), "{} refused of 20", rejects.len());
    for reject in &rejects {
        assert_eq!((&reject["code"], &reject["retry"]), (&json!("rate_limited"), &json!(true)), "{reject}");
        assert!((1..=200).contains(&reject["after_ms"].as_u64().unwrap()), "{reject}");
    }
    // As told: again and again the same command, at the time that the answer names.
    let again = rejects[0]["id"].as_str().unwrap();
    loop {
        let command = json!({"type": "command", "id": again, "room": "lobby", "name": "post_message",
            "data": {"text": "quick"}});
        alice.send(&command);
        let answer = alice.answer(again);
        if answer["type"] == "ack" {
            assert_eq!(answer["duplicate"], false);
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(answer["after_ms"].as_u64().unwrap()));
    }
}

#[test]
fn a_user_cannot_come_back_faster_by_other_connections() {
    let (_data, server) =
        start(&[("DRAMATIS__LIMITS__USER__COMMANDS_PER_S", "1"), ("DRAMATIS__LIMITS__BURST_S", "100")]);
    let mut taken = 0;
    for number in 0..4 {
        let mut alice = Client::connect(server.address);
        alice.send(
            &json!({"type": "hello", "user": "alice", "session": format!("tab-{number}"), "rooms": []}),
        );
        // A hello is of the same pace.
        if alice.receive()["type"] != "ready" {
            assert_eq!(alice.closed(), 4029);
            continue;
        }
        taken += burst(&mut alice, 50).iter().filter(|answer| answer["type"] == "ack").count();
    }
    // Opening the room took one, each hello too; what the seconds of the test bring may be on top.
    assert!((95..=160).contains(&taken), "{taken} of 200");
    let mut bob = server.client("bob", &json!([]));
    assert_eq!(bob.ask("lobby", "join", &json!({}))["type"], "ack");
}

#[test]
fn connections_and_rooms_of_a_user_are_counted_over_all_connections() {
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__USER__CONNECTIONS_MAX", "2"),
        ("DRAMATIS__LIMITS__USER__ROOMS_MAX", "2"),
    ]);
    for room in ["a", "b", "c"] {
        server.open_room(room, "alice");
    }
    let mut first = Client::connect(server.address);
    first.hello("alice", "one", &json!([{"room": "a"}]));
    let mut second = Client::connect(server.address);
    let ready = second.hello("alice", "two", &json!([{"room": "b"}, {"room": "c"}]));
    assert_eq!(
        (&ready["rooms"][0]["how"], &ready["rooms"][1]["code"]),
        (&json!("events"), &json!("rate_limited"))
    );
    second.send(&json!({"type": "subscribe", "id": "s", "room": "c"}));
    assert_eq!(second.answer("s")["code"], "rate_limited");
    first.send(&json!({"type": "unsubscribe", "id": "u", "room": "a"}));
    assert_eq!(first.answer("u")["type"], "unsubscribed");
    second.send(&json!({"type": "subscribe", "id": "t", "room": "c"}));
    assert_eq!(second.answer("t")["type"], "subscribed");
    let mut third = Client::connect(server.address);
    third.send(&json!({"type": "hello", "user": "alice", "session": "three", "rooms": []}));
    assert_eq!(third.closed(), 4505);
    let mut bob = server.client("bob", &json!([{"room": "a"}]));
    assert_eq!(bob.ask("lobby", "join", &json!({}))["type"], "ack");
}

#[test]
fn a_session_that_comes_back_has_the_places_of_its_earlier_connection() {
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__USER__CONNECTIONS_MAX", "1"),
        ("DRAMATIS__LIMITS__USER__ROOMS_MAX", "2"),
    ]);
    for room in ["a", "b", "c"] {
        server.open_room(room, "alice");
    }
    let rooms = json!([{"room": "a"}, {"room": "b"}, {"room": "c"}]);
    let mut before: Option<Client> = None;
    for round in 0..10 {
        // The earlier connection is there still, as one is that was cut on the way.
        let mut alice = Client::connect(server.address);
        alice.send(&json!({"type": "hello", "user": "alice", "session": "tab", "rooms": rooms}));
        let ready = alice.receive();
        assert_eq!(ready["type"], "ready", "round {round}: {ready}");
        let codes: Vec<_> = ready["rooms"].as_array().unwrap().iter().map(|room| &room["code"]).collect();
        assert_eq!(codes, [&Value::Null, &Value::Null, &json!("rate_limited")], "round {round}");
        if let Some(mut before) = before.replace(alice) {
            assert_eq!(before.closed(), 4507);
        }
    }
    // Another session has none of these places, before and after.
    let mut other = Client::connect(server.address);
    other.send(&json!({"type": "hello", "user": "alice", "session": "other", "rooms": []}));
    assert_eq!(other.closed(), 4505);
    drop(before);
    let began = std::time::Instant::now();
    loop {
        assert!(began.elapsed() < support::PATIENCE, "the place of who has gone is not given back");
        let mut other = Client::connect(server.address);
        other.send(&json!({"type": "hello", "user": "alice", "session": "other", "rooms": rooms}));
        match other.try_receive() {
            Ok(ready) => {
                assert_eq!(ready["rooms"][1]["how"], "events", "{ready}");
                break;
            }
            Err(code) => assert_eq!(code, 4505),
        }
    }
}

#[test]
fn an_address_is_limited_over_sockets_and_http() {
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
        ("DRAMATIS__LIMITS__ADDRESS__CONNECTIONS_MAX", "3"),
        ("DRAMATIS__LIMITS__ADDRESS__COMMANDS_PER_S", "1"),
        ("DRAMATIS__LIMITS__BURST_S", "20"),
    ]);
    let open: Vec<_> = (0..3).map(|_| Client::connect(server.address)).collect();
    assert_eq!(Client::connect(server.address).closed(), 4505);
    drop(open);
    let refused = (0..40).map(|_| server.get("/api/rooms")).find(|(status, _)| *status == 429);
    let (_, body) = refused.expect("a request of 40 is refused");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!("rate_limited"), &json!(429)), "{problem}");
}

#[test]
fn integrations_and_people_at_their_own_pace_are_not_hindered() {
    let (_data, server) = start(&[]);
    let mut bridge = server.client("integration:bridge", &json!([]));
    assert_eq!(bridge.ask("lobby", "join", &json!({}))["type"], "ack");
    let answers = burst(&mut bridge, 5_000);
    assert!(answers.iter().all(|answer| answer["type"] == "ack"));
    let mut alice = server.client("alice", &json!([]));
    assert!(burst(&mut alice, 1_000).iter().all(|answer| answer["type"] == "ack"));
}

#[test]
fn who_goes_on_far_over_the_limit_is_closed_and_nobody_else_notices() {
    const CLIENTS: usize = 8;
    const FRAMES_A_WRITE: usize = 1_000;
    let (_data, server) = start(&[]);
    let mut alice = server.client("alice", &json!([]));
    assert_served(&mut alice);
    let before_kib = server.resident_kib();
    let mut hello = Vec::new();
    let said = json!({"type": "hello", "user": "mallory", "session": "s", "rooms": []}).to_string();
    put_frame(&mut hello, TEXT, said.as_bytes());
    let mut flood = Vec::new();
    for number in 0..FRAMES_A_WRITE {
        let wish =
            json!({"type": "command", "id": number.to_string(), "room": "lobby", "name": "join", "data": {}});
        put_frame(&mut flood, TEXT, wish.to_string().as_bytes());
    }
    let frames: usize = std::thread::scope(|scope| {
        let attack = || {
            let mut sent = 0;
            loop {
                // Nothing is read while the flood goes on: the server may stop reading, or close.
                let mut mallory = Raw::connect(server.address, &hello);
                for _ in 0..10 {
                    if !mallory.send(&flood) {
                        break;
                    }
                    sent += FRAMES_A_WRITE;
                }
                let heard = mallory.listen(usize::MAX);
                if heard.closed == Some(4029) || sent > 40 * FRAMES_A_WRITE {
                    assert!(heard.closed.is_none_or(|code| code == 4029 || code == 4507), "{heard:?}");
                    return sent;
                }
            }
        };
        let attacks: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(attack)).collect();
        while attacks.iter().any(|attack| !attack.is_finished()) {
            assert_served(&mut alice);
        }
        attacks.into_iter().map(|attack| attack.join().unwrap()).sum()
    });
    assert_served(&mut alice);
    let grown_kib = server.resident_kib().saturating_sub(before_kib);
    println!("{frames} frames of {CLIENTS} floods: {grown_kib} KiB");
    assert!(grown_kib < 64 * 1024, "{grown_kib} KiB");
}

#[test]
fn a_room_that_ended_makes_place_for_another_and_too_many_is_no_matter_of_time() {
    let (_data, server) = start(&[("DRAMATIS__LIMITS__USER__ROOMS_MAX", "1")]);
    server.open_room("a", "alice");
    let mut bob = server.client("bob", &json!([{"room": "a"}]));
    assert_eq!(bob.ask("a", "join", &json!({}))["type"], "ack");
    let mut elsewhere = Client::connect(server.address);
    elsewhere.hello("bob", "elsewhere", &json!([]));
    elsewhere.send(&json!({"type": "subscribe", "id": "full", "room": "lobby"}));
    let refused = elsewhere.answer("full");
    assert_eq!((&refused["code"], &refused["retry"]), (&json!("rate_limited"), &json!(false)), "{refused}");
    let mut alice = server.client("alice", &json!([]));
    assert_eq!(alice.ask("a", "remove_member", &json!({"member": "bob"}))["type"], "ack");
    bob.receive_type("closed");
    // Its answer comes after all that the end of the room brought with it.
    assert_served(&mut alice);
    bob.ask("lobby", "join", &json!({}));
    elsewhere.send(&json!({"type": "subscribe", "id": "free", "room": "lobby"}));
    let taken = elsewhere.answer("free");
    assert_eq!(taken["type"], "subscribed", "{taken}");
}

#[test]
fn of_a_frame_no_more_commands_are_in_flight_than_may_be() {
    // As many wait at a room before it refuses more: so none is refused.
    let (_data, server) = start(&[
        ("DRAMATIS__SOCKET__IN_FLIGHT_COMMANDS_MAX", "4"),
        ("DRAMATIS__ENTITY__PENDING_COMMANDS_MAX", "4"),
    ]);
    let mut alice = server.client("alice", &json!([]));
    let post = |number: u32| {
        json!({"type": "command", "id": format!("p{number}"), "room": "lobby", "name": "post_message",
            "data": {"text": "quick"}})
    };
    alice.send_text(&(0..40).map(|number| post(number).to_string()).collect::<Vec<_>>().join("\n"));
    let mut last = 0;
    for number in 0..40 {
        let answer = alice.answer(&format!("p{number}"));
        assert_eq!(answer["type"], "ack", "{answer}");
        assert!(answer["revision"].as_u64().unwrap() > last, "{answer}");
        last = answer["revision"].as_u64().unwrap();
    }
}

#[test]
fn a_body_pays_for_its_bytes_whether_or_not_it_says_how_many_they_are() {
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
        ("DRAMATIS__LIMITS__ADDRESS__BYTES_PER_S", "20000"),
        ("DRAMATIS__LIMITS__BURST_S", "10"),
    ]);
    let body = json!({"type": "command", "id": "c", "room": "nowhere", "name": "post_message", "data": {"text": "x".repeat(60_000)}});
    let send = |length: &str, body: String| {
        let head = format!(
            "POST /api/commands HTTP/1.1\r\nHost: {}\r\nDramatis-User: eve\r\nConnection: close\r\n\
             Content-Type: application/json\r\n{length}\r\n\r\n{body}",
            server.address
        );
        support::http(server.address, &head).0
    };
    let body = body.to_string();
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let answers: Vec<_> = (0..6).map(|_| send("Transfer-Encoding: chunked", chunk.clone())).collect();
    assert_eq!((answers[0], answers[5]), (404, 429), "{answers:?}");
    assert_eq!(send(&format!("Content-Length: {}", body.len()), body.clone()), 429);
}

#[test]
fn what_is_longer_than_the_whole_burst_is_taken_once_all_of_that_is_left() {
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
        ("DRAMATIS__LIMITS__ADDRESS__BYTES_PER_S", "10000"),
        ("DRAMATIS__LIMITS__BURST_S", "10"),
    ]);
    let rooms: Vec<_> =
        (0..990).map(|number| json!({"room": format!("{number}-{}", "x".repeat(90))})).collect();
    let hello = json!({"type": "hello", "user": "dan", "session": "p", "rooms": rooms});
    assert!(hello.to_string().len() > 100_000);
    let answered = || server.post("/api/poll?wait=0", &hello);
    let mut answer = answered();
    let began = std::time::Instant::now();
    while answer.0 == 429 && began.elapsed() < support::PATIENCE {
        let after = answer.1["after_ms"].as_u64().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(after));
        answer = answered();
    }
    assert_eq!(answer.0, 200, "{}", answer.1);
}

#[test]
fn who_only_connects_pays_for_that_too() {
    let many = 50;
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
        ("DRAMATIS__LIMITS__ADDRESS__COMMANDS_PER_S", "4"),
        ("DRAMATIS__LIMITS__BURST_S", "1"),
    ]);
    let refused = (0..many).find_map(|_| Client::try_connect(server.address, &[]).err());
    assert_eq!(refused, Some(429));
    drop(server);
    let (_data, server) =
        start(&[("DRAMATIS__LIMITS__USER__COMMANDS_PER_S", "2"), ("DRAMATIS__LIMITS__BURST_S", "1")]);
    let closed = (0..many).find_map(|number| {
        let mut bob = Client::connect(server.address);
        bob.send(&json!({"type": "hello", "user": "bob", "session": "s", "rooms": []}));
        let answer = bob.receive();
        if answer["type"] == "ready" {
            return None;
        }
        assert_eq!((&answer["code"], &answer["retry"]), (&json!("rate_limited"), &json!(true)), "{answer}");
        Some((number > 0, bob.closed()))
    });
    assert_eq!(closed, Some((true, 4029)));
}

#[test]
fn rooms_that_are_denied_or_named_twice_take_up_no_place() {
    let (_data, server) = start(&[("DRAMATIS__LIMITS__USER__ROOMS_MAX", "2")]);
    for room in ["a", "b", "c"] {
        server.open_room(room, "bob");
    }
    let named = ["gone", "not a room", "left", "a", "gone-too", "a", "b", "a", "c"];
    let rooms: Vec<_> = named.iter().map(|room| json!({"room": room})).collect();
    let mut alice = Client::connect(server.address);
    let ready = alice.hello("alice", "tab", &json!(rooms));
    let entries = ready["rooms"].as_array().unwrap().iter();
    let told: Vec<_> = entries.map(|room| (room["room"].as_str().unwrap(), &room["code"])).collect();
    let [gone, malformed, full] = ["not_found", "malformed", "rate_limited"].map(|code| json!(code));
    let want =
        [&gone, &malformed, &gone, &Value::Null, &gone, &Value::Null, &Value::Null, &Value::Null, &full];
    assert_eq!(told, named.into_iter().zip(want).collect::<Vec<_>>());
}

#[test]
fn lines_that_say_nothing_are_paid_for() {
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__SESSION__COMMANDS_PER_S", "5"),
        ("DRAMATIS__LIMITS__REFUSED_PER_MINUTE_MAX", "1000"),
    ]);
    let mut alice = server.client("alice", &json!([]));
    // A few between messages are borne.
    let (first, second) = (
        json!({"type": "history", "id": "1", "room": "lobby"}),
        json!({"type": "history", "id": "2", "room": "lobby"}),
    );
    alice.send_text(&format!("\n{first}\r\n \n{second}\n\n"));
    assert_eq!([alice.answer("1")["type"].clone(), alice.answer("2")["type"].clone()], ["page", "page"]);
    let third = json!({"type": "history", "id": "3", "room": "lobby"});
    alice.send_text(&format!("{}{third}", "\n".repeat(100_000)));
    assert_eq!(alice.try_receive(), Err(4029));
}

#[test]
fn what_is_refused_is_counted_by_how_it_came() {
    let (_data, server) = start(&[]);
    let mut alice = server.client("alice", &json!([]));
    alice.send(&json!({"type": "history", "id": "h", "room": "nowhere"}));
    assert_eq!(alice.answer("h")["code"], "not_found");
    assert_eq!(alice.ask("nowhere", "join", &json!({}))["code"], "not_found");
    alice.send_text("nonsense");
    assert_eq!(alice.receive()["code"], "malformed");
    assert_eq!(server.post("/api/commands", &json!({})).0, 400);
    for (name, count) in [
        ("dramatis_refusals_total{of=\"message\",code=\"not_found\"}", 2),
        ("dramatis_refusals_total{of=\"message\",code=\"malformed\"}", 1),
        ("dramatis_refusals_total{of=\"request\",code=\"malformed\"}", 1),
        ("dramatis_malformed_messages_total", 1),
        ("dramatis_commands_total{outcome=\"not_found\"}", 1),
    ] {
        assert_eq!(server.metric(name), count, "{name}");
    }
}

/// A request's answer: its status, and when to come again.
fn asked(server: &Server, path: &str) -> (u16, Option<u64>) {
    let request = Request { method: "GET", path, headers: &[], body: "" };
    let answer = request.send(server.address).unwrap();
    let after = answer.head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    (answer.status, after.map(|after| after.trim().parse().unwrap()))
}

#[test]
fn answers_that_are_not_taken_are_few() {
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
        ("DRAMATIS__LIMITS__ADDRESS__REQUESTS_MAX", "2"),
    ]);
    // They have no end.
    let followed = Request { method: "GET", path: "/api/events?follow=true", headers: &[], body: "" };
    let one = followed.send(server.address).unwrap();
    let two = followed.send(server.address).unwrap();
    assert_eq!((one.status, two.status), (200, 200));
    assert_eq!(asked(&server, "/api/rooms"), (429, Some(1)));
    assert_eq!(asked(&server, "/").0, 200, "a page takes no memory");
    let hello = json!({"type": "hello", "user": "bob", "session": "s", "rooms": []}).to_string();
    let headers = &[("Content-Type", "application/json")];
    let streamed = Request { method: "POST", path: "/api/stream", headers, body: &hello };
    assert_eq!(streamed.send(server.address).unwrap().status, 200, "it has a place as a connection");
    let polled = Request { path: "/api/poll", ..streamed };
    assert_eq!(polled.send(server.address).unwrap().status, 429, "it has an answer");
    drop(one);
    while asked(&server, "/api/rooms").0 != 200 {
        std::thread::yield_now();
    }
    drop(two);
}

#[test]
fn searches_of_one_are_made_few_at_a_time() {
    let (_data, server) = start(&[
        ("DRAMATIS__LIMITS__ADDRESS__LOOPBACK", "true"),
        ("DRAMATIS__LIMITS__ADDRESS__SEARCHES_MAX", "1"),
    ]);
    let (path, begun, refused) = ("/api/search?q=cat", Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !refused.load(Ordering::SeqCst) && begun.elapsed() < PATIENCE {
                    let answer = asked(&server, path);
                    assert!([(200, None), (429, Some(1))].contains(&answer), "{answer:?}");
                    refused.fetch_or(answer.0 == 429, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(refused.into_inner(), "two at a time were made");
    assert_eq!(asked(&server, path).0, 200);
}
