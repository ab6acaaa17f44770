//! Read models in MongoDB, from end to end: the same answers as from the embedded store, after a
//! rebuild, a dropped database and crashes; and a store that stops or hangs holds up nobody.
//! `.ci/run` starts a server; `DRAMATIS_TEST_MONGODB_URI` names one that is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::imports::{caught_up, chat_log, file, imported, long_tier};
use support::store_proxy::{StoreProxy, Way};
use support::{PATIENCE, Server, skipped};

/// What is asked of both stores.
const QUESTIONS: [&str; 5] = [
    "/api/rooms",
    "/api/rooms?order=title",
    "/api/rooms/den",
    "/api/rooms/den/timeline?limit=200",
    "/api/rooms/den/members?limit=200",
];

/// A database of this test's own, reached through a proxy; dropped at the end.
struct Database {
    uri: String,
    name: String,
    proxy: StoreProxy,
    environment: Vec<(&'static str, String)>,
}

impl Database {
    fn new(what: &str) -> Option<Self> {
        let Ok(uri) = std::env::var("DRAMATIS_TEST_MONGODB_URI") else {
            skipped(&format!("{what}: DRAMATIS_TEST_MONGODB_URI names no MongoDB server"));
            return None;
        };
        let (scheme, rest) = uri.split_once("://").unwrap();
        let (authority, options) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let first = hosts.split(',').next().unwrap();
        let server = if first.contains(':') { first.to_owned() } else { format!("{first}:27017") };
        let proxy = StoreProxy::before(server);
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        let direct = if options.contains("directConnection") { "" } else { "directConnection=true" };
        let options = options.trim_start_matches('?');
        let through = format!("{scheme}://{user}{}/?{options}{direct}", proxy.address);
        let name = format!("dramatis_test_{}", uuid::Uuid::new_v4().simple());
        let environment = vec![
            ("DRAMATIS__READ_MODELS__ENGINE", "mongodb".to_owned()),
            ("DRAMATIS__READ_MODELS__MONGODB__URI", through),
            ("DRAMATIS__READ_MODELS__MONGODB__DATABASE", name.clone()),
            ("DRAMATIS__READ_MODELS__MONGODB__OPERATION_TIMEOUT_MS", "2000".to_owned()),
        ];
        Some(Self { uri, name, proxy, environment })
    }

    fn serve(&self, data: &Path) -> Server {
        let environment: Vec<_> =
            self.environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
        Server::start_with(data, &[], &environment)
    }

    fn dropped(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = mongodb::Client::with_uri_str(&self.uri).await.unwrap();
            client.database(&self.name).drop().await.unwrap();
        });
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.dropped();
    }
}

fn answers(server: &Server) -> Vec<Value> {
    caught_up(server);
    QUESTIONS.iter().map(|question| server.get_json(question)).collect()
}

/// What the embedded store makes of the same log.
fn embedded(data: &Path) -> Vec<Value> {
    let _ = std::fs::remove_file(data.join("read-models.sqlite"));
    let server = Server::start(data);
    let answers = answers(&server);
    assert_eq!(server.terminate(), Some(0));
    answers
}

fn say(client: &mut support::Client, text: &str) {
    let ack = client.ask("den", "post_message", &json!({"text": text}));
    assert_eq!(ack["type"], "ack", "{ack}");
}

#[test]
fn it_answers_as_the_embedded_store_does() {
    let Some(database) = Database::new("the whole way with MongoDB") else { return };
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = database.serve(data.path());
    let log = file(logs.path(), "den-2010-03-08.txt", chat_log(1_500, 5));
    imported(&server, &[log], &["--room", "den"]);
    let first = answers(&server);
    let rebuilt = server.run(&["projections", "rebuild", "timeline"]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    assert_eq!(answers(&server), first, "after a rebuild");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(embedded(data.path()), first);

    database.dropped();
    let server = database.serve(data.path());
    assert_eq!(answers(&server), first, "after the database was dropped");

    // Killed while it writes, it goes on where it was.
    let mut server = server;
    for round in 0..if long_tier() { 20 } else { 3 } {
        let mut nick = server.client("nick1", &json!([]));
        nick.ask("den", "join", &json!({}));
        for number in 0..40 {
            say(&mut nick, &format!("{round} {number}"));
        }
        server.kill();
        server = database.serve(data.path());
    }
    let last = answers(&server);
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(embedded(data.path()), last, "after crashes");
}

#[test]
fn a_store_that_is_away_holds_up_nobody() {
    let Some(database) = Database::new("a MongoDB server that stops or hangs") else { return };
    let data = tempfile::tempdir().unwrap();
    // It is not even there when the server starts.
    database.proxy.set(Way::Cut);
    let server = database.serve(data.path());
    let mut said = 0;
    server.open_room("den", "anna");
    let mut anna = server.client("anna", &json!([]));
    for way in [Way::Cut, Way::Held, Way::Cut, Way::Held] {
        database.proxy.set(way);
        let away = Instant::now();
        // It is found out by whoever asks something of it.
        while health(&server)["status"] == "ok" {
            said += 1;
            say(&mut anna, &said.to_string());
            assert!(away.elapsed() < PATIENCE, "{way:?}: health never says so");
        }
        until(&format!("{way:?}: degraded"), || health(&server)["status"] == "degraded");
        until(&format!("{way:?}: reason"), || health(&server).to_string().contains("read-model store"));
        let (status, body) = server.get("/api/rooms/den/timeline");
        assert_eq!(status, 503, "{body}");
        assert!(server.get("/metrics").1.contains("dramatis_read_models_up 0"));
        let at_least = if long_tier() { Duration::from_secs(30) } else { Duration::ZERO };
        for number in 0.. {
            if number >= 25 && away.elapsed() >= at_least {
                break;
            }
            said += 1;
            say(&mut anna, &said.to_string());
            assert_eq!(health(&server)["status"], "degraded");
        }
        database.proxy.set(Way::Open);
        until(&format!("{way:?}: well again"), || health(&server)["status"] == "ok");
        caught_up(&server);
        assert!(server.get("/metrics").1.contains("dramatis_read_models_up 1"));
        assert_eq!(
            shown(&server),
            (1..=said).map(|number| number.to_string()).collect::<Vec<_>>(),
            "{way:?}"
        );
    }
    assert_eq!(server.terminate(), Some(0));
}

fn health(server: &Server) -> Value {
    server.get_json("/api/health")
}

/// Waits for something, each look being an answer of the server.
fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// The texts of the room's messages, oldest first, by as many pages as it takes.
fn shown(server: &Server) -> Vec<String> {
    let (mut pages, mut before) = (Vec::new(), String::new());
    loop {
        let page = server.get_json(&format!("/api/rooms/den/timeline?limit=200{before}"));
        let messages = page["messages"].as_array().unwrap();
        let text = |message: &Value| message["text"].as_str().unwrap().to_owned();
        pages.push(messages.iter().map(text).collect::<Vec<_>>());
        if page["more"] == false {
            break;
        }
        before = format!("&before={}", messages[0]["revision"]);
    }
    pages.into_iter().rev().flatten().collect()
}
