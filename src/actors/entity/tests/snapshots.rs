//! Entities and their snapshots: what is read again, what is believed, what is waited for.

use std::sync::atomic::{AtomicUsize, Ordering};

use dramatis_events::EventId;
use futures_util::future::BoxFuture;

use super::leaving::gone;
use super::*;
use crate::domain::room::{Join, PostMessage};
use crate::snapshots::memory::MemorySnapshots;
use crate::snapshots::{Key, contract};

const EVERY: u64 = 100;
const SOON: Duration = Duration::from_millis(5);

fn post(text: &str) -> RoomCommand {
    let kind = dramatis_events::room::MessageKind::Text;
    PostMessage { text: text.to_owned(), kind, reply_to: None }.into()
}

/// Alice opens the lobby, bob joins it, and alice posts until it has so many events.
async fn lobby_of(rooms: &Registry<Room>, events: u64) {
    let lobby = room("lobby");
    let ask = |author, id: &str, command| submit(rooms, &lobby, author, id, command);
    ask("alice", "open", open_room()).await.unwrap().outcome.unwrap();
    ask("bob", "join", Join { display_name: None }.into()).await.unwrap().outcome.unwrap();
    for event in 3..events {
        ask("alice", &format!("post-{event}"), post("hi")).await.unwrap().outcome.unwrap();
    }
}

/// What the lobby answers to bob, who is in it, to a stranger, and to a retry.
async fn answers(rooms: &Registry<Room>) -> [Result<bool, ErrorCode>; 3] {
    let mut answers = Vec::new();
    for (author, id, command) in
        [("bob", "b", post("hello")), ("sue", "s", post("hello")), ("alice", "open", open_room())]
    {
        let outcome = submit(rooms, &room("lobby"), author, id, command).await.unwrap().outcome;
        answers.push(outcome.map(|accepted| accepted.duplicate).map_err(|refused| refused.code));
    }
    answers.try_into().unwrap()
}

const RIGHT: [Result<bool, ErrorCode>; 3] = [Ok(false), Err(ErrorCode::NotAMember), Ok(true)];

fn log() -> Arc<MemoryLog> {
    Arc::new(MemoryLog::new(Arc::new(SystemClock)))
}

/// So many events, then out of memory and in again: events in the snapshot, and events read.
fn reopened(events: u64) -> (u64, u64) {
    System::new().block_on(async {
        let (log, kept) = (log(), Arc::new(MemorySnapshots::default()));
        let (rooms, _) = rooms_over(log.clone(), kept.clone(), EVERY, SOON);
        // It may leave memory between two commands as well.
        lobby_of(&rooms, events).await;
        gone(&rooms).await;
        let snapshot = kept.load(&key::<Room>(&room("lobby"), log.epoch())).await;
        // And now it stays, between any two of these.
        let (rooms, metrics) = rooms_over(log, kept, EVERY, Duration::from_hours(1));
        assert_eq!(answers(&rooms).await, RIGHT);
        (event_count(snapshot.map(|snapshot| snapshot.last)), metrics.events_read.get())
    })
}

#[test]
fn a_room_that_comes_back_reads_what_came_after_its_snapshot() {
    assert_eq!(reopened(49), (0, 49), "a small room has no snapshot");
    assert_eq!(reopened(50), (50, 0), "one that is not small is saved when it leaves");
    for events in [100, 149, 320, 330] {
        let (kept, read) = reopened(events);
        assert!(kept + 50 > events, "{kept} of {events}: it was saved when it left");
        assert_eq!(kept + read, events);
    }
}

#[test]
fn snapshots_are_made_while_a_room_lives_and_after_a_long_read() {
    System::new().block_on(async {
        let (log, forever) = (log(), Duration::from_hours(1));
        let (rooms, metrics) = rooms_over(log.clone(), Arc::new(NoSnapshots), 0, forever);
        lobby_of(&rooms, 250).await;
        assert_eq!(metrics.snapshots_saved.get() + metrics.snapshots_dropped.get(), 0, "switched off");

        let kept: Arc<MemorySnapshots> = Arc::default();
        let (rooms, metrics) = rooms_over(log.clone(), kept.clone(), EVERY, forever);
        assert_eq!(answers(&rooms).await, RIGHT);
        assert_eq!(
            (metrics.events_read.get(), metrics.snapshots_saved.get()),
            (250, 1),
            "read once, then kept"
        );
        let (rooms, metrics) = rooms_over(log.clone(), kept.clone(), EVERY, forever);
        assert_eq!(answers(&rooms).await, [Ok(true), Err(ErrorCode::NotAMember), Ok(true)]);
        assert_eq!((metrics.events_read.get(), metrics.snapshots_saved.get()), (1, 0));
    });
}

/// A store whose one snapshot was put there under a key of the test's choosing.
async fn with(key: Key, snapshot: Snapshot) -> Arc<MemorySnapshots> {
    let store = Arc::new(MemorySnapshots::default());
    assert!(store.save(&key, snapshot).await);
    store
}

#[test]
fn a_snapshot_that_does_not_fit_is_not_believed() {
    type Change = fn(&mut Key, &mut Snapshot);
    let changes: &[(&str, Change)] = &[
        ("of another state version", |key, _| key.state_version += 1),
        ("of another decider", |key, _| key.decider = "persona"),
        ("of a later epoch", |key, _| key.epoch = key.epoch.raised()),
        ("past the log's end", |_, snapshot| snapshot.last.revision = Revision::new(120)),
        ("far past the log's end", |_, snapshot| snapshot.last.revision = Revision::new(u64::MAX)),
        ("of an earlier revision", |_, snapshot| snapshot.last.revision = Revision::new(30)),
        ("of another event", |_, snapshot| snapshot.last.id = EventId::from_bytes([7; 16])),
        ("of another time", |_, snapshot| snapshot.last.recorded_at = UnixMillis::new(1)),
        ("with a state cut short", |_, snapshot| snapshot.state.truncate(20)),
        ("with a state of another form", |_, snapshot| snapshot.state = b"{\"phase\":5}".to_vec()),
        ("with a state that cannot go on", |_, snapshot| {
            snapshot.state = b"{\"phase\":\"not_opened\"}".to_vec();
        }),
    ];
    System::new().block_on(async {
        let (log, forever) = (log(), Duration::from_hours(1));
        let kept: Arc<MemorySnapshots> = Arc::default();
        let (rooms, metrics) = rooms_over(log.clone(), kept.clone(), EVERY, forever);
        lobby_of(&rooms, 110).await;
        assert_eq!(metrics.snapshots_saved.get(), 1);
        let key = key::<Room>(&room("lobby"), log.epoch());
        let good = kept.load(&key).await.unwrap();
        assert_eq!(good.last.revision, Revision::new(99));

        let (rooms, metrics) = rooms_over(log.clone(), with(key.clone(), good.clone()).await, EVERY, forever);
        assert_eq!(answers(&rooms).await, RIGHT);
        assert_eq!(
            (metrics.loaded_from_snapshot.get(), metrics.events_read.get()),
            (1, 10),
            "the unchanged one"
        );
        for (what, change) in changes {
            let (mut other, mut snapshot) = (key.clone(), good.clone());
            change(&mut other, &mut snapshot);
            let store = with(other, snapshot).await;
            let (rooms, metrics) = rooms_over(log.clone(), store.clone(), EVERY, forever);
            assert_eq!(answers(&rooms).await, [Ok(true), Err(ErrorCode::NotAMember), Ok(true)], "{what}");
            assert_eq!((metrics.loaded_from_start.get(), metrics.events_read.get()), (1, 111), "{what}");
            assert_eq!(
                store.load(&key).await.unwrap().last.revision,
                Revision::new(110),
                "{what}: a new one"
            );
        }
    });
}

/// A store that answers as it is told: `None` never.
struct Stubborn {
    kept: Option<bool>,
    saves: AtomicUsize,
}

impl Snapshots for Stubborn {
    fn load(&self, _: &Key) -> BoxFuture<'static, Option<Snapshot>> {
        match self.kept {
            Some(_) => Box::pin(std::future::ready(Some(contract::snapshot(3, b"junk")))),
            None => Box::pin(std::future::pending()),
        }
    }

    fn save(&self, _: &Key, _: Snapshot) -> BoxFuture<'static, bool> {
        self.saves.fetch_add(1, Ordering::Relaxed);
        match self.kept {
            Some(kept) => Box::pin(std::future::ready(kept)),
            None => Box::pin(std::future::pending()),
        }
    }
}

#[test]
fn a_store_that_never_answers_or_keeps_nothing_is_done_without() {
    for (kept, saves) in [(None, 1), (Some(false), 4)] {
        System::new().block_on(async {
            // Waiting takes no time here.
            tokio::time::pause();
            let store = Arc::new(Stubborn { kept, saves: AtomicUsize::new(0) });
            let (rooms, metrics) = rooms_over(log(), store.clone(), EVERY, Duration::from_hours(1));
            lobby_of(&rooms, 450).await;
            assert_eq!(answers(&rooms).await, RIGHT);
            assert_eq!(store.saves.load(Ordering::Relaxed), saves, "one in flight at a time");
            assert_eq!((metrics.snapshots_saved.get(), metrics.loaded_from_start.get()), (0, 1));
        });
    }
}
