//! With a key for tokens a client is who its token says, for as long as it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "support/guarded.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared as the support module is")]
mod guarded;
mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guarded::{briefly, hello, mint, start};
use serde_json::{Value, json};
use support::{Client, Server, dramatis, serve};

#[test]
fn a_client_is_who_its_token_says() {
    let guarded = start(&[]);
    let token = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    let mut alice = guarded.hello(&hello(&token));
    let ready = alice.receive_type("ready");
    assert_eq!(ready["user"], "alice");
    assert!(ready["token_expires_at"].is_i64(), "{ready}");
    assert_eq!(alice.ask("lobby", "post_message", &json!({"text": "hi"}))["type"], "ack");
    let (head, _) = token.rsplit_once('.').unwrap();
    for bad in [
        json!({"type": "hello", "user": "alice", "session": "s", "rooms": []}),
        json!({"type": "hello", "user": "bob", "token": token, "session": "s", "rooms": []}),
        hello("no-token"),
        hello(&format!("{head}.c2lnbmF0dXJl")),
    ] {
        assert_eq!(guarded.hello(&bad).closed(), 4501, "{bad}");
    }
    let operator = mint(&guarded.key, &["--user", "integration:metrics", "--for", "1h"]);
    let metrics = guarded.request("GET /metrics", &operator, "").1;
    let counted = r#"dramatis_refusals_total{of="message",code="forbidden"} 3"#;
    assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");
}

#[test]
fn whoever_has_no_token_writes_nothing_to_the_log() {
    let guarded = start(&[]);
    let (data, said) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut command = serve(data.path());
    command.env("DRAMATIS__AUTH__TOKEN_KEY_FILE", &guarded.key).env_remove("RUST_LOG");
    let started = command.stderr(said.reopen().unwrap()).spawn().unwrap();
    let server = Server::once_it_listens(started).unwrap();
    let mut client = Client::connect(server.address);
    client.send(&hello("no-token"));
    assert_eq!(client.closed(), 4501);
    assert_eq!(server.terminate(), Some(0));
    let said = std::fs::read_to_string(said.path()).unwrap();
    assert!(!said.is_empty() && !said.contains("hello"), "{said}");
}

#[test]
fn a_token_is_renewed_in_place_and_without_that_runs_out() {
    let guarded = start(&[
        ("DRAMATIS__AUTH__REFRESH_AHEAD_MS", "3600000"),
        // Longer than a test: what is refused is refused within it.
        ("DRAMATIS__AUTH__EXPIRED_GRACE_MS", "3600000"),
    ]);
    let bob = mint(&guarded.key, &["--user", "bob", "--for", "1h"]);
    let narrow = mint(&guarded.key, &["--user", "alice", "--for", "1h", "--room", "den"]);
    let mut alice = briefly(|lasts| {
        let mut alice = guarded.hello(&hello(&mint(&guarded.key, &["--user", "alice", "--for", lasts])));
        (alice.try_receive().ok()?["type"] == "ready").then_some(alice)
    });
    assert!(alice.receive_type("authenticate")["by"].is_i64(), "when half of it is gone");
    for (id, token) in [("other", bob.as_str()), ("narrow", narrow.as_str()), ("bad", "bad")] {
        alice.send(&json!({"type": "authenticate", "id": id, "token": token}));
        assert_eq!(alice.answer(id)["code"], "forbidden", "{id}");
    }
    let again = briefly(|lasts| {
        let again = mint(&guarded.key, &["--user", "alice", "--for", lasts]);
        alice.send(&json!({"type": "authenticate", "id": "fresh", "token": again}));
        (alice.answer("fresh")["type"] == "authenticated").then_some(again)
    });
    // It is asked of again, and now left alone: commands are taken until it runs out.
    let refused = loop {
        let answer = alice.ask("lobby", "post_message", &json!({"text": "still here"}));
        if answer["type"] != "ack" {
            break answer;
        }
    };
    assert_eq!(refused["code"], "token_expired", "{refused}");
    assert_eq!(guarded.hello(&hello(&again)).closed(), 4501, "an expired token opens nothing");
}

#[test]
fn who_renews_no_token_is_closed_a_while_after_its_end() {
    let guarded = start(&[("DRAMATIS__AUTH__EXPIRED_GRACE_MS", "300")]);
    let mut alice = guarded.hello(&hello(&mint(&guarded.key, &["--user", "alice", "--for", "1h"])));
    alice.receive_type("ready");
    briefly(|lasts| {
        let brief = mint(&guarded.key, &["--user", "alice", "--for", lasts]);
        alice.send(&json!({"type": "authenticate", "id": "brief", "token": brief}));
        (alice.answer("brief")["type"] == "authenticated").then_some(())
    });
    assert_eq!(alice.closed(), 4501);
}

#[test]
fn a_token_runs_out_in_the_middle_of_what_a_client_asks() {
    const PAGES: usize = 64;
    let guarded = start(&[
        ("DRAMATIS__SOCKET__SEND_BUFFER_BYTES", "16384"),
        // It is not closed before all is answered.
        ("DRAMATIS__AUTH__EXPIRED_GRACE_MS", "3600000"),
        ("DRAMATIS__SOCKET__HEARTBEAT_MS", "600000"),
        ("DRAMATIS__SOCKET__WRITE_TIMEOUT_MS", "600000"),
    ]);
    let long = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    let mut alice = guarded.hello(&hello(&long));
    for _ in 0..20 {
        alice.ask("lobby", "post_message", &json!({"text": "long words ".repeat(720)}));
    }
    // More than is written to a client that does not read: so the last are answered after its end.
    let asked =
        |number| json!({"type": "history", "id": format!("h{number}"), "room": "lobby", "limit": 200});
    let asked = (0..PAGES).map(|number| asked(number).to_string()).collect::<Vec<_>>().join("\n");
    let mut asking = briefly(|lasts| {
        let short = mint(&guarded.key, &["--user", "alice", "--for", lasts]);
        let mut asking =
            guarded.hello(&json!({"type": "hello", "token": short, "session": "asking", "rooms": []}));
        let expires_at = asking.try_receive().ok()?["token_expires_at"].as_u64()?;
        asking.send_text(&asked);
        while SystemTime::now() < UNIX_EPOCH + Duration::from_millis(expires_at) {
            std::thread::sleep(Duration::from_millis(50));
        }
        (asking.answer("h0")["type"] == "page").then_some(asking)
    });
    let answers: Vec<_> = (1..PAGES).map(|number| asking.answer(&format!("h{number}"))).collect();
    let last = answers.last().unwrap();
    assert_eq!(last["code"], "token_expired", "{} {}", last["type"], last["id"]);
}

#[test]
fn a_token_for_some_rooms_opens_ones_own_stream_and_its_past_if_that_is_among_them() {
    let guarded = start(&[]);
    let token = mint(&guarded.key, &["--user", "alice", "--for", "1h", "--room", "lobby", "--room", "me"]);
    let rooms = json!([{"room": "me"}]);
    let mut alice = guarded.hello(&json!({"type": "hello", "token": token, "session": "s", "rooms": rooms}));
    assert_eq!(alice.receive_type("ready")["rooms"][0]["how"], "events");
    for (id, room, kind) in [("own", "me", "page"), ("other", "den", "reject")] {
        alice.send(&json!({"type": "history", "id": id, "room": room, "limit": 10}));
        let answer = alice.answer(id);
        assert_eq!(answer["type"], kind, "{answer}");
    }
}

#[test]
fn a_token_may_open_some_rooms_only() {
    let guarded = start(&[]);
    let alice = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    assert_eq!(guarded.post(&alice, "alice", "den").0, 201);
    let token = mint(&guarded.key, &["--user", "alice", "--for", "1h", "--room", "lobby"]);
    let rooms = json!([{"room": "den"}, {"room": "lobby"}]);
    let mut client = guarded.hello(&json!({"type": "hello", "token": token, "session": "s", "rooms": rooms}));
    let ready = client.receive_type("ready");
    assert_eq!(
        (&ready["rooms"][0]["code"], &ready["rooms"][1]["how"]),
        (&json!("forbidden"), &json!("events"))
    );
    assert_eq!(client.ask("den", "post_message", &json!({"text": "hi"}))["code"], "forbidden");
    assert_eq!(client.ask("lobby", "post_message", &json!({"text": "hi"}))["type"], "ack");
    assert_eq!(guarded.request("GET /api/rooms/den", &token, "").0, 403);
    assert_eq!(guarded.post(&token, "alice", "den").0, 403);
}

#[test]
fn http_takes_the_token_as_bearer() {
    let guarded = start(&[]);
    let alice = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    assert_eq!(guarded.request("GET /api/rooms", &alice, "").0, 200);
    let (status, problem) = guarded.request("GET /api/rooms", "bad", "");
    assert_eq!((status, &problem["code"]), (401, &json!("forbidden")), "{problem}");
    assert_eq!(guarded.server.get("/api/rooms").0, 401);
    assert_eq!(guarded.server.get("/api/health").0, 200);
    assert_eq!(guarded.post(&alice, "bob", "cellar").0, 403);
    assert_eq!(guarded.request("GET /api/events", &alice, "").0, 403);
    let operator = mint(&guarded.key, &["--user", "integration:operator", "--for", "1h"]);
    let url = guarded.server.url();
    let read = dramatis().args(["events", "read", "--url", &url]).env("DRAMATIS_TOKEN", &operator).output();
    assert!(read.unwrap().status.success());
    assert!(problem["detail"].as_str().unwrap().contains("signed by this server's key"), "{problem}");
    let none: Value = serde_json::from_str(&guarded.server.get("/api/rooms").1).unwrap();
    assert!(none["detail"].as_str().unwrap().contains("none came"), "{none}");
}

#[test]
fn a_command_that_is_refused_says_where_its_token_goes() {
    let guarded = start(&[]);
    let url = guarded.server.url();
    for (token, wanted) in
        [(None, "DRAMATIS_TOKEN is not set"), (Some("garbage"), "That was the token in DRAMATIS_TOKEN")]
    {
        for command in [&["events", "read"][..], &["events", "tail"], &["projections", "list"]] {
            let mut asking = dramatis();
            asking.args(command).args(["--url", &url]).env_remove("DRAMATIS_TOKEN");
            let output = asking.envs(token.map(|token| ("DRAMATIS_TOKEN", token))).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && told.contains(wanted), "{command:?}: {told}");
        }
    }
    for command in
        [&["projections"][..], &["projections", "list"], &["events"], &["events", "read"], &["import", "irc"]]
    {
        let help = dramatis().args(command).arg("--help").output().unwrap().stdout;
        assert!(String::from_utf8(help).unwrap().contains("DRAMATIS_TOKEN"), "{command:?}");
    }
}

#[test]
fn a_key_that_anyone_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let data = tempfile::tempdir().unwrap();
    let key = data.path().join("token.key");
    assert!(dramatis().args(["token", "--new-key"]).arg(&key).status().unwrap().success());
    for (mode, is_told) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let log = data.path().join("said");
        let mut serve = support::serve(&data.path().join("data"));
        serve.env("DRAMATIS__AUTH__TOKEN_KEY_FILE", &key).stderr(std::fs::File::create(&log).unwrap());
        let server = Server::once_it_listens(serve.spawn().unwrap()).unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        let named = said.contains("0644") && said.contains(key.to_str().unwrap());
        assert_eq!(named, is_told, "{mode:o}: {said}");
        assert_eq!(server.terminate(), Some(0));
    }
}

#[test]
fn keys_that_are_none_and_addresses_without_a_key_are_refused_by_name() {
    let data = tempfile::tempdir().unwrap();
    let short = data.path().join("short.key");
    std::fs::write(&short, "too short\n").unwrap();
    let missing = data.path().join("missing.key");
    for (key, part) in [(&short, "must hold 32 bytes or more, and holds 9"), (&missing, "No such file")] {
        let said =
            Server::try_start(data.path(), &[("DRAMATIS__AUTH__TOKEN_KEY_FILE", key.to_str().unwrap())])
                .err()
                .expect("it does not start");
        assert!(said.contains("auth.token_key_file") && said.contains(part), "{said}");
        assert!(!said.contains("too short\n"), "{said}");
    }
}

#[test]
fn documents_follow_the_rights_that_sockets_keep_to() {
    let guarded = start(&[]);
    let [alice, bob, ops] =
        ["alice", "bob", "integration:ops"].map(|user| mint(&guarded.key, &["--user", user, "--for", "1h"]));
    let den = json!({"user": "alice", "room": "den", "title": "Den", "visibility": "invited"});
    let (status, opened) = guarded.request("POST /api/rooms", &alice, &den.to_string());
    assert_eq!(status, 201, "{opened}");
    let position = opened["position"].as_str().unwrap();
    let path = format!("GET /api/rooms?min_position={position}");
    assert_eq!(guarded.request(&path, &alice, "").0, 200, "the read model is there");
    let get = |path: &str, token: &str| guarded.request(&format!("GET {path}"), token, "");
    for path in [
        "/api/rooms/den",
        "/api/rooms/den/timeline",
        "/api/rooms/%64en/timeline",
        "/api/rooms/den/threads",
        "/api/search?q=word&room=den",
        "/api/search?q=word&room=%64en",
    ] {
        assert_eq!(get(path, &bob).0, 403, "{path}");
        assert_eq!(get(path, &alice).0, 200, "{path}");
        assert_eq!(get(path, &ops).0, 200, "{path}");
    }
    for path in ["/api/%72ooms/den/timeline", "/%61pi/rooms/den/timeline", "/%61pi/events"] {
        assert_eq!(get(path, &bob).0, 403, "{path}");
        assert_eq!(get(path, "no-token").0, 401, "{path}");
    }
    for (token, status) in [(&bob, 403), (&alice, 200)] {
        assert_eq!(guarded.request("HEAD /api/rooms/den/timeline", token, "").0, status, "by HEAD");
    }
    assert_eq!(get("/api/rooms/lobby/timeline", &bob).0, 200);
    assert_eq!(get("/api/search?q=word", &bob).0, 403, "a person searches in a room");
    assert_eq!(get("/api/users/alice/activity", &bob).0, 403);
    assert_eq!(get("/api/users/bob/activity", &bob).0, 200);
    for (token, count) in [(&bob, 1), (&alice, 2), (&ops, 2)] {
        let (_, listed) = get(&format!("/api/rooms?min_position={position}"), token);
        assert_eq!(listed["rooms"].as_array().unwrap().len(), count, "{listed}");
    }
}

#[test]
fn no_token_is_minted_that_no_session_takes() {
    let guarded = start(&[]);
    let mut command = dramatis();
    command.args(["token", "--user", "alice", "--for", "1h"]);
    command
        .args((0..400).flat_map(|number| ["--room".to_owned(), format!("room-with-a-long-name-{number}")]));
    let output = command.env("DRAMATIS__AUTH__TOKEN_KEY_FILE", &guarded.key).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.contains("8192 bytes") && said.contains("name fewer rooms"), "{said}");
}

#[test]
fn a_tail_says_that_its_token_has_run_out() {
    let guarded = start(&[]);
    let token = mint(&guarded.key, &["--user", "integration:ops", "--for", "3s"]);
    let output = dramatis()
        .args(["events", "tail", "--room", "lobby", "--url", &guarded.server.url()])
        .env("DRAMATIS_TOKEN", token)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("the token has run out"), "{told}");
}
