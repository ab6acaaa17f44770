//! A process that is killed in each phase of a rebuild, from the first page to the drop of the build
//! before, on either store: the next one goes on from there, queries go on all the while, and
//! nothing is left behind.
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
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use database::Database;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use support::Server;
use support::imports::{Chance, caught_up, chat_log, file, imported, long_tier};
use tempfile::TempDir;
use traffic::Seen;

/// Small batches, and builds that are kept warm and kept at all for so short that both end here.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("DRAMATIS__PROJECTIONS__BATCH_EVENTS", "100"),
    ("DRAMATIS__PROJECTIONS__WARM_MS", "1200"),
    ("DRAMATIS__PROJECTIONS__RETENTION_MS", "2500"),
];
const TIMELINE: &str = "timeline";
/// How long it may take to come to a phase: the history grows with every kill, and a machine that has
/// much else to do compares it for long.
const COMES_WITHIN: Duration = Duration::from_mins(5);

/// Where a rebuild stands, as its record and the alias tell after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Building,
    Proving,
    /// Readers get the new build, and the record does not say so yet.
    Switching,
    /// The build before is kept up with the log.
    Warm,
    /// It is kept as it stands.
    Kept,
    /// Its time is over, and it is about to be dropped, or half dropped.
    Dropping,
    Over,
}

/// What is aimed at, in turn: that a kill hits the very moment is left to chance.
const AIMS: [Phase; 6] =
    [Phase::Building, Phase::Proving, Phase::Switching, Phase::Warm, Phase::Kept, Phase::Dropping];

/// A data directory, and a database if the read models are not in it.
struct Place {
    data: TempDir,
    database: Option<Database>,
}

impl Place {
    fn serve(&self) -> Server {
        match &self.database {
            Some(database) => database.serve_with(self.data.path(), &ENVIRONMENT),
            None => Server::start_with(self.data.path(), &[], &ENVIRONMENT),
        }
    }

    /// Commands a second: a database server shares the processors, and folds fewer beside all that a kill
    /// has it do again.
    fn rate(&self) -> u32 {
        if self.database.is_some() { traffic::SLOW } else { traffic::rate() }
    }

    /// The record of the timeline's builds, the build that is live and all there are, read while no
    /// server runs.
    fn stored(&self) -> (Value, String, BTreeSet<String>) {
        let (note, live, builds) = match &self.database {
            None => in_sqlite(self.data.path()),
            Some(database) => database.with(in_mongodb),
        };
        (serde_json::from_str(&note).unwrap(), live, builds)
    }

    fn phase(&self) -> Phase {
        let (record, live, _) = self.stored();
        let job = &record["job"];
        let kept = record["kept"].as_array().unwrap().last();
        let later = |at: &Value| at.as_i64().is_some_and(|at| at > now_ms());
        match (job["state"].as_str().unwrap(), kept) {
            ("building" | "proving", _) if job["collection"] == live => Phase::Switching,
            ("building", _) => Phase::Building,
            ("proving", _) => Phase::Proving,
            ("done", Some(kept)) if later(&kept["warm_until"]) => Phase::Warm,
            ("done", Some(kept)) if later(&kept["drop_at"]) => Phase::Kept,
            ("done", Some(_)) => Phase::Dropping,
            ("done", None) => Phase::Over,
            (other, _) => panic!("a rebuild that is {other}: {record}"),
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn in_sqlite(data: &Path) -> (String, String, BTreeSet<String>) {
    let store = rusqlite::Connection::open(data.join("read-models.sqlite")).unwrap();
    let one = |sql: &str| store.query_row(sql, (), |row| row.get::<_, String>(0)).unwrap();
    let note = one("SELECT note FROM notes WHERE name = 'projection/timeline'");
    let live = one("SELECT collection FROM aliases WHERE projection = 'timeline'");
    let mut tables = store
        .prepare("SELECT substr(name, 11) FROM sqlite_master WHERE name LIKE 'documents timeline@%'")
        .unwrap();
    let tables = tables.query_map((), |row| row.get(0)).unwrap();
    (note, live, tables.map(Result::unwrap).collect())
}

async fn in_mongodb(database: mongodb::Database) -> (String, String, BTreeSet<String>) {
    let one = async |collection: &str, id: &str, field: &str| {
        let found = database.collection::<Document>(collection).find_one(doc! {"_id": id}).await.unwrap();
        found.unwrap().get_str(field).unwrap().to_owned()
    };
    let note = one("meta.notes", "projection/timeline", "note").await;
    let live = one("meta.aliases", TIMELINE, "collection").await;
    let all = database.list_collection_names().await.unwrap();
    (note, live, all.into_iter().filter(|name| name.starts_with("timeline@")).collect())
}

fn standing(server: &Server) -> Value {
    server.get_json("/api/projections/timeline?counts=false")
}

/// Asks until the timeline stands as wished.
fn until(server: &Server, wished: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let standing = standing(server);
        if wished(&standing) {
            return standing;
        }
        assert!(started.elapsed() < COMES_WITHIN, "it does not come to it: {standing}");
    }
}

/// Whether what is aimed at has begun, or is over.
fn has_come_to(aim: Phase, standing: &Value) -> bool {
    let kept = standing["kept"].as_array().unwrap().last();
    let state = standing["job"]["state"].as_str();
    let is_over = |at: &Value| at.as_i64().is_none_or(|at| at <= now_ms());
    match aim {
        Phase::Building => state.is_some(),
        Phase::Proving => state == Some("proving") || state == Some("done"),
        Phase::Switching => state == Some("done") || standing["build"] == standing["job"]["build"],
        Phase::Warm => state == Some("done"),
        Phase::Kept => state == Some("done") && kept.is_none_or(|kept| is_over(&kept["warm_until"])),
        Phase::Dropping | Phase::Over => {
            state == Some("done") && kept.is_none_or(|kept| is_over(&kept["drop_at"]))
        }
    }
}

/// Orders a rebuild if none is under way and none is to be seen to its end, and kills the server a
/// random while after it came to what is aimed at.
fn killed_at(server: Server, aim: Phase, chance: &mut Chance) {
    let standing = until(&server, |standing| standing["state"] == "live");
    let is_active = matches!(standing["job"]["state"].as_str(), Some("building" | "proving"));
    let goes_on = aim >= Phase::Warm && !standing["kept"].as_array().unwrap().is_empty();
    if !is_active && !goes_on {
        let (status, answer) = server.post("/api/projections/timeline/rebuild", &json!({}));
        assert_eq!(status, 202, "{answer}");
        // What is shown until then is the build before.
        until(&server, |now| now["job"]["build"] != standing["job"]["build"]);
    }
    until(&server, |standing| has_come_to(aim, standing));
    // Some moments have many answers' time, some none.
    let answers_max = 1 << chance.below(6);
    for _ in 0..chance.below(answers_max) {
        server.get_json("/api/projections/timeline?counts=false");
    }
    server.kill();
}

fn killed_in_every_phase(place: &Place) {
    let kills_wanted = if long_tier() { 50 } else { 6 };
    let (mut chance, logs) = (Chance::new(), tempfile::tempdir().unwrap());
    let server = place.serve();
    let log = file(logs.path(), "den-2010-03-08.txt", chat_log(1_500, 3));
    imported(&server, &[log], &["--room", "den"]);
    caught_up(&server);
    server.kill();
    let (mut seen, mut hits) = (Seen::default(), BTreeMap::<Phase, u32>::new());
    for kill in 0..kills_wanted {
        let server = place.serve();
        let address = server.address;
        seen.until_gone(address, place.rate(), || killed_at(server, AIMS[kill % AIMS.len()], &mut chance));
        *hits.entry(place.phase()).or_default() += 1;
    }
    let (posted, asked) = (seen.posted.len(), seen.asked);
    println!("killed at {hits:?} while {posted} messages were posted and {asked} queries answered");
    ends_right(place, &seen.posted);
}

/// It comes to its end by itself: what is live is what the log says, what was acknowledged is in
/// it, and what was to be dropped is gone.
fn ends_right(place: &Place, posted: &BTreeSet<u64>) {
    let server = place.serve();
    let over = |standing: &Value| {
        standing["job"]["state"] == "done" && standing["kept"].as_array().unwrap().is_empty()
    };
    let ended = until(&server, over);
    assert_eq!(ended["build"], ended["job"]["build"]);
    caught_up(&server);
    let output = server.run(&["projections", "verify", TIMELINE]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let shown = shown(&server);
    let there = posted.intersection(&shown).count();
    assert!(posted.is_subset(&shown), "{there} of {} are there", posted.len());
    assert_eq!(server.terminate(), Some(0));
    let (_, live, builds) = place.stored();
    assert_eq!(builds, BTreeSet::from([live]), "nothing is left behind");
}

/// The revisions of the room's messages.
fn shown(server: &Server) -> BTreeSet<u64> {
    let (mut shown, mut before) = (BTreeSet::new(), String::new());
    loop {
        let page = server.get_json(&format!("/api/rooms/den/timeline?limit=200{before}"));
        let messages = page["messages"].as_array().unwrap();
        shown.extend(messages.iter().map(|message| message["revision"].as_u64().unwrap()));
        if page["more"] == false {
            return shown;
        }
        before = format!("&before={}", messages[0]["revision"]);
    }
}

#[test]
fn a_rebuild_killed_in_any_phase_ends_right() {
    killed_in_every_phase(&Place { data: tempfile::tempdir().unwrap(), database: None });
}

#[test]
fn a_rebuild_in_mongodb_killed_in_any_phase_ends_right() {
    let Some(database) = Database::new("a rebuild with MongoDB killed in any phase") else { return };
    killed_in_every_phase(&Place { data: tempfile::tempdir().unwrap(), database: Some(database) });
}
