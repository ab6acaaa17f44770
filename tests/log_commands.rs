//! `dramatis log` on real directories: all damage is found and named, what survives is kept,
//! and nothing is touched that was not asked for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "log_commands/chance.rs"]
mod chance;
#[path = "log_commands/data.rs"]
mod data;
#[path = "log_commands/mend.rs"]
mod mend;
#[path = "log_commands/moments.rs"]
mod moments;
mod support;
#[path = "log_commands/tier.rs"]
mod tier;

use std::process::Stdio;

use data::{Data, change, flip, name, output, spawning, text, verify};
use serde_json::Value;
use support::imports::{chat_log, file};
use support::{Server, dramatis};

#[test]
fn a_sound_log_is_told_to_be_sound() {
    let data = Data::new(60);
    insta::assert_snapshot!(data.told(&["verify"], 0));
    let document: Value = serde_json::from_slice(&data.run(&["verify", "--json"]).stdout).unwrap();
    assert_eq!(document["events"], 60);
    assert_eq!(document["last_position"], "59");
    assert_eq!(document["damage"], serde_json::json!([]));
    let (verified, found) = verify(&data);
    assert!(verified.segments >= 3, "{verified:?}");
    assert_eq!((verified.indexes, verified.hashes), (verified.segments - 1, verified.segments - 1));
    assert_eq!(found.bytes.0, found.bytes.1);
    assert!(found.notes.is_empty(), "{found:?}");
}

#[test]
fn every_flipped_byte_of_a_closed_segment_is_found_and_named() {
    let data = Data::new(60);
    let path = &data.files("segment")[1];
    let sound = std::fs::read(path).unwrap();
    let headers = 48 + 56;
    for at in (0..sound.len()).filter(|at| *at < headers || at % 7 == 0) {
        flip(path, at);
        let (_, found) = verify(&data);
        let first = found.damage.first().unwrap_or_else(|| panic!("a flip at {at} was not found"));
        assert!(found.damage.iter().all(|damage| damage.file == name(path)), "{at}: {found:?}");
        let offset = usize::try_from(first.offset).unwrap();
        assert!(offset <= at && at < offset + 300, "{at}: {first:?}");
        std::fs::write(path, &sound).unwrap();
    }
    for at in [0, 8, 47, 50, 200, sound.len() - 1] {
        flip(path, at);
        let told = data.told(&["verify"], 2);
        assert!(told.contains(&format!("DAMAGED  {} byte ", name(path))), "{told}");
        std::fs::write(path, &sound).unwrap();
    }
    assert!(verify(&data).1.damage.is_empty());
}

#[test]
fn all_damage_is_listed_with_what_survives() {
    let data = Data::new(90);
    let segments = data.files("segment");
    let second = std::fs::read(&segments[1]).unwrap();
    // A record, a batch's header, and a byte in front of the chain.
    flip(&segments[1], 48 + 56 + 40);
    let batch = 48 + 56 + usize::try_from(u32::from_le_bytes(second[96..100].try_into().unwrap())).unwrap();
    flip(&segments[1], batch + 20);
    flip(&data.log_dir().join("chain"), 3);
    flip(&data.files("index")[2], 400);
    insta::assert_snapshot!(data.told(&["verify"], 2));
    let document: Value = serde_json::from_slice(&data.run(&["verify", "--json"]).stdout).unwrap();
    assert_eq!(document["damage"].as_array().unwrap().len(), 4);
    assert_eq!(document["damage"][0]["file"], "chain");
}

#[test]
fn a_cut_a_missing_and_a_strange_segment_are_told() {
    let data = Data::new(90);
    let segments = data.files("segment");
    let sound = std::fs::read(&segments[1]).unwrap();
    let found = |what: &str| {
        let (_, found) = verify(&data);
        assert!(found.damage.iter().any(|damage| damage.reason.contains(what)), "{what}: {found:?}");
    };
    change(&segments[1], |bytes| bytes.truncate(bytes.len() - 1));
    found("a batch is cut short");
    change(&segments[1], |bytes| bytes.truncate(48));
    found("but the next one begins at");
    std::fs::remove_file(&segments[1]).unwrap();
    found("the chain names it, but it is missing");
    std::fs::write(&segments[1], &sound).unwrap();
    assert!(verify(&data).1.damage.is_empty());

    // Zeros behind the end may not be cut off yet; anything else does not belong there.
    change(&segments[1], |bytes| bytes.resize(bytes.len() + 5_000, 0));
    assert!(verify(&data).1.damage.is_empty());
    flip(&segments[1], sound.len() + 4_321);
    let (_, found) = verify(&data);
    assert_eq!(found.damage.len(), 1);
    assert_eq!(found.damage[0].offset, u64::try_from(sound.len() + 4_321).unwrap());
    assert_eq!(found.damage[0].reason, "bytes stand behind the end of the segment");
}

#[test]
fn an_unfinished_tail_is_no_damage_but_an_acknowledged_batch_is() {
    let data = Data::new(60);
    let last = data.files("segment").pop().unwrap();
    let sound = std::fs::read(&last).unwrap();
    let end = sound.iter().rposition(|byte| *byte != 0).unwrap();
    flip(&last, end);
    let (verified, found) = verify(&data);
    assert!(found.damage.is_empty(), "{found:?}");
    assert!(found.notes[0].contains("unfinished tail"), "{found:?}");
    assert_eq!(verified.next_position, 57);
    std::fs::write(&last, &sound).unwrap();
    flip(&last, 48 + 56 + 40);
    let (_, found) = verify(&data);
    assert_eq!(found.damage.len(), 1, "{found:?}");
    assert_eq!(found.damage[0].offset, 48 + 56);
}

/// A directory stands where the file was: opening it fails, as a bad spot of the disk would.
#[test]
fn what_is_derived_and_does_not_read_is_listed() {
    let data = Data::new(90);
    let derived = [data.files("index").remove(1), data.log_dir().join("chain")];
    for path in &derived {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    }
    let (verified, found) = verify(&data);
    assert_eq!((verified.events, verified.link), (90, None));
    for path in derived {
        assert!(found.damage.iter().any(|damage| damage.file == name(&path)), "{found:?}");
    }
    assert!(data.told(&["info"], 2).contains("events"), "what has no index is walked");
}

#[test]
fn what_is_made_later_may_be_missing() {
    let data = Data::new(60);
    for index in data.files("index") {
        std::fs::remove_file(index).unwrap();
    }
    std::fs::remove_file(data.log_dir().join("chain")).unwrap();
    let (verified, found) = verify(&data);
    assert!(found.damage.is_empty(), "{found:?}");
    assert_eq!(found.notes.len(), 2 * usize::try_from(verified.segments - 1).unwrap());
}

#[test]
fn the_cold_tier_is_walked_too() {
    let (data, cold) = Data::with_cold_tier(90);
    let told = data.told(&["verify"], 0);
    let segments = data.files("segment");
    assert!(segments.iter().any(|path| path.starts_with(cold.path())), "{segments:?}");
    assert!(told.contains(&format!("{} of them cold", segments.len() - 2)), "{told}");
    flip(&segments[0], 300);
    assert!(data.told(&["verify"], 2).contains(&name(&segments[0])));
    drop(cold);
    assert!(data.told(&["verify"], 1).contains("mount it"));
}

#[test]
fn what_a_log_holds_is_told_by_indexes_and_counted_in_full() {
    let data = Data::new(90);
    insta::assert_snapshot!("info", data.told(&["info"], 0));
    insta::assert_snapshot!("info_full", data.told(&["info", "--full"], 0));
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_slice(&data.run(&[&["info", "--json"], arguments].concat()).stdout).unwrap()
    };
    let (quick, full) = (json(&[]), json(&["--full"]));
    for field in
        ["epoch", "bytes", "events", "streams", "last_position", "first_recorded_at", "last_recorded_at"]
    {
        assert_eq!(quick[field], full[field], "{field}");
    }
    assert_eq!((&full["streams"], &full["names"]["MessagePosted"]), (&2.into(), &88.into()));
    for index in data.files("index") {
        std::fs::remove_file(index).unwrap();
    }
    assert_eq!(json(&[]), quick, "what has no index is walked");
    flip(&data.files("segment")[1], 300);
    assert_eq!(data.run(&["info", "--full"]).status.code(), Some(2));
}

/// Imports a chat log and verifies all the while; the server runs with these settings.
fn verified_beside_a_server(settings: &[(&str, &str)]) {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = [&[("DRAMATIS__LOG__SEGMENT_BYTES", "65536")], settings].concat();
    let server = spawning(|| Server::start_with(data.path(), &[], &settings));
    let log = file(logs.path(), "den-2010-03-08.txt", chat_log(3_000, 1));
    let verify = || {
        let mut command = dramatis();
        command.args(["log", "verify", "--json", "--data"]).arg(data.path());
        let output = output(command.envs(settings.iter().copied()));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{document:#}");
        document
    };
    let mut command = dramatis();
    command.args(["import", "irc", log.to_str().unwrap(), "--url", &server.url()]);
    let mut import = spawning(|| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()).unwrap();
    let mut walks = 0;
    let ended = loop {
        match import.try_wait().unwrap() {
            Some(status) => break status,
            None => verify(),
        };
        walks += 1;
    };
    assert_eq!(ended.code(), Some(0));
    println!("verified {walks} times beside the import");
    let document = verify();
    assert!(document["segments"].as_u64().unwrap() > 1, "{document:#}");
    assert_eq!(document["events"], u64::try_from(spawning(|| server.events(&[])).len()).unwrap());
    assert_eq!(spawning(|| server.terminate()), Some(0));
    assert_eq!(verify()["notes"], serde_json::json!([]));
}

#[test]
fn a_running_server_is_verified_while_it_appends() {
    verified_beside_a_server(&[]);
}

#[test]
fn a_running_server_is_verified_while_its_segments_move() {
    let cold = tempfile::tempdir().unwrap();
    verified_beside_a_server(&[
        ("DRAMATIS__LOG__COLD_DIR", cold.path().to_str().unwrap()),
        ("DRAMATIS__LOG__HOT_SEGMENTS_MAX", "0"),
        ("DRAMATIS__LOG__DURABILITY", "interval"),
    ]);
    assert!(std::fs::read_dir(cold.path()).unwrap().count() > 3);
}

#[test]
fn what_cannot_be_done_is_said() {
    let empty = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| output(dramatis().args(arguments));
    let output = run(&["log", "verify", "--data", empty.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("dramatis: there is no log in "), "{output:?}");
    let data = Data::new(60);
    change(&data.files("segment")[1], |bytes| {
        bytes[8] = 7;
        let crc = crc_fast::crc32_iscsi(&bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    });
    for command in [["verify"].as_slice(), &["info", "--full"], &["repair", "--cut"]] {
        assert!(data.told(command, 1).contains("has format version 7"), "{command:?}");
    }
    std::fs::write(data.log_dir().join("epoch"), "no epoch").unwrap();
    assert_eq!(data.run(&["repair", "--cut"]).status.code(), Some(1));
    assert_eq!(run(&["log", "verify", "--none"]).status.code(), Some(1));
    assert_eq!(run(&["log", "verify", "--help"]).status.code(), Some(0));
}
