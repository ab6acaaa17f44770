//! What the writer does when the disk fails, and that no answer leaves before its sync.

use std::time::Duration;

use super::disk::{Disk, Fault, Op};
use super::*;
use crate::log::Expected;
use crate::log::contract::{append, event, everything, fill, stream};

const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };

/// Bytes of an event whose batch the writer writes itself, and of one whose batch goes beside it.
const SMALL: usize = 4_000;
const LARGE: usize = 50_000;

async fn all(log: &EmbeddedLog) -> Vec<Arc<Recorded>> {
    everything(log, &Filter::default(), PAGE).await
}

#[tokio::test]
async fn nothing_is_answered_or_shown_before_its_sync() {
    for (options, data) in
        [(Options::default(), SMALL), (tiny(), SMALL), (Options::default(), LARGE), (tiny(), LARGE)]
    {
        let disk = Disk::default();
        let log = open_disk(&disk, options).unwrap();
        let room = stream("room-main.lobby");
        fill(&log, &room, 2, "before").await;
        let (before, head) = (all(&log).await, log.head());
        let (entered, release) = disk.hold(Op::Sync);
        let envelopes = vec![event("Held", vec![b'1'; data]), event("Held", "2")];
        let append = Append { stream: room.clone(), expected: Expected::Any, envelopes };
        let answer = tokio::spawn(log.append(append));
        while entered.try_recv().is_err() {
            assert!(!answer.is_finished(), "an answer left without a sync");
            tokio::task::yield_now().await;
        }
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!answer.is_finished(), "an answer left before its sync");
        assert_eq!(*head.borrow(), before.last().map(|event| event.position));
        assert_eq!(all(&log).await, before);
        assert_eq!(log.stream_head(&room).await.unwrap(), Some(Revision::new(1)));
        assert_eq!(all(&open_disk(&disk.durable(), tiny()).unwrap()).await, before);
        release.send(()).unwrap();
        let recorded = answer.await.unwrap().unwrap();
        let after = all(&log).await;
        assert_eq!(after, [before, recorded].concat());
        assert_eq!(all(&open_disk(&disk.durable(), tiny()).unwrap()).await, after);
    }
}

/// Lets the `nth` operation fail, wherever that is; then the log is poisoned until a restart.
async fn poisons(nth: usize, fault: Fault, options: Options, bytes: usize, reboot: bool) -> bool {
    let disk = Disk::seeded(nth as u64, None);
    let log = open_disk(&disk, options.clone()).unwrap();
    let room = stream("room-main.lobby");
    fill(&log, &room, 3, "before").await;
    let before = all(&log).await;
    disk.plan(nth, fault);
    let data = vec![b'x'; bytes];
    let result = append(&log, &room, Expected::Any, vec![event("Fated", data.clone())]).await;
    if result.is_ok() {
        return false;
    }
    if matches!(result, Err(AppendError::Unavailable { .. })) {
        assert_eq!(log.poisoned(), None, "the next segment's file was not made: nothing else was tried");
        assert_eq!(all(&log).await, before);
        return true;
    }
    assert!(matches!(result, Err(AppendError::Failure { .. })), "{result:?}");
    for _ in 0..2 {
        let later = append(&log, &room, Expected::Any, vec![event("Later", "1")]).await;
        assert!(matches!(later, Err(AppendError::Unavailable { .. })), "{later:?}");
    }
    let reason = log.poisoned().unwrap();
    assert!(reason.contains("simulated EIO") && reason.contains("restart"), "{reason}");
    assert_eq!(all(&log).await, before, "reads go on");
    assert_eq!(log.read_stream(&room, Revision::FIRST, PAGE).await.unwrap(), before);
    drop(log);
    if reboot {
        disk.crash(nth as u64);
    } else {
        disk.heal();
    }
    let log = open_disk(&disk, options.clone()).unwrap();
    assert_eq!(log.poisoned(), None);
    let then = all(&log).await;
    assert_eq!(then[..3], before);
    assert!(then.len() <= 4 && then.get(3).is_none_or(|event| event.envelope.data == data));
    fill(&log, &room, 2, "after").await;
    let after = all(&log).await;
    assert_eq!(after[..then.len()], then);
    drop(log);
    // What was served and acknowledged since is durable, although a sync had failed before.
    assert_eq!(all(&open_disk(&disk.durable(), options).unwrap()).await, after);
    true
}

#[tokio::test]
async fn a_failed_write_or_sync_poisons_until_a_restart() {
    for fault in [Fault::Error, Fault::Cut] {
        for (options, bytes) in [(Options::default(), SMALL), (tiny(), SMALL), (tiny(), LARGE)] {
            for reboot in [false, true] {
                // Not every operation is the append's own: what an index lacks fails no append.
                let mut failed = 0;
                for nth in 0..12 {
                    failed += usize::from(poisons(nth, fault, options.clone(), bytes, reboot).await);
                }
                assert!(failed >= 2, "a write and a sync at least: {failed}");
            }
        }
    }
}

/// A process may have no file to spare for a moment, and a disk no room for a segment's header.
#[tokio::test]
async fn a_segment_that_cannot_be_made_or_begun_is_tried_again() {
    let faults: [fn(&Disk); 3] = [
        |disk| disk.fail_only(&[".segment"], 0),
        |disk| disk.plan(0, Fault::Full),
        |disk| disk.plan(0, Fault::Short),
    ];
    for fault in faults {
        let disk = Disk::default();
        let log = open_disk(&disk, tiny()).unwrap();
        let room = stream("room-main.lobby");
        let post = || append(&log, &room, Expected::Any, vec![event("Posted", vec![b'x'; SMALL])]);
        post().await.unwrap();
        fault(&disk);
        let refused = post().await;
        assert!(matches!(refused, Err(AppendError::Unavailable { .. })), "{refused:?}");
        let told = log.warnings().join(" ");
        assert!(
            told.contains("next segment cannot be made: it is tried again") && log.poisoned().is_none(),
            "{told}"
        );
        assert_eq!(all(&open_disk(&disk.durable(), tiny()).unwrap()).await.len(), 1);
        post().await.unwrap();
        assert_eq!((log.warnings(), all(&log).await.len()), (Vec::new(), 2));
        drop(log);
        assert_eq!(all(&open_disk(&disk.durable(), tiny()).unwrap()).await.len(), 2);
    }
}

#[tokio::test]
async fn a_writer_that_ends_by_a_fault_of_its_own_poisons() {
    let disk = Disk::default();
    let log = open_disk(&disk, Options::default()).unwrap();
    let room = stream("room-main.lobby");
    fill(&log, &room, 1, "before").await;
    let (entered, release) = disk.hold(Op::Sync);
    let envelopes = vec![event("Fated", "1")];
    let fated = tokio::spawn(log.append(Append { stream: room.clone(), expected: Expected::Any, envelopes }));
    while entered.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    // The disk that waits for this has the thread panic.
    drop(release);
    assert!(matches!(fated.await.unwrap(), Err(AppendError::Failure { .. })));
    log.close();
    assert!(log.poisoned().unwrap().contains("ended by a fault, restart"));
    assert_eq!(all(&log).await.len(), 1, "reads go on");
}

#[tokio::test]
async fn a_conflict_with_what_failed_is_not_told() {
    let disk = Disk::default();
    let log = open_disk(&disk, Options::default()).unwrap();
    let (first, room) = (stream("room-main.first"), stream("room-main.second"));
    let (entered, release) = disk.hold(Op::Sync);
    let one = |room: &StreamId| Append {
        stream: room.clone(),
        expected: Expected::NoStream,
        envelopes: vec![event("Fated", "1")],
    };
    let held = tokio::spawn(log.append(one(&first)));
    while entered.try_recv().is_err() {
        assert!(!held.is_finished(), "an answer left without a sync");
        tokio::task::yield_now().await;
    }
    // These two wait for the writer together, so they share a batch; its sync fails.
    let (left, right) = (tokio::spawn(log.append(one(&room))), tokio::spawn(log.append(one(&room))));
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    disk.plan(2, Fault::Error);
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
    let answers = [left.await.unwrap().unwrap_err(), right.await.unwrap().unwrap_err()];
    assert!(matches!(answers[0], AppendError::Failure { .. }), "{answers:?}");
    assert!(matches!(answers[1], AppendError::Unavailable { .. }), "{answers:?}");
    assert_eq!(log.stream_head(&room).await.unwrap(), None);
}

/// While a large batch is on its way, others are decided on what it will have recorded: they
/// stand or fall with it.
#[tokio::test]
async fn what_is_put_together_meanwhile_stands_on_what_is_on_its_way() {
    for fails in [false, true] {
        let disk = Disk::default();
        let log = open_disk(&disk, Options::default()).unwrap();
        let room = stream("room-main.lobby");
        let (entered, release) = disk.hold(Op::Sync);
        let one = |expected, bytes| Append {
            stream: room.clone(),
            expected,
            envelopes: vec![event("Beside", vec![b'x'; bytes])],
        };
        let exact = |revision| Expected::Exact(Revision::new(revision));
        let first = tokio::spawn(log.append(one(Expected::NoStream, LARGE)));
        while entered.try_recv().is_err() {
            assert!(!first.is_finished(), "an answer left without a sync");
            tokio::task::yield_now().await;
        }
        let next = tokio::spawn(log.append(one(exact(0), LARGE)));
        let last = tokio::spawn(log.append(one(exact(1), SMALL)));
        let wrong = tokio::spawn(log.append(one(exact(0), SMALL)));
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!next.is_finished() && !wrong.is_finished(), "an answer left before its sync");
        assert_eq!(log.stream_head(&room).await.unwrap(), None);
        if fails {
            disk.plan(0, Fault::Sync);
        }
        release.send(()).unwrap();
        let answers = [first.await.unwrap(), next.await.unwrap(), last.await.unwrap(), wrong.await.unwrap()];
        if fails {
            assert!(matches!(answers[0], Err(AppendError::Failure { .. })), "{answers:?}");
            for answer in &answers[1..] {
                assert!(matches!(answer, Err(AppendError::Unavailable { .. })), "{answers:?}");
            }
            assert_eq!(all(&log).await, []);
            continue;
        }
        let conflict = AppendError::Conflict { expected: exact(0), actual: Some(Revision::new(2)) };
        assert_eq!(answers[3], Err(conflict));
        let recorded: Vec<_> = answers.into_iter().take(3).flat_map(Result::unwrap).collect();
        assert_eq!(all(&log).await, recorded);
        assert_eq!(all(&open_disk(&disk.durable(), tiny()).unwrap()).await, recorded);
    }
}

/// In the relaxed mode the sync comes later, without another append.
#[tokio::test]
async fn a_late_sync_makes_durable_or_poisons() {
    let relaxed =
        Options { durability: Durability::Interval(Duration::from_millis(1)), ..Options::default() };
    let room = stream("room-main.lobby");
    let disk = Disk::default();
    let log = open_disk(&disk, relaxed.clone()).unwrap();
    fill(&log, &room, 1, "relaxed").await;
    let before = all(&log).await;
    while all(&open_disk(&disk.durable(), Options::default()).unwrap()).await != before {
        tokio::task::yield_now().await;
    }
    disk.plan(0, Fault::Sync);
    let answer = append(&log, &room, Expected::Any, vec![event("Fated", "1")]).await;
    while log.poisoned().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(answer, Ok(_) | Err(AppendError::Failure { .. })), "{answer:?}");
    let shown = all(&log).await;
    assert_eq!(shown.len(), 1 + usize::from(answer.is_ok()), "what was answered is shown");
    let later = append(&log, &room, Expected::Any, vec![event("Later", "1")]).await;
    assert!(matches!(later, Err(AppendError::Unavailable { .. })), "{later:?}");
    let epoch = log.epoch();
    drop(log);
    disk.crash(1);
    let log = open_disk(&disk, relaxed).unwrap();
    assert!(log.epoch().counter() > epoch.counter(), "answers may have been lost");
    let then = all(&log).await;
    assert!(then.starts_with(&before) && then.len() <= 2);
}
