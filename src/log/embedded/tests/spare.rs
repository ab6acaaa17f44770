//! The next segment's file, filled ahead: it becomes the segment, a crash at any step loses
//! nothing, and without room for it all goes on.

use super::disk::{Disk, Fault};
use super::*;
use crate::log::Expected;
use crate::log::contract::{append, event, everything, fill, stream};
use crate::log::embedded::storage::Space;

const SEGMENT_BYTES: u64 = 64 * 1024;
const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };

fn prepared() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..tiny() }
}

async fn all(log: &EmbeddedLog) -> Vec<Arc<Recorded>> {
    everything(log, &Filter::default(), PAGE).await
}

/// The names of segments, and whether there is a spare file.
fn files(disk: &Disk) -> (Vec<String>, bool) {
    let names = disk.list().unwrap();
    let segments = names.iter().filter(|name| name.ends_with(".segment")).cloned().collect();
    (segments, names.iter().any(|name| name == "spare"))
}

/// Fills until so many segments are there.
async fn fill_segments(log: &EmbeddedLog, disk: &Disk, count: usize) {
    while files(disk).0.len() < count {
        fill(log, &stream("room-main.lobby"), 20, "filled").await;
    }
}

#[tokio::test]
async fn a_segment_begins_in_the_file_that_was_filled_ahead() {
    let disk = Disk::default();
    let log = open_disk(&disk, prepared()).unwrap();
    fill(&log, &stream("room-main.lobby"), 3, "few").await;
    assert!(!files(&disk).1, "a small log has none");
    fill_segments(&log, &disk, 3).await;
    let (segments, _) = files(&disk);
    assert_eq!(disk.bytes(&segments[2]).len() as u64, SEGMENT_BYTES, "filled ahead");
    assert!((disk.bytes(&segments[1]).len() as u64) < SEGMENT_BYTES, "closed, it is cut to its batches");
    let before = all(&log).await;
    drop(log);
    let log = open_disk(&disk, prepared()).unwrap();
    assert_eq!(all(&log).await, before);
}

#[tokio::test]
async fn a_loss_of_power_at_any_step_of_it_loses_nothing() {
    let mut cuts = 0;
    for nth in 0..90 {
        let disk = Disk::seeded(nth, None);
        let log = open_disk(&disk, prepared()).unwrap();
        fill_segments(&log, &disk, 2).await;
        let before = all(&log).await;
        // Somewhere between here and the third segment.
        disk.plan(usize::try_from(nth).unwrap() * 9, Fault::Cut);
        let room = stream("room-main.lobby");
        let mut known = before.len();
        while files(&disk).0.len() < 3 {
            let envelopes = vec![event("Fated", vec![b'x'; 300])];
            let request = Append { stream: room.clone(), expected: Expected::Any, envelopes };
            if log.append(request).await.is_err() {
                cuts += 1;
                break;
            }
            known += 1;
        }
        drop(log);
        disk.crash(nth);
        let log = open_disk(&disk, prepared()).unwrap();
        assert!(!files(&disk).1, "what was left of it is removed");
        let then = all(&log).await;
        assert!(then.len() >= known, "seed {nth}: {known} were acknowledged, {} are there", then.len());
        assert_eq!(then[..before.len()], before);
        fill_segments(&log, &disk, 4).await;
    }
    assert!(cuts > 20, "{cuts}");
}

#[tokio::test]
async fn without_room_for_it_segments_grow() {
    let disk = Disk::default();
    let options = Options { reserve_bytes: 2_048, ..prepared() };
    let log = open_disk(&disk, options).unwrap();
    // What is free is enough for a batch, not for a step of filling. A real disk would have less each time.
    disk.has_space(Space { free: SEGMENT_BYTES / 10 + 2_048, total: 1 << 30 });
    while files(&disk).0.len() < 3 {
        let answer = append(&log, &stream("room-main.lobby"), Expected::Any, vec![event("Few", "1")]).await;
        match answer {
            Ok(_) => {}
            // A segment that begins takes more than what is free.
            Err(AppendError::Unavailable { .. }) => disk.has_space(Space { free: 1 << 29, total: 1 << 30 }),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(log.poisoned(), None);
}

#[tokio::test]
async fn zeros_that_were_filled_ahead_are_not_all_written_again() {
    let disk = Disk::default();
    let options = Options { segment_bytes: 8 << 20, ..tiny() };
    let log = open_disk(&disk, options.clone()).unwrap();
    let room = stream("room-main.lobby");
    let big = || vec![event("Large", vec![b'x'; 1 << 19])];
    while files(&disk).0.len() < 2 {
        append(&log, &room, Expected::Any, big()).await.unwrap();
    }
    let (segments, before) = (files(&disk).0, all(&log).await);
    assert_eq!(disk.bytes(&segments[1]).len(), 8 << 20);
    drop(log);
    let log = open_disk(&disk, options).unwrap();
    assert!(disk.bytes(&segments[1]).len() < 2 << 20);
    assert_eq!(all(&log).await, before);
}
