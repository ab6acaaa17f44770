//! A server that wants tokens, and tokens for it.

use std::path::Path;

use serde_json::{Value, json};

use super::support::{Client, Server, dramatis, http};

/// A token, as the command line makes it.
pub fn mint(key: &Path, arguments: &[&str]) -> String {
    let output =
        dramatis().arg("token").args(arguments).env("DRAMATIS__AUTH__TOKEN_KEY_FILE", key).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a test does with a token whose end it waits for: on a busy machine a short one has run out before
/// it is used, and then a longer one is tried. `None` says that it had.
pub fn briefly<T>(attempt: impl FnMut(&str) -> Option<T>) -> T {
    let lasts = ["2s", "4s", "8s", "16s", "32s", "64s"];
    lasts.into_iter().find_map(attempt).expect("a token of a minute lasts until it is used")
}

/// See the module.
pub struct Guarded {
    pub server: Server,
    pub key: std::path::PathBuf,
    pub data: tempfile::TempDir,
}

/// A server with a key, and the room `lobby`, which alice owns.
pub fn start(environment: &[(&str, &str)]) -> Guarded {
    let data = tempfile::tempdir().unwrap();
    let key = data.path().join("token.key");
    let made = dramatis().args(["token", "--new-key"]).arg(&key).status().unwrap();
    assert!(made.success());
    let named = [("DRAMATIS__AUTH__TOKEN_KEY_FILE", key.to_str().unwrap())];
    let server = Server::start_with(data.path(), &[], &[&named, environment].concat());
    let guarded = Guarded { server, key, data };
    let alice = mint(&guarded.key, &["--user", "alice", "--for", "1h"]);
    let (status, body) = guarded.post(&alice, "alice", "lobby");
    assert_eq!(status, 201, "{body}");
    guarded
}

impl Guarded {
    /// A socket whose first message is this.
    pub fn hello(&self, message: &Value) -> Client {
        let mut client = Client::connect(self.server.address);
        client.send(message);
        client
    }

    /// An HTTP request with a token: status, and the answer's JSON or text.
    pub fn request(&self, head: &str, token: &str, body: &str) -> (u16, Value) {
        let (address, len) = (self.server.address, body.len());
        let request = format!(
            "{head} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"
        );
        let (status, body) = http(address, &request);
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// Opens a room.
    pub fn post(&self, token: &str, user: &str, room: &str) -> (u16, Value) {
        let body = json!({"user": user, "room": room, "title": room}).to_string();
        self.request("POST /api/rooms", token, &body)
    }
}

/// A `hello` that follows `lobby`.
pub fn hello(token: &str) -> Value {
    json!({"type": "hello", "token": token, "session": "s", "rooms": [{"room": "lobby"}]})
}
