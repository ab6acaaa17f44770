//! Closed segments in a second directory: read as before, found again, and missed by name.

use std::path::PathBuf;

use super::*;
use crate::log::Expected;
use crate::log::contract::{append, command, everything, fill, of_command, stream};

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
        assert!(error.contains("cold") && error.contains("position 0 to"), "{error}");
        assert_eq!(names(&hot, ""), before, "nothing is begun anew");
    }
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
}
