//! A room of very many: served in turns, and everyone once.

use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use dramatis_events::{MemberId, Revision, StreamId};

use super::{limits, stage_over};
use crate::actors::hub::{Follow, Hub, Rooms};
use crate::actors::presence::Leaving;
use crate::actors::rights::Rights;
use crate::clock::SystemClock;
use crate::log::memory::MemoryLog;
use crate::log::{Append, EventLog as _, Expected, contract};

const FOLLOWERS: usize = 10_000;
/// So many leave while the others are served.
const LEAVING: usize = 100;

fn follow(rooms: &Rooms, stream: &StreamId) -> Rc<Follow> {
    let reader = MemberId::parse("integration:reader").unwrap();
    let follow =
        Rc::new(Follow::new(stream.clone(), reader, Revision::FIRST, rooms.outbox(), Rights::default()));
    rooms.follow(&follow);
    assert!(rooms.try_live(&follow));
    follow
}

async fn append(log: &MemoryLog, stream: &StreamId, events: usize) {
    let envelopes = vec![contract::event("MessagePosted", "{}"); events];
    log.append(Append { stream: stream.clone(), expected: Expected::Any, envelopes }).await.unwrap();
}

fn served(follows: &[Rc<Follow>], next: u64) -> usize {
    follows.iter().filter(|follow| follow.next.get() == Revision::new(next)).count()
}

#[test]
fn ten_thousand_followers_are_served_in_turns_and_small_rooms_before_them() {
    System::new().block_on(async {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let rooms = Hub::start_here(&stage_over(log.clone(), limits()));
        let [hall, den] = ["hall", "den"].map(|room| StreamId::parse(&format!("room-main.{room}")).unwrap());
        let follows: Vec<_> = (0..FOLLOWERS).map(|_| follow(&rooms, &hall)).collect();
        let small = follow(&rooms, &den);
        append(&log, &hall, 3).await;
        append(&log, &den, 1).await;
        let (mut turns, mut at_once, mut before) = (0, 0, 0);
        while before < FOLLOWERS - LEAVING {
            tokio::task::yield_now().await;
            let now = served(&follows, 3);
            if now > 0 {
                assert_eq!(small.next.get(), Revision::new(1), "the small room does not wait");
            }
            if turns == 0 && now > 0 {
                follows.iter().rev().take(LEAVING).for_each(|follow| rooms.unfollow(follow, Leaving::Asked));
            }
            at_once = at_once.max(now - before);
            turns += usize::from(now > before);
            before = now;
        }
        assert_eq!(served(&follows, 3), FOLLOWERS - LEAVING, "who has left is sent nothing");
        println!("{FOLLOWERS} followers in {turns} turns, at most {at_once} in one");
        assert!(at_once <= 512 && turns >= FOLLOWERS / 512, "{at_once} in one turn");
    });
}
