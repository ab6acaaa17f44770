//! Backups are taken while the server works and bring back what was, up to any point.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use serde_json::{Value, json};
use support::documents::{Documents, documents};
use support::imports::{caught_up, chat_log, file, head, imported, imported_by_days};
use support::{Server, dramatis};

/// Many segments, so that most of a log is closed.
const SEGMENTS: [(&str, &str); 1] = [("DRAMATIS__LOG__SEGMENT_BYTES", "65536")];

fn start(data: &Path) -> Server {
    Server::start_with(data, &[], &SEGMENTS)
}

fn backup(arguments: &[&str], store: &Path) -> Output {
    dramatis().arg("backup").args(arguments).arg("--store").arg(store).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn backed_up(store: &Path, data: &Path, name: &str) -> Value {
    let made = backup(&["create", "--name", name, "--data", data.to_str().unwrap()], store);
    assert!(made.status.success(), "{}", text(&made));
    let listed = backup(&["list", "--json"], store);
    let listed = support::lines_of_json(&listed.stdout);
    listed.into_iter().find(|backup| backup["name"] == name).unwrap()
}

fn importing(server: &Server, files: &[PathBuf]) -> Child {
    dramatis()
        .args(["import", "irc", "--room", "later", "--in-flight", "16", "--url", &server.url()])
        .args(files)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn restored(store: &Path, name: &str, into: &Path, until: &[&str]) -> String {
    let output = backup(&[&["restore", name, "--into", into.to_str().unwrap()], until].concat(), store);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// The events of a data directory, and its read models once they have caught up.
fn served(data: &Path) -> (Vec<Value>, BTreeMap<String, Documents>) {
    let server = start(data);
    caught_up(&server);
    let events = server.events(&[]);
    assert_eq!(server.terminate(), Some(0));
    (events, documents(data))
}

#[test]
fn a_backup_under_load_brings_back_any_moment_of_it() {
    let (data, store, logs) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = start(data.path());
    imported_by_days(&server, logs.path(), "den", 5);
    let epoch = epoch_of(&server, "den");
    server.session_noted("nobody");
    assert_eq!(server.terminate(), Some(0));
    let (then, documents_then) = served(data.path());
    let last = then.last().unwrap();
    let (position, time) = (last["position"].as_str().unwrap(), last["recorded_at"].to_string());

    let server = start(data.path());
    let late = file(logs.path(), "late-2010-04-09.txt", chat_log(4_000, 4));
    let mut load = importing(&server, &[late]);
    let standing = |server: &Server| head(server).unwrap();
    let from = standing(&server);
    while standing(&server) < from + 500 {
        std::thread::yield_now();
    }
    let first = backed_up(store.path(), data.path(), "first");
    while standing(&server) < from + 2_500 {
        std::thread::yield_now();
    }
    let second = backed_up(store.path(), data.path(), "second");
    assert!(load.wait().unwrap().success());
    let all = server.events(&[]);
    server.kill();
    drop(data);

    let count = |backup: &Value| usize::try_from(backup["events"].as_u64().unwrap()).unwrap();
    assert!(count(&first) > then.len() && count(&second) > count(&first) && count(&second) <= all.len());
    let parts = |backup: &Value| -> BTreeMap<String, u64> {
        let part =
            |part: &Value| (part["file"].as_str().unwrap().to_owned(), part["bytes"].as_u64().unwrap());
        backup["parts"].as_array().unwrap().iter().map(part).collect()
    };
    let (before, after) = (parts(&first), parts(&second));
    assert!(after.keys().filter(|file| before.contains_key(*file)).count() >= 5);
    let new: u64 = after.iter().filter(|(file, _)| !before.contains_key(*file)).map(|(_, bytes)| bytes).sum();
    assert_eq!(second["new_bytes"], new, "closed segments are copied once");
    assert!(second["read_models"]["aliases"].as_array().unwrap().len() >= 3);
    let whole = backup(&["verify"], store.path());
    assert!(whole.status.success() && text(&whole).contains("backup second is whole"), "{}", text(&whole));

    let into = tempfile::tempdir().unwrap();
    for until in [["--until-position", position], ["--until-time", &time]] {
        let data = into.path().join(until[0]);
        restored(store.path(), "second", &data, &until);
        let (events, documents) = served(&data);
        assert_eq!(events, then, "{until:?}");
        assert_eq!(documents, documents_then, "{until:?}");
    }
    for made in [&first, &second] {
        let name = made["name"].as_str().unwrap();
        let data = into.path().join(name);
        restored(store.path(), name, &data, &[]);
        let (events, _) = served(&data);
        assert_eq!(events, all[..count(made)]);
        // What was restored goes on as a log of its own epoch.
        let server = start(&data);
        assert_ne!(epoch_of(&server, "den"), epoch);
        assert_eq!(reset(&server, "den", &epoch), json!("reset"));
        assert_eq!(server.client("zoe", &json!([])).ask("den", "join", &json!({}))["type"], "ack");
        server.session_noted("zoe");
        assert_eq!(server.terminate(), Some(0));
        // Zoe came with a session of her own, and joined.
        assert_eq!(served(&data).0.len(), count(made) + 2);
    }
}

fn subscribed(server: &Server, room: &str, epoch: Option<&str>) -> Value {
    let mut client = server.client("nobody", &json!([]));
    client.send(&json!({"type": "subscribe", "id": "s", "room": room, "after": 3, "epoch": epoch}));
    client.receive_type("subscribed")
}

fn epoch_of(server: &Server, room: &str) -> String {
    subscribed(server, room, None)["epoch"].as_str().unwrap().to_owned()
}

fn reset(server: &Server, room: &str, epoch: &str) -> Value {
    subscribed(server, room, Some(epoch))["how"].clone()
}

fn left_by_a_stopped_restore(data: &str) -> PathBuf {
    let left = Path::new(data).join("log.unfinished");
    std::fs::create_dir_all(&left).unwrap();
    left
}

#[test]
fn what_cannot_be_restored_is_refused_and_says_why() {
    let (data, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = start(data.path());
    let logs = tempfile::tempdir().unwrap();
    imported(&server, &[file(logs.path(), "den-2010-03-08.txt", chat_log(800, 5))], &["--room", "den"]);
    assert_eq!(server.terminate(), Some(0));
    let made = backed_up(store.path(), data.path(), "only");
    let refused = |arguments: &[&str], why: &str| {
        let output = backup(arguments, store.path());
        let said = text(&output);
        let code = if arguments[0] == "verify" { 2 } else { 1 };
        assert!(output.status.code() == Some(code) && said.contains(why), "{arguments:?}: {said}");
    };
    let (full, free) = (data.path().to_str().unwrap(), store.path().join("free"));
    let free = free.to_str().unwrap();
    refused(&["restore", "only", "--into", full], "is not empty");
    refused(&["restore", "other", "--into", free], "there is no backup other");
    refused(&["restore", "../only", "--into", free], "there is no backup ../only");
    refused(&["restore", "only", "--into", free, "--until-position", "99999999"], "does not reach position");
    refused(&["create", "--name", "a/b", "--data", full], "a backup's name must");
    refused(&["create", "--name", "only", "--data", full], "there is a backup only already");
    refused(&["create", "--name", "none", "--data", free], "holds no log");
    assert!(!Path::new(free).exists(), "a refused restore leaves nothing behind");

    let part = store.path().join(made["parts"][0]["file"].as_str().unwrap());
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[777] ^= 1;
    std::fs::write(&part, &bytes).unwrap();
    refused(&["verify", "only"], part.file_name().unwrap().to_str().unwrap());
    for _ in 0..2 {
        refused(&["restore", "only", "--into", free], "is damaged");
        let left = Path::new(free).read_dir().is_ok_and(|mut entries| entries.next().is_some());
        assert!(!left, "a restore that failed leaves nothing behind");
    }
    let held = std::fs::File::open(free).unwrap();
    held.lock().unwrap();
    refused(&["restore", "only", "--into", free], "another restore is at work there");
    drop(held);
    bytes[777] ^= 1;
    std::fs::write(&part, &bytes).unwrap();
    file(&left_by_a_stopped_restore(free), "00000000000000000007.segment", "of another backup");
    assert_eq!(backup(&["restore", "only", "--into", free], store.path()).status.code(), Some(0));
    let log = Path::new(free).join("log");
    assert!(log.is_dir() && !log.join("00000000000000000007.segment").exists());
    bytes.truncate(800);
    std::fs::write(&part, &bytes).unwrap();
    refused(&["verify", "only"], "the manifest says");
}

/// What stands behind damage in the open segment was acknowledged: a backup without it would be a lie.
#[test]
fn damage_in_the_open_segment_is_not_left_out_of_a_backup() {
    let (data, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    for room in ["den", "attic", "hall"] {
        server.open_room(room, "olga");
    }
    assert_eq!(server.terminate(), Some(0));
    let log = data.path().join("log");
    let mut segments = log.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let open = segments.find(|path| path.extension().is_some_and(|ending| ending == "segment")).unwrap();
    let sound = std::fs::read(&open).unwrap();
    let mut bytes = sound.clone();
    bytes[48 + 56 + 20] ^= 1;
    std::fs::write(&open, &bytes).unwrap();
    let create =
        || backup(&["create", "--name", "only", "--data", data.path().to_str().unwrap()], store.path());
    let made = create();
    assert_eq!(made.status.code(), Some(1), "{}", text(&made));
    assert!(text(&made).contains("is damaged at byte 48: a batch's checksum is wrong"), "{}", text(&made));
    assert!(!store.path().join("only").exists(), "what failed is not in the way");

    // A backup that was stopped is not in the way either, nor is an unfinished tail damage.
    std::fs::create_dir(store.path().join("only")).unwrap();
    std::fs::write(store.path().join("only").join("tail.segment"), "half").unwrap();
    let mut bytes = sound;
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last] ^= 1;
    std::fs::write(&open, &bytes).unwrap();
    let made = create();
    assert!(made.status.success(), "{}", text(&made));
    assert!(backup(&["verify", "only"], store.path()).status.success());
}

/// A server may be about to begin the next segment: that holds nothing yet.
#[test]
fn a_segment_that_is_being_begun_is_no_damage_to_a_backup() {
    let (data, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    server.open_room("den", "olga");
    let events = server.events(&[]);
    assert_eq!(server.terminate(), Some(0));
    let begun = data.path().join("log").join(format!("{:020}.segment", events.len()));
    for bytes in [&[][..], &[0; 48]] {
        std::fs::write(&begun, bytes).unwrap();
        let name = format!("begun-{}", bytes.len());
        let made = backed_up(store.path(), data.path(), &name);
        assert_eq!(made["events"], events.len());
        let into = store.path().join(format!("restored-{}", bytes.len()));
        restored(store.path(), &name, &into, &[]);
        assert_eq!(served(&into).0, events);
    }
}

#[test]
fn a_store_among_the_logs_own_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = start(&data);
    let log = data.join("log");
    std::os::unix::fs::symlink(&log, dir.path().join("link")).unwrap();
    let names = || {
        let entries = std::fs::read_dir(&log).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    for store in ["data/log", "data/log/backups/new", "data/../data/log", "link", "link/new"] {
        let making = backup(&["create", "--data", data.to_str().unwrap()], &dir.path().join(store));
        assert_eq!(making.status.code(), Some(1), "{store}: {}", text(&making));
        assert!(text(&making).contains("where the log itself is"), "{store}: {}", text(&making));
    }
    assert_eq!(names(), before);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_store_that_another_process_has_to_itself_is_waited_for_and_that_is_said() {
    let (data, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(start(data.path()).terminate(), Some(0));
    let held = std::fs::File::open(store.path()).unwrap();
    held.lock().unwrap();
    let mut making = dramatis()
        .args(["backup", "create", "--data", data.path().to_str().unwrap(), "--store"])
        .arg(store.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Until it is said, or for so long that it will not be.
    let (is_said, heard) = std::sync::mpsc::channel::<()>();
    let holds = std::thread::spawn(move || {
        let _ = heard.recv_timeout(support::PATIENCE);
        drop(held);
    });
    let mut said = String::new();
    let mut errors = BufReader::new(making.stderr.take().unwrap());
    while !said.contains("waiting for another process that has the store") {
        assert!(errors.read_line(&mut said).unwrap() > 0, "it ends: {said}");
    }
    is_said.send(()).unwrap();
    holds.join().unwrap();
    let output = making.wait_with_output().unwrap();
    assert!(output.status.success() && text(&output).contains("events"), "{}", text(&output));
}
