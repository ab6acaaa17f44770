//! What every engine must do, run against each of them.

use std::collections::HashSet;
use std::sync::Arc;

use dramatis_events::{
    CommandId, CommandKey, CommandStamp, ContentHash, Envelope, EventId, EventName, MemberId, Position,
    Recorded, Revision, StreamId, UnixMillis,
};

use super::{
    Append, AppendError, CommandRef, EVENT_BYTES_MAX, EventLog, Expected, Filter, LogError, ReadLimit, Tail,
};
use crate::clock::ManualClock;

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// An append of so many events of one command by alice, expecting no stream.
pub(crate) fn append_of(stream: &str, command: &str, events: usize, bytes: usize) -> Append {
    let (stream, author) = (StreamId::parse(stream).unwrap(), MemberId::parse("alice").unwrap());
    let id = CommandId::parse(command).unwrap();
    let key = CommandKey::derive(&stream, &author, &id);
    let envelope = |index: usize| Envelope {
        id: EventId::derive(key, u32::try_from(index).unwrap()),
        name: EventName::parse(if index == 0 { "MessagePosted" } else { "MessageEdited" }).unwrap(),
        version: 1,
        occurred_at: (index == 1).then_some(UnixMillis::new(-5)),
        author: author.clone(),
        command: Some(CommandStamp { id: id.clone(), hash: ContentHash::of(&[command.as_bytes()]) }),
        correlation_id: (index == 0).then_some(EventId::derive(key, 77)),
        causation_id: (index == 2).then_some(EventId::derive(key, 78)),
        subject: author.user().filter(|_| index == 1),
        data: format!("\"{}\"", "x".repeat(bytes)).into(),
    };
    Append { stream, expected: Expected::NoStream, envelopes: (0..events).map(envelope).collect() }
}

/// All events, read in small pages.
pub(crate) fn everything(log: &dyn EventLog) -> Vec<Arc<Recorded>> {
    let (mut events, mut after) = (Vec::new(), None);
    loop {
        let page = block_on(log.read_all(after, Filter::default(), ReadLimit::events(7))).unwrap();
        if page.scanned == after {
            return events;
        }
        (events.len() + page.events.len() <= 1_000_000).then_some(()).unwrap();
        after = page.scanned;
        events.extend(page.events);
    }
}

fn put(log: &dyn EventLog, stream: &str, command: &str, events: usize) -> Vec<Arc<Recorded>> {
    let append = Append { expected: Expected::Any, ..append_of(stream, command, events, 10) };
    block_on(log.append(append)).unwrap()
}

fn stream(text: &str) -> StreamId {
    StreamId::parse(text).unwrap()
}

fn revisions(events: &[Arc<Recorded>]) -> Vec<u64> {
    events.iter().map(|event| event.revision.get()).collect()
}

/// Runs the whole contract; `make` gives an empty log on the clock.
pub(crate) fn holds<L: EventLog>(make: impl Fn(Arc<ManualClock>) -> L) {
    let fresh = || make(Arc::new(ManualClock::default()));
    appends_are_conditional_and_atomic(&fresh());
    sizes_are_limited(&fresh());
    streams_are_read_in_pages(&fresh());
    the_whole_log_is_read_through_filters(&fresh());
    commands_are_found_by_scope(&fresh());
    let clock = Arc::new(ManualClock::default());
    time_never_runs_backwards(&make(clock.clone()), &clock);
    a_tail_has_no_gap(Arc::new(fresh()));
}

fn appends_are_conditional_and_atomic(log: &dyn EventLog) {
    assert_eq!(*log.head().borrow(), None);
    let first = block_on(log.append(append_of("room-main.a", "c1", 3, 10))).unwrap();
    assert_eq!(revisions(&first), [0, 1, 2]);
    let at = |expected| Append { expected, ..append_of("room-main.a", "c2", 2, 10) };
    let actual = Some(Revision::new(2));
    for expected in [Expected::NoStream, Expected::Exact(Revision::new(1)), Expected::Exact(Revision::new(3))]
    {
        let conflict = Err(AppendError::Conflict { expected, actual });
        assert_eq!(block_on(log.append(at(expected))), conflict);
    }
    let missing =
        Append { expected: Expected::Exact(Revision::FIRST), ..append_of("room-main.b", "c", 1, 1) };
    let conflict = AppendError::Conflict { expected: missing.expected, actual: None };
    assert_eq!(block_on(log.append(missing)), Err(conflict));
    assert_eq!(everything(log), first, "a refused append leaves nothing");
    let next = block_on(log.append(at(Expected::Exact(Revision::new(2))))).unwrap();
    assert_eq!(revisions(&next), [3, 4]);
    assert_eq!(block_on(log.stream_head(&stream("room-main.a"))).unwrap(), Some(Revision::new(4)));
    assert_eq!(block_on(log.stream_head(&stream("room-main.b"))).unwrap(), None);
    let all = everything(log);
    assert_eq!(all, [first, next].concat());
    assert!(all.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!(*log.head().borrow(), all.last().map(|event| event.position));
}

fn sizes_are_limited(log: &dyn EventLog) {
    let empty = Append { envelopes: Vec::new(), ..append_of("room-main.a", "c", 1, 1) };
    assert_eq!(block_on(log.append(empty)), Err(AppendError::Empty));
    for large in [
        append_of("room-main.a", "c", 1, EVENT_BYTES_MAX),
        append_of("room-main.a", "c", 9, EVENT_BYTES_MAX - 2),
        append_of("room-main.a", "c", 4_097, 0),
    ] {
        assert!(matches!(block_on(log.append(large)), Err(AppendError::TooLarge { .. })));
    }
    assert_eq!(*log.head().borrow(), None);
    block_on(log.append(append_of("room-main.a", "c", 1, EVENT_BYTES_MAX - 2))).unwrap();
}

fn streams_are_read_in_pages(log: &dyn EventLog) {
    for number in 0..10 {
        put(log, "room-main.a", &format!("a{number}"), 1);
        put(log, "room-main.b", &format!("b{number}"), 2);
    }
    let a = stream("room-main.a");
    let forward =
        |from, limit| revisions(&block_on(log.read_stream(&a, Revision::new(from), limit)).unwrap());
    let back = |before: Option<u64>, limit| {
        revisions(&block_on(log.read_stream_backwards(&a, before.map(Revision::new), limit)).unwrap())
    };
    let few = ReadLimit::events(3);
    assert_eq!((forward(0, few), forward(8, few)), (vec![0, 1, 2], vec![8, 9]));
    assert_eq!((forward(10, few), forward(u64::MAX, few)), (vec![], vec![]));
    assert_eq!((back(None, few), back(Some(2), few)), (vec![9, 8, 7], vec![1, 0]));
    assert_eq!((back(Some(0), few), back(Some(99), few)), (vec![], vec![9, 8, 7]));
    let tight = ReadLimit { events: 10, bytes: 1 };
    assert_eq!((forward(4, tight), back(Some(4), tight)), (vec![4], vec![3]), "one event always fits");
    assert_eq!(forward(0, ReadLimit { events: 10, bytes: 25 }), [0, 1]);
}

fn the_whole_log_is_read_through_filters(log: &dyn EventLog) {
    for number in 0..40 {
        put(log, "room-main.a", &format!("a{number}"), 2);
        put(log, "user-main.b", &format!("b{number}"), 1);
    }
    let all = everything(log);
    assert_eq!(all.len(), 120);
    let filters = [
        Filter { category: Some(dramatis_events::Category::parse("user").unwrap()), ..Filter::default() },
        Filter { stream: Some(stream("room-main.a")), ..Filter::default() },
        Filter { names: vec![EventName::known("MessageEdited")], ..Filter::default() },
        Filter { stream: Some(stream("room-main.none")), ..Filter::default() },
    ];
    for filter in filters {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = block_on(log.read_all(after, filter.clone(), ReadLimit::events(7))).unwrap();
            assert!(page.events.len() <= 7);
            if page.scanned == after {
                break;
            }
            assert!(page.scanned > after);
            after = page.scanned;
            seen.extend(page.events);
        }
        let pass =
            |event: &&Arc<Recorded>| filter.passes(event.stream.as_str(), event.envelope.name.as_str());
        assert_eq!(seen, all.iter().filter(pass).cloned().collect::<Vec<_>>());
        assert_eq!(after, *log.head().borrow(), "irrelevant events are passed too");
    }
    let asked = Position::from_engine(all.last().unwrap().position.to_engine() + 1);
    let ahead = block_on(log.read_all(Some(asked), Filter::default(), ReadLimit::events(1)));
    assert_eq!(ahead, Err(LogError::AheadOfLog { asked }));
}

fn commands_are_found_by_scope(log: &dyn EventLog) {
    let find = |stream: &str, author: &str, id: &str| {
        let (author, id) = (MemberId::parse(author).unwrap(), CommandId::parse(id).unwrap());
        block_on(log.find_command(CommandRef { stream: StreamId::parse(stream).unwrap(), author, id }))
            .unwrap()
    };
    assert_eq!(find("room-main.a", "alice", "c1"), None);
    let recorded = put(log, "room-main.a", "c1", 3);
    put(log, "room-main.b", "c1", 1);
    put(log, "room-main.a", "c2", 1);
    let outcome = find("room-main.a", "alice", "c1").unwrap();
    let last = recorded.last().unwrap();
    assert_eq!((outcome.revision, outcome.position), (last.revision, last.position));
    assert_eq!(outcome.hash, ContentHash::of(&[b"c1"]));
    assert_eq!(find("room-main.b", "alice", "c1").unwrap().revision, Revision::FIRST);
    assert_eq!(find("room-main.a", "bob", "c1"), None);
    assert_eq!(find("room-main.a", "alice", "c3"), None);
}

fn time_never_runs_backwards(log: &dyn EventLog, clock: &ManualClock) {
    for (now, wanted) in [(100, 100), (50, 100), (120, 120), (-7, 120)] {
        clock.set(UnixMillis::new(now));
        let recorded = put(log, "room-main.a", &format!("c{now}"), 2);
        assert!(recorded.iter().all(|event| event.recorded_at == UnixMillis::new(wanted)));
    }
}

fn a_tail_has_no_gap<L: EventLog>(log: Arc<L>) {
    let port: Arc<dyn EventLog> = log;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut tail = Tail::new(port.clone(), None, Filter::default());
        let writers = (0..8).map(|writer| {
            let log = port.clone();
            tokio::spawn(async move {
                let name = format!("room-main.w{writer}");
                for number in 0..50 {
                    let append = append_of(&name, &format!("c{number}"), 1, 100);
                    log.append(Append { expected: Expected::Any, ..append }).await.unwrap();
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut seen = Vec::new();
        while seen.len() < 400 {
            seen.extend(tail.next(ReadLimit::events(9)).await.unwrap().unwrap().events);
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(seen.is_sorted_by(|a, b| a.position < b.position));
        assert_eq!(seen.iter().map(|event| event.envelope.id).collect::<HashSet<_>>().len(), 400);
    });
}

#[test]
fn in_memory() {
    holds(|clock| super::memory::MemoryLog::new(clock));
}

#[test]
fn embedded_in_one_segment_and_in_many() {
    for (segment_bytes, live_bytes_max) in [(64 * 1024 * 1024, 16 * 1024 * 1024), (2_048, 0)] {
        let dirs = std::cell::RefCell::new(Vec::new());
        holds(|clock| {
            let dir = tempfile::tempdir().unwrap();
            let options = super::embedded::Options { segment_bytes, live_bytes_max, ..Default::default() };
            let log = super::embedded::EmbeddedLog::open(dir.path(), options, clock).unwrap();
            dirs.borrow_mut().push(dir);
            log
        });
    }
}

#[test]
fn a_second_owner_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let clock = Arc::new(ManualClock::default());
        super::embedded::EmbeddedLog::open(dir.path(), super::embedded::Options::default(), clock)
    };
    let first = open().unwrap();
    let error = open().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(first);
    open().unwrap();
}
