//! Crashes, broken disks and damage, against a plain list of what was acknowledged.

use std::sync::Arc;

use dramatis_events::{Position, Revision};
use proptest::prelude::*;

use super::simulated::Simulated;
use super::{EmbeddedLog, OpenError, Options};
use crate::clock::ManualClock;
use crate::log::contract::{append_of, block_on, everything};
use crate::log::{Append, AppendError, CommandRef, EventLog, Expected, ReadLimit};

fn open(disk: &Simulated) -> Result<EmbeddedLog, OpenError> {
    let options = Options { segment_bytes: 4_096, live_bytes_max: 2_000, ..Options::default() };
    EmbeddedLog::open_storage(Arc::new(disk.clone()), None, options, Arc::new(ManualClock::default()))
}

#[derive(Debug, Clone)]
enum Step {
    Append { stream: u8, events: usize, bytes: usize },
    FailingSync { stream: u8, bytes: usize },
    FailingWrite { stream: u8, bytes: usize },
    Crash(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4_u8, 1..4_usize, 0..1_500_usize)
            .prop_map(|(stream, events, bytes)| Step::Append { stream, events, bytes }),
        1 => (0..4_u8, 0..3_000_usize).prop_map(|(stream, bytes)| Step::FailingSync { stream, bytes }),
        1 => (0..4_u8, 0..3_000_usize).prop_map(|(stream, bytes)| Step::FailingWrite { stream, bytes }),
        2 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Reopen),
    ]
}

/// What was acknowledged, in order, and the one append whose outcome is unknown.
#[derive(Default)]
struct Model {
    acknowledged: Vec<Append>,
    unknown: Option<Append>,
    count: u32,
}

impl Model {
    fn make(&mut self, stream: u8, events: usize, bytes: usize) -> Append {
        self.count += 1;
        append_of(&format!("room-main.r{stream}"), &format!("c{}", self.count), events, bytes)
    }

    /// Appends where the stream stands, and notes what the answer lets us believe.
    fn append(&mut self, log: &EmbeddedLog, mut append: Append) {
        let head = block_on(log.stream_head(&append.stream)).unwrap();
        append.expected = Expected::after(head);
        match block_on(log.append(append.clone())) {
            Ok(_) => self.acknowledged.push(append),
            Err(AppendError::Failure { .. }) => self.unknown = Some(append),
            Err(AppendError::Unavailable { .. }) => assert!(log.poisoned().is_some()),
            Err(other) => panic!("{other}"),
        }
    }

    /// After a reopen: all that was acknowledged, once, in order; the unknown whole or not at all.
    fn check(&mut self, log: &EmbeddedLog) {
        let events = everything(log);
        let known: usize = self.acknowledged.iter().map(|append| append.envelopes.len()).sum();
        if let Some(unknown) = self.unknown.take()
            && events.len() > known
        {
            self.acknowledged.push(unknown);
        }
        let wanted: Vec<_> = self
            .acknowledged
            .iter()
            .flat_map(|append| append.envelopes.iter().map(|envelope| (append.stream.clone(), envelope)))
            .collect();
        assert_eq!(events.len(), wanted.len());
        for (number, (event, (stream, envelope))) in events.iter().zip(&wanted).enumerate() {
            assert_eq!(event.position, Position::from_engine(number as u64));
            assert_eq!((&event.stream, &event.envelope), (stream, *envelope));
        }
        assert_eq!(*log.head().borrow(), events.last().map(|event| event.position));
        for stream in events.iter().map(|event| &event.stream).collect::<std::collections::HashSet<_>>() {
            let own: Vec<_> = events.iter().filter(|event| event.stream == *stream).cloned().collect();
            let all = ReadLimit { events: 10_000, bytes: usize::MAX };
            assert_eq!(block_on(log.read_stream(stream, Revision::FIRST, all)).unwrap(), own);
        }
        for event in &events {
            let id = event.envelope.command.as_ref().unwrap().id.clone();
            let command =
                CommandRef { stream: event.stream.clone(), author: event.envelope.author.clone(), id };
            let outcome = block_on(log.find_command(command.clone())).unwrap().unwrap();
            let last = events.iter().rfind(|event| command.is_of(event)).unwrap();
            assert_eq!((outcome.position, outcome.revision), (last.position, last.revision));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_acknowledged_is_lost_doubled_or_reordered(
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let disk = Simulated::default();
        let (mut model, mut log) = (Model::default(), open(&disk).unwrap());
        for step in steps {
            let reopened = matches!(step, Step::Crash(_) | Step::Reopen);
            match step {
                Step::Append { stream, events, bytes } => {
                    let append = model.make(stream, events, bytes);
                    model.append(&log, append);
                }
                Step::FailingSync { stream, bytes } | Step::FailingWrite { stream, bytes }
                    if log.poisoned().is_none() =>
                {
                    if matches!(step, Step::FailingSync { .. }) { disk.fail_sync() } else { disk.fail_write() }
                    let append = model.make(stream, 2, bytes);
                    model.append(&log, append);
                    prop_assert!(log.poisoned().is_some());
                }
                Step::FailingSync { .. } | Step::FailingWrite { .. } | Step::Reopen => {}
                Step::Crash(seed) => {
                    drop(log);
                    disk.crash(seed);
                    log = open(&disk).unwrap();
                    model.check(&log);
                    continue;
                }
            }
            if reopened {
                drop(log);
                log = open(&disk).unwrap();
                model.check(&log);
            }
        }
    }
}

/// A disk with this many appends of one event, in one segment or several.
fn filled(appends: usize, bytes: usize) -> (Simulated, Model) {
    let (disk, mut model) = (Simulated::default(), Model::default());
    let log = open(&disk).unwrap();
    for _ in 0..appends {
        let append = model.make(0, 1, bytes);
        model.append(&log, append);
    }
    (disk, model)
}

const FIRST: &str = "00000000000000000000.segment";

#[test]
fn damage_before_the_last_batch_is_an_error_wherever_it_is() {
    let (disk, _) = filled(4, 20);
    let end = disk.bytes(FIRST).iter().rposition(|byte| *byte != 0).unwrap();
    let last = end - 250;
    for offset in (0..last).step_by(7) {
        disk.flip(FIRST, offset);
        assert!(open(&disk).is_err(), "a changed byte at {offset} went unnoticed");
        disk.flip(FIRST, offset);
    }
    assert!(open(&disk).is_ok());
}

#[test]
fn a_segment_of_another_log_is_never_cut() {
    let (disk, _) = filled(3, 20);
    let before = disk.bytes(FIRST);
    super::Storage::replace(&disk, "epoch", b"00000000deadbeef.1\n").unwrap();
    assert!(matches!(open(&disk), Err(OpenError::Damaged { .. })));
    assert_eq!(disk.bytes(FIRST), before);
}

#[test]
fn a_missing_or_damaged_index_is_built_again() {
    let (disk, mut model) = filled(40, 300);
    let index = "00000000000000000000.index";
    disk.remove(index);
    model.check(&open(&disk).unwrap());
    disk.flip(index, 20);
    model.check(&open(&disk).unwrap());
}

#[test]
fn a_damaged_index_section_is_an_error_not_a_loop() {
    let (disk, _) = filled(40, 300);
    let index = "00000000000000000000.index";
    for offset in (0..disk.bytes(index).len()).step_by(3) {
        disk.flip(index, offset);
        if let Ok(log) = open(&disk) {
            let stream = append_of("room-main.r0", "c", 1, 0).stream;
            let limit = ReadLimit { events: 10_000, bytes: usize::MAX };
            if let Ok(events) = block_on(log.read_stream(&stream, Revision::FIRST, limit)) {
                assert_eq!(events.len(), 40, "a changed byte at {offset} hid events");
            }
        }
        if disk.bytes(index).len() > offset {
            disk.flip(index, offset);
        }
    }
}
