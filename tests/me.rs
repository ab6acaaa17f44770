//! A user's own stream: profile, sessions, read markers and invitations, over real sockets and
//! through a crash.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::time::Instant;

use serde_json::{Value, json};
use support::http::Request;
use support::{Client, PATIENCE, Server};
use tempfile::TempDir;

fn start() -> (TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__USER__SEEN_EVERY_MS", "50")]);
    (data, server)
}

/// The next event of this name; others before it are dropped.
fn event(client: &mut Client, name: &str) -> Value {
    loop {
        let event = client.receive_type("event");
        if event["name"] == name {
            return event;
        }
    }
}

fn hello(server: &Server, user: &str, session: &str, rooms: &Value) -> (Client, Value) {
    let mut client = Client::connect(server.address);
    let ready = client.hello(user, session, rooms);
    (client, ready)
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["name"] == name).collect()
}

#[test]
fn it_is_followed_and_commanded_like_a_room_by_its_owner_alone() {
    let (_data, server) = start();
    let (mut bob, ready) = hello(&server, "bob", "tab", &json!([{"room": "me"}]));
    assert_eq!(ready["rooms"][0]["how"], "events", "{ready}");
    let started = event(&mut bob, "SessionStarted");
    assert_eq!((&started["room"], &started["data"]), (&json!("me"), &json!({"session": "tab"})));
    let ack = bob.ask("me", "set_profile", &json!({"display_name": "Bob", "locale": "pt-BR"}));
    assert_eq!((&ack["type"], &ack["room"], &ack["revision"]), (&json!("ack"), &json!("me"), &json!(1)));
    let no = bob.ask("me", "open_room", &json!({"title": "Mine"}));
    assert_eq!(no["code"], "malformed", "{no}");

    let (mut alice, _) = hello(&server, "alice", "tab", &json!([{"room": "me"}]));
    assert_eq!(event(&mut alice, "SessionStarted")["by"], "alice");
    alice.send(&json!({"type": "history", "id": "h", "room": "me"}));
    let page = alice.answer("h");
    assert_eq!(page["events"].as_array().unwrap().len(), 1, "nothing of bob's: {page}");

    let (mut again, ready) =
        hello(&server, "bob", "other", &json!([{"room": "me", "after": 1, "catch_up": "state"}]));
    assert_eq!(ready["rooms"][0]["how"], "events");
    // Its own note may be in the stream already.
    let head = ready["rooms"][0]["head"].as_u64();
    assert!([Some(1), Some(2)].contains(&head), "{ready}");
    assert_eq!(event(&mut again, "SessionStarted")["revision"], 2);
    again.send(&json!({"type": "subscribe", "id": "s", "room": "me", "catch_up": "state"}));
    assert_eq!(again.answer("s")["how"], "state");
    let state = again.receive_type("room_state");
    assert_eq!(state["state"]["profile"], json!({"display_name": "Bob", "locale": "pt-BR"}));
    assert_eq!((&state["room"], &state["revision"]), (&json!("me"), &json!(2)));

    let (status, no) = server.post("/api/rooms", &json!({"user": "bob", "room": "me", "title": "Mine"}));
    assert_eq!(status, 400, "{no}");
    let (_, ready) = hello(&server, "integration:irc", "tab", &json!([{"room": "me"}]));
    assert_eq!(ready["rooms"][0]["code"], "not_found", "{ready}");
}

#[test]
fn a_session_is_noted_once_however_often_it_comes_back() {
    let (data, server) = start();
    let hello = |server: &Server, session: &str| {
        let (mut client, _) = hello(server, "bob", session, &json!([{"room": "me"}]));
        client.receive_type("live");
        client
    };
    let mut first = Client::connect(server.address);
    first.send(&json!({"type": "hello", "user": "bob", "session": "phone", "device": "Bob's phone",
        "rooms": [{"room": "me"}]}));
    assert_eq!(event(&mut first, "SessionStarted")["data"]["device"], "Bob's phone");
    for _ in 0..3 {
        hello(&server, "phone");
    }
    server.kill();
    let server = Server::start(data.path());
    hello(&server, "phone");
    let (mut last, _) = self::hello(&server, "bob", "laptop", &json!([{"room": "me", "after": 0}]));
    assert_eq!(event(&mut last, "SessionStarted")["data"]["session"], "laptop");
    let events = server.events(&[]);
    let sessions: Vec<_> =
        named(&events, "SessionStarted").iter().map(|event| event["data"]["session"].clone()).collect();
    assert_eq!(sessions, ["phone", "laptop"]);
}

#[test]
fn reading_is_shared_by_devices_and_never_goes_back() {
    let (_data, server) = start();
    server.open_room("lobby", "alice");
    let (mut alice, _) = hello(&server, "alice", "tab", &json!([]));
    for number in 0..4 {
        alice.ask("lobby", "post_message", &json!({"text": format!("number {number}")}));
    }
    let rooms = json!([{"room": "me"}, {"room": "lobby"}]);
    let (mut phone, ready) = hello(&server, "bob", "phone", &rooms);
    assert_eq!(ready["rooms"][1].get("unread"), None, "nothing is known of a room never read: {ready}");
    let (mut laptop, _) = hello(&server, "bob", "laptop", &rooms);
    for device in [&mut phone, &mut laptop] {
        while device.receive_type("live")["room"] != "lobby" {}
    }
    // Of what one device says in a while, the furthest counts; of two devices too. In one frame, so that
    // it is one while on any machine.
    let seen = |revision| json!({"type": "seen", "room": "lobby", "revision": revision}).to_string();
    phone.send_text(&[2, 4, 3].map(seen).join("\n"));
    for device in [&mut phone, &mut laptop] {
        let moved = event(device, "ReadMarkerMoved");
        assert_eq!(moved["data"], json!({"room": "lobby", "revision": 4}));
    }
    laptop.send(&json!({"type": "seen", "room": "lobby", "revision": 3}));
    let (mut watch, ready) = hello(&server, "bob", "watch", &rooms);
    assert_eq!((&ready["rooms"][1]["seen"], &ready["rooms"][1]["unread"]), (&json!(4), &json!(1)), "{ready}");
    while watch.receive_type("live")["room"] != "lobby" {}
    // What was never sent cannot have been read.
    watch.send(&json!({"type": "seen", "room": "lobby", "revision": 999}));
    watch.send(&json!({"type": "seen", "room": "attic", "revision": 1}));
    assert_eq!(event(&mut laptop, "ReadMarkerMoved")["data"], json!({"room": "lobby", "revision": 5}));
    phone.ask("lobby", "join", &json!({}));
    phone.ask("lobby", "post_message", &json!({"text": "mine"}));
    alice.ask("lobby", "post_message", &json!({"text": "yours"}));
    let (_, ready) = hello(&server, "bob", "watch", &rooms);
    let entry = &ready["rooms"][1];
    assert_eq!((&entry["head"], &entry["seen"], &entry["unread"]), (&json!(8), &json!(5), &json!(1)));
    let events = server.events(&[]);
    assert_eq!(named(&events, "ReadMarkerMoved").len(), 2);
}

#[test]
fn what_is_not_recorded_yet_is_read_all_the_same() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__USER__SEEN_EVERY_MS", "600000")]);
    server.open_room("lobby", "alice");
    let (mut alice, _) = hello(&server, "alice", "tab", &json!([]));
    for number in 0..4 {
        alice.ask("lobby", "post_message", &json!({"text": format!("number {number}")}));
    }
    let rooms = json!([{"room": "lobby"}]);
    for (revision, unread) in [(3, 2), (5, 0), (4, 0)] {
        let (mut bob, _) = hello(&server, "bob", "tab", &rooms);
        bob.receive_type("live");
        bob.send(&json!({"type": "seen", "room": "lobby", "revision": revision}));
        // The answer to this says that the one before it was taken.
        bob.send(&json!({"type": "subscribe", "id": "s", "room": "lobby"}));
        let entry = bob.answer("s");
        let read = json!(revision.max(if unread == 0 { 5 } else { 3 }));
        assert_eq!((&entry["seen"], &entry["unread"]), (&read, &json!(unread)), "{entry}");
        let (_, ready) = hello(&server, "bob", "tab", &rooms);
        let entry = &ready["rooms"][0];
        assert_eq!((&entry["seen"], &entry["unread"]), (&read, &json!(unread)), "{ready}");
    }
    alice.send(&json!({"type": "subscribe", "id": "s", "room": "lobby"}));
    while alice.receive_type("live")["revision"] != 5 {}
    alice.send(&json!({"type": "seen", "room": "lobby", "revision": 2}));
    let ack = alice.ask("lobby", "rename_room", &json!({"title": "Lobby"}));
    let path = &format!("/api/me?min_position={}", ack["position"].as_str().unwrap());
    let me = Request { method: "GET", path, headers: &[("Dramatis-User", "alice")], body: "" };
    let me = me.send(server.address).unwrap().json().unwrap();
    assert_eq!(me["rooms"][0]["read"], 2, "{me}");
    let events = server.events(&[]);
    assert_eq!(named(&events, "ReadMarkerMoved").len(), 0, "nothing of it is recorded");
}

#[test]
fn reading_goes_on_while_it_is_recorded() {
    const MESSAGES: u64 = 200;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__USER__SEEN_EVERY_MS", "1")]);
    server.open_room("lobby", "alice");
    let (mut alice, _) = hello(&server, "alice", "tab", &json!([]));
    let (mut bob, _) = hello(&server, "bob", "tab", &json!([{"room": "lobby"}]));
    bob.receive_type("live");
    for number in 2..MESSAGES {
        alice.ask("lobby", "post_message", &json!({"text": "x"}));
        assert_eq!(bob.receive_type("event")["revision"], number);
        bob.send(&json!({"type": "seen", "room": "lobby", "revision": number}));
        bob.send(&json!({"type": "subscribe", "id": "s", "room": "lobby", "after": number}));
        // Waiting or recorded, it is never less than what was said.
        let entry = bob.answer("s");
        assert_eq!((&entry["seen"], &entry["unread"]), (&json!(number), &json!(0)), "{entry}");
    }
    // All of it is recorded in the end.
    bob.send(&json!({"type": "subscribe", "id": "me", "room": "me"}));
    while event(&mut bob, "ReadMarkerMoved")["data"]["revision"] != MESSAGES - 1 {}
}

#[test]
fn what_was_read_survives_the_end_of_the_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__USER__SEEN_EVERY_MS", "600000")]);
    server.open_room("lobby", "alice");
    let (mut bob, _) = hello(&server, "bob", "tab", &json!([{"room": "lobby"}]));
    bob.receive_type("live");
    bob.send(&json!({"type": "seen", "room": "lobby", "revision": 1}));
    // The answer to this says that the one before it was taken.
    bob.ask("lobby", "join", &json!({}));
    assert_eq!(server.terminate(), Some(0));
    let server = Server::start(data.path());
    let (_, ready) = hello(&server, "bob", "tab", &json!([{"room": "lobby"}]));
    assert_eq!(ready["rooms"][0]["seen"], 1, "{ready}");
}

#[test]
fn an_invitation_reaches_the_invited_and_is_answered_in_the_room() {
    let (_data, server) = start();
    let (mut alice, _) = hello(&server, "alice", "tab", &json!([]));
    let (mut bob, _) = hello(&server, "bob", "tab", &json!([{"room": "me"}]));
    for room in ["den", "attic", "hall", "yard"] {
        alice.ask(room, "open_room", &json!({"title": room.to_uppercase(), "visibility": "invited"}));
        assert_eq!(alice.ask(room, "invite_member", &json!({"member": "bob"}))["type"], "ack");
        let received = event(&mut bob, "InvitationReceived");
        let data = json!({"room": room, "title": room.to_uppercase(), "by": "alice"});
        assert_eq!((&received["data"], &received["by"]), (&data, &json!("system:invitations")));
    }
    bob.send(&json!({"type": "subscribe", "id": "s", "room": "den"}));
    let no = bob.answer("s");
    assert_eq!((&no["code"], no.get("head")), (&json!("not_a_member"), None), "{no}");
    for (room, of, name, data, outcome) in [
        ("den", "den", "join", json!({}), "accepted"),
        ("attic", "attic", "decline_invitation", json!({}), "declined"),
        ("yard", "me", "dismiss_invitation", json!({"room": "yard"}), "dismissed"),
    ] {
        let id = bob.command(of, name, &data);
        assert_ended(&mut bob, Some(&id), room, outcome);
    }
    assert_eq!(alice.ask("hall", "withdraw_invitation", &json!({"member": "bob"}))["type"], "ack");
    assert_ended(&mut bob, None, "hall", "withdrawn");
    bob.send(&json!({"type": "subscribe", "id": "s", "room": "den"}));
    assert_eq!(bob.answer("s")["type"], "subscribed");

    let events = server.events(&[]);
    let (invited, received) = (named(&events, "MemberInvited"), named(&events, "InvitationReceived"));
    assert_eq!((invited.len(), received.len()), (4, 4));
    for (cause, notice) in invited.iter().zip(&received) {
        assert_eq!(notice["causation_id"], cause["id"]);
        assert_eq!(notice["correlation_id"], cause["id"]);
    }
}

/// That the notice comes, and the answer to the command, whichever is first.
fn assert_ended(client: &mut Client, mut command: Option<&str>, room: &str, outcome: &str) {
    let mut is_told = false;
    while !is_told || command.is_some() {
        let message = client.receive();
        if command.is_some_and(|id| message["id"] == id) {
            assert_eq!(message["type"], "ack", "{message}");
            command = None;
        }
        if message["name"] == "InvitationEnded" {
            assert_eq!(message["data"], json!({"room": room, "outcome": outcome}));
            is_told = true;
        }
    }
}

#[test]
fn no_invitation_is_lost_or_told_twice_when_the_server_dies() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    server.open_room("den", "alice");
    let mut invited = Vec::new();
    for round in 0..4 {
        let (mut alice, _) = hello(&server, "alice", "tab", &json!([]));
        let names: Vec<String> = (0..25).map(|number| format!("guest-{round}-{number}")).collect();
        let ids: Vec<String> = names
            .iter()
            .map(|name| alice.command("den", "invite_member", &json!({"member": name})))
            .collect();
        for id in ids {
            assert_eq!(alice.answer(&id)["type"], "ack");
        }
        invited.extend(names);
        // Acknowledged is what the room recorded; the notices are on their way.
        server.kill();
        if round == 2 {
            // Work that is gone through again is not done again.
            let _ = std::fs::remove_dir_all(data.path().join("reactors"));
        }
        server = Server::start(data.path());
    }
    let started = Instant::now();
    let mut told: Vec<String> = loop {
        let events = server.events(&[]);
        let notices = named(&events, "InvitationReceived");
        if notices.len() >= invited.len() {
            let user = |notice: &&Value| {
                notice["stream"].as_str().unwrap().trim_start_matches("user-main.").to_owned()
            };
            break notices.iter().map(user).collect();
        }
        assert!(started.elapsed() < PATIENCE, "{} of {} notices", notices.len(), invited.len());
    };
    told.sort();
    invited.sort();
    assert_eq!(told, invited);
    println!("{} invitations told once each through 4 crashes", told.len());
}

#[test]
fn what_a_list_needs_is_there_before_a_line_is_opened() {
    let (_data, server) = start();
    for room in ["a", "b", "c", "left"] {
        server.open_room(room, "bob");
    }
    let rooms = json!([{"room": "a"}, {"room": "b"}, {"room": "left"}]);
    let mut alice = server.client("alice", &rooms);
    for room in ["left", "a", "b"] {
        assert_eq!(alice.ask(room, "join", &json!({}))["type"], "ack");
    }
    alice.ask("left", "leave", &json!({}));
    alice.ask("me", "set_profile", &json!({"display_name": "Alice", "locale": "pt-BR"}));
    let said = alice.ask("a", "post_message", &json!({"text": "good evening"}));
    let revision = said["revision"].as_u64().unwrap();
    let mut me = Client::connect(server.address);
    me.hello("alice", "another", &json!([{"room": "me"}, {"room": "a"}]));
    while me.receive_type("event")["revision"] != revision {}
    me.send(&json!({"type": "seen", "room": "a", "revision": revision}));
    event(&mut me, "ReadMarkerMoved");
    let mut bob = server.client("bob", &json!([]));
    bob.ask("c", "invite_member", &json!({"member": "alice"}));
    event(&mut me, "InvitationReceived");

    let position = said["position"].as_str().unwrap();
    let ask = |user: &str, path: &str| {
        let headers = [("Dramatis-User", user)];
        let request = support::http::Request { method: "GET", path, headers: &headers, body: "" };
        request.send(server.address).unwrap()
    };
    let answer = ask("alice", &format!("/api/me?min_position={position}")).json().unwrap();
    assert_eq!(answer["user"], "alice");
    assert_eq!(answer["profile"], json!({"display_name": "Alice", "locale": "pt-BR"}));
    assert_eq!(answer["invitations"], json!([{"room": "c", "title": "c", "by": "bob"}]));
    let listed = answer["rooms"].as_array().unwrap();
    let shown: Vec<_> = listed
        .iter()
        .map(|mine| {
            (&mine["room"]["room"], &mine["room"]["message_count"], &mine["member"]["member"], &mine["read"])
        })
        .collect();
    let (alice, none) = (json!("alice"), Value::Null);
    assert_eq!(
        shown,
        [(&json!("a"), &json!(1), &alice, &json!(revision)), (&json!("b"), &json!(0), &alice, &none)],
        "where she did something last comes first, and none that she has left"
    );
    let first = ask("alice", "/api/me?limit=1").json().unwrap();
    assert_eq!(first["rooms"][0]["room"]["room"], "a");
    let next = ask("alice", &format!("/api/me?limit=1&after={}", first["next"].as_str().unwrap()));
    assert_eq!(next.json().unwrap()["rooms"][0]["room"]["room"], "b");

    let nobody = ask("carol", "/api/me").json().unwrap();
    assert_eq!(nobody, json!({"user": "carol", "profile": {}, "invitations": [], "rooms": []}));
    assert_eq!(ask("persona:guide", "/api/me").json().unwrap()["user"], "persona:guide");
    assert_eq!(server.get("/api/me").0, 400);
    for (query, part) in
        [("limit=many", "from 1 to 500"), ("limit=-1", "got \"-1\""), ("after=x", "next of an earlier page")]
    {
        let refused = ask("alice", &format!("/api/me?{query}"));
        assert_eq!(refused.status, 400);
        let problem = refused.json().unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
}
