//! Rooms leave memory when nobody asks, and nothing of them stays.

use std::rc::Rc;
use std::time::Instant;

use super::*;
use crate::actors::hub::{Follow, Hub};
use crate::actors::presence::Leaving;
use crate::actors::rights::Rights;
use crate::actors::tests::{limits, stage_over};
use crate::log::embedded::{EmbeddedLog, Options};

/// Nothing here takes this long; waiting longer is a failure.
const PATIENCE: Duration = Duration::from_mins(1);
const MANY: usize = 20_000;

/// Waits until every room has left memory.
pub(super) async fn gone(rooms: &Registry<Room>) {
    let started = Instant::now();
    while !rooms.is_empty() {
        assert!(started.elapsed() < PATIENCE, "{} rooms stay in memory", rooms.len());
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn many_rooms_come_and_go() {
    System::new().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), Options::default(), Arc::new(SystemClock)).unwrap();
        let idle = Duration::from_millis(20);
        let (rooms, metrics) = rooms_over(Arc::new(log), Arc::new(NoSnapshots), 1_000, idle);
        let names: Vec<_> = (0..MANY).map(|number| room(&number.to_string())).collect();
        for round in 0..2 {
            let asked: Vec<_> =
                names.iter().map(|name| submit(&rooms, name, "alice", "open", open_room())).collect();
            assert_eq!(rooms.len(), MANY);
            for answer in asked {
                assert_eq!(answer.await.unwrap().outcome.unwrap().duplicate, round > 0);
            }
            gone(&rooms).await;
        }
        assert_eq!(metrics.loaded_from_start.get(), u64::try_from(2 * MANY).unwrap());
        assert_eq!(metrics.events_read.get(), u64::try_from(2 * MANY).unwrap(), "two events each, once");
    });
}

#[test]
fn a_room_that_nobody_opened_leaves_too() {
    System::new().block_on(async {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let (rooms, _) = rooms_over(log, Arc::new(NoSnapshots), 0, Duration::from_millis(5));
        let close = RoomCommand::CloseRoom(crate::domain::room::CloseRoom { reason: None });
        let answer = submit(&rooms, &room("nowhere"), "alice", "close", close).await.unwrap();
        assert_eq!(answer.outcome.unwrap_err().code, ErrorCode::NotFound);
        gone(&rooms).await;
    });
}

#[test]
fn a_room_that_is_only_looked_at_leaves_however_long_others_may_stay() {
    System::new().block_on(async {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let over = || rooms_over(log.clone(), Arc::new(NoSnapshots), 0, Duration::from_hours(1));
        let (used, seen) = (room("used"), room("seen"));
        let (before, _) = over();
        for name in [&used, &seen] {
            submit(&before, name, "alice", "open", open_room()).await.unwrap().outcome.unwrap();
        }
        let (rooms, metrics) = over();
        assert!(rooms.ask(&used, |standing| standing.state.is_open()).await.unwrap());
        assert!(rooms.look(&seen, |standing| standing.state.is_open()).await.unwrap());
        assert_eq!(rooms.len(), 2);
        let started = Instant::now();
        while rooms.len() > 1 {
            assert!(started.elapsed() < PATIENCE, "what was looked at stays in memory");
            tokio::task::yield_now().await;
        }
        assert!(rooms.look(&used, |standing| standing.state.is_open()).await.unwrap());
        assert_eq!(metrics.loaded_from_start.get(), 2, "what was used is there still");
    });
}

#[test]
fn a_hub_forgets_rooms_that_nobody_follows() {
    System::new().block_on(async {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let rooms = Hub::start_here(&stage_over(log, limits()));
        // The hub's first turn.
        tokio::task::yield_now().await;
        let outbox = rooms.outbox();
        let alice = MemberId::parse("alice").unwrap();
        let follow = |number: usize| {
            let place = room(&(number / 2).to_string());
            let follow = Rc::new(Follow::new(
                place,
                alice.clone(),
                Revision::FIRST,
                outbox.clone(),
                Rights::default(),
            ));
            rooms.follow(&follow);
            follow
        };
        let follows: Vec<_> = (0..2 * MANY).map(follow).collect();
        assert_eq!(rooms.len(), MANY);
        for follow in &follows {
            rooms.unfollow(follow, Leaving::Asked);
        }
        assert!(rooms.is_empty());
    });
}
