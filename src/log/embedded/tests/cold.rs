//! Closed segments in a second directory: read as before, found again, and missed by name.

use std::path::PathBuf;
use std::time::Duration;

use dramatis_events::UnixMillis;

use super::backup::{Source, Until, Wanted};
use super::offline::{Damage, Observer, Place};
use super::wrapped::Wrapped;
use super::*;
use crate::log::Expected;
use crate::log::contract::{append, command, event, everything, fill, of_command, stream};

const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };

fn tiered(cold: &Path, hot_segments_max: usize) -> Options {
    Options { cold_dir: Some(cold.to_owned()), hot_segments_max, ..tiny() }
}

async fn all(log: &EmbeddedLog) -> Vec<Arc<Recorded>> {
    everything(log, &Filter::default(), PAGE).await
}

/// Files with this ending, in order.
fn names(dir: &Path, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(ending));
    names.sort();
    names
}

/// A closed log of several segments in two directories, and its events.
async fn grown(hot_segments_max: usize) -> (tempfile::TempDir, PathBuf, PathBuf, Vec<Arc<Recorded>>) {
    let dir = tempfile::tempdir().unwrap();
    let (hot, cold) = (dir.path().join("hot"), dir.path().join("cold"));
    let log = open(&hot, tiered(&cold, hot_segments_max)).unwrap();
    for number in 0..12 {
        for room in ["a", "b"] {
            let room = stream(&format!("room-main.{room}"));
            let asked = vec![of_command("alice", &format!("c{number}"))];
            append(&log, &room, Expected::Any, asked).await.unwrap();
            fill(&log, &room, 3, &"long data ".repeat(20)).await;
        }
    }
    let events = all(&log).await;
    drop(log);
    (dir, hot, cold, events)
}

async fn reads_right(log: &EmbeddedLog, events: &[Arc<Recorded>]) {
    assert!(all(log).await == events);
    for name in ["room-main.a", "room-main.b"] {
        let room = stream(name);
        let mine: Vec<_> = events.iter().filter(|event| event.stream == room).cloned().collect();
        assert!(log.read_stream(&room, Revision::FIRST, PAGE).await.unwrap() == mine);
        assert!(log.find_command(command(&room, "alice", "c0")).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract_in_two_tiers() {
    for hot_segments_max in [0, 2] {
        let cold = tempfile::tempdir().unwrap();
        keeps_the_contract(tiered(cold.path(), hot_segments_max)).await;
        assert!(names(cold.path(), ".segment").len() > 10, "closed segments move");
    }
}

#[tokio::test]
async fn reopening_finds_both_tiers() {
    for hot_segments_max in [0, 2] {
        let (_dir, hot, cold, events) = grown(hot_segments_max).await;
        assert_eq!(names(&hot, ".segment").len(), hot_segments_max + 1);
        assert_eq!(names(&hot, ".index").len(), hot_segments_max);
        assert!(!names(&cold, ".segment").is_empty());
        assert_eq!(names(&cold, ".segment").len(), names(&cold, ".index").len());
        let log = open(&hot, tiered(&cold, hot_segments_max)).unwrap();
        reads_right(&log, &events).await;
        fill(&log, &stream("room-main.a"), 30, &"long data ".repeat(20)).await;
        let more = all(&log).await;
        assert!(more.len() == events.len() + 30 && more.starts_with(&events));
        drop(log);
        // Less is kept hot from now on.
        let log = open(&hot, tiered(&cold, 0)).unwrap();
        reads_right(&log, &more).await;
        drop(log);
        assert_eq!(names(&hot, ".segment").len(), 1);
    }
}

#[tokio::test]
async fn a_missing_cold_tier_is_told_from_damage() {
    let (dir, hot, cold, events) = grown(1).await;
    let elsewhere = dir.path().join("elsewhere");
    for options in [tiny(), tiered(&elsewhere, 1)] {
        let before = names(&hot, "");
        let error = open(&hot, options).err().expect("segments are missing").to_string();
        assert!(error.contains("cold tier") && error.contains("log.cold_dir"), "{error}");
        assert_eq!(names(&hot, ""), before, "nothing is begun anew");
    }
    assert!(!elsewhere.exists(), "it would stand in the way of the one that is missed");
    reads_right(&open(&hot, tiered(&cold, 1)).unwrap(), &events).await;
    // One of its segments is gone.
    let gone = names(&cold, ".segment").remove(1);
    std::fs::remove_file(cold.join(gone)).unwrap();
    let error = open(&hot, tiered(&cold, 1)).err().expect("a segment is missing").to_string();
    assert!(error.contains("cold") && !error.contains("position 0 to"), "{error}");
}

#[tokio::test]
async fn a_crash_between_copy_and_removal_leaves_both_and_still_opens() {
    let (_dir, hot, cold, events) = grown(1).await;
    let moved = names(&cold, ".segment");
    for name in [moved[0].clone(), moved[1].replace(".segment", ".index")] {
        std::fs::copy(cold.join(&name), hot.join(&name)).unwrap();
    }
    // A copy that was not finished.
    let whole = std::fs::read(cold.join(&moved[0])).unwrap();
    std::fs::write(cold.join(format!("{}.tmp", moved[0])), &whole[..whole.len() / 2]).unwrap();
    let log = open(&hot, tiered(&cold, 1)).unwrap();
    reads_right(&log, &events).await;
    drop(log);
    assert!(!names(&hot, ".segment").contains(&moved[0]), "it moves again");
    assert_eq!(names(&cold, ".segment"), moved);
    reads_right(&open(&hot, tiered(&cold, 1)).unwrap(), &events).await;
}

#[tokio::test]
async fn damage_in_the_cold_tier_is_named() {
    let (_dir, hot, cold, events) = grown(0).await;
    let name = names(&cold, ".segment").remove(1);
    let mut bytes = std::fs::read(cold.join(&name)).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(cold.join(&name), bytes).unwrap();
    let log = open(&hot, tiered(&cold, 0)).unwrap();
    let (mut after, mut read) = (None, 0);
    let error = loop {
        match log.read_all(after, Filter::default(), ReadLimit::events(1)).await {
            Ok(page) => {
                assert_eq!(page.events, events[read..=read]);
                (after, read) = (page.scanned, read + 1);
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, LogError::Damaged { file, .. } if *file == name), "{error}");
    let told = log.warnings();
    assert!(told.iter().any(|told| told.contains(&name) && told.contains("dramatis log verify")), "{told:?}");
}

fn refused(result: Result<EmbeddedLog, OpenError>) -> String {
    result.err().expect("it is another log's cold tier").to_string()
}

/// Every file of a directory with its bytes.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(dir.join(name)).unwrap());
    names(dir, "").into_iter().map(read).collect()
}

fn wanted() -> Wanted {
    let read_models = serde_json::Value::Null;
    Wanted { name: "one".to_owned(), created_at: UnixMillis::new(1_700_000_000_000), read_models }
}

/// The first events of a log, restored from a backup of it.
fn restored(dir: &Path, hot: &Path, cold: &Path, last: Position) -> PathBuf {
    let (store, data) = (dir.join("store"), dir.join("restored"));
    let now = UnixMillis::new(1_700_000_000_000);
    backup::create(&Source::new(hot, Some(cold)), &store, wanted(), &mut || {}, &mut |_, _| {}).unwrap();
    backup::restore(&store, "one", &data, Until::Position(last), now, &mut |_, _| {}).unwrap();
    data.join("log")
}

/// What was cut must not come back, and what is there must not be written over.
#[tokio::test]
async fn a_restored_log_begins_with_a_cold_tier_of_its_own() {
    for older_release in [false, true] {
        let (dir, hot, cold, events) = grown(1).await;
        let own = restored(dir.path(), &hot, &cold, events[40].position);
        if older_release {
            for dir in [&hot, &cold] {
                let _ = std::fs::remove_file(dir.join("tier"));
            }
        }
        let before = contents(&cold);
        let error = refused(open(&own, tiered(&cold, 1)));
        assert!(error.contains("is not this log's cold tier") && error.contains("log.cold_dir"), "{error}");
        assert_eq!(contents(&cold), before);
        let empty = dir.path().join("empty");
        for _ in 0..2 {
            let log = open(&own, tiered(&empty, 1)).unwrap();
            assert!(events.starts_with(&all(&log).await));
        }
        assert!(!names(&empty, ".segment").is_empty());
        // The old log has what it had.
        reads_right(&open(&hot, tiered(&cold, 1)).unwrap(), &events).await;
        refused(open(&hot, tiered(&empty, 1)));
        refused(open(&own, tiered(&cold, 1)));
    }
}

#[tokio::test]
async fn two_logs_do_not_share_a_cold_tier() {
    let (dir, hot, cold, events) = grown(1).await;
    let other = dir.path().join("other");
    for older_release in [false, true] {
        if older_release {
            for dir in [&hot, &cold] {
                let _ = std::fs::remove_file(dir.join("tier"));
            }
        }
        let before = contents(&cold);
        assert!(refused(open(&other, tiered(&cold, 0))).contains("is not this log's cold tier"));
        // It has a history of its own by now.
        drop(open(&other, tiny()).unwrap());
        assert!(refused(open(&other, tiered(&cold, 0))).contains("is not this log's cold tier"));
        assert_eq!(contents(&cold), before);
        std::fs::remove_dir_all(&other).unwrap();
    }
    reads_right(&open(&hot, tiered(&cold, 1)).unwrap(), &events).await;
    drop(open(&other, tiny()).unwrap());
    refused(open(&other, tiered(&cold, 0)));
}

#[tokio::test]
async fn a_logs_own_directory_is_no_cold_tier() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), tiny()).unwrap();
    fill(&log, &stream("room-main.a"), 40, &"long data ".repeat(20)).await;
    let events = all(&log).await;
    drop(log);
    let before = names(dir.path(), "");
    let round_about = dir.path().join("..").join(dir.path().file_name().unwrap());
    let error = refused(open(dir.path(), tiered(&round_about, 0)));
    assert!(error.contains("log.cold_dir"), "{error}");
    assert_eq!(names(dir.path(), ""), before);
    assert!(all(&open(dir.path(), tiny()).unwrap()).await == events);
}

/// All files of a directory but its lock, in another one.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in names(from, "").iter().filter(|name| *name != "LOCK") {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Two histories with one beginning give their segments the same names: in one place each would
/// write over what the other was told is safe.
#[tokio::test]
async fn a_log_and_its_copy_do_not_share_a_cold_tier() {
    let (dir, hot, cold, events) = grown(1).await;
    let (copy, empty) = (dir.path().join("copy"), dir.path().join("empty"));
    copied(&hot, &copy);
    let log = open(&hot, tiered(&cold, 1)).unwrap();
    let before = contents(&cold);
    let error = refused(open(&copy, tiered(&cold, 1)));
    assert!(error.contains("cold tier") && error.contains(cold.to_str().unwrap()), "{error}");
    drop(log);
    // Whichever goes on first keeps it.
    assert!(refused(open(&copy, tiered(&cold, 1))).contains("is not this log's cold tier"));
    assert_eq!(contents(&cold), before);
    refused(open(&copy, tiered(&empty, 1)));
    reads_right(&open(&hot, tiered(&cold, 1)).unwrap(), &events).await;
    // One that was only moved takes it along.
    let moved = dir.path().join("moved");
    std::fs::rename(&hot, &moved).unwrap();
    reads_right(&open(&moved, tiered(&cold, 1)).unwrap(), &events).await;
}

/// A full disk takes no new id; what is recorded can be read all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cold_tier_that_takes_no_new_id_keeps_its_own() {
    let (_dir, hot, cold, events) = grown(1).await;
    for dir in [&cold, &hot] {
        // Nothing can be put in place through it.
        std::fs::create_dir(dir.join("tier.tmp")).unwrap();
        for _ in 0..2 {
            reads_right(&open(&hot, tiered(&cold, 1)).unwrap(), &events).await;
        }
        std::fs::remove_dir(dir.join("tier.tmp")).unwrap();
        reads_right(&open(&hot, tiered(&cold, 1)).unwrap(), &events).await;
    }
}

struct Deaf;

impl Observer for Deaf {
    fn begin(&mut self, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn damage(&mut self, _: &Damage) {}
    fn note(&mut self, _: &str) {}
}

#[tokio::test]
async fn offline_commands_and_backups_look_at_the_right_cold_tier_too() {
    let (dir, hot, cold, _) = grown(1).await;
    let (_other, hot_of_other, _, _) = grown(1).await;
    let store = dir.path().join("store");
    let verified = |hot: &Path| {
        let place = Place { dir: hot.to_owned(), cold: Some(cold.clone()) };
        offline::verify(&place, &mut Deaf).map_err(|error| error.to_string())
    };
    let backed_up = |hot: &Path| {
        let source = Source::new(hot, Some(&cold));
        backup::create(&source, &store, wanted(), &mut || {}, &mut |_, _| {})
            .map_err(|error| error.to_string())
    };
    for error in [verified(&hot_of_other).unwrap_err(), backed_up(&hot_of_other).unwrap_err()] {
        assert!(error.contains("is not this log's cold tier"), "{error}");
    }
    assert_eq!(verified(&hot).unwrap().damaged, 0);
    backed_up(&hot).unwrap();
}

/// Appends go on however long a move takes, and however many segments are closed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_tier_that_hangs_stops_no_append() {
    let dir = tempfile::tempdir().unwrap();
    let (hot, cold) = (dir.path().join("hot"), dir.path().join("cold"));
    std::fs::create_dir(&hot).unwrap();
    std::fs::create_dir(&cold).unwrap();
    let (storage, hangs, release) = Wrapped::new(&hot, Some(&cold)).holding();
    let clock = Arc::new(ManualClock::default());
    let options = Options { hot_segments_max: 0, ..tiny() };
    let log =
        EmbeddedLog::open_storage(Arc::new(storage), Vec::new(), &options, clock, Closer::beside).unwrap();
    let (room, data) = (stream("room-main.a"), "long data ".repeat(80));
    fill(&log, &room, 8, &data).await;
    hangs.recv().unwrap();
    // A guard only: without the mend this would wait for ever.
    let filled = tokio::time::timeout(Duration::from_mins(1), fill(&log, &room, 80, &data)).await;
    let moved = names(&cold, ".segment");
    drop(release);
    filled.expect("appends wait for the cold tier");
    assert!(moved.is_empty(), "{moved:?}");
    let events = all(&log).await;
    assert_eq!(events.len(), 88);
    drop(log);
    assert_eq!(names(&hot, ".segment").len(), 1, "what waited has moved");
    assert!(all(&open(&hot, tiered(&cold, 0)).unwrap()).await == events);
}

/// A room that was quiet for long stands in the cold tier only: who posts there waits for it, others do
/// not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_into_a_cold_tier_that_hangs_stops_no_other_append() {
    let dir = tempfile::tempdir().unwrap();
    let (hot, cold) = (dir.path().join("hot"), dir.path().join("cold"));
    let (quiet, busy, data) = (stream("room-main.quiet"), stream("room-main.busy"), "long data ".repeat(80));
    let log = open(&hot, tiered(&cold, 1)).unwrap();
    fill(&log, &quiet, 2, "said long ago").await;
    fill(&log, &busy, 40, &data).await;
    drop(log);
    let storage = Arc::new(Wrapped::new(&hot, Some(&cold)));
    let (clock, options) = (Arc::new(ManualClock::default()), Options { hot_segments_max: 1, ..tiny() });
    let mut log =
        EmbeddedLog::open_storage(storage.clone(), Vec::new(), &options, clock, Closer::beside).unwrap();
    log.tiered = true;
    let (hangs, release) = storage.hold_open(&names(&cold, ".index")[0]);
    let (said, waits) = (vec![event("Said", "1")], Expected::Exact(Revision::new(1)));
    let late = tokio::spawn(log.append(Append { stream: quiet.clone(), expected: waits, envelopes: said }));
    hangs.recv().unwrap();
    let filled = tokio::time::timeout(GUARD, fill(&log, &busy, 20, &data)).await;
    assert!(!late.is_finished());
    drop(release);
    filled.expect("appends to a hot room wait for the cold tier");
    // Segments were closed meanwhile: what was looked up is looked up again.
    assert_eq!(late.await.unwrap().unwrap()[0].revision, Revision::new(2));
    assert_eq!(log.read_stream(&quiet, Revision::FIRST, PAGE).await.unwrap().len(), 3);
}

/// What is not done is told to whoever looks at health, until it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_move_is_told_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let (hot, cold) = (dir.path().join("hot"), dir.path().join("cold"));
    let in_the_way = cold.join("00000000000000000000.segment.tmp");
    std::fs::create_dir_all(&in_the_way).unwrap();
    let log = open(&hot, tiered(&cold, 0)).unwrap();
    let started = std::time::Instant::now();
    let told = |log: &EmbeddedLog| {
        assert!(started.elapsed() < GUARD, "{:?}", log.warnings());
        log.warnings().iter().any(|warning| warning.contains("log.cold_dir"))
    };
    while !told(&log) {
        fill(&log, &stream("room-main.a"), 8, &"long data ".repeat(80)).await;
    }
    std::fs::remove_dir(&in_the_way).unwrap();
    // No segment need be closed for that.
    while told(&log) {
        tokio::task::yield_now().await;
    }
    assert!(!names(&cold, ".segment").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_derived_and_could_not_be_written_is_tried_again() {
    for in_the_way in ["00000000000000000000.index.tmp", "chain.tmp"] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), tiny()).unwrap();
        std::fs::create_dir(dir.path().join(in_the_way)).unwrap();
        fill(&log, &stream("room-main.a"), 12, &"long data ".repeat(80)).await;
        let started = std::time::Instant::now();
        let told = || {
            assert!(started.elapsed() < GUARD, "{:?}", log.warnings());
            log.warnings().iter().any(|warning| warning.contains("the index or the hash of"))
        };
        while !told() {
            tokio::task::yield_now().await;
        }
        std::fs::remove_dir(dir.path().join(in_the_way)).unwrap();
        while told() {
            tokio::task::yield_now().await;
        }
        let chain = std::fs::read_to_string(dir.path().join("chain")).unwrap();
        let closed = names(dir.path(), ".segment").len() - 1;
        assert_eq!((chain.lines().count(), names(dir.path(), ".index").len()), (closed, closed), "{chain}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_tier_that_went_away_is_told_and_keeps_no_room_from_being_opened() {
    let (_dir, hot, cold, events) = grown(0).await;
    let log = open(&hot, tiered(&cold, 0)).unwrap();
    let away = cold.with_extension("away");
    std::fs::rename(&cold, &away).unwrap();
    // Segments of few streams say for certain which these are.
    fill(&log, &stream("room-main.new"), 1, "first words").await;
    let old = stream("room-main.a");
    let refused = append(&log, &old, Expected::NoStream, vec![event("Posted", "1")]).await;
    assert!(refused.is_err());
    assert!(log.read_stream(&old, Revision::FIRST, PAGE).await.is_err());
    let told = || log.warnings().join(" ");
    assert!(told().contains("older segments cannot be read") && told().contains("mounted"), "{}", told());
    // What lies here is read all the same, which says nothing of what does not.
    assert_eq!(log.read_stream(&stream("room-main.new"), Revision::FIRST, PAGE).await.unwrap().len(), 1);
    assert!(told().contains("older segments cannot be read"), "{}", told());
    std::fs::rename(&away, &cold).unwrap();
    assert!(!log.read_stream(&old, Revision::FIRST, PAGE).await.unwrap().is_empty());
    assert_eq!(all(&log).await.len(), events.len() + 1);
    let started = std::time::Instant::now();
    while !told().is_empty() {
        assert!(started.elapsed() < GUARD, "{}", told());
        tokio::task::yield_now().await;
    }
}

/// A guard only: without the mend it would wait for ever.
const GUARD: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_tier_that_hangs_stops_no_end() {
    let dir = tempfile::tempdir().unwrap();
    let (hot, cold) = (dir.path().join("hot"), dir.path().join("cold"));
    std::fs::create_dir(&hot).unwrap();
    std::fs::create_dir(&cold).unwrap();
    let (storage, hangs, release) = Wrapped::new(&hot, Some(&cold)).holding();
    let options = Options { hot_segments_max: 0, moving_patience: Duration::ZERO, ..tiny() };
    let clock = Arc::new(ManualClock::default());
    let log =
        EmbeddedLog::open_storage(Arc::new(storage), Vec::new(), &options, clock, Closer::beside).unwrap();
    fill(&log, &stream("room-main.a"), 8, &"long data ".repeat(80)).await;
    hangs.recv().unwrap();
    let (ended, ends) = mpsc::channel();
    let ending = std::thread::spawn(move || {
        drop(log);
        ended.send(()).unwrap();
    });
    let in_time = ends.recv_timeout(GUARD);
    drop(release);
    ending.join().unwrap();
    in_time.expect("the end waits for the cold tier");
}
