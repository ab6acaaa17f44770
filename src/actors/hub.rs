//! One hub a worker thread: follows the log's tail, encodes each event once, and hands the
//! bytes to the connections of its thread that follow the room.
//!
//! Sessions register with [`Rooms`] directly, in their own turn; nothing is sent to an actor
//! for a delivery. A follower is live when its next revision is the hub's next; all others
//! read the log until they are.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use dramatis_events::{MemberId, Recorded, Revision, StreamId};

use super::drain::Drain;
use super::outbox::Outbox;
use super::shrink::shrink;
use crate::config::SocketConfig;
use crate::log::{EventLog, Filter, LogError, Page, ReadLimit, Tail};
use crate::protocol::{CloseCode, EventFrame, ServerMessage};
use crate::telemetry::metrics::Metrics;

/// One connection's place in one room.
pub struct Follow {
    /// The room's stream.
    pub stream: StreamId,
    /// Who reads.
    pub reader: MemberId,
    /// The revision that comes next.
    pub next: Cell<Revision>,
    /// Whether the hub pushes; else the session reads the log.
    pub live: Cell<bool>,
    /// Whether the client was told that history is done.
    pub announced: Cell<bool>,
    outbox: Rc<Outbox>,
}

impl Follow {
    /// A place from which the log must be read first.
    pub fn new(stream: StreamId, reader: MemberId, next: Revision, outbox: Rc<Outbox>) -> Self {
        let (live, announced) = (Cell::new(false), Cell::new(false));
        Self { stream, reader, next: Cell::new(next), live, announced, outbox }
    }
}

#[derive(Default)]
struct Room {
    followers: Vec<Rc<Follow>>,
    /// The last revision the hub has seen since anyone here follows the room.
    head: Option<Revision>,
}

/// Who follows which room on this thread, and every open connection.
pub struct Rooms {
    followed: RefCell<HashMap<StreamId, Room>>,
    connections: RefCell<HashMap<u64, Rc<Outbox>>>,
    metrics: Metrics,
}

impl Rooms {
    fn new(metrics: Metrics) -> Self {
        Self { followed: RefCell::default(), connections: RefCell::default(), metrics }
    }

    /// Registers a place: from now on the hub keeps the room's head in mind.
    pub fn follow(&self, follow: Rc<Follow>) {
        self.followed.borrow_mut().entry(follow.stream.clone()).or_default().followers.push(follow);
    }

    /// Takes a place out.
    pub fn unfollow(&self, follow: &Rc<Follow>) {
        let mut rooms = self.followed.borrow_mut();
        if let Some(room) = rooms.get_mut(&follow.stream) {
            room.followers.retain(|known| !Rc::ptr_eq(known, follow));
            if room.followers.is_empty() {
                rooms.remove(&follow.stream);
                shrink(&mut rooms);
            }
        }
    }

    /// How many rooms are followed.
    pub fn len(&self) -> usize {
        self.followed.borrow().len()
    }

    /// Whether no room is followed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Turns a place live, if its next revision is the hub's next; else the log must be read on.
    pub fn try_live(&self, follow: &Follow) -> bool {
        let rooms = self.followed.borrow();
        let head = rooms.get(&follow.stream).and_then(|room| room.head);
        let live = head.is_none_or(|head| head < follow.next.get());
        follow.live.set(live);
        live
    }

    /// Enters a connection, so that its silence is noticed.
    pub fn connect(&self, id: u64, outbox: Rc<Outbox>) {
        self.connections.borrow_mut().insert(id, outbox);
        self.metrics.connections.inc();
    }

    /// Takes a connection out.
    pub fn disconnect(&self, id: u64) {
        let mut connections = self.connections.borrow_mut();
        if connections.remove(&id).is_some() {
            shrink(&mut connections);
            self.metrics.connections.dec();
        }
    }

    /// Tells every connection that the process ends, and ends them after the notice.
    async fn drain(&self, drain: &Drain) {
        for outbox in self.connections.borrow().values() {
            outbox.push(ServerMessage::Drain(drain.slot()).encode());
        }
        actix_rt::time::sleep(drain.notice()).await;
        for outbox in self.connections.borrow().values() {
            outbox.leave();
        }
    }

    fn broadcast(&self, events: &[Arc<Recorded>]) {
        let mut rooms = self.followed.borrow_mut();
        if rooms.is_empty() {
            return;
        }
        let mut order: Vec<StreamId> = Vec::new();
        let mut batches: HashMap<StreamId, Batch> = HashMap::new();
        for event in events.iter().filter(|event| rooms.contains_key(&event.stream)) {
            let batch = batches.entry(event.stream.clone()).or_insert_with(|| {
                order.push(event.stream.clone());
                Batch { first: event.revision, frames: Vec::new(), shared: None }
            });
            batch.frames.push(EventFrame::encode(event));
        }
        for stream in order {
            if let (Some(room), Some(batch)) = (rooms.get_mut(&stream), batches.get_mut(&stream)) {
                room.head = Some(batch.last());
                let delivered = batch.deliver(&room.followers);
                self.metrics.deliveries.inc_by(delivered);
            }
        }
    }

    fn sweep(&self, limits: &SocketConfig, now: Instant) {
        for outbox in self.connections.borrow().values() {
            let (opened, heard) = outbox.times();
            let silence = millis(now.saturating_duration_since(heard));
            if !outbox.is_greeted() {
                if millis(now.saturating_duration_since(opened)) >= limits.hello_timeout_ms {
                    outbox.close(CloseCode::NoHello);
                }
            } else if outbox.is_pinged() {
                if silence >= limits.heartbeat_ms.saturating_add(limits.heartbeat_grace_ms) {
                    outbox.close(CloseCode::NoHeartbeat);
                }
            } else if silence >= limits.heartbeat_ms {
                outbox.ping(ServerMessage::Ping.encode());
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One room's new events, encoded once.
struct Batch {
    first: Revision,
    frames: Vec<EventFrame>,
    shared: Option<Bytes>,
}

impl Batch {
    fn last(&self) -> Revision {
        let more = u64::try_from(self.frames.len()).unwrap_or(0).saturating_sub(1);
        Revision::new(self.first.get().saturating_add(more))
    }

    fn deliver(&mut self, followers: &[Rc<Follow>]) -> u64 {
        let last = self.last();
        let frames = std::mem::take(&mut self.frames);
        let authors: HashSet<&MemberId> = frames.iter().map(|frame| &frame.author).collect();
        let mut delivered = 0;
        for follow in followers.iter().filter(|follow| follow.live.get() && follow.next.get() <= last) {
            let next = follow.next.get();
            if next < self.first || follow.outbox.is_full() {
                follow.live.set(false);
                follow.outbox.set_behind();
                continue;
            }
            let known = usize::try_from(next.get().saturating_sub(self.first.get())).unwrap_or(usize::MAX);
            let new = frames.get(known..).unwrap_or_default();
            let bytes = if known == 0 && !authors.contains(&follow.reader) {
                self.shared.get_or_insert_with(|| joined(new, None)).clone()
            } else {
                joined(new, Some(&follow.reader))
            };
            follow.outbox.push(bytes);
            follow.next.set(last.next());
            delivered += u64::try_from(new.len()).unwrap_or(0);
        }
        delivered
    }
}

/// Events as newline-joined messages: for everyone, or for one reader, who is told the commands
/// of their own events.
pub fn joined(frames: &[EventFrame], reader: Option<&MemberId>) -> Bytes {
    let size = frames.iter().map(|frame| frame.text.len() + 1).sum();
    let mut text = Vec::with_capacity(size);
    for frame in frames {
        if !text.is_empty() {
            text.push(b'\n');
        }
        match reader {
            Some(reader) => frame.write_for(reader, &mut text),
            None => text.extend_from_slice(&frame.text),
        }
    }
    text.into()
}

/// Events pulled from the tail at a time.
const PULL: ReadLimit = ReadLimit { events: 1_024, bytes: 1024 * 1024 };
/// How long the hub waits after a read that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often connections are looked at for silence.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// See the module.
pub struct Hub {
    rooms: Rc<Rooms>,
    log: Arc<dyn EventLog>,
    limits: SocketConfig,
    drain: Arc<Drain>,
}

impl Hub {
    /// Starts the hub of this thread. When `drain` begins it ends every connection.
    pub fn start_here(
        log: Arc<dyn EventLog>,
        limits: SocketConfig,
        metrics: Metrics,
        drain: Arc<Drain>,
    ) -> Rc<Rooms> {
        let rooms = Rc::new(Rooms::new(metrics));
        Self { rooms: rooms.clone(), log, limits, drain }.start();
        rooms
    }

    fn pull(&self, ctx: &mut Context<Self>) {
        let start = *self.log.head().borrow();
        let tail = Tail::new(self.log.clone(), start, Filter::default());
        let pages = futures_util::stream::unfold((tail, false), |(mut tail, failed)| async move {
            if failed {
                actix_rt::time::sleep(RETRY_AFTER).await;
            }
            let page = tail.next(PULL).await.transpose()?;
            let failed = page.is_err();
            Some((page, (tail, failed)))
        });
        ctx.add_stream(Box::pin(pages));
    }
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.pull(ctx);
        let (rooms, drain) = (self.rooms.clone(), self.drain.clone());
        let ended = async move {
            drain.begins().await;
            rooms.drain(&drain).await;
        };
        ctx.spawn(ended.into_actor(self));
        ctx.run_interval(SWEEP_EVERY, |hub, _| hub.rooms.sweep(&hub.limits, Instant::now()));
    }
}

impl StreamHandler<Result<Page, LogError>> for Hub {
    fn handle(&mut self, page: Result<Page, LogError>, _: &mut Self::Context) {
        match page {
            Ok(page) => self.rooms.broadcast(&page.events),
            Err(error) => tracing::error!(%error, "the hub cannot read the log's tail and asks again"),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
