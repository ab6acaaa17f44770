//! One hub a worker thread: follows the log's tail, encodes each event once, and hands the
//! bytes to the connections of its thread that follow the room.
//!
//! Sessions register with [`Rooms`] directly, in their own turn; nothing is sent to an actor
//! for a delivery. A follower is live when its next revision is the hub's next; all others
//! read the log until they are.

mod batch;
mod bodies;
mod company;
mod follow;
mod heartbeats;
mod rooms;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use dramatis_events::MemberId;

pub use bodies::Body;
pub use follow::Follow;
use heartbeats::Heartbeats;
pub use rooms::{Rooms, TokenTimes};

use super::Stage;
use crate::log::{Filter, ReadLimit, Tail};
use crate::protocol::EventFrame;

/// Events as newline-joined messages for one reader, who is told the commands of their own events.
pub fn joined(frames: &[EventFrame], reader: &MemberId) -> Bytes {
    let size = frames.iter().map(|frame| frame.text.len() + 1).sum();
    let mut text = Vec::with_capacity(size);
    for frame in frames {
        if !text.is_empty() {
            text.push(b'\n');
        }
        frame.write_for(reader, &mut text);
    }
    text.into()
}

/// Events pulled from the tail at a time.
const PULL: ReadLimit = ReadLimit { events: 1_024, bytes: 1024 * 1024 };
/// How long the hub waits after a read that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Hub {
    rooms: Rc<Rooms>,
    /// From where the log is followed: all that came before is read by who attaches.
    tail: Option<Tail>,
}

impl Hub {
    /// Starts the hub of this thread. When the stage's drain begins it ends every connection.
    pub fn start_here(stage: &Arc<Stage>) -> Rc<Rooms> {
        let start = *stage.log.head().borrow();
        let tail = Some(Tail::new(stage.log.clone(), start, Filter::default()));
        let rooms = Rc::new(Rooms::new(stage.clone(), stage.presence.join()));
        Self { rooms: rooms.clone(), tail }.start();
        rooms
    }
}

async fn pull(mut tail: Tail, rooms: Rc<Rooms>) {
    loop {
        match tail.next(PULL).await {
            Ok(Some(page)) => rooms.broadcast(&page.events).await,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the hub cannot read the log's tail and asks again");
                actix_rt::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(tail) = self.tail.take() {
            let pulling = pull(tail, self.rooms.clone());
            ctx.spawn(pulling.into_actor(self).map(|(), _, ctx| ctx.stop()));
        }
        ctx.spawn(company::pass_on(self.rooms.clone()).into_actor(self));
        ctx.spawn(company::tell_presence(self.rooms.clone()).into_actor(self));
        let rooms = self.rooms.clone();
        let ended = async move {
            rooms.stage.drain.begins().await;
            rooms.drain().await;
        };
        ctx.spawn(ended.into_actor(self));
        let rooms = self.rooms.clone();
        ctx.spawn(async move { rooms.send_away().await }.into_actor(self));
        let line = self.rooms.line.clone();
        ctx.spawn(async move { line.serve().await }.into_actor(self));
        let newcomers = self.rooms.newcomers.clone();
        ctx.spawn(async move { newcomers.serve().await }.into_actor(self));
        ctx.run_interval(Heartbeats::EVERY, |hub, _| hub.rooms.sweep(Instant::now()));
    }
}
