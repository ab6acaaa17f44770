//! What every engine of [`EventLog`] is held to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::sync::Arc;

use dramatis_events::{
    Category, CommandId, CommandStamp, ContentHash, Envelope, EventId, EventName, MemberId, Position,
    Recorded, Revision, StreamId, UnixMillis,
};

use super::{
    APPEND_BYTES_MAX, APPEND_EVENTS_MAX, Append, AppendError, CommandRef, EVENT_BYTES_MAX, EventLog,
    Expected, Filter, Header, LogError, ReadLimit, Tail,
};
use crate::clock::ManualClock;

pub(crate) fn stream(name: &str) -> StreamId {
    StreamId::parse(name).unwrap()
}

pub(crate) fn member(name: &str) -> MemberId {
    MemberId::parse(name).unwrap()
}

/// An event without a command; the data need not be JSON for a log.
pub(crate) fn event(name: &str, data: impl Into<bytes::Bytes>) -> Envelope {
    Envelope {
        id: EventId::at(&stream("room-main.any"), Revision::FIRST),
        name: EventName::parse(name).unwrap(),
        version: 1,
        occurred_at: None,
        author: member("alice"),
        command: None,
        correlation_id: None,
        causation_id: None,
        subject: None,
        data: data.into(),
    }
}

/// One event of a command.
pub(crate) fn of_command(author: &str, id: &str) -> Envelope {
    let stamp = CommandStamp { id: CommandId::parse(id).unwrap(), hash: ContentHash::of(&[id.as_bytes()]) };
    Envelope { author: member(author), command: Some(stamp), ..event("MessagePosted", "{}") }
}

pub(crate) fn command(room: &StreamId, author: &str, id: &str) -> CommandRef {
    CommandRef { stream: room.clone(), author: member(author), id: CommandId::parse(id).unwrap() }
}

pub(crate) async fn append(
    log: &dyn EventLog,
    room: &StreamId,
    expected: Expected,
    envelopes: Vec<Envelope>,
) -> Result<Vec<Arc<Recorded>>, AppendError> {
    log.append(Append { stream: room.clone(), expected, envelopes }).await
}

/// Appends single events `0`, `1`, … at a stream's end.
pub(crate) async fn fill(log: &dyn EventLog, room: &StreamId, count: usize, data: &str) {
    for number in 0..count {
        let expected = Expected::after(log.stream_head(room).await.unwrap());
        append(log, room, expected, vec![event("MessagePosted", format!("{number}{data}"))]).await.unwrap();
    }
}

pub(crate) fn revisions(events: &[Arc<Recorded>]) -> Vec<u64> {
    events.iter().map(|event| event.revision.get()).collect()
}

/// Every event of the log, read in pages.
pub(crate) async fn everything(log: &dyn EventLog, filter: &Filter, limit: ReadLimit) -> Vec<Arc<Recorded>> {
    past(log, None, filter, limit).await
}

/// Every event past a position, read in pages.
async fn past(
    log: &dyn EventLog,
    mut after: Option<Position>,
    filter: &Filter,
    limit: ReadLimit,
) -> Vec<Arc<Recorded>> {
    let mut events = Vec::new();
    loop {
        let page = log.read_all(after, filter.clone(), limit).await.unwrap();
        events.extend(page.events);
        if page.scanned == after {
            return events;
        }
        assert!(page.scanned > after, "a page never goes back");
        after = page.scanned;
    }
}

/// Runs the suite on an empty log.
pub(crate) async fn run(log: Arc<dyn EventLog>, clock: &ManualClock) {
    empty(&*log).await;
    ahead(log.clone()).await;
    conditions(&*log).await;
    sizes(&*log).await;
    recorded_at(&*log, clock).await;
    pages_of_a_stream(&*log).await;
    backwards(&*log).await;
    the_whole_log(&*log).await;
    commands(&*log).await;
    tails(log.clone()).await;
    ahead(log.clone()).await;
    filters(&*log, clock).await;
    heads(log).await;
}

async fn empty(log: &dyn EventLog) {
    let room = stream("room-main.empty");
    assert_eq!(*log.head().borrow(), None);
    assert_eq!(log.stream_head(&room).await.unwrap(), None);
    assert_eq!(log.read_stream(&room, Revision::FIRST, ReadLimit::events(9)).await.unwrap(), []);
    assert_eq!(log.read_stream_backwards(&room, None, ReadLimit::events(9)).await.unwrap(), []);
    let page = log.read_all(None, Filter::default(), ReadLimit::events(9)).await.unwrap();
    assert_eq!((page.events.len(), page.scanned), (0, None));
    let asked = Position::from_engine(0);
    let ahead = log.read_all(Some(asked), Filter::default(), ReadLimit::events(9)).await;
    assert_eq!(ahead, Err(LogError::AheadOfLog { asked }));
    assert_eq!(log.find_command(command(&room, "alice", "none")).await.unwrap(), None);
    assert_eq!(log.poisoned(), None);
}

async fn conditions(log: &dyn EventLog) {
    let room = stream("room-main.conditions");
    let two = || vec![event("Opened", "1"), event("Closed", "2")];
    let conflict = |expected, actual: Option<u64>| {
        Err(AppendError::Conflict { expected, actual: actual.map(Revision::new) })
    };
    let exact = |revision| Expected::Exact(Revision::new(revision));
    assert_eq!(append(log, &room, exact(0), two()).await, conflict(exact(0), None));
    let first = append(log, &room, Expected::NoStream, two()).await.unwrap();
    assert_eq!(revisions(&first), [0, 1]);
    assert!(first[0].position < first[1].position);
    let refused = append(log, &room, Expected::NoStream, two()).await;
    assert_eq!(refused, conflict(Expected::NoStream, Some(1)));
    for wrong in [0, 2, u64::MAX] {
        assert_eq!(append(log, &room, exact(wrong), two()).await, conflict(exact(wrong), Some(1)));
    }
    let second = append(log, &room, exact(1), two()).await.unwrap();
    let third = append(log, &room, Expected::Any, two()).await.unwrap();
    assert_eq!((revisions(&second), revisions(&third)), (vec![2, 3], vec![4, 5]));
    assert!(first[1].position < second[0].position && second[1].position < third[0].position);
    let read = log.read_stream(&room, Revision::FIRST, ReadLimit::events(99)).await.unwrap();
    assert_eq!(read, [first, second, third].concat(), "what was answered is what is read");
    assert_eq!(log.stream_head(&room).await.unwrap(), Some(Revision::new(5)));
    assert!(read.iter().all(|event| event.stream == room));
}

async fn sizes(log: &dyn EventLog) {
    let room = stream("room-main.sizes");
    let before = *log.head().borrow();
    assert_eq!(append(log, &room, Expected::Any, Vec::new()).await, Err(AppendError::Empty));
    let too_large = |result: Result<Vec<Arc<Recorded>>, AppendError>| match result {
        Err(AppendError::TooLarge { max, got, .. }) => (max, got),
        other => panic!("expected a refusal for size, got {other:?}"),
    };
    let (data, events) = (vec![b'x'; EVENT_BYTES_MAX + 1], APPEND_EVENTS_MAX + 1);
    let largest = append(log, &room, Expected::Any, vec![event("Big", data)]).await;
    assert_eq!(too_large(largest), (EVENT_BYTES_MAX, EVENT_BYTES_MAX + 1));
    let many = append(log, &room, Expected::Any, vec![event("Small", "1"); events]).await;
    assert_eq!(too_large(many), (APPEND_EVENTS_MAX, events));
    let mut full = vec![event("Big", vec![b'x'; EVENT_BYTES_MAX]); APPEND_BYTES_MAX / EVENT_BYTES_MAX];
    full.push(event("Small", "1"));
    let total = append(log, &room, Expected::Any, full.clone()).await;
    assert_eq!(too_large(total), (APPEND_BYTES_MAX, APPEND_BYTES_MAX + 1));
    assert_eq!(*log.head().borrow(), before, "a refusal records nothing");
    full.pop();
    let recorded = append(log, &room, Expected::NoStream, full).await.unwrap();
    let most = vec![event("Small", ""); APPEND_EVENTS_MAX];
    append(log, &room, Expected::Exact(Revision::new(7)), most).await.unwrap();
    let first = log.read_stream(&room, Revision::FIRST, ReadLimit { events: 9, bytes: 1 }).await.unwrap();
    assert_eq!(first, recorded[..1], "at least one event always fits");
    let last = log.stream_head(&room).await.unwrap();
    assert_eq!(last, Some(Revision::new(8 + 4_096 - 1)));
}

async fn recorded_at(log: &dyn EventLog, clock: &ManualClock) {
    let room = stream("room-main.times");
    let mut times = Vec::new();
    for now in [5_000, 4_000, 4_500, 6_000, 1] {
        clock.set(UnixMillis::new(now));
        let recorded = append(log, &room, Expected::Any, vec![event("Ticked", "1")]).await.unwrap();
        times.push(recorded[0].recorded_at.get());
    }
    assert_eq!(times, [5_000, 5_000, 5_000, 6_000, 6_000]);
}

async fn pages_of_a_stream(log: &dyn EventLog) {
    let (room, noise) = (stream("room-main.pages"), stream("room-main.noise"));
    for _ in 0..10 {
        fill(log, &room, 1, "0123456789").await;
        fill(log, &noise, 2, "noise").await;
    }
    let from = |revision, limit| log.read_stream(&room, Revision::new(revision), limit);
    for (start, events, expected) in
        [(0, 4, vec![0, 1, 2, 3]), (8, 4, vec![8, 9]), (9, 1, vec![9]), (3, 0, vec![3])]
    {
        let page = from(start, ReadLimit::events(events)).await.unwrap();
        assert_eq!(revisions(&page), expected, "from {start}, {events} events");
    }
    for past in [10, 11, u64::MAX] {
        assert_eq!(from(past, ReadLimit::events(4)).await.unwrap(), [], "past the head");
    }
    // Each event has 11 bytes.
    for (bytes, count) in [(0, 1), (10, 1), (21, 1), (22, 2), (23, 2), (33, 3), (usize::MAX, 10)] {
        let page = from(0, ReadLimit { events: 99, bytes }).await.unwrap();
        assert_eq!(page.len(), count, "{bytes} bytes");
    }
}

async fn backwards(log: &dyn EventLog) {
    let room = stream("room-main.pages");
    let below =
        |before: Option<u64>, limit| log.read_stream_backwards(&room, before.map(Revision::new), limit);
    for (before, events, expected) in [
        (None, 3, vec![9, 8, 7]),
        (Some(3), 9, vec![2, 1, 0]),
        (Some(1), 1, vec![0]),
        (Some(0), 9, vec![]),
        (Some(99), 2, vec![9, 8]),
        (None, 0, vec![9]),
        (None, usize::MAX, vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ] {
        let page = below(before, ReadLimit::events(events)).await.unwrap();
        assert_eq!(revisions(&page), expected, "below {before:?}, {events} events");
    }
    for (bytes, expected) in [(0, vec![9]), (22, vec![9, 8]), (32, vec![9, 8]), (33, vec![9, 8, 7])] {
        let page = below(None, ReadLimit { events: 99, bytes }).await.unwrap();
        assert_eq!(revisions(&page), expected, "the newest that fit into {bytes} bytes");
    }
    let many = stream("room-main.sizes");
    let page = log.read_stream_backwards(&many, None, ReadLimit::events(200)).await.unwrap();
    let newest: Vec<u64> = (0..8 + 4_096).rev().take(200).collect();
    assert_eq!(revisions(&page), newest);
}

async fn the_whole_log(log: &dyn EventLog) {
    let large = ReadLimit { events: 100_000, bytes: usize::MAX };
    let all = everything(log, &Filter::default(), large).await;
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
    assert!(all.windows(2).all(|pair| pair[0].recorded_at <= pair[1].recorded_at));
    let room = stream("room-main.pages");
    let filters = [
        Filter::default(),
        Filter { stream: Some(room.clone()), ..Filter::default() },
        Filter { names: vec![EventName::parse("Ticked").unwrap()], ..Filter::default() },
        Filter { category: Some(Category::parse("user").unwrap()), ..Filter::default() },
    ];
    for filter in filters {
        let passes = |event: &Recorded| filter.passes(&Header::of(event));
        let expected: Vec<_> = all.iter().filter(|event| passes(event)).cloned().collect();
        for limit in [large, ReadLimit::events(7), ReadLimit { events: 64, bytes: 30 }] {
            let read = everything(log, &filter, limit).await;
            assert!(read == expected, "{filter:?} {limit:?}");
        }
    }
    let nobody = Filter { stream: Some(stream("room-main.nobody")), ..Filter::default() };
    let last = all.last().map(|event| event.position);
    let mut scanned = None;
    while scanned != last {
        let page = log.read_all(scanned, nobody.clone(), ReadLimit::events(1)).await.unwrap();
        assert!(page.events.is_empty() && page.scanned > scanned, "what does not pass is scanned past");
        scanned = page.scanned;
    }
    let end = log.read_all(last, Filter::default(), large).await.unwrap();
    assert_eq!((end.events.len(), end.scanned), (0, last));
    for ahead in [last.unwrap().to_engine() + 1, u64::MAX] {
        let asked = Position::from_engine(ahead);
        let read = log.read_all(Some(asked), Filter::default(), large).await;
        assert_eq!(read, Err(LogError::AheadOfLog { asked }));
    }
}

/// A tail that begins past the end is told so: it read another history, or a cut one.
async fn ahead(log: Arc<dyn EventLog>) {
    let head = *log.head().borrow();
    for past in [head.map_or(0, |head| head.to_engine() + 1), u64::MAX] {
        let asked = Position::from_engine(past);
        let mut tail = Tail::new(log.clone(), Some(asked), Filter::default());
        assert_eq!(tail.next(ReadLimit::events(1)).await, Err(LogError::AheadOfLog { asked }));
    }
}

/// Streams of three categories, names and times in changing mixtures.
async fn mixed(log: &dyn EventLog, clock: &ManualClock) -> i64 {
    let begin = 100_000;
    for number in 0..60_i64 {
        clock.set(UnixMillis::new(begin + number / 3 * 10));
        // Each category has times of its own, so that a segment may hold one and not the other.
        let category = ["alpha", "beta", "gamma"][usize::try_from(number / 7 % 3).unwrap()];
        let room = stream(&format!("{category}-main.{}", number % 2));
        let name = ["Opened", "Closed", "Renamed"][usize::try_from(number / 5 % 3).unwrap()];
        let events = vec![event(name, "x".repeat(300)); 1 + usize::try_from(number % 3).unwrap()];
        append(log, &room, Expected::Any, events).await.unwrap();
    }
    begin
}

/// Filters of every kind over the mixture, with bounds at each of its times.
fn many_filters(begin: i64) -> Vec<Filter> {
    let time = |at: i64| Some(UnixMillis::new(begin + at));
    let edges = (0..=20).flat_map(|tick| [tick * 10, tick * 10 + 1]);
    let from = |at| Filter { recorded_from: time(at), ..Filter::default() };
    let before = |at| Filter { recorded_before: time(at), ..Filter::default() };
    let mut filters: Vec<_> = edges.flat_map(|at| [from(at), before(at)]).collect();
    let kinds = [
        (None, None),
        (Some("beta"), None),
        (Some("none"), None),
        (None, Some("beta-main.1")),
        (Some("alpha"), Some("beta-main.0")),
        (None, Some("beta-main.9")),
    ];
    let parse = |names: &[&str]| names.iter().map(|name| EventName::parse(name).unwrap()).collect::<Vec<_>>();
    let names: [(&[&str], &[&str]); 4] =
        [(&[], &[]), (&["Closed"], &[]), (&["Opened", "Unknown"], &[]), (&[], &["Opened", "Unknown"])];
    for (recorded_from, recorded_before) in
        [(None, None), (time(100), None), (None, time(101)), (time(50), time(120)), (time(90), time(90))]
    {
        for (category, room) in kinds {
            for (names, except) in names {
                filters.push(Filter {
                    category: category.map(|category| Category::parse(category).unwrap()),
                    stream: room.map(stream),
                    names: parse(names),
                    except: parse(except),
                    recorded_from,
                    recorded_before,
                });
            }
        }
    }
    filters
}

/// Every filter, from anywhere: what a plain filter over all events gives.
async fn filters(log: &dyn EventLog, clock: &ManualClock) {
    let before = *log.head().borrow();
    let begin = mixed(log, clock).await;
    let large = ReadLimit { events: 100_000, bytes: usize::MAX };
    let all = past(log, before, &Filter::default(), large).await;
    assert_eq!(all.len(), 120);
    for (number, filter) in many_filters(begin).iter().enumerate() {
        let starts = [(0, large), (number * 7 % 120, ReadLimit::events(3)), (number * 31 % 120, large)];
        for (start, limit) in starts {
            let passes = |event: &&Arc<Recorded>| filter.passes(&Header::of(event));
            let expected: Vec<_> = all[start..].iter().filter(passes).cloned().collect();
            let after = start.checked_sub(1).map_or(before, |last| Some(all[last].position));
            assert!(past(log, after, filter, limit).await == expected, "{filter:?} past {after:?}");
        }
    }
}

async fn commands(log: &dyn EventLog) {
    let (room, other) = (stream("room-main.commands"), stream("room-main.others"));
    let batch = vec![
        of_command("alice", "c1"),
        of_command("alice", "c1"),
        of_command("bob", "c1"),
        of_command("alice", "c2"),
    ];
    let recorded = append(log, &room, Expected::NoStream, batch).await.unwrap();
    append(log, &other, Expected::NoStream, vec![of_command("carol", "c1")]).await.unwrap();
    fill(log, &other, 20, "makes small segments roll").await;
    append(log, &room, Expected::Any, vec![of_command("alice", "c1")]).await.unwrap();
    for (author, id, revision) in [("alice", "c1", 1), ("bob", "c1", 2), ("alice", "c2", 3)] {
        let outcome = log.find_command(command(&room, author, id)).await.unwrap().expect("it is recorded");
        assert_eq!(outcome.revision.get(), revision, "the last event of the first outcome: {author} {id}");
        assert_eq!(outcome.position, recorded[usize::try_from(revision).unwrap()].position);
        assert_eq!(outcome.hash, ContentHash::of(&[id.as_bytes()]));
    }
    for absent in [
        command(&room, "carol", "c1"),
        command(&room, "bob", "c2"),
        command(&other, "alice", "c1"),
        command(&room, "alice", "c3"),
    ] {
        assert_eq!(log.find_command(absent.clone()).await.unwrap(), None, "{absent:?}");
    }
}

const WRITERS: usize = 8;
const EACH: usize = 40;

/// Writers of the tail test share one stream in pairs, so that some of them conflict.
async fn write_many(log: Arc<dyn EventLog>, writer: usize) {
    let room = stream(&format!("room-main.tail{}", writer / 2));
    for number in 0..EACH {
        loop {
            let expected = Expected::after(log.stream_head(&room).await.unwrap());
            let data = format!("{writer}-{number}");
            match append(&*log, &room, expected, vec![event("Tailed", data)]).await {
                Ok(_) => break,
                Err(AppendError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn tails(log: Arc<dyn EventLog>) {
    let start = *log.head().borrow();
    let filter = Filter { names: vec![EventName::parse("Tailed").unwrap()], ..Filter::default() };
    let readers = [ReadLimit::events(3), ReadLimit::events(1_000), ReadLimit { events: 64, bytes: 10 }];
    let readers = readers.map(|limit| {
        let mut tail = Tail::new(log.clone(), start, filter.clone());
        tokio::spawn(async move {
            let mut events = Vec::new();
            while events.len() < WRITERS * EACH {
                events.extend(tail.next(limit).await.unwrap().expect("the log is open").events);
            }
            events
        })
    });
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write_many(log.clone(), writer))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let page = ReadLimit { events: 100_000, bytes: usize::MAX };
    let written: Vec<_> = everything(&*log, &filter, page).await;
    assert_eq!(written.len(), WRITERS * EACH, "each append is there once");
    for reader in readers {
        assert_eq!(reader.await.unwrap(), written, "every event once, in order");
    }
    for room in 0..WRITERS / 2 {
        let room = stream(&format!("room-main.tail{room}"));
        let read = log.read_stream(&room, Revision::FIRST, page).await.unwrap();
        let mine: Vec<_> = written.iter().filter(|event| event.stream == room).cloned().collect();
        assert_eq!(read, mine);
        assert_eq!(revisions(&read), (0..2 * 40).collect::<Vec<_>>());
    }
}

/// The head is never ahead of what reads show.
async fn heads(log: Arc<dyn EventLog>) {
    let room = stream("room-main.heads");
    let (writing, mut head) = (log.clone(), log.head());
    let first = *head.borrow_and_update();
    let writer = tokio::spawn(async move { fill(&*writing, &room, 60, "head").await });
    let goal = first.map(|first| first.to_engine() + 60);
    loop {
        let seen = *head.borrow_and_update();
        if let Some(seen) = seen.filter(|seen| Some(*seen) > first) {
            let before = Some(Position::from_engine(seen.to_engine() - 1));
            let page = log.read_all(before, Filter::default(), ReadLimit::events(1)).await.unwrap();
            assert_eq!(page.events[0].position, seen);
            let event = &page.events[0];
            assert!(log.stream_head(&event.stream).await.unwrap() >= Some(event.revision));
        }
        if seen.map(Position::to_engine) == goal {
            break;
        }
        head.changed().await.unwrap();
    }
    writer.await.unwrap();
}
