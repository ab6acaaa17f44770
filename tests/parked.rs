//! Parked keys as people see them: queries say in a header from where on documents wait, health
//! says it in words, and a retry from the command line lets them go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::http::Request;
use support::imports::caught_up;
use support::{Client, Server};

/// Queries out of a room's documents, and the projection that answers each.
const OF_ROOM: [(&str, &str); 9] = [
    ("rooms", "/api/rooms/ROOM"),
    ("rooms", "/api/rooms"),
    ("timeline", "/api/rooms/ROOM/timeline"),
    ("members", "/api/rooms/ROOM/members"),
    ("threads", "/api/rooms/ROOM/threads"),
    ("replies", "/api/rooms/ROOM/threads/FIRST"),
    ("activity", "/api/rooms/ROOM/activity"),
    ("statistics", "/api/rooms/ROOM/statistics"),
    ("search", "/api/search?q=evening&room=ROOM"),
];

/// The answer's `dramatis-parked-from`.
fn parked_from(server: &Server, path: &str) -> Option<String> {
    let headers = &[("Dramatis-User", "anna")];
    let answer = Request { method: "GET", path, headers, body: "" }.send(server.address).unwrap();
    assert_eq!(answer.status, 200, "{path}");
    let header = answer.head.lines().find_map(|line| line.strip_prefix("dramatis-parked-from: "));
    header.map(str::to_owned)
}

/// A dead letter as a fold leaves it that cannot make anything of an event.
fn park(data: &Path, projection: &str, key: &str, position: i64) {
    let store = rusqlite::Connection::open(data.join("read-models.sqlite")).unwrap();
    let sql = "INSERT INTO dead_letters (collection, key, position, event, error)
               SELECT collection, ?2, ?3, 'MessagePosted', 'out of place' FROM aliases WHERE projection = ?1";
    assert_eq!(store.execute(sql, rusqlite::params![projection, key, position]).unwrap(), 1);
}

fn post(client: &mut Client, data: &Value) -> Value {
    let ack = client.ask("den", "post_message", data);
    assert_eq!(ack["type"], "ack", "{ack}");
    ack
}

#[test]
fn queries_say_from_where_on_documents_wait() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "anna");
    server.open_room("hall", "anna");
    let mut anna = server.client("anna", &json!([]));
    let first = post(&mut anna, &json!({"text": "good evening"}));
    let key = format!("room-main.den/{:020}", first["revision"].as_u64().unwrap());
    let reply = post(&mut anna, &json!({"text": "evening all", "reply_to": first["revision"]}));
    anna.ask("hall", "post_message", &json!({"text": "no evening here"}));
    caught_up(&server);
    assert_eq!(server.terminate(), Some(0));
    let position: i64 = reply["position"].as_str().unwrap().parse().unwrap();
    for (projection, _) in OF_ROOM.iter().filter(|(_, path)| *path != "/api/rooms") {
        park(data.path(), projection, "room-main.den", position);
    }
    park(data.path(), "sessions", "user-main.anna", position);
    park(data.path(), "timeline", "room-main.aside", position);

    let server = Server::start(data.path());
    caught_up(&server);
    let at = |path: &str, room: &str| {
        let first = first["revision"].to_string();
        let path = path.replace("ROOM", room).replace("FIRST", &first);
        parked_from(&server, &path)
    };
    for (_, path) in OF_ROOM {
        assert_eq!(at(path, "den"), Some(position.to_string()), "{path}");
        let of_hall = (path.contains("ROOM") && !path.contains("FIRST")).then(|| at(path, "hall"));
        assert_eq!(of_hall.flatten(), None, "{path}");
    }
    assert_eq!(at("/api/search?q=evening", ""), Some(position.to_string()), "every room is searched");
    assert_eq!(at("/api/users/anna/activity", ""), Some(position.to_string()));
    assert_eq!(at("/api/me", ""), Some(position.to_string()));
    let health = server.get_json("/api/health");
    assert_eq!(health["status"], "degraded");
    assert!(health["reasons"].to_string().contains("projection timeline has 2 keys parked"), "{health}");

    // Page by page, in log order.
    let keys = |page: &Value| -> Vec<String> {
        page["letters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|letter| letter["key"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = server.get_json("/api/projections/timeline/dead_letters?limit=1");
    assert_eq!(keys(&first), ["room-main.aside"]);
    let next = first["next"].as_str().unwrap();
    let second = server.get_json(&format!("/api/projections/timeline/dead_letters?limit=1&after={next}"));
    assert_eq!((keys(&second), &second["next"]), (vec!["room-main.den".to_owned()], &Value::Null));

    // Tried again it goes on, as the event is one that can be folded.
    let told = server.run(&["projections", "dead-letters", "timeline"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("out of place"));
    let got = server.run(&["projections", "get", "timeline", &key]);
    let document: Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(document["text"], "good evening");
    let told = String::from_utf8_lossy(&got.stderr);
    assert!(told.contains(&format!("waits from position {position} on")), "{told}");
    let retried = server.run(&["projections", "retry", "timeline", "room-main.den"]);
    assert!(retried.status.success(), "{}", String::from_utf8_lossy(&retried.stderr));
    assert_eq!(at("/api/rooms/ROOM/timeline", "den"), None);
}

#[test]
fn what_is_parked_at_its_first_event_is_not_said_to_be_missing() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "anna");
    caught_up(&server);
    assert_eq!(server.terminate(), Some(0));
    park(data.path(), "rooms", "room-main.new", 1);
    let server = Server::start(data.path());
    server.open_room("new", "anna");
    caught_up(&server);
    let ask =
        |path: &str| Request { method: "GET", path, headers: &[], body: "" }.send(server.address).unwrap();
    let room = ask("/api/rooms/new");
    assert_eq!(room.status, 503);
    assert!(room.head.contains("dramatis-parked-from: 1"), "{}", room.head);
    assert!(room.json().unwrap()["detail"].to_string().contains("wait from position 1 on"));
    assert_eq!(ask("/api/rooms/nowhere").status, 404);
    let got = server.get_json("/api/projections/rooms/document?key=room-main.new");
    assert_eq!((&got["document"], &got["parked"]["position"]), (&Value::Null, &json!("1")), "{got}");
    assert_eq!(ask("/api/projections/rooms/document?key=room-main.nowhere").status, 404);
}
