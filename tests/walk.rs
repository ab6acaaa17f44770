//! Follows one message through the house, step by step as README.md prints it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use serde_json::json;
use support::Server;

#[test]
fn a_message_goes_from_socket_to_log_to_read_model_and_back() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    assert_eq!(server.get_json("/api/health"), json!({"status": "ok"}));

    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([{"room": "lobby"}]));
    let mut bob = server.client("bob", &json!([{"room": "lobby"}]));
    assert_eq!(bob.receive_type("live")["revision"], 1);
    assert_eq!(bob.ask("lobby", "join", &json!({"display_name": "Bob"}))["type"], "ack");

    let ack = alice.ask("lobby", "post_message", &json!({"text": "good evening"}));
    assert_eq!(
        (&ack["type"], &ack["revision"], &ack["duplicate"]),
        (&json!("ack"), &json!(3), &json!(false))
    );

    let mut event = bob.receive_type("event");
    while event["name"] != "MessagePosted" {
        event = bob.receive_type("event");
    }
    assert_eq!((&event["by"], &event["data"]["text"]), (&json!("alice"), &json!("good evening")));
    assert_eq!((&event["revision"], &event["position"]), (&ack["revision"], &ack["position"]));
    assert!(event.get("command").is_none(), "only the author is told the command");

    let position = ack["position"].as_str().unwrap();
    let page = server.get_json(&format!("/api/rooms/lobby/timeline?min_position={position}"));
    assert_eq!(page["messages"][0]["text"], "good evening");
    let members = server.get_json(&format!("/api/rooms/lobby/members?min_position={position}"));
    assert_eq!(members["members"].as_array().unwrap().len(), 2);
    let rooms = server.get_json(&format!("/api/rooms?min_position={position}"));
    assert_eq!(rooms["rooms"][0]["message_count"], 1);

    let events = server.events(&["--room", "lobby"]);
    let names: Vec<_> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["RoomOpened", "MemberJoined", "MemberJoined", "MessagePosted"]);
    assert_eq!(server.terminate(), Some(0));
}
