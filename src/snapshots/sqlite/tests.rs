//! The file when it is damaged, locked, foreign or of another epoch: there is always a store.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::snapshots::contract::{self, EPOCH, key, snapshot};

const NO_TIME: Duration = Duration::ZERO;
const FOR_EVER: Duration = Duration::from_hours(24);

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshots.sqlite");
    (dir, path)
}

fn open(path: &Path) -> SqliteSnapshots {
    SqliteSnapshots::start(path.to_owned(), EPOCH, NO_TIME)
}

/// Saves one snapshot of `lobby` and so many others, and closes the file.
async fn saved(path: &Path, others: usize) {
    let store = open(path);
    assert!(store.save(&key("room-main.lobby"), snapshot(9, b"{}")).await);
    for other in 0..others {
        assert!(store.save(&key(&format!("room-main.r{other}")), snapshot(9, &[b' '; 2_000])).await);
    }
}

async fn lobby(store: &SqliteSnapshots) -> Option<Snapshot> {
    store.load(&key("room-main.lobby")).await
}

async fn takes_new_ones(store: &SqliteSnapshots) {
    assert!(store.save(&key("room-main.lobby"), snapshot(10, b"[]")).await);
    assert_eq!(lobby(store).await, Some(snapshot(10, b"[]")));
}

#[tokio::test]
async fn the_contract_holds() {
    let (_dir, path) = place();
    contract::run(&open(&path)).await;
}

#[tokio::test]
async fn snapshots_outlive_the_store() {
    let (_dir, path) = place();
    saved(&path, 3).await;
    assert_eq!(lobby(&open(&path)).await, Some(snapshot(9, b"{}")));
}

#[tokio::test]
async fn a_row_that_was_changed_is_removed() {
    for change in [
        "state = x'7b'",
        "state = 5",
        "revision = 8",
        "revision = 'nine'",
        "revision = -1",
        "event = x'00000000000000000000000000000000'",
        "event = x'00'",
        "recorded_at = recorded_at + 1",
        "decider = 'other'",
        "state_version = 2",
        "state_version = -2",
        "epoch = '0000000000000007.2'",
        "checksum = zeroblob(32)",
        "checksum = 'x'",
    ] {
        let (_dir, path) = place();
        saved(&path, 1).await;
        let raw = Connection::open(&path).unwrap();
        let sql = format!("UPDATE snapshots SET {change} WHERE stream LIKE '%lobby'");
        assert_eq!(raw.execute(&sql, []).unwrap(), 1);
        let store = open(&path);
        assert_eq!(lobby(&store).await, None, "{change}");
        let left: i64 = raw.query_row("SELECT count(*) FROM snapshots", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 1, "{change}: the damaged row is gone, the other one is not");
        takes_new_ones(&store).await;
    }
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_begun_anew() {
    let (_dir, path) = place();
    for bytes in [&b"no database at all, and longer than the header of one is"[..], &[0; 4_096], b"x"] {
        std::fs::write(&path, bytes.repeat(50)).unwrap();
        let store = open(&path);
        assert_eq!(lobby(&store).await, None);
        takes_new_ones(&store).await;
        drop(store);
    }
    for change in ["PRAGMA user_version = 99", "PRAGMA application_id = 7"] {
        Connection::open(&path).unwrap().execute_batch(change).unwrap();
        let store = open(&path);
        assert_eq!(lobby(&store).await, None, "{change}");
        takes_new_ones(&store).await;
    }
}

#[tokio::test]
async fn a_file_of_another_epoch_is_begun_anew() {
    let (_dir, path) = place();
    saved(&path, 3).await;
    drop(SqliteSnapshots::start(path.clone(), EPOCH.raised(), NO_TIME));
    assert_eq!(lobby(&open(&path)).await, None, "a store of a later epoch removed what was there");
}

/// Overwrites stretches of the file with noise, one after the other, and cuts it: what is served
/// is what was saved or nothing, and the store goes on.
#[tokio::test]
async fn whatever_is_damaged_nothing_torn_is_served() {
    const OTHERS: usize = 40;
    const STRETCH: usize = 1_500;
    let (_dir, path) = place();
    saved(&path, OTHERS).await;
    let whole = std::fs::read(&path).unwrap();
    let mut lost = 0;
    for at in (0..whole.len()).step_by(STRETCH) {
        let mut overwritten = whole.clone();
        let end = (at + STRETCH).min(whole.len());
        overwritten[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        for bytes in [&overwritten[..], &whole[..at]] {
            std::fs::write(&path, bytes).unwrap();
            let store = open(&path);
            for other in 0..OTHERS {
                let found = store.load(&key(&format!("room-main.r{other}"))).await;
                assert!(found.is_none() || found == Some(snapshot(9, &[b' '; 2_000])), "byte {at}");
                lost += usize::from(found.is_none());
            }
            takes_new_ones(&store).await;
        }
    }
    assert!(lost > OTHERS, "the damage was seen: {lost}");
}

#[tokio::test]
async fn a_locked_file_is_done_without_until_it_is_free() {
    let (_dir, path) = place();
    saved(&path, 0).await;
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let store = open(&path);
    assert_eq!(lobby(&store).await, None);
    assert!(!store.save(&key("room-main.lobby"), snapshot(10, b"[]")).await);
    drop(raw);
    assert_eq!(lobby(&store).await, Some(snapshot(9, b"{}")), "it is tried again");
    takes_new_ones(&store).await;
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_left_alone() {
    let (dir, path) = place();
    std::fs::create_dir(&path).unwrap();
    for (path, retry) in [(path.clone(), FOR_EVER), (dir.path().join("no/such/folder"), NO_TIME)] {
        let store = SqliteSnapshots::start(path, EPOCH, retry);
        assert_eq!(lobby(&store).await, None);
        assert!(!store.save(&key("room-main.lobby"), snapshot(9, b"{}")).await);
    }
    assert!(path.is_dir());
}
