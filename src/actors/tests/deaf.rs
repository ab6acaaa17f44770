//! A session that waits for its client to take what waits: it handles no message meanwhile, and is closed
//! all the same.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use dramatis_events::{MemberId, StreamId};
use serde_json::{Value, json};

use super::talker::{Talker, settle, until};
use super::{limits, stage_over};
use crate::actors::Stage;
use crate::actors::hub::{Hub, Rooms};
use crate::auth::{Claims, Keys};
use crate::clock::{Clock as _, SystemClock};
use crate::log::memory::MemoryLog;
use crate::log::{Append, EventLog as _, Expected, contract};
use crate::protocol::CloseCode;

async fn stage(keys: Option<Keys>) -> Arc<Stage> {
    let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    let opened = contract::event("RoomOpened", r#"{"title":"A room","owner":"alice"}"#);
    let stream = StreamId::parse("room-main.den").unwrap();
    log.append(Append { stream, expected: Expected::Any, envelopes: vec![opened] }).await.unwrap();
    let mut stage = Arc::into_inner(stage_over(log, limits())).unwrap();
    stage.keys = keys;
    Arc::new(stage)
}

/// A session that waits until its client takes something.
async fn deaf(stage: &Arc<Stage>, rooms: &Rc<Rooms>, hello: &Value) -> Talker {
    let mut talker = Talker::start(stage, rooms);
    talker.say(hello);
    talker.until_type("ready").await;
    talker.fill();
    talker.say(&json!({"type": "history", "id": "h", "room": "den"}));
    settle().await;
    talker
}

#[test]
fn it_is_replaced() {
    System::new().block_on(async {
        let stage = stage(None).await;
        let rooms = Hub::start_here(&stage);
        let hello = json!({"type": "hello", "user": "alice", "session": "tab", "rooms": []});
        let first = deaf(&stage, &rooms, &hello).await;
        let mut second = Talker::start(&stage, &rooms);
        second.say(&hello);
        second.until_type("ready").await;
        let closed = || first.outbox.close_code() == Some(CloseCode::Replaced);
        until("the earlier connection stays, and counts for nobody", closed).await;
        assert_eq!(second.outbox.close_code(), None);
    });
}

#[test]
fn it_ends_with_its_token() {
    System::new().block_on(async {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [b'k'; 64]).unwrap();
        let keys = || Keys::read(file.path()).unwrap();
        let stage = stage(Some(keys())).await;
        let rooms = Hub::start_here(&stage);
        let exp = u64::try_from(SystemClock.now().get()).unwrap() / 1_000 + 3_600;
        let sub = MemberId::parse("alice").unwrap();
        let token = keys().mint(&Claims { sub, exp, kind: None, rooms: None }).unwrap();
        let hello = json!({"type": "hello", "token": token, "session": "tab", "rooms": []});
        let alice = deaf(&stage, &rooms, &hello).await;
        let grace = Duration::from_millis(stage.auth.expired_grace_ms);
        let expires = Instant::now() + Duration::from_hours(1);
        rooms.sweep(expires + grace / 2);
        settle().await;
        assert_eq!(alice.outbox.close_code(), None);
        rooms.sweep(expires + grace * 2);
        settle().await;
        assert_eq!(alice.outbox.close_code(), Some(CloseCode::Token));
    });
}
