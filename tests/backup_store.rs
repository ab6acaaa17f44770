//! The store of backups: what is wrong in it is found, named and mended, and hides nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use support::imports::imported_by_days;
use support::{Server, dramatis};

/// A data directory with some closed segments, and an empty store.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::of_days(3)
    }

    fn of_days(days: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let small = [("DRAMATIS__LOG__SEGMENT_BYTES", "65536")];
        let server = Server::start_with(&dir.path().join("data"), &[], &small);
        imported_by_days(&server, dir.path(), "den", days);
        assert_eq!(server.terminate(), Some(0));
        Self { dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        told(&dramatis().arg("backup").args(arguments).arg("--store").arg(self.store()).output().unwrap())
    }

    fn create(&self, name: &str) {
        self.create_of(name, &self.data());
    }

    fn create_of(&self, name: &str, data: &Path) {
        let made = self.run(&["create", "--name", name, "--data", data.to_str().unwrap()]);
        assert_eq!(made.0, Some(0), "{}", made.1);
    }

    fn restore(&self, name: &str, into: &str) -> (Option<i32>, String) {
        self.run(&["restore", name, "--into", self.dir.path().join(into).to_str().unwrap()])
    }
}

fn told(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// The files of a directory with an extension or without, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn backups_made_at_a_time_share_what_they_copy() {
    let place = Place::of_days(10);
    let names: Vec<String> = (0..8).map(|number| format!("at-once-{number}")).collect();
    let making: Vec<_> = names
        .iter()
        .map(|name| {
            dramatis()
                .args(["backup", "create", "--name", name, "--data", place.data().to_str().unwrap()])
                .arg("--store")
                .arg(place.store())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for made in making {
        let (code, said) = told(&made.wait_with_output().unwrap());
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = place.run(&["verify"]);
    assert!(code == Some(0) && names.iter().all(|name| said.contains(&format!("backup {name} is whole"))));
    assert!(files(&place.store().join("segments")).len() >= 5);
    assert!(!said.contains(".part"), "{said}");
}

/// What `verify` calls whole is restored; what it does not is not.
#[test]
fn a_changed_byte_anywhere_in_a_backup_is_found() {
    let place = Place::new();
    place.create("only");
    let own = files(&place.store().join("only"));
    assert!(own.len() >= 3, "{own:?}");
    for path in own.iter().chain(&files(&place.store().join("segments"))) {
        let sound = std::fs::read(path).unwrap();
        for at in [0, sound.len() / 2, sound.len() - 2] {
            flip(path, at);
            let name = path.file_name().unwrap().to_str().unwrap();
            for (code, said) in [place.run(&["verify", "only"]), place.restore("only", "into")] {
                assert!(matches!(code, Some(1 | 2)) && said.contains(name), "{name} byte {at}: {said}");
            }
            std::fs::write(path, &sound).unwrap();
        }
    }
    let chain = place.store().join("only").join("chain");
    let sound = std::fs::read(&chain).unwrap();
    let last = sound[..sound.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    std::fs::write(&chain, &sound[..last]).unwrap();
    assert_eq!(place.run(&["verify", "only"]).0, Some(2), "a line that is gone is damage too");
    std::fs::remove_file(&chain).unwrap();
    assert_eq!(place.run(&["verify", "only"]).0, Some(2));
    std::fs::write(&chain, sound).unwrap();
    assert_eq!(place.run(&["verify", "only"]).0, Some(0));
    assert_eq!(place.restore("only", "into").0, Some(0));
    // As earlier releases left it.
    std::fs::remove_file(place.store().join("only").join("b3sums")).unwrap();
    assert_eq!(place.run(&["verify", "only"]).0, Some(0));
    assert_eq!(place.restore("only", "older").0, Some(0));
}

#[test]
fn a_damaged_backup_hides_no_other() {
    let place = Place::new();
    for name in ["one", "two", "three"] {
        place.create(name);
    }
    let manifest = |name: &str| place.store().join(name).join("manifest.json");
    let sound = std::fs::read_to_string(manifest("two")).unwrap();
    std::fs::write(manifest("two"), &sound[..sound.len() / 2]).unwrap();
    let (code, said) = place.run(&["verify"]);
    assert!(code == Some(2) && said.contains("two/manifest.json is damaged"), "{said}");
    assert!(said.contains("backup one is whole") && said.contains("backup three is whole"), "{said}");
    let (code, said) = place.run(&["list"]);
    assert!(code == Some(2) && said.contains("two/manifest.json is damaged"), "{said}");
    assert!(said.contains("\none ") || said.starts_with("one "), "{said}");
    assert!(said.contains("\nthree "), "{said}");
    // Which one is the latest is not known then.
    assert_eq!(place.restore("latest", "latest").0, Some(1));
    assert_eq!(place.restore("three", "three").0, Some(0));

    std::fs::remove_file(place.store().join("two").join("b3sums")).unwrap();
    let newer = sound.replace("\"format\": 1", "\"format\": 9");
    std::fs::write(manifest("two"), newer).unwrap();
    let (_, said) = place.run(&["verify", "two"]);
    assert!(said.contains("format 9, newer than this release reads") && said.contains("upgrade"), "{said}");
    assert!(!said.contains("damaged"), "{said}");
}

#[test]
fn a_damaged_part_is_copied_again_as_it_is_told() {
    let place = Place::new();
    place.create("one");
    let part = files(&place.store().join("segments")).remove(0);
    flip(&part, 300);
    let (code, said) = place.run(&["verify"]);
    assert!(
        code == Some(2) && said.contains("remove that file if it is there and make another backup"),
        "{said}"
    );
    std::fs::remove_file(&part).unwrap();
    place.create("two");
    assert_eq!(place.run(&["verify"]).0, Some(0), "both hold it");
}

/// Backups are named by the time: nobody would come back to one that was stopped.
#[test]
fn what_was_stopped_is_removed_by_the_next_backup() {
    let place = Place::new();
    let leave = |dir: &str, name: &str| {
        let dir = place.store().join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), "half").unwrap();
        dir
    };
    let stopped = leave("20240131T235959Z", "segment.part");
    leave("20240131T235959Z", "tail.segment");
    let (being_made, of_others) = (leave("being-made", "segment.part"), leave("others", "notes"));
    let [just_begun, empty_of_others] = ["20240130T235959Z", "empty"].map(|name| place.store().join(name));
    for dir in [&just_begun, &empty_of_others] {
        std::fs::create_dir(dir).unwrap();
    }
    let held = std::fs::File::open(&being_made).unwrap();
    held.lock().unwrap();
    place.create("one");
    assert!(!stopped.exists() && !just_begun.exists() && empty_of_others.exists());
    assert!(being_made.join("segment.part").exists() && of_others.join("notes").exists());
    drop(held);
    assert_eq!(place.run(&["verify"]), (Some(0), place.run(&["verify", "one"]).1));
}

#[test]
fn a_directory_without_a_log_is_told_and_left_alone() {
    let place = Place { dir: tempfile::tempdir().unwrap() };
    std::fs::create_dir_all(place.data().join("log")).unwrap();
    let create = || place.run(&["create", "--data", place.data().to_str().unwrap()]);
    let (code, said) = create();
    assert!(code == Some(1) && said.contains("holds no log"), "{said}");
    std::fs::write(place.data().join("log").join("epoch"), "no epoch").unwrap();
    let (code, said) = create();
    assert!(code == Some(1) && said.matches("the log cannot be backed up").count() == 1, "{said}");
    assert_eq!(said.matches("epoch is damaged").count(), 1, "it is told once: {said}");
    std::fs::remove_file(place.data().join("log").join("epoch")).unwrap();
    assert!(files(&place.data().join("log")).is_empty());
    assert!(!place.store().exists() || std::fs::read_dir(place.store()).unwrap().next().is_none());
}

/// Each goes its own way from there.
#[test]
fn two_restores_within_a_second_are_of_two_epochs() {
    let place = Place::new();
    place.create("only");
    let epochs: HashSet<String> = (0..8)
        .map(|number| {
            let into = format!("restored-{number}");
            assert_eq!(place.restore("only", &into).0, Some(0));
            std::fs::read_to_string(place.dir.path().join(into).join("log").join("epoch")).unwrap()
        })
        .collect();
    assert_eq!(epochs.len(), 8, "{epochs:?}");
}

/// What people say to each other is not for every account of a machine.
#[cfg(unix)]
#[test]
fn what_is_made_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.create("only");
    assert_eq!(place.restore("only", "restored").0, Some(0));
    for dir in [place.data(), place.data().join("log"), place.store(), place.dir.path().join("restored")] {
        let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", dir.display());
    }
}

/// A backup of a log, whatever becomes of it, takes nothing that is somebody's own.
#[test]
fn a_backup_that_has_lost_its_manifest_is_damaged_and_no_unfinished_one_is() {
    let place = Place::of_days(1);
    place.create("lost");
    place.create("stopped");
    let [lost, stopped] = ["lost", "stopped"].map(|name| place.store().join(name));
    let manifest = lost.join("manifest.json");
    std::fs::remove_file(&manifest).unwrap();
    std::fs::rename(stopped.join("manifest.json"), stopped.join("manifest.tmp")).unwrap();
    let damaged = format!("{} is damaged: it is missing", manifest.display());
    for arguments in [["list"].as_slice(), &["verify"], &["verify", "lost"]] {
        let (code, said) = place.run(arguments);
        assert!(code == Some(2) && said.contains(&damaged), "{arguments:?}: {said}");
        assert!(!said.contains("stopped"), "{arguments:?}: {said}");
    }
    for name in ["lost", "latest"] {
        let (code, said) = place.restore(name, "into");
        assert!(code == Some(1) && said.contains(&damaged), "{name}: {said}");
    }
    // Nor does another backup sweep it away.
    place.create("another");
    assert!(lost.join("tail.segment").exists() && !stopped.exists());
    let held = std::fs::File::open(&lost).unwrap();
    held.lock().unwrap();
    assert_eq!(place.run(&["verify"]).0, Some(0), "it is being made");
}

#[test]
fn what_is_in_the_way_of_a_backup_stays() {
    let place = Place::new();
    let create = |store: &Path, name: &str| {
        let mut command = dramatis();
        command.args(["backup", "create", "--name", name, "--data"]).arg(place.data());
        told(&command.arg("--store").arg(store).output().unwrap())
    };
    let thesis = place.store().join("documents").join("thesis");
    std::fs::create_dir_all(thesis.parent().unwrap()).unwrap();
    std::fs::write(&thesis, "years of work").unwrap();
    let log = files(&place.data().join("log"));
    let segment = log.iter().find(|path| path.extension().is_some_and(|it| it == "segment")).unwrap();
    for is_damaged in [false, true] {
        if is_damaged {
            flip(segment, 300);
        }
        let (code, said) = create(&place.store(), "documents");
        assert!(code == Some(1) && said.contains("thesis is in it: choose another name"), "{said}");
        let (code, said) = create(&place.data(), "log");
        assert!(code == Some(1) && said.contains("is there and no backup"), "{said}");
    }
    assert_ne!(create(&place.store(), "failed").0, Some(0));
    assert!(!place.store().join("failed").exists(), "what failed leaves nothing behind");
    assert!(thesis.exists());
    assert_eq!(files(&place.data().join("log")), log);
}

#[test]
fn a_log_that_lacks_events_is_not_backed_up() {
    let place = Place::new();
    let create = || place.run(&["create", "--name", "first", "--data", place.data().to_str().unwrap()]);
    let mut segments = files(&place.data().join("log"));
    segments.retain(|path| path.extension().is_some_and(|it| it == "segment"));
    let aside = place.dir.path().join("aside");
    for (lost, why) in
        [(&segments[0], "no segment holds the events"), (&segments[segments.len() - 1], "is missing")]
    {
        std::fs::rename(lost, &aside).unwrap();
        let (code, said) = create();
        assert!(
            code == Some(1) && said.contains("the log cannot be backed up") && said.contains(why),
            "{said}"
        );
        std::fs::rename(&aside, lost).unwrap();
    }
    assert_eq!(create().0, Some(0));

    // A backup made of such a log by an earlier release.
    let own = place.store().join("first");
    let text = std::fs::read_to_string(own.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["parts"].as_array_mut().unwrap().remove(0);
    std::fs::write(own.join("manifest.json"), manifest.to_string()).unwrap();
    std::fs::remove_file(own.join("b3sums")).unwrap();
    for (code, said) in [place.run(&["verify"]), place.restore("first", "into")] {
        assert!(
            matches!(code, Some(1 | 2)) && said.contains("it lacks the events from position 0 to"),
            "{said}"
        );
    }
}

#[test]
fn a_time_before_the_first_event_is_no_point_in_time() {
    let place = Place::new();
    place.create("only");
    // Seconds where milliseconds are meant, and a year.
    for time in ["1706702400", "2024"] {
        let into = place.dir.path().join("into");
        let arguments = ["restore", "only", "--into", into.to_str().unwrap(), "--until-time", time];
        let (code, said) = place.run(&arguments);
        assert!(code == Some(1) && said.contains("does not reach the time 1970-01-"), "{said}");
        assert!(!into.exists());
    }
}

#[test]
fn the_latest_of_two_logs_and_a_renamed_backup_are_told() {
    let (place, other) = (Place::new(), Place::of_days(1));
    place.create("one");
    let data = other.data();
    assert_eq!(place.run(&["create", "--name", "two", "--data", data.to_str().unwrap()]).0, Some(0));
    let (code, said) = place.restore("latest", "into");
    assert!(code == Some(1) && said.contains("has backups of 2 logs"), "{said}");
    assert_eq!(place.restore("two", "into").0, Some(0));

    std::fs::rename(place.store().join("two"), place.store().join("deux")).unwrap();
    for (code, said) in [place.run(&["verify", "deux"]), place.run(&["list"])] {
        assert!(
            code == Some(2) && said.contains("it was made as two: give its directory that name"),
            "{said}"
        );
    }
}

/// As if the clock had been a year ahead when it was made.
fn made_later(place: &Place, name: &str) {
    let (own, year) = (place.store().join(name), 366 * 24 * 60 * 60 * 1_000_i64);
    let text = std::fs::read(own.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    manifest["created_at"] = (manifest["created_at"].as_i64().unwrap() + year).into();
    std::fs::write(own.join("manifest.json"), manifest.to_string()).unwrap();
    // As of an earlier release: its files have no hashes.
    std::fs::remove_file(own.join("b3sums")).unwrap();
}

#[test]
fn the_latest_of_a_history_is_the_one_that_holds_most_whatever_the_clock_said() {
    let place = Place::of_days(1);
    place.create("first");
    let server = Server::start(&place.data());
    imported_by_days(&server, place.dir.path(), "more", 1);
    assert_eq!(server.terminate(), Some(0));
    place.create("second");
    made_later(&place, "first");
    let (code, said) = place.run(&["verify", "latest"]);
    assert!(code == Some(0) && said.contains("second"), "{said}");
    assert_eq!(place.restore("latest", "into").0, Some(0));
    assert_eq!(
        files(&place.dir.path().join("into").join("log")).len(),
        files(&place.data().join("log")).len()
    );
}

#[test]
fn the_latest_of_two_histories_is_not_the_one_of_a_clock_that_was_set_back() {
    let place = Place::of_days(1);
    place.create("before");
    assert_eq!(place.restore("before", "into").0, Some(0));
    let restored = place.dir.path().join("into");
    place.create_of("after", &restored);
    let (code, said) = place.run(&["verify", "latest"]);
    assert!(code == Some(0) && said.contains("after"), "{said}");
    made_later(&place, "before");
    let (code, said) = place.restore("latest", "elsewhere");
    assert!(
        code == Some(1) && said.contains("before") && said.contains("but after is of a history"),
        "{said}"
    );
    assert_eq!(place.restore("after", "elsewhere").0, Some(0));
}

#[test]
fn a_store_without_backups_is_not_proven() {
    let dir = tempfile::tempdir().unwrap();
    let output = dramatis().args(["backup", "verify", "--store"]).arg(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("no backups in"), "{said}");
}

#[test]
fn a_segment_that_was_cut_short_is_told_and_not_the_store() {
    let place = Place::new();
    let log = place.data().join("log");
    let segment = files(&log).into_iter().find(|path| path.extension().is_some_and(|it| it == "segment"));
    let segment = segment.unwrap();
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1_000).unwrap();
    let (code, said) = place.run(&["create", "--data", place.data().to_str().unwrap()]);
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(code == Some(1) && said.contains(&format!("{name} is damaged")), "{said}");
    assert!(!said.contains("segment.part"), "{said}");
}

#[test]
fn a_restore_that_was_stopped_is_not_served_as_an_empty_log() {
    let place = Place::new();
    place.create("only");
    let into = place.dir.path().join("into");
    std::fs::create_dir_all(into.join("log.unfinished")).unwrap();
    let Err(said) = Server::try_start(&into, &[]) else { panic!("it serves") };
    assert!(said.contains("a restore that was not finished"), "{said}");
    assert_eq!(place.restore("only", "into").0, Some(0));
    assert!(Server::start(&into).events(&[]).len() > 100);
}

#[test]
fn read_models_that_do_not_open_keep_nobody_from_a_backup() {
    let place = Place::new();
    std::fs::write(place.data().join("read-models.sqlite"), "").unwrap();
    let (code, said) = place.run(&["create", "--name", "only", "--data", place.data().to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("the names of the read models are not noted"), "{said}");
    assert_eq!(place.run(&["verify"]).0, Some(0));
}

#[test]
fn a_backup_that_is_not_there_is_not_called_damaged() {
    let place = Place::of_days(1);
    place.create("only");
    let (code, said) = place.run(&["verify", "nope"]);
    assert!(code == Some(1) && said.contains("there is no backup nope"), "{said}");
    assert!(!said.contains("whole"), "{said}");
}
