//! What the log cannot tell, stated as a test; and what it must bear without a word to clients.

use std::time::Duration;

use super::disk::{Disk, Fault};
use super::histories::{batches, files};
use super::storage::Space;
use super::wrapped::Wrapped;
use super::*;
use crate::log::Expected;
use crate::log::contract::{append, event, everything, fill, stream};

const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };

async fn all(log: &EmbeddedLog) -> Vec<Arc<Recorded>> {
    everything(log, &Filter::default(), PAGE).await
}

/// A closed log with these batches in its open segment, each of so many events.
async fn with_batches(counts: &[usize]) -> (Disk, Epoch, Vec<Arc<Recorded>>) {
    let disk = Disk::default();
    let log = open_disk(&disk, Options::default()).unwrap();
    let room = stream("room-main.lobby");
    for count in counts {
        append(&log, &room, Expected::Any, vec![event("MessagePosted", "1"); *count]).await.unwrap();
    }
    let (epoch, events) = (log.epoch(), all(&log).await);
    drop(log);
    (disk, epoch, events)
}

/// The limit: nothing but the next batch tells that the last one was acknowledged. Damage to it
/// is cut as if it had been torn: that batch is lost, wholly, and nothing else is.
#[tokio::test]
async fn damage_to_exactly_the_last_batch_looks_like_a_torn_tail() {
    let (disk, epoch, before) = with_batches(&[2, 1, 3]).await;
    let segment = files(&disk, ".segment").pop().unwrap();
    let last = batches(&disk.bytes(&segment), epoch.log()).0.pop().unwrap();
    for at in (last.at..last.end).step_by(5) {
        let disk = disk.durable();
        disk.flip(&segment, at, 0x20);
        let log = open_disk(&disk, Options::default()).unwrap();
        assert_eq!(log.epoch(), epoch, "it is not told");
        assert_eq!(all(&log).await, before[..3], "byte {at}");
        fill(&log, &stream("room-main.lobby"), 1, "after").await;
        let after = all(&log).await;
        assert_eq!(after[..3], before[..3]);
        drop(log);
        assert_eq!(all(&open_disk(&disk, Options::default()).unwrap()).await, after);
    }
}

/// One batch more, and the same damage is told and nothing is cut.
#[tokio::test]
async fn damage_before_the_last_batch_is_told() {
    let (disk, epoch, _) = with_batches(&[2, 1, 3, 1]).await;
    let segment = files(&disk, ".segment").pop().unwrap();
    let damaged = batches(&disk.bytes(&segment), epoch.log()).0[2];
    for at in (damaged.at..damaged.end).step_by(5) {
        let disk = disk.durable();
        disk.flip(&segment, at, 0x20);
        let bytes = disk.bytes(&segment);
        match open_disk(&disk, Options::default()) {
            Err(OpenError::Damaged { file, offset, .. }) => {
                assert_eq!((&file, offset), (&segment, damaged.at as u64), "byte {at}");
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("damage at byte {at} was cut"),
        }
        assert_eq!(disk.bytes(&segment), bytes, "nothing is changed");
    }
}

/// Several relaxed answers, one failed sync, a restart that sees what the disk lacks, then a loss
/// of power: what the restart served is there.
#[tokio::test]
async fn what_a_relaxed_process_left_unsynced_is_synced_before_it_is_served() {
    let relaxed = Options { durability: Durability::Interval(Duration::from_hours(1)), ..Options::default() };
    for seed in 0..16 {
        let disk = Disk::seeded(seed, None);
        let log = open_disk(&disk, relaxed.clone()).unwrap();
        let epoch = log.epoch();
        fill(&log, &stream("room-main.lobby"), 5, "relaxed").await;
        let before = all(&log).await;
        disk.plan(0, Fault::Sync);
        drop(log);
        let log = open_disk(&disk, Options::default()).unwrap();
        assert!(log.epoch().counter() > epoch.counter(), "answers may have been lost");
        assert_eq!(all(&log).await, before);
        fill(&log, &stream("room-main.lobby"), 1, "after").await;
        let after = all(&log).await;
        disk.cut();
        drop(log);
        disk.crash(seed);
        assert_eq!(all(&open_disk(&disk, Options::default()).unwrap()).await, after, "seed {seed}");
    }
}

/// Whatever bit of an index is flipped: what is read past any position is right, or an error.
#[tokio::test]
async fn a_flipped_index_makes_no_read_fall_short() {
    let disk = Disk::default();
    let log = open_disk(&disk, tiny()).unwrap();
    for _ in 0..2 {
        let few = vec![event("MessagePosted", "1"); 2];
        append(&log, &stream("room-main.a"), Expected::Any, few).await.unwrap();
        fill(&log, &stream("room-main.b"), 2, &"long data ".repeat(90)).await;
    }
    let whole = all(&log).await;
    drop(log);
    let index = files(&disk, ".index").into_iter().next().unwrap();
    let second = to_usize(format::parse_segment_name(&files(&disk, ".segment")[1]).unwrap());
    let mut noticed = 0;
    let bytes = disk.bytes(&index);
    // The head has a checksum: nothing of it is used once it is wrong.
    let head = 16 + u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    for bit in head * 8..bytes.len() * 8 {
        let disk = disk.durable();
        disk.flip(&index, bit / 8, 1 << (bit % 8));
        let log = open_disk(&disk, tiny()).unwrap();
        for after in 0..second {
            let from = after.checked_sub(1).map(|after| Position::from_engine(after as u64));
            match log.read_all(from, Filter::default(), PAGE).await {
                Ok(page) => assert!(page.events == whole[after..], "bit {bit}, from {after}"),
                Err(error) => {
                    // A wrong offset looks like a wrong record.
                    assert!(error.to_string().contains("00000000000000000000."), "{error}");
                    noticed += 1;
                }
            }
        }
    }
    assert!(noticed > 0);
}

/// What is derived may fail to be written: appends go on, reads are right, the next opening makes it.
#[tokio::test]
async fn an_index_that_cannot_be_written_is_made_later() {
    let whole = {
        let disk = Disk::default();
        let log = open_disk(&disk, tiny()).unwrap();
        fill(&log, &stream("room-main.lobby"), 12, &"long data ".repeat(80)).await;
        drop(log);
        files(&disk, ".index")
    };
    assert!(whole.len() > 1, "{whole:?}");
    let mut failed = 0;
    for nth in 0..60 {
        let disk = Disk::default();
        let log = open_disk(&disk, tiny()).unwrap();
        disk.fail_only(&[".index", "chain"], nth);
        fill(&log, &stream("room-main.lobby"), 12, &"long data ".repeat(80)).await;
        assert_eq!(log.poisoned(), None);
        let before = all(&log).await;
        assert_eq!(before.len(), 12);
        let read = log.read_stream(&stream("room-main.lobby"), Revision::FIRST, PAGE).await.unwrap();
        assert_eq!(read, before);
        failed += disk.fired().len();
        drop(log);
        disk.heal();
        let log = open_disk(&disk, tiny()).unwrap();
        assert_eq!(all(&log).await, before);
        drop(log);
        assert_eq!(files(&disk, ".index"), whole, "fault {nth}");
        let chain = chain::Chain::read(&disk).unwrap().unwrap();
        for name in &whole {
            let first = format::parse_segment_name(&name.replace(".index", ".segment")).unwrap();
            assert!(chain.sum(first).is_some(), "the chain lacks {name}");
        }
    }
    assert!(failed > 3, "{failed}");
}

/// A closed segment that was cut short is damage, by name.
#[tokio::test]
async fn a_file_that_was_cut_short_is_named() {
    let disk = Disk::default();
    let log = open_disk(&disk, tiny()).unwrap();
    fill(&log, &stream("room-main.lobby"), 12, &"long data ".repeat(80)).await;
    let before = all(&log).await;
    for ending in [".segment", ".index"] {
        let name = files(&disk, ending).remove(0);
        let whole = disk.bytes(&name);
        disk.change(&name, |bytes| bytes.truncate(whole.len() / 2));
        let mut after = None;
        let error = loop {
            match log.read_all(after, Filter::default(), ReadLimit::events(1)).await {
                Ok(page) => after = page.scanned,
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, LogError::Damaged { file, .. } if *file == name), "{error}");
        disk.change(&name, |bytes| *bytes = whole);
        assert_eq!(all(&log).await, before);
    }
}

/// A disk that takes its time to say how full it is holds up only who wants to know.
#[tokio::test]
async fn nobody_waits_for_how_full_the_disk_is() {
    const GUARD: Duration = Duration::from_mins(1);
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(Wrapped::new(dir.path(), None));
    let options = Options { reserve_bytes: 0, ..Options::default() };
    let clock = Arc::new(ManualClock::default());
    let log =
        EmbeddedLog::open_storage(storage.clone(), Vec::new(), &options, clock, Closer::beside).unwrap();
    let log = Arc::new(log);
    let (hears, release) = storage.hold_space();
    let asked = log.clone();
    let usage = tokio::task::spawn_blocking(move || asked.usage());
    tokio::task::spawn_blocking(move || hears.recv()).await.unwrap().unwrap();
    let room = stream("room-main.lobby");
    let appended = append(&*log, &room, Expected::Any, vec![event("Said", "1")]);
    tokio::time::timeout(GUARD, appended).await.expect("it waits for the disk").unwrap();
    drop(release);
    assert_eq!(usage.await.unwrap().segments, 1);
}

/// Whoever is refused for lack of space finds it in the log's health, with what would help.
#[tokio::test]
async fn health_warns_as_soon_as_appends_are_refused() {
    const MIB: u64 = 1024 * 1024;
    let disk = Disk::default();
    let log = open_disk(&disk, Options { reserve_bytes: 8 * MIB, ..Options::default() }).unwrap();
    let room = stream("room-main.lobby");
    let (mut refused, mut taken) = (0, 0);
    for free in [7 * MIB, 8 * MIB, 8 * MIB + 500_000, 9 * MIB - 1, 10 * MIB] {
        disk.has_space(Space { free, total: 1024 * MIB });
        match append(&log, &room, Expected::Any, vec![event("Said", "1")]).await {
            Err(AppendError::Unavailable { reason }) => {
                assert!(reason.contains("log.reserve_bytes"), "{reason}");
                let warnings = log.warnings();
                assert!(
                    warnings.len() == 1 && warnings[0].contains("1048576 more are needed"),
                    "{warnings:?}"
                );
                refused += 1;
            }
            answer => {
                answer.unwrap();
                assert_eq!(log.warnings(), [] as [String; 0]);
                taken += 1;
            }
        }
    }
    assert_eq!((refused, taken), (4, 1));
}
