//! The HTTP API: its description, its problem documents, its pages, and the page of the chat.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::http::Request;
use support::imports::caught_up;
use support::{Server, http};
use tempfile::TempDir;

fn start() -> (TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    (data, server)
}

/// Sends a request with these header lines and this body; the answer's status and body.
fn send(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let (host, len) = (server.address, body.len());
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}");
    http(server.address, &format!("{head}Content-Length: {len}\r\n\r\n{body}"))
}

const JSON: &str = "Content-Type: application/json\r\n";

fn assert_problem((status, body): &(u16, String), want: u16, code: &str, what: &str) {
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{what}: {status} {body}"));
    assert_eq!((*status, &problem["code"]), (want, &json!(code)), "{what}: {problem}");
    assert_eq!((&problem["status"], &problem["type"]), (&json!(want), &json!("about:blank")), "{what}");
    for text in ["title", "detail"] {
        assert!(!problem[text].as_str().unwrap().is_empty(), "{what}: {problem}");
    }
}

/// Posts so many messages into the room; the position of the last.
fn say(server: &Server, room: &str, messages: u32) -> String {
    let mut alice = server.client("alice", &json!([]));
    for number in 0..messages {
        alice.command(room, "post_message", &json!({"text": format!("number {number}")}));
    }
    let mut position = String::new();
    for _ in 0..messages {
        alice.receive_type("ack")["position"].as_str().unwrap().clone_into(&mut position);
    }
    position
}

/// What `tests/fallbacks.rs` asks.
const OF_SESSIONS: [&str; 4] = ["/api/commands", "/api/frames", "/api/stream", "/api/poll"];

#[test]
fn the_description_lists_every_path_and_each_is_served() {
    let (_data, server) = start();
    server.open_room("lobby", "alice");
    // The first message of a thread, for the path that names one.
    say(&server, "lobby", 1);
    caught_up(&server);
    let document = server.get_json("/api/openapi.json");
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let want = BTreeSet::from([
        "/api/me",
        "/api/rooms",
        "/api/rooms/{room}",
        "/api/rooms/{room}/timeline",
        "/api/rooms/{room}/members",
        "/api/rooms/{room}/threads",
        "/api/rooms/{room}/threads/{root}",
        "/api/rooms/{room}/activity",
        "/api/rooms/{room}/statistics",
        "/api/search",
        "/api/users/{user}/activity",
        "/api/events",
        "/api/projections",
        "/api/projections/{name}",
        "/api/projections/{name}/accept",
        "/api/projections/{name}/as_of",
        "/api/projections/{name}/cancel",
        "/api/projections/{name}/dead_letters",
        "/api/projections/{name}/document",
        "/api/projections/{name}/documents",
        "/api/projections/{name}/drop",
        "/api/projections/{name}/pause",
        "/api/projections/{name}/rebuild",
        "/api/projections/{name}/resume",
        "/api/projections/{name}/retry",
        "/api/projections/{name}/rollback",
        "/api/projections/{name}/skip",
        "/api/projections/{name}/verify",
        "/api/projections/{name}/why",
        "/api/health",
        "/metrics",
    ]);
    assert_eq!(paths, want.union(&OF_SESSIONS.into()).copied().collect());
    let others = document["paths"].as_object().unwrap().iter();
    for (path, operations) in others.filter(|(path, _)| !OF_SESSIONS.contains(&path.as_str())) {
        let path = path.replace("{room}", "lobby").replace("{name}", "rooms").replace("{user}", "alice");
        let path = path.replace("{root}", "2").replace("/api/search", "/api/search?q=number");
        for method in operations.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let body = r#"{"user":"alice","room":"den","title":"Den"}"#;
            let headers = format!("{JSON}Dramatis-User: alice\r\n");
            let (status, answer) = send(&server, &method, &path, &headers, body);
            // What an admin may ask depends on how a projection stands: here it is that it is heard.
            let heard = path.starts_with("/api/projections/") && answer.contains("\"code\"");
            let heard = heard && !answer.contains("nothing is at");
            assert!(heard || (200..300).contains(&status), "{method} {path}: {status} {answer}");
        }
    }
}

#[test]
fn a_bad_body_is_a_problem() {
    let (_data, server) = start();
    let good = json!({"user": "alice", "room": "lobby", "title": "Lobby"});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string()
    };
    for (headers, body, status, code) in [
        (JSON, "{".to_owned(), 400, "malformed"),
        (JSON, String::new(), 400, "malformed"),
        (JSON, "[]".to_owned(), 400, "malformed"),
        (JSON, json!({"user": "alice", "room": "lobby"}).to_string(), 400, "malformed"),
        (JSON, with("colour", json!("red")), 400, "malformed"),
        (JSON, with("title", json!(7)), 400, "malformed"),
        (JSON, with("room", json!("a b")), 400, "malformed"),
        (JSON, with("user", json!("robot:x")), 400, "malformed"),
        (JSON, with("title", json!("x".repeat(70_000))), 413, "too_large"),
        ("Content-Type: text/plain\r\n", good.to_string(), 400, "malformed"),
        ("", good.to_string(), 400, "malformed"),
        (JSON, with("title", json!("")), 422, "rule"),
    ] {
        let answer = send(&server, "POST", "/api/rooms", headers, &body);
        assert_problem(&answer, status, code, body.get(..body.len().min(80)).unwrap());
    }
    assert_eq!(send(&server, "POST", "/api/rooms", JSON, &good.to_string()).0, 201);
    let again = send(&server, "POST", "/api/rooms", JSON, &good.to_string());
    assert_problem(&again, 422, "rule", "again");
    assert_eq!(serde_json::from_str::<Value>(&again.1).unwrap()["title"], "room_exists");
}

#[test]
fn bad_queries_and_unknown_paths_are_problems() {
    let (_data, server) = start();
    server.open_room("lobby", "alice");
    for (path, status, code) in [
        ("/api/rooms?order=colour", 400, "malformed"),
        ("/api/rooms?limit=many", 400, "malformed"),
        ("/api/rooms?limit=-1", 400, "malformed"),
        ("/api/rooms?colour=red", 400, "malformed"),
        ("/api/rooms?after=nonsense", 400, "malformed"),
        ("/api/rooms?min_position=soon", 400, "malformed"),
        ("/api/rooms?min_position=999999999", 416, "ahead_of_log"),
        ("/api/rooms/lobby/timeline?before=x", 400, "malformed"),
        ("/api/rooms/lobby/timeline?min_position=999999999", 416, "ahead_of_log"),
        ("/api/rooms/lobby/members?min_position=999999999", 416, "ahead_of_log"),
        ("/api/rooms/lobby/members?after=a%20b", 400, "malformed"),
        ("/api/rooms/nowhere", 404, "not_found"),
        ("/api/rooms/a%20b", 400, "malformed"),
        ("/api/events?room=nowhere", 404, "not_found"),
        ("/api/events?follow=perhaps", 400, "malformed"),
        ("/api/events?from=999999999", 416, "ahead_of_log"),
        ("/api/events?room=lobby&from=999999999", 416, "ahead_of_log"),
        ("/api/events?room=lobby&from=3&follow=true", 416, "ahead_of_log"),
        ("/api/events?name=Nope", 400, "malformed"),
        ("/api/events?name=MessagePosted&name=Nope&follow=true", 400, "malformed"),
        ("/api/events?category=rooom", 400, "malformed"),
        ("/api/events?limit=0", 400, "malformed"),
        ("/api/projections/nothing/documents?min_position=0", 404, "not_found"),
        ("/api/projections/nothing/document?key=x&min_position=0", 404, "not_found"),
        ("/api/projections/nothing/dead_letters?min_position=0", 404, "not_found"),
        ("/api/projections/rooms/documents?min_position=0&build=rooms@1", 400, "malformed"),
        ("/api/projections/rooms/document?key=x&min_position=0&build=rooms@1", 400, "malformed"),
        (
            "/api/projections/rooms/document?key=room-main.lobby&as_of_time=2999-01-01T00:00:00Z",
            416,
            "ahead_of_log",
        ),
        ("/api/nothing", 404, "not_found"),
        ("/nothing", 404, "not_found"),
        ("/ui/secret.js", 404, "not_found"),
        ("/ui/../Cargo.toml", 404, "not_found"),
    ] {
        assert_problem(&server.get(path), status, code, path);
    }
    let (status, told) = server.get("/api/projections/rooms/document?key=room-main.lobby&as_of_time=noon");
    assert!(status == 400 && told.contains("as_of_time: "), "{status} {told}");
    assert_eq!(
        server.get("/api/events?room=lobby&from=2"),
        (200, String::new()),
        "it ends before revision 2"
    );
    assert_problem(&send(&server, "DELETE", "/api/nothing", "", ""), 404, "not_found", "DELETE");
    let rebuild = send(&server, "POST", "/api/projections/nothing/rebuild", JSON, "{}");
    assert_problem(&rebuild, 404, "not_found", "rebuild");
    for build in ["timeline@1", "rooms@99", "rooms"] {
        let path = format!("/api/projections/rooms/document?key=room-main.lobby&build={build}");
        let told = server.get(&path);
        assert_problem(&told, 404, "not_found", build);
        assert!(told.1.contains("rooms has no build"), "{}", told.1);
    }
}

#[test]
fn rooms_come_in_pages_by_either_order() {
    let (_data, server) = start();
    let mut position = String::new();
    for number in 0..7 {
        let room = format!("room-{number}");
        server.open_room(&room, "alice");
        position = say(&server, &room, 1);
    }
    let collect = |order: &str| {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/rooms?order={order}&limit=3&min_position={position}{after}");
            let page = server.get_json(&path);
            let rooms = page["rooms"].as_array().unwrap();
            assert!(rooms.len() <= 3);
            found.extend(rooms.iter().map(|room| room["title"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", next.replace('/', "%2F")),
                None => return found,
            }
        }
    };
    let by_title: Vec<_> = (0..7).map(|number| format!("room-{number}")).collect();
    assert_eq!(collect("title"), by_title);
    let by_activity: BTreeSet<_> = collect("activity").into_iter().collect();
    assert_eq!(by_activity, by_title.into_iter().collect(), "rooms of one millisecond may come in any order");
}

#[test]
fn a_timeline_comes_in_pages() {
    let (_data, server) = start();
    server.open_room("lobby", "alice");
    let position = say(&server, "lobby", 120);
    let page = |query: &str| {
        let page = server.get_json(&format!("/api/rooms/lobby/timeline?min_position={position}{query}"));
        let texts: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| m["text"].clone()).collect();
        (texts, page["more"].as_bool().unwrap())
    };
    let numbers =
        |range: std::ops::Range<u32>| range.map(|n| json!(format!("number {n}"))).collect::<Vec<_>>();
    assert_eq!(page(""), (numbers(20..120), true), "a hundred unless told");
    assert_eq!(page("&limit=10"), (numbers(110..120), true));
    assert_eq!(page("&before=22"), (numbers(0..20), false), "message n is at revision n + 2");
    assert_eq!(page("&before=22&limit=20"), (numbers(0..20), false));
    assert_eq!(page("&before=22&limit=19"), (numbers(1..20), true));
    assert_eq!(page("&before=0"), (vec![], false));
    for limit in ["0", "-1", "many", ""] {
        let (status, told) = server.get(&format!("/api/rooms/lobby/timeline?limit={limit}"));
        assert!(status == 400 && told.contains("from 1 to 500"), "{limit}: {status} {told}");
    }
    let (status, told) = server.post("/api/projections/rooms/rebuild?events_per_second=0", &Value::Null);
    assert!(status == 400 && told["detail"].to_string().contains("at least 1"), "{status} {told}");
    assert_eq!(server.get_json("/api/projections/rooms")["job"], Value::Null);
    assert_eq!(page("&limit=65535"), (numbers(0..120), false));
}

#[test]
fn a_room_without_messages_is_not_one_that_is_not_there() {
    let (_data, server) = start();
    let (_, opened) =
        server.post("/api/rooms", &json!({"user": "alice", "room": "lobby", "title": "The lobby"}));
    let position = opened["position"].as_str().unwrap();
    for list in ["timeline", "members", "threads", "activity", "statistics"] {
        let (status, told) = server.get(&format!("/api/rooms/loby/{list}"));
        assert!(status == 404 && told.contains("there is no room loby"), "{list}: {status} {told}");
        let path = format!("/api/rooms/lobby/{list}?min_position={position}");
        assert_eq!(server.get(&path).0, 200, "{list}");
    }
    assert_eq!(server.get("/api/search?q=x&room=loby").0, 404);
    assert_eq!(server.get_json("/api/search?q=x&room=lobby")["messages"], json!([]));
}

#[test]
fn room_ids_are_percent_decoded() {
    let (_data, server) = start();
    for (room, encoded) in [("#ubuntu", "%23ubuntu"), ("a?b&c", "a%3Fb%26c"), ("a+b", "a+b"), ("é", "")] {
        if encoded.is_empty() {
            let answer = server.post("/api/rooms", &json!({"user": "alice", "room": room, "title": "x"}));
            assert_eq!(answer.0, 400, "ids are ASCII");
            continue;
        }
        server.open_room(room, "alice");
        let position = say(&server, room, 2);
        let timeline = server.get_json(&format!("/api/rooms/{encoded}/timeline?min_position={position}"));
        assert_eq!(timeline["messages"].as_array().unwrap().len(), 2, "{room}");
        let members = server.get_json(&format!("/api/rooms/{encoded}/members?min_position={position}"));
        assert_eq!(members["members"][0]["member"], "alice", "{room}: {members}");
        let listed = server.get_json(&format!("/api/rooms?min_position={position}"));
        assert!(listed["rooms"].as_array().unwrap().iter().any(|listed| listed["title"] == room));
        assert_eq!(server.get_json(&format!("/api/rooms/{encoded}"))["title"], room);
        let query = encoded.replace('+', "%2B");
        let (status, events) = server.get(&format!("/api/events?room={query}"));
        assert_eq!((status, events.lines().count()), (200, 4), "{room}: {events}");
    }
}

/// The quoted words of a text that begin with this.
#[test]
fn a_room_that_no_path_can_name_is_not_opened() {
    let (_data, server) = start();
    let mut alice = server.client("alice", &json!([]));
    for room in [".", ".."] {
        let body = json!({"user": "alice", "room": room, "title": "Nowhere"}).to_string();
        let answer = send(&server, "POST", "/api/rooms", "Content-Type: application/json\r\n", &body);
        assert_problem(&answer, 400, "malformed", room);
        let answer = alice.ask(room, "open_room", &json!({"title": "Nowhere"}));
        assert_eq!((&answer["type"], &answer["code"]), (&json!("reject"), &json!("malformed")), "{answer}");
        // It is a name like others where there is such a room already.
        alice.send(&json!({"type": "subscribe", "id": "there", "room": room}));
        assert_eq!(alice.answer("there")["code"], "not_found");
    }
    let dots = json!({"user": "alice", "room": "...", "title": "Somewhere"});
    assert_eq!(server.post("/api/rooms", &dots).0, 201);
}

#[test]
fn events_are_selected_by_kind_time_and_place() {
    let (_data, server) = start();
    for room in ["den", "hall"] {
        server.open_room(room, "alice");
        say(&server, room, 5);
    }
    server.session_noted("alice");
    let all = server.events(&[]);
    let time = |event: &Value| event["recorded_at"].as_i64().unwrap();
    let (middle, place) = (time(&all[all.len() / 2]), |event: &Value| event["position"].clone());
    let expect =
        |keep: &dyn Fn(&Value) -> bool| all.iter().filter(|event| keep(event)).cloned().collect::<Vec<_>>();
    let middle_text = middle.to_string();
    assert_eq!(server.events(&["--since", &middle_text]), expect(&|event| time(event) >= middle));
    assert_eq!(server.events(&["--before", &middle_text]), expect(&|event| time(event) < middle));
    for category in ["room", "user"] {
        let of = |event: &Value| event["stream"].as_str().unwrap().starts_with(&format!("{category}-"));
        let want = expect(&of);
        assert!(!want.is_empty(), "{category}");
        assert_eq!(server.events(&["--category", category]), want);
    }
    let some = server.events(&["--from", "3", "--to", "7", "--name", "MessagePosted"]);
    let in_place = |event: &Value| (3..=7).contains(&place(event).as_str().unwrap().parse::<u64>().unwrap());
    assert_eq!(some, expect(&|event| in_place(event) && event["name"] == "MessagePosted"));
    let of_room = server.events(&["--room", "hall", "--to", "2", "--since", "1970-01-01T00:00:00Z"]);
    assert_eq!(
        of_room,
        expect(&|event| event["stream"] == "room-main.hall" && event["revision"].as_u64() <= Some(2))
    );
    assert_eq!(of_room.len(), 3);
}

fn quoted<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.split('"').filter(|word| word.starts_with(start)).collect()
}

#[test]
fn the_page_and_all_it_names_are_served_under_a_policy() {
    let (_data, server) = start();
    let mut head = String::new();
    {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address);
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_string(&mut head).unwrap();
    }
    let head = head.split_once("\r\n\r\n").unwrap().0.to_ascii_lowercase();
    let policy = head.lines().find(|line| line.starts_with("content-security-policy:")).unwrap();
    assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");

    let mut waiting: Vec<String> = Vec::new();
    for page in ["/", "/admin", "/docs"] {
        let (status, page) = server.get(page);
        assert_eq!(status, 200);
        waiting.extend(quoted(&page, "/ui/").into_iter().map(str::to_owned));
    }
    let mut reached = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        let (status, text) = server.get(&path);
        assert_eq!(status, 200, "{path} is named and not served");
        assert!(!text.is_empty());
        let imports = text.lines().filter(|line| line.starts_with("import"));
        waiting
            .extend(imports.flat_map(|line| quoted(line, "./")).map(|name| name.replacen("./", "/ui/", 1)));
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/ui");
    let written: BTreeSet<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| format!("/ui/{}", file.unwrap().file_name().to_string_lossy()))
        // The client is served apart from the pages, for others too.
        .filter(|path| !path.contains(".html") && !path.starts_with("/ui/client"))
        .collect();
    assert_eq!(reached, written, "every file of the pages is reached from them");
}

#[test]
fn a_wrong_method_is_told_the_right_ones_and_a_path_that_is_none_is_not_found() {
    let (_data, server) = start();
    for (method, path, allow) in [
        ("DELETE", "/api/rooms", "get, head, post"),
        ("PUT", "/api/rooms/lobby/timeline", "get, head"),
        ("GET", "/api/commands", "post"),
        ("GET", "/api/projections/rooms/rebuild", "post"),
        ("POST", "/api/health", "get, head"),
        ("POST", "/admin", "get, head"),
        ("HEAD", "/api/events", "get"),
        ("HEAD", "/api/poll", "get, post"),
        ("HEAD", "/api/stream", "get, post"),
    ] {
        let request = Request { method, path, headers: &[], body: "" };
        let answer = request.send(server.address).unwrap();
        let head = answer.head.clone();
        assert!(head.contains(&format!("allow: {allow}\r\n")), "{method} {path}: {head}");
        assert_eq!(answer.status, 405, "{method} {path}");
        if method != "HEAD" {
            let (status, body) = (answer.status, answer.body().unwrap());
            assert_problem(&(status, body), 405, "malformed", path);
        }
    }
    for (method, path) in [("GET", "/api/none"), ("POST", "/api/none"), ("DELETE", "/api/rooms/a/none")] {
        assert_problem(&send(&server, method, path, "", ""), 404, "not_found", path);
    }
}

#[test]
fn a_file_that_the_browser_has_is_not_sent_again() {
    let (_data, server) = start();
    let ask = |tag: &str| {
        let headers = [("If-None-Match", tag)];
        let request = Request { method: "GET", path: "/client.js", headers: &headers, body: "" };
        request.send(server.address).unwrap()
    };
    let first = ask("\"another\"");
    assert_eq!(first.status, 200);
    let tag = first.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert_eq!(ask(tag).status, 304);
    assert_eq!(ask(&format!("\"another\", W/{tag}")).status, 304);
    assert_eq!(ask("no tag").status, 200);
}

#[test]
fn what_is_got_can_be_asked_about() {
    let (_data, server) = start();
    server.open_room("lobby", "alice");
    let ask = |method: &str, path: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        let host = server.address;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let kind = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-type:"));
        (head[9..12].to_owned(), kind.unwrap().to_owned(), body.to_owned())
    };
    for path in [
        "/",
        "/docs",
        "/client.js",
        "/api/openapi.json",
        "/api/health",
        "/metrics",
        "/api/rooms",
        "/api/rooms/no",
    ] {
        let ((status, kind, body), asked) = (ask("GET", path), ask("HEAD", path));
        assert!(!body.is_empty(), "{path}");
        assert_eq!(asked, (status, kind, String::new()), "{path}");
    }
}
