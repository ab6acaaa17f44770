//! Hostile bytes through every decoder: no panic, no endless loop, no unbounded allocation, and
//! nothing is served that was not written.

use proptest::prelude::*;
use proptest::sample::Index;

use super::disk::Disk;
use super::*;
use crate::log::Expected;
use crate::log::contract::{append, command, everything, fill, of_command, stream};
use crate::log::embedded::bytes::Fields;
use crate::log::embedded::format::{BatchHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::log::embedded::record::{Raw, take_body};
use crate::log::embedded::sidecar::Sidecar;
use crate::log::embedded::table::Table;

const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };
const ID: u64 = 7;

/// One change to a file's bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Cut(Index),
    Copy(Index, Index, usize),
    Fill(Index, Vec<u8>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 1..=u8::MAX).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        1 => at().prop_map(Mutation::Cut),
        2 => (at(), at(), 1..700_usize).prop_map(|(from, to, len)| Mutation::Copy(from, to, len)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Mutation::Fill(at, bytes)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        let mut put = |at: usize, new: &[u8]| {
            let end = len.min(at + new.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        };
        match self {
            Self::Flip(at, bits) => bytes[at.index(len)] ^= bits,
            Self::Cut(at) => bytes.truncate(at.index(len)),
            Self::Fill(at, new) => put(at.index(len), new),
            Self::Copy(from, to, count) => {
                let from = from.index(len);
                let copied = bytes[from..len.min(from + count)].to_vec();
                let to = to.index(len);
                let end = len.min(to + copied.len());
                bytes[to..end].copy_from_slice(&copied[..end - to]);
            }
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A log of several segments, closed, with its events.
async fn grown() -> (Disk, Vec<Arc<Recorded>>) {
    let disk = Disk::default();
    let log = open_disk(&disk, tiny()).unwrap();
    for number in 0..40 {
        let room = stream(&format!("room-main.{}", number % 3));
        let id = format!("c{number}");
        append(&log, &room, Expected::Any, vec![of_command("alice", &id); 2]).await.unwrap();
    }
    for number in 0..70 {
        fill(&log, &stream(&format!("user-main.{number}")), 1, "one").await;
    }
    let events = everything(&log, &Filter::default(), PAGE).await;
    (disk, events)
}

/// Whatever it answers, it is an error or what was written.
async fn probe(log: &EmbeddedLog, written: &[Arc<Recorded>]) {
    let mut after = None;
    while let Ok(page) = log.read_all(after, Filter::default(), ReadLimit::events(10)).await {
        assert!(page.events.iter().all(|event| written.contains(event)), "served what was not written");
        if page.scanned == after {
            break;
        }
        assert!(page.scanned > after);
        after = page.scanned;
    }
    for name in ["room-main.0", "room-main.1", "user-main.7", "user-main.69", "user-main.none"] {
        let room = stream(name);
        let _ = log.stream_head(&room).await;
        let from = Revision::FIRST;
        for read in [
            log.read_stream(&room, from, PAGE).await,
            log.read_stream_backwards(&room, None, ReadLimit::events(3)).await,
        ] {
            assert!(read.unwrap_or_default().iter().all(|event| written.contains(event)));
        }
        for id in ["c0", "c30", "none"] {
            let _ = log.find_command(command(&room, "alice", id)).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn changed_files_are_refused_or_read_right(
        file in any::<Index>(),
        mutations in prop::collection::vec(mutation(), 1..5),
    ) {
        run(async {
            let (disk, written) = grown().await;
            let names: Vec<_> = disk.list().unwrap().into_iter().filter(|name| name != "epoch").collect();
            let name = file.get(&names);
            disk.change(name, |bytes| mutations.iter().for_each(|mutation| mutation.apply(bytes)));
            if let Ok(log) = open_disk(&disk, tiny()) {
                probe(&log, &written).await;
            }
        });
    }
}

/// Flags and three short texts, so that decoding gets past them.
fn plausible(body: &mut [u8], flags: u8) {
    if body.len() > 60 {
        body[42] = flags;
        body[43..60].copy_from_slice(b"\x08room-a.b\x03Abc\x03bob");
    }
}

/// An index whose head is changed and its checksum made right again.
fn forged(index: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let len = usize::try_from(u32::from_le_bytes(index[8..12].try_into().unwrap())).unwrap();
    let mut head = index[16..16 + len].to_vec();
    for mutation in mutations {
        mutation.apply(&mut head);
    }
    let (len, crc) = (u32::try_from(head.len()).unwrap(), checksum::crc32c(&head));
    let parts = [&index[..8], &len.to_le_bytes(), &crc.to_le_bytes(), &head, &index[16 + head.len()..]];
    parts.concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn tables_of_any_bytes_decode_or_not(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        blocks in 0..3_u32,
        length_log in 0..6_u32,
        segments in any::<u16>(),
        key in any::<u64>(),
    ) {
        // Fields that fit together more often than chance would have it.
        let length = 1_u32 << length_log;
        let at = 4 + 12 * usize::try_from(blocks).unwrap();
        let put = |bytes: &mut Vec<u8>, at: usize, number: u32| {
            if let Some(field) = bytes.get_mut(at..at + 4) {
                field.copy_from_slice(&number.to_le_bytes());
            }
        };
        put(&mut bytes, 0, blocks * 128);
        put(&mut bytes, at + 8, length);
        put(&mut bytes, at + 12, length - 1);
        put(&mut bytes, at + 16, u32::from(segments) % if key % 2 == 0 { 150 } else { length });
        let prints = bytes.len().saturating_sub(at + 24) / 2;
        put(&mut bytes, at + 20, u32::try_from(prints).unwrap());
        if let Some(table) = Table::decode(&mut Fields(&bytes), 16) {
            for step in 0..64 {
                table.may_hold(key.wrapping_mul(2 * step + 1));
            }
        }
    }

    #[test]
    fn records_of_any_bytes_decode_or_not(
        body in prop::collection::vec(any::<u8>(), 0..200),
        flags in 0..=31_u8,
    ) {
        let mut body = body;
        plausible(&mut body, flags);
        let _ = take_body(&mut Fields(&body));
        if let Ok(raw) = Raw::read(&body) {
            let _ = (raw.command(), raw.decode());
        }
    }

    #[test]
    fn segments_of_any_batches_open_or_not(
        mut body in prop::collection::vec(any::<u8>(), 0..300),
        flags in 0..=31_u8,
        count in any::<u32>(),
        forged in prop::array::uniform3(any::<u64>()),
        fits in any::<bool>(),
    ) {
        let disk = Disk::default();
        disk.replace("epoch", format!("{}\n", Epoch::first(ID)).as_bytes()).unwrap();
        let segment =
            SegmentHeader { counter: 1, log: ID, first_position: 0, first_batch: 1, previous: 0 };
        let [number, watermark, first_position] = if fits { [1, 1, 0] } else { forged };
        let len = u32::try_from(body.len()).unwrap();
        if fits {
            plausible(&mut body, flags);
            body.iter_mut().take(8).for_each(|byte| *byte = 0);
        }
        // A record whose own checksum is right, of fields that need not be.
        let record = [&len.to_le_bytes()[..], &checksum::crc32c(&body).to_le_bytes(), &body].concat();
        let header = BatchHeader {
            number, watermark, first_position, recorded_at: 0, previous: 0,
            count: if fits { 1 } else { count },
            body_len: len + 8,
            body_crc: checksum::crc32c(&record),
        };
        let bytes = [segment.encode(), header.encode(ID).0, record].concat();
        prop_assert_eq!(segment.encode().len(), SEGMENT_HEADER_BYTES);
        disk.replace(&format::segment_name(0), &bytes).unwrap();
        if let Ok(log) = open_disk(&disk, tiny()) {
            let _ = run(log.read_all(None, Filter::default(), PAGE));
        }
    }
}

#[test]
fn forged_index_heads_never_panic() {
    use proptest::strategy::ValueTree as _;
    let (disk, written) = run(grown());
    let name = disk.list().unwrap().into_iter().find(|name| name.strip_suffix(".index").is_some()).unwrap();
    let file = disk.open(&name).unwrap();
    let whole = storage::read_up_to(&*file, 0, file.size().unwrap()).unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut opened = 0;
    for _ in 0..512 {
        let mutations = prop::collection::vec(mutation(), 0..3).new_tree(&mut runner).unwrap().current();
        let bytes = forged(&whole, &mutations);
        disk.change(&name, |file| *file = bytes);
        opened += usize::from(Sidecar::read(&*disk.open(&name).unwrap()).unwrap().is_some());
        if let Ok(log) = open_disk(&disk, tiny()) {
            run(probe(&log, &written));
        }
    }
    assert!(opened > 100, "some forgeries get past the head: {opened}");
}
