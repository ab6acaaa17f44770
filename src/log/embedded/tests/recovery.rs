//! Reopening real files after every kind of damage.

use std::path::PathBuf;

use super::wrapped::Wrapped;
use super::*;
use crate::log::Expected;
use crate::log::contract::{append, command, event, everything, fill, of_command, stream};

const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };

fn big() -> Options {
    Options { live_bytes_max: 1, ..Options::default() }
}

async fn all(log: &EmbeddedLog) -> Vec<Arc<Recorded>> {
    everything(log, &Filter::default(), PAGE).await
}

/// Files with this ending, in order.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// The end of what was written: what follows is zeros.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// Where each batch of a segment begins, and where the last one ends.
fn batches(dir: &Path, path: &Path) -> Vec<usize> {
    let epoch = epoch::parse(&std::fs::read_to_string(dir.join("epoch")).unwrap()).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let mut at = vec![format::SEGMENT_HEADER_BYTES];
    while let Ok((header, _)) = format::BatchHeader::decode(&bytes[*at.last().unwrap()..], epoch.log()) {
        let body = usize::try_from(header.body_len).unwrap();
        at.push(at.last().unwrap() + format::BATCH_HEADER_BYTES + body);
    }
    at
}

fn damage(result: Result<EmbeddedLog, OpenError>) -> (String, u64) {
    match result {
        Err(OpenError::Damaged { file, offset, .. }) => (file, offset),
        Err(error) => panic!("expected damage, got {error}"),
        Ok(_) => panic!("expected damage, but it opened"),
    }
}

#[tokio::test]
async fn reopening_finds_everything() {
    for options in [tiny(), big(), Options::default()] {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (stream("room-main.first"), stream("room-main.second"));
        let (mut before, mut epoch) = (Vec::new(), None);
        for life in 0..4_u64 {
            let log = open(dir.path(), options.clone()).unwrap();
            assert_eq!(*epoch.get_or_insert(log.epoch()), log.epoch());
            assert!(all(&log).await == before, "life {life}");
            assert_eq!(*log.head().borrow(), before.last().map(|event| event.position));
            fill(&log, &first, 30, "some data that fills the segment").await;
            append(&log, &second, Expected::Any, vec![of_command("alice", &format!("c{life}")); 2])
                .await
                .unwrap();
            fill(&log, &first, 30, "more data that fills the segment").await;
            for known in 0..=life {
                let asked = command(&second, "alice", &format!("c{known}"));
                let outcome = log.find_command(asked).await.unwrap().unwrap();
                assert_eq!(outcome.revision.get(), 2 * known + 1);
            }
            let head = log.stream_head(&first).await.unwrap().unwrap();
            assert_eq!(head.get(), 60 * (life + 1) - 1);
            before = all(&log).await;
            let read = log.read_stream(&first, Revision::FIRST, PAGE).await.unwrap();
            assert_eq!(contract::revisions(&read), (0..=head.get()).collect::<Vec<_>>());
        }
        let positions: Vec<_> = before.iter().map(|event| event.position.to_engine()).collect();
        assert_eq!(positions, (0..4 * 62).collect::<Vec<_>>());
    }
}

/// A log of three batches in its open segment.
async fn three_batches() -> (tempfile::TempDir, PathBuf, Vec<Arc<Recorded>>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), big()).unwrap();
    fill(&log, &stream("room-main.lobby"), 3, "data").await;
    let before = all(&log).await;
    drop(log);
    let path = files(dir.path(), "segment").pop().unwrap();
    let at = batches(dir.path(), &path);
    assert_eq!(at.len(), 4);
    (dir, path, before, at)
}

/// Opens, expects the events, goes on, opens again.
async fn goes_on(dir: &Path, expected: &[Arc<Recorded>], epoch: Epoch) {
    let log = open(dir, big()).unwrap();
    assert_eq!(log.epoch(), epoch, "only unacknowledged bytes were cut");
    assert_eq!(all(&log).await, expected);
    fill(&log, &stream("room-main.lobby"), 1, "after the cut").await;
    let after = all(&log).await;
    assert_eq!(after[..after.len() - 1], *expected);
    drop(log);
    assert_eq!(all(&open(dir, big()).unwrap()).await, after);
}

#[tokio::test]
async fn a_torn_tail_is_cut() {
    let (dir, path, before, at) = three_batches().await;
    let epoch = open(dir.path(), big()).unwrap().epoch();
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(written(&whole), at[3]);
    for end in at[2]..=at[3] {
        let kept = if end == at[3] { &before[..] } else { &before[..2] };
        // The file ends here; or what was allocated shows zeros; or what is left is of no batch.
        for filler in [None, Some(0), Some(0xff)] {
            if filler.is_some() && (end - at[2]) % 9 > 1 {
                continue;
            }
            let mut bytes = whole[..end].to_vec();
            bytes.resize(filler.map_or(end, |_| whole.len()), filler.unwrap_or(0));
            std::fs::write(&path, bytes).unwrap();
            drop(open(dir.path(), big()).unwrap());
            let left = std::fs::read(&path).unwrap();
            let cut = left.get(at[kept.len()]..).unwrap_or_default();
            assert!(cut.iter().all(|byte| *byte == 0), "nothing of the tail is left");
            goes_on(dir.path(), kept, epoch).await;
        }
    }
}

#[tokio::test]
async fn a_lost_middle_of_the_last_batch_is_cut() {
    let (dir, path, before, at) = three_batches().await;
    let epoch = open(dir.path(), big()).unwrap().epoch();
    let whole = std::fs::read(&path).unwrap();
    for lost in (at[2]..at[3]).step_by(3) {
        let mut bytes = whole.clone();
        bytes[lost] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
        goes_on(dir.path(), &before[..2], epoch).await;
    }
}

#[tokio::test]
async fn an_earlier_batch_is_never_cut() {
    let (dir, path, _, at) = three_batches().await;
    let whole = std::fs::read(&path).unwrap();
    for flipped in at[0]..at[2] {
        let mut bytes = whole.clone();
        bytes[flipped] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let batch = if flipped < at[1] { at[0] } else { at[1] };
        assert_eq!(damage(open(dir.path(), big())), (name(&path), bytes::to_u64(batch)), "byte {flipped}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is changed");
    }
    for flipped in 0..at[0] {
        let mut bytes = whole.clone();
        bytes[flipped] ^= 0x80;
        std::fs::write(&path, &bytes).unwrap();
        match open(dir.path(), big()) {
            Err(OpenError::Damaged { file, offset: 0, .. }) => assert_eq!(file, name(&path)),
            other => panic!("byte {flipped}: {:?}", other.err()),
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is changed");
    }
}

#[tokio::test]
async fn another_logs_segment_is_never_begun_anew() {
    let (dir, path, _, _) = three_batches().await;
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(dir.path().join("epoch"), "00c0ffee00c0ffee.1\n").unwrap();
    assert_eq!(damage(open(dir.path(), big())), (name(&path), 0));
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    std::fs::remove_file(dir.path().join("epoch")).unwrap();
    assert_eq!(damage(open(dir.path(), big())).0, "epoch");
    for nonsense in ["nonsense", "00c0ffee00c0ffee.1 crc32c=00000000\n"] {
        std::fs::write(dir.path().join("epoch"), nonsense).unwrap();
        assert_eq!(damage(open(dir.path(), big())).0, "epoch");
    }
}

/// A directory with closed segments, and all of its events.
async fn rolled() -> (tempfile::TempDir, Vec<Arc<Recorded>>) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), tiny()).unwrap();
    for number in 0..8 {
        for room in ["a", "b", "c"] {
            let room = stream(&format!("room-main.{room}"));
            append(&log, &room, Expected::Any, vec![of_command("alice", &format!("c{number}"))])
                .await
                .unwrap();
            fill(&log, &room, 3, &"long data ".repeat(10)).await;
        }
    }
    let before = all(&log).await;
    drop(log);
    assert!(files(dir.path(), "segment").len() > 3);
    (dir, before)
}

#[tokio::test]
async fn a_flipped_byte_in_a_closed_segment_is_never_served() {
    let (dir, before) = rolled().await;
    let path = &files(dir.path(), "segment")[1];
    let whole = std::fs::read(path).unwrap();
    let end = written(&whole);
    let mut refused = 0;
    for flipped in (format::SEGMENT_HEADER_BYTES..end).step_by(7) {
        change(path, |bytes| bytes[flipped] ^= 0x10);
        let log = open(dir.path(), tiny()).unwrap();
        let mut after = None;
        loop {
            match log.read_all(after, Filter::default(), PAGE).await {
                Ok(page) if page.scanned == after => break,
                Ok(page) => {
                    let from = after.map_or(0, |after: Position| after.to_engine() + 1);
                    let from = usize::try_from(from).unwrap();
                    assert!(page.events == before[from..from + page.events.len()], "byte {flipped}");
                    after = page.scanned;
                }
                Err(LogError::Damaged { file, .. }) => {
                    assert_eq!(file, name(path));
                    refused += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        std::fs::write(path, &whole).unwrap();
    }
    assert!(refused > (end - 48) / 7 / 2, "most bytes are of records: {refused}");
}

#[tokio::test]
async fn a_bad_index_is_built_again() {
    let (dir, before) = rolled().await;
    for path in files(dir.path(), "index") {
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(all(&open(dir.path(), tiny()).unwrap()).await == before);
        assert_eq!(std::fs::read(&path).unwrap(), whole, "the same index");
        for flipped in (0..120).step_by(11) {
            change(&path, |bytes| bytes[flipped] ^= 4);
            assert!(all(&open(dir.path(), tiny()).unwrap()).await == before);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        drop(open(dir.path(), tiny()).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
    // Another segment's index, whole in itself, is not taken for this one's.
    let indexes = files(dir.path(), "index");
    std::fs::copy(&indexes[1], &indexes[0]).unwrap();
    assert!(all(&open(dir.path(), tiny()).unwrap()).await == before);
}

/// Whatever an index says, an answer is right or an error: never less than there is.
#[tokio::test]
async fn an_index_that_points_astray_is_noticed() {
    let (dir, before) = rolled().await;
    let path = &files(dir.path(), "index")[0];
    let whole = std::fs::read(path).unwrap();
    let (mut noticed, mut filtered) = (0, 0);
    let index = path.file_name().unwrap().to_str().unwrap();
    let names_it =
        |file: &str, reason: &str| assert!(file == index || reason.contains(index), "{file}: {reason}");
    for flipped in (120..whole.len()).step_by(3) {
        change(path, |bytes| bytes[flipped] ^= 1);
        let log = open(dir.path(), tiny()).unwrap();
        for room in ["a", "b", "c"] {
            let room = stream(&format!("room-main.{room}"));
            let expected: Vec<_> = before.iter().filter(|event| event.stream == room).cloned().collect();
            match log.read_stream(&room, Revision::FIRST, PAGE).await {
                Ok(read) => assert!(read == expected, "byte {flipped}"),
                Err(LogError::Damaged { file, reason, .. }) => {
                    names_it(&file, &reason);
                    noticed += 1;
                }
                Err(error) => panic!("{error}"),
            }
            let filter = Filter { stream: Some(room.clone()), ..Filter::default() };
            for after in [0, 3, 6, 9, 12].map(Position::from_engine) {
                match log.read_all(Some(after), filter.clone(), PAGE).await {
                    Ok(page) => {
                        let passes = |event: &&Arc<Recorded>| event.position > after;
                        let expected: Vec<_> = expected.iter().filter(passes).cloned().collect();
                        assert!(page.events == expected, "byte {flipped}, past {after:?}");
                    }
                    Err(LogError::Damaged { file, reason, .. }) => {
                        names_it(&file, &reason);
                        filtered += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            match log.find_command(command(&room, "alice", "c0")).await {
                Ok(outcome) => assert_eq!(outcome.unwrap().revision, Revision::FIRST, "byte {flipped}"),
                Err(LogError::Damaged { file, reason, .. }) => {
                    names_it(&file, &reason);
                    noticed += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        std::fs::write(path, &whole).unwrap();
    }
    assert!(noticed > 20 && filtered > 20, "{noticed}, {filtered}");
}

#[tokio::test]
async fn a_newer_version_is_refused_by_name() {
    let (dir, _) = rolled().await;
    let segments = files(dir.path(), "segment");
    for path in [&segments[0], segments.last().unwrap()] {
        let versioned = |version: u8| {
            move |bytes: &mut Vec<u8>| {
                bytes[8] = version;
                let crc = checksum::crc32c(&bytes[..format::SEGMENT_HEADER_BYTES - 4]);
                bytes[format::SEGMENT_HEADER_BYTES - 4..format::SEGMENT_HEADER_BYTES]
                    .copy_from_slice(&crc.to_le_bytes());
            }
        };
        change(path, versioned(2));
        match open(dir.path(), tiny()) {
            Err(OpenError::Newer { file, version: 2 }) => assert_eq!(file, name(path)),
            other => panic!("{:?}", other.err()),
        }
        change(path, versioned(1));
    }
    drop(open(dir.path(), tiny()).unwrap());
}

#[tokio::test]
async fn a_crash_while_rolling_recovers() {
    let (dir, before) = rolled().await;
    let segments = files(dir.path(), "segment");
    let last = segments.last().unwrap();
    let first: u64 = format::parse_segment_name(&name(last)).unwrap();
    let kept = &before[..usize::try_from(first).unwrap()];
    let header = std::fs::read(last).unwrap()[..format::SEGMENT_HEADER_BYTES].to_vec();
    let mut garbled = header.clone();
    garbled[20] ^= 1;
    let chain = dir.path().join("chain");
    let begun =
        [None, Some(&header[..0]), Some(&header[..17]), Some(&[0; 48][..]), Some(&header), Some(&garbled)];
    let files_then: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let saved: Vec<_> = files_then.iter().map(|path| (path, std::fs::read(path).unwrap())).collect();
    for bytes in begun {
        for path in files(dir.path(), "segment").iter().chain(&files(dir.path(), "index")) {
            std::fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &saved {
            std::fs::write(path, bytes).unwrap();
        }
        match bytes {
            None => {
                // The line of the segment before it comes only once it is there.
                std::fs::remove_file(last).unwrap();
                let lines = std::fs::read_to_string(&chain).unwrap();
                let end = lines.trim_end().rfind('\n').unwrap() + 1;
                std::fs::write(&chain, &lines[..end]).unwrap();
            }
            Some(bytes) => std::fs::write(last, bytes).unwrap(),
        }
        let log = open(dir.path(), tiny()).unwrap();
        assert!(all(&log).await == kept);
        fill(&log, &stream("room-main.a"), 40, &"after the crash ".repeat(5)).await;
        let after = all(&log).await;
        assert!(after[..kept.len()] == *kept && after.len() == kept.len() + 40);
        drop(log);
        assert!(all(&open(dir.path(), tiny()).unwrap()).await == after);
    }
}

#[tokio::test]
async fn a_missing_or_foreign_segment_is_damage() {
    let (dir, _) = rolled().await;
    let segments = files(dir.path(), "segment");
    let away = dir.path().join("away");
    for path in &segments {
        std::fs::rename(path, &away).unwrap();
        let before = files(dir.path(), "segment");
        damage(open(dir.path(), tiny()));
        assert_eq!(files(dir.path(), "segment"), before, "nothing is begun anew");
        std::fs::rename(&away, path).unwrap();
    }
    drop(open(dir.path(), tiny()).unwrap());
    for path in &segments {
        std::fs::remove_file(path).unwrap();
    }
    damage(open(dir.path(), tiny()));
}

/// What is derived may lie on a bad spot of the disk: nothing that was recorded is out of reach.
#[tokio::test]
async fn what_is_derived_and_does_not_read_keeps_nothing_from_opening() {
    let (dir, before) = rolled().await;
    for unread in files(dir.path(), "index").iter().map(|path| name(path)).chain(["chain".to_owned()]) {
        let storage = Arc::new(Wrapped::new(dir.path(), None).without(&unread));
        let clock = Arc::new(ManualClock::default());
        let log =
            EmbeddedLog::open_storage(storage.clone(), Vec::new(), &tiny(), clock, Closer::beside).unwrap();
        assert!(all(&log).await == before, "{unread}");
        drop(log);
        if unread != "chain" {
            let index = storage.open(&unread).unwrap();
            index.read_exact_at(&mut [0; 8], 0).expect("it is built again");
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_or_made_is_named() {
    let (dir, _) = rolled().await;
    let epoch = dir.path().join("epoch");
    let text = std::fs::read(&epoch).unwrap();
    std::fs::remove_file(&epoch).unwrap();
    std::fs::create_dir(&epoch).unwrap();
    let error = open(dir.path(), tiny()).err().unwrap().to_string();
    assert!(error.starts_with("epoch: "), "{error}");
    std::fs::remove_dir(&epoch).unwrap();
    std::fs::write(&epoch, text).unwrap();
    let cold = dir.path().join("chain").join("cold");
    let error = open(dir.path(), Options { cold_dir: Some(cold.clone()), ..tiny() }).err().unwrap();
    assert!(error.to_string().contains(cold.to_str().unwrap()), "{error}");
    let last = files(dir.path(), "segment").pop().unwrap();
    let whole = Wrapped::new(dir.path(), None).without(&name(&last));
    let clock = Arc::new(ManualClock::default());
    let error =
        EmbeddedLog::open_storage(Arc::new(whole), Vec::new(), &tiny(), clock, Closer::beside).err().unwrap();
    assert!(error.to_string().starts_with(&format!("{}: ", name(&last))), "{error}");
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), tiny()).unwrap();
    match open(dir.path(), tiny()) {
        Err(OpenError::InUse { owner }) => assert_eq!(owner, format!("process {}", std::process::id())),
        other => panic!("{:?}", other.err()),
    }
    drop(log);
    drop(open(dir.path(), tiny()).unwrap());
}

#[test]
fn a_broken_chain_is_told_to_operators() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), tiny()).unwrap());
    std::fs::write(dir.path().join("chain"), "no chain\n").unwrap();
    let log = open(dir.path(), tiny()).unwrap();
    let warnings = log.warnings();
    assert!(warnings.iter().any(|warning| warning.contains("dramatis log verify")), "{warnings:?}");
}

/// Whoever takes the file for what a crash left behind must not let a second writer in.
#[test]
fn a_removed_lock_file_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), tiny()).unwrap();
    std::fs::remove_file(dir.path().join("LOCK")).unwrap();
    for _ in 0..2 {
        let refused = open(dir.path(), tiny()).err();
        assert!(matches!(refused, Some(OpenError::InUse { .. })), "{refused:?}");
    }
    drop(log);
    drop(open(dir.path(), tiny()).unwrap());
}

#[tokio::test]
async fn a_closed_log_takes_no_appends_and_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), big()).unwrap();
    fill(&log, &stream("room-main.lobby"), 3, "data").await;
    log.close();
    let refused = append(&log, &stream("room-main.lobby"), Expected::Any, vec![event("Late", "1")]).await;
    assert!(matches!(refused, Err(AppendError::Unavailable { .. })), "{refused:?}");
    assert_eq!(all(&log).await.len(), 3);
}
