//! Read models in `MongoDB`, from end to end: the same answers as from the embedded store, after a
//! rebuild, a dropped database and crashes; and a store that stops or hangs holds up nobody.
//! `.ci/run` starts a server; `DRAMATIS_TEST_MONGODB_URI` names one that is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "support/mongodb.rs"]
mod database;
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use database::{Database, Mongod};
use serde_json::{Value, json};
use support::imports::{caught_up, chat_log, file, imported, long_tier};
use support::store_proxy::Way;
use support::{PATIENCE, Server};

/// What is asked of both stores.
const QUESTIONS: [&str; 5] = [
    "/api/rooms",
    "/api/rooms?order=title",
    "/api/rooms/den",
    "/api/rooms/den/timeline?limit=200",
    "/api/rooms/den/members?limit=200",
];

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

/// So that it is soon found out that a store does not answer.
const IMPATIENT: [(&str, &str); 1] = [("DRAMATIS__READ_MODELS__MONGODB__OPERATION_TIMEOUT_MS", "2000")];

/// How long a store is away at least: short in the default tier.
fn away_for() -> Duration {
    if long_tier() { Duration::from_secs(30) } else { Duration::from_secs(2) }
}

#[test]
fn a_store_that_is_away_holds_up_nobody() {
    let Some(database) = Database::new("a MongoDB server that stops or hangs") else { return };
    let data = tempfile::tempdir().unwrap();
    // It is not even there when the server starts.
    database.proxy.set(Way::Cut);
    let server = database.serve_with(data.path(), &IMPATIENT);
    server.open_room("den", "anna");
    let mut said = 0;
    for way in [Way::Cut, Way::Held, Way::Cut, Way::Held] {
        database.proxy.set(way);
        said = said_meanwhile(&server, &format!("{way:?}"), said);
        database.proxy.set(Way::Open);
        nothing_is_lost(&server, &format!("{way:?}"), said);
    }
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_store_whose_process_hangs_or_dies_holds_up_nobody() {
    let what = "a MongoDB server that is stopped or killed";
    let Some(mut mongod) = Mongod::start(what) else { return };
    let (database, data) = (Database::at(mongod.uri()), tempfile::tempdir().unwrap());
    let server = database.serve_with(data.path(), &IMPATIENT);
    server.open_room("den", "anna");
    for room in OTHERS {
        server.open_room(room, "anna");
    }
    let mut said = 0;
    for round in 0..2 {
        mongod.signal("-STOP");
        said = said_meanwhile(&server, &format!("stopped, {round}"), said);
        mongod.signal("-CONT");
        nothing_is_lost(&server, &format!("stopped, {round}"), said);
        // What it acknowledged a moment ago it must have after a crash: nobody writes it again.
        said = said_and_seen(&server, said);
        mongod.kill();
        said = said_meanwhile(&server, &format!("killed, {round}"), said);
        mongod.start_again();
        nothing_is_lost(&server, &format!("killed, {round}"), said);
    }
    for standing in caught_up(&server) {
        let (code, told) = projections(&server, &["verify", standing["name"].as_str().unwrap()]);
        assert_eq!(code, Some(0), "{told}");
    }
    assert_eq!(server.terminate(), Some(0));
}

/// Rooms whose documents change with every message as well.
const OTHERS: [&str; 3] = ["attic", "cellar", "shed"];

/// Posts some numbers, each seen in the read model before the next.
fn said_and_seen(server: &Server, said: u64) -> u64 {
    let mut anna = server.client("anna", &json!([]));
    let last = said + 20;
    for number in said + 1..=last {
        let elsewhere = OTHERS.iter().cycle().nth(usize::try_from(number).unwrap()).unwrap();
        let ack = anna.ask(elsewhere, "post_message", &json!({"text": "elsewhere"}));
        assert_eq!(ack["type"], "ack", "{ack}");
        let ack = anna.ask("den", "post_message", &json!({"text": number.to_string()}));
        let position = ack["position"].as_str().unwrap();
        server.get_json(&format!("/api/rooms/den/timeline?limit=1&min_position={position}"));
    }
    last
}

/// Posts numbers from `said + 1` on while the store is away; answers the last one.
fn said_meanwhile(server: &Server, how: &str, mut said: u64) -> u64 {
    let mut anna = server.client("anna", &json!([]));
    let mut post = || {
        said += 1;
        say(&mut anna, &said.to_string());
    };
    let away = Instant::now();
    // It is found out by whoever asks something of it.
    while health(server)["status"] == "ok" {
        post();
        assert!(away.elapsed() < PATIENCE, "{how}: health never says so");
    }
    until(&format!("{how}: degraded"), || health(server)["status"] == "degraded");
    until(&format!("{how}: reason"), || health(server).to_string().contains("read-model store"));
    let (status, body) = server.get("/api/rooms/den/timeline");
    assert_eq!(status, 503, "{body}");
    assert!(server.get("/metrics").1.contains("dramatis_read_models_up 0"));
    assert_eq!(server.get("/api/projections").0, 200, "who looks into it sees how all stand");
    for number in 0.. {
        if number >= 25 && away.elapsed() >= away_for() {
            break;
        }
        post();
        assert_eq!(health(server)["status"], "degraded");
    }
    said
}

/// Once the store is back, every number is there, once, in order.
fn nothing_is_lost(server: &Server, how: &str, said: u64) {
    until(&format!("{how}: well again"), || health(server)["status"] == "ok");
    caught_up(server);
    assert!(server.get("/metrics").1.contains("dramatis_read_models_up 1"));
    let expected: Vec<_> = (1..=said).map(|number| number.to_string()).collect();
    assert_eq!(shown(server), expected, "{how}");
    println!("{how}: all of {said} messages are there");
}

fn projections(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = server.run(&[&["projections"], arguments].concat());
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&told).into_owned())
}

/// Asks until the last job of the timeline stands as wished.
fn job(server: &Server, wished: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let standing = server.get_json("/api/projections/timeline?counts=false");
        if standing["state"] == "live" && wished(&standing["job"]) {
            return standing;
        }
        assert!(started.elapsed() < PATIENCE, "it does not come to it: {standing}");
    }
}

#[test]
fn a_rebuild_is_paused_killed_resumed_proven_and_taken_back() {
    let Some(database) = Database::new("a rebuild with MongoDB, step by step") else { return };
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serve = || database.serve_with(data.path(), &[("DRAMATIS__PROJECTIONS__BATCH_EVENTS", "100")]);
    let server = serve();
    let log = file(logs.path(), "den-2010-03-08.txt", chat_log(1_500, 5));
    imported(&server, &[log], &["--room", "den"]);
    let before = answers(&server);

    let slowly = ["rebuild", "timeline", "--events-per-second", "300", "--detach"];
    assert_eq!(projections(&server, &slowly).0, Some(0));
    job(&server, |job| job["events"].as_u64() > Some(0));
    let (code, said) = projections(&server, &["pause", "timeline"]);
    assert!(code == Some(0) && !said.contains("position -"), "{said}");
    let paused = job(&server, |job| job["state"] == "paused");
    assert_eq!(answers(&server), before, "queries get the build that is live");
    server.kill();
    let server = serve();
    let found = job(&server, |job| job["state"] == "paused");
    // What was on its way to the store when it was paused may have arrived since.
    let at = |standing: &Value| standing["job"]["position"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(at(&found) >= at(&paused), "what was written stays: {found}");
    assert_eq!(projections(&server, &["resume", "timeline"]).0, Some(0));
    let from = found["job"]["events"].as_u64();
    job(&server, |job| job["events"].as_u64() > from && job["state"] == "building");
    server.kill();
    // Unasked, it goes on while people speak.
    let server = serve();
    let mut nick = server.client("nick1", &json!([]));
    nick.ask("den", "join", &json!({}));
    say(&mut nick, "meanwhile");
    let done = job(&server, |job| job["state"] == "done");
    assert_eq!((&done["build"], &done["job"]["replaced"]), (&done["job"]["build"], &paused["build"]));
    let after = answers(&server);
    assert_eq!(projections(&server, &["verify", "timeline"]).0, Some(0));
    let (code, told) = projections(&server, &["rollback", "timeline"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(job(&server, |_| true)["build"], paused["build"]);
    assert_eq!(answers(&server), after, "the build before was kept up");
    assert_eq!(projections(&server, &["verify", "timeline"]).0, Some(0));

    // A document that no event made is found out, and goes with the next build.
    let live = paused["build"].as_str().unwrap();
    let forged = database.with(|database| async move {
        let documents = database.collection::<mongodb::bson::Document>(live);
        let forge = mongodb::bson::doc! {"$set": {"latest.body.text": "forged"}};
        documents.update_one(mongodb::bson::doc! {"latest.body.text": "meanwhile"}, forge).await.unwrap()
    });
    assert_eq!(forged.modified_count, 1);
    let (code, told) = projections(&server, &["verify", "timeline"]);
    assert!(code == Some(3) && told.contains("in text"), "{told}");
    assert_eq!(projections(&server, &["rebuild", "timeline"]).0, Some(3));
    assert_eq!(projections(&server, &["accept", "timeline"]).0, Some(0));
    assert_eq!(answers(&server), after);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn two_logs_in_one_database_do_not_harm_each_other() {
    let Some(database) = Database::new("two logs in one database of MongoDB") else { return };
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = database.serve(one.path());
    server.open_room("den", "anna");
    let before = answers(&server);
    assert_eq!(server.terminate(), Some(0));
    // Whose it is has stopped for a while, or is there again: it makes no difference.
    let second = database.serve(other.path());
    for _ in 0..2 {
        for path in ["/api/rooms", "/api/rooms/den/timeline", "/api/search?q=x"] {
            let (status, told) = second.get(path);
            assert_eq!(status, 503, "{path}: {told}");
        }
        until("it says so", || health(&second).to_string().contains("read_models.take_over"));
        let first = database.serve(one.path());
        assert_eq!(answers(&first), before);
        first.kill();
    }
    assert_eq!(second.terminate(), Some(0));
    let first = database.serve(one.path());
    assert_eq!(answers(&first), before);
    assert!(first.get_json("/api/projections")[0]["build"].as_str().unwrap().ends_with("@1"));
}

#[test]
fn what_the_server_cannot_do_is_said_and_all_else_works() {
    let Some(database) = Database::new("what a server of MongoDB's protocol cannot do") else { return };
    let data = tempfile::tempdir().unwrap();
    let server = database.serve(data.path());
    server.open_room("den", "anna");
    let mut anna = server.client("anna", &json!([]));
    for number in 0..40 {
        say(&mut anna, &format!("good evening {number}"));
    }
    let before = answers(&server);
    for wish in ["rebuild", "verify", "rollback"] {
        let (code, told) = projections(&server, &[wish, "timeline"]);
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(answers(&server), before, "after {wish}");
    }
    assert_eq!(health(&server)["status"], "ok", "{}", health(&server));
    let standings = caught_up(&server);
    let search = standings.iter().find(|standing| standing["name"] == "search").unwrap();
    if search["state"] == "live" {
        let found = server.get_json("/api/search?q=evening&limit=500");
        assert_eq!(found["messages"].as_array().unwrap().len(), 40);
        assert_eq!(health(&server)["notes"], Value::Null);
    } else {
        println!("this server has no full-text search: {}", search["error"]);
        search_is_refused(&server);
    }
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(embedded(data.path()), before);
}

fn search_is_refused(server: &Server) {
    let (status, body) = server.get("/api/search?q=evening");
    let why = "search is not kept: this read-model store cannot do full-text search";
    assert!(status == 503 && body.contains(why), "{body}");
    assert!(health(server)["notes"].to_string().contains(why));
    let (code, told) = projections(server, &["rebuild", "search"]);
    assert!(code == Some(1) && told.contains(why), "{told}");
    assert!(projections(server, &["list"]).1.contains("unsupported"));
    assert!(server.get("/metrics").1.contains(r#"dramatis_projection_lag_events{projection="search"} 0"#));
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
