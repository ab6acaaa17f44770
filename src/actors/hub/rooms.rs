//! Who follows which room on this thread, and every open connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dramatis_events::{Recorded, Revision, StreamId};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::batch::Batch;
use super::bodies::Bodies;
use super::follow::Follow;
use super::heartbeats::{Heartbeats, Verdict, judge};
use crate::actors::Stage;
use crate::actors::closing::{Closer, Closing};
use crate::actors::line::Line;
use crate::actors::newcomers::Newcomers;
use crate::actors::outbox::{Call, Outbox};
use crate::actors::presence::Leaving;
use crate::actors::share::Share;
use crate::actors::shrink::shrink;
use crate::actors::unfinished::Unfinished;
use crate::protocol::{CloseCode, ServerMessage};

/// Followers served in one turn; after so many all others on the thread get theirs.
pub(super) const CHUNK: usize = 512;

/// Hellos that are looked into at a time, on one thread.
const GREETINGS_MAX: usize = 16;
/// In a drain who takes nothing for so long, or for twice as long, is not waited for.
const STUCK_FOR: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Room {
    followers: Vec<Rc<Follow>>,
    /// The last revision the hub has seen since anyone here follows the room.
    head: Option<Revision>,
}

/// What comes of a connection's token that is not renewed.
#[derive(Debug, Clone, Copy)]
pub struct TokenTimes {
    /// When a fresh one is asked for.
    pub asks: Instant,
    /// How long after that the connection ends, milliseconds.
    pub ends_after_ms: u32,
}

impl TokenTimes {
    fn ends(self) -> Instant {
        self.asks.checked_add(Duration::from_millis(self.ends_after_ms.into())).unwrap_or(self.asks)
    }
}

/// See the module.
pub struct Rooms {
    pub(super) stage: Arc<Stage>,
    /// This thread's number among the hubs.
    pub(super) hub: usize,
    followed: RefCell<HashMap<StreamId, Room>>,
    connections: RefCell<HashMap<u64, Rc<Outbox>>>,
    heartbeats: Heartbeats,
    /// The same for connections whose tokens are to be renewed: a timer for each would be dear.
    token_asks: Heartbeats,
    /// And for those that end with their tokens.
    token_ends: Heartbeats,
    closing: Arc<Closing>,
    share: Rc<Share>,
    unfinished: Rc<Unfinished>,
    pub(super) bodies: Bodies,
    pub(super) line: Rc<Line>,
    greetings: Semaphore,
    pub(super) newcomers: Rc<Newcomers>,
}

impl Rooms {
    pub(super) fn new(stage: Arc<Stage>, hub: usize) -> Self {
        let (held, most) = (stage.metrics.outbox_bytes.clone(), stage.metrics.outbox_bytes_most.clone());
        let share = Share::new(held, most, stage.limits.outboxes_bytes_max);
        let closing = Arc::new(Closing::default());
        let unfinished = Unfinished::new(stage.unfinished.clone(), closing.clone());
        Self {
            stage,
            hub,
            followed: RefCell::default(),
            connections: RefCell::default(),
            heartbeats: Heartbeats::new(),
            token_asks: Heartbeats::new(),
            token_ends: Heartbeats::new(),
            closing,
            share: Rc::new(share),
            unfinished: Rc::new(unfinished),
            bodies: Bodies::default(),
            line: Rc::default(),
            greetings: Semaphore::new(GREETINGS_MAX),
            newcomers: Rc::default(),
        }
    }

    /// An outbox for a connection of this thread.
    pub fn outbox(&self) -> Rc<Outbox> {
        let limits = &self.stage.limits;
        let (bytes_max, in_flight_max) = (limits.outbox_bytes_max, limits.in_flight_commands_max);
        Rc::new(Outbox::new(self.share.clone(), bytes_max, in_flight_max).in_line(self.line.clone()))
    }

    /// This thread's way to what may be kept of messages that are not handled yet.
    pub fn unfinished(&self) -> &Rc<Unfinished> {
        &self.unfinished
    }

    /// The turns of those who are not there yet.
    pub fn newcomers(&self) -> &Rc<Newcomers> {
        &self.newcomers
    }

    /// Waits for a place among those whose hello is looked into now. All others stand in line: when
    /// everybody comes at once, those who are there already are still served in between.
    pub(crate) async fn greeting(&self) -> Option<SemaphorePermit<'_>> {
        self.greetings.acquire().await.ok()
    }

    /// The name that those who follow this room here share already; the same again if nobody does.
    pub(crate) fn name_of(&self, stream: StreamId) -> StreamId {
        self.followed.borrow().get_key_value(&stream).map_or(stream, |(known, _)| known.clone())
    }

    /// Registers a place: from now on the hub keeps the room's head in mind.
    pub fn follow(&self, follow: &Rc<Follow>) {
        let mut rooms = self.followed.borrow_mut();
        let room = rooms.entry(follow.stream.clone()).or_default();
        follow.slot.set(room.followers.len());
        room.followers.push(follow.clone());
    }

    /// Takes a place out, because the client said so or because it is gone.
    pub fn unfollow(&self, follow: &Rc<Follow>, leaving: Leaving) {
        {
            let mut rooms = self.followed.borrow_mut();
            let Some(room) = rooms.get_mut(&follow.stream) else { return };
            let slot = follow.slot.get();
            if room.followers.get(slot).is_none_or(|known| !Rc::ptr_eq(known, follow)) {
                return;
            }
            room.followers.swap_remove(slot);
            if let Some(moved) = room.followers.get(slot) {
                moved.slot.set(slot);
            }
            if room.followers.is_empty() {
                rooms.remove(&follow.stream);
                shrink(&mut rooms);
            }
        }
        follow.go();
        self.leave_company(follow, leaving);
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
        let head = self.followed.borrow().get(&follow.stream).and_then(|room| room.head);
        let live = head.is_none_or(|head| head < follow.next.get())
            && !follow.is_gone()
            && !follow.rights.have_ended();
        follow.live.set(live);
        if live {
            self.enter_company(follow);
        }
        live
    }

    /// Enters a connection, so that its silence is noticed.
    pub fn connect(&self, id: u64, outbox: Rc<Outbox>) {
        outbox.set_connection(id);
        self.heartbeats.look_at(id, Instant::now() + self.first_look());
        self.connections.borrow_mut().insert(id, outbox);
        self.stage.metrics.connections.inc();
    }

    /// Calls a connection's session for its token at the one time, and closes the connection at the other.
    pub(crate) fn watch_token(&self, connection: u64, times: TokenTimes) {
        self.token_asks.look_at(connection, times.asks);
        self.token_ends.look_at(connection, times.ends());
    }

    /// Does not, as was asked for.
    pub(crate) fn forget_token(&self, connection: u64, times: TokenTimes) {
        self.token_asks.forget(connection, times.asks);
        self.token_ends.forget(connection, times.ends());
    }

    /// How often connections are to be called for their tokens, and how often closed.
    #[cfg(test)]
    pub(crate) fn token_looks(&self) -> (usize, usize) {
        (self.token_asks.len(), self.token_ends.len())
    }

    /// What closes a connection of this thread from any other.
    pub(crate) fn closer(&self, connection: u64) -> Closer {
        Closer::new(self.closing.clone(), connection)
    }

    /// When a new connection must have said hello, or may need its first ping.
    fn first_look(&self) -> Duration {
        let limits = &self.stage.limits;
        Duration::from_millis(limits.hello_timeout_ms.min(limits.heartbeat_ms))
    }

    /// Takes a connection out.
    pub fn disconnect(&self, id: u64) {
        let mut connections = self.connections.borrow_mut();
        if let Some(outbox) = connections.remove(&id) {
            shrink(&mut connections);
            self.stage.metrics.connections.dec();
            let code = outbox.close_code().unwrap_or(CloseCode::Normal);
            self.stage.metrics.closed(code.number());
        }
    }

    /// Closes those that others have closed, for ever: of who comes back the earlier connection, and of all
    /// those that hold the most of what is not handled, whenever that is too much.
    pub(super) async fn send_away(&self) {
        loop {
            for (id, code) in self.closing.next().await {
                match self.connections.borrow().get(&id) {
                    Some(outbox) => outbox.close(code),
                    None => self.bodies.give_up(id),
                }
            }
        }
    }

    /// Tells every connection that the process ends, and ends them after the notice.
    pub(super) async fn drain(&self) {
        let drain = &self.stage.drain;
        for outbox in self.connections.borrow().values() {
            outbox.push(ServerMessage::Drain(drain.slot()).encode());
        }
        actix_rt::time::sleep(drain.notice()).await;
        for outbox in self.connections.borrow().values() {
            outbox.leave();
        }
        self.cut_stuck().await;
    }

    /// Ends those that are answered and take nothing of what waits: they read that from the log again,
    /// and nobody else's successor waits for them. Of the others the goodbye has a time of its own.
    async fn cut_stuck(&self) {
        let mut waited = HashMap::new();
        while !self.connections.borrow().is_empty() {
            actix_rt::time::sleep(STUCK_FOR).await;
            for (id, outbox) in self.connections.borrow().iter() {
                let waits = outbox.bytes();
                let is_left = waits > 0 && outbox.close_code() == Some(CloseCode::Drain);
                if is_left && waited.insert(*id, waits) == Some(waits) {
                    outbox.cut();
                }
            }
        }
    }

    /// Hands new events to all who follow their rooms. Small rooms are served at once; large
    /// ones in chunks, between which everything else on the thread has its turn. To be awaited
    /// before the next events: so each follower gets them in order.
    pub(super) async fn broadcast(&self, events: &[Arc<Recorded>]) {
        for (followers, batch) in self.deliver_small(events) {
            for chunk in followers.chunks(CHUNK) {
                self.deliver(&batch, chunk);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Serves the small rooms and returns the large ones, smallest first.
    fn deliver_small(&self, events: &[Arc<Recorded>]) -> Vec<(Vec<Rc<Follow>>, Batch)> {
        let mut rooms = self.followed.borrow_mut();
        if rooms.is_empty() {
            return Vec::new();
        }
        let mut large = Vec::new();
        let followed = events.iter().filter(|event| rooms.contains_key(&event.stream));
        for (stream, batch) in Batch::gather(followed) {
            let Some(room) = rooms.get_mut(&stream) else { continue };
            room.head = Some(batch.last());
            if room.followers.len() <= CHUNK {
                self.deliver(&batch, &room.followers);
            } else {
                large.push((room.followers.clone(), batch));
            }
        }
        large.sort_by_key(|(followers, _)| followers.len());
        large
    }

    fn deliver(&self, batch: &Batch, followers: &[Rc<Follow>]) {
        let delivered = batch.deliver(followers.iter().map(AsRef::as_ref));
        self.stage.metrics.deliveries.inc_by(delivered.events);
        if delivered.fell_behind > 0 {
            self.stage.metrics.fell_behind.inc_by(delivered.fell_behind);
        }
        if batch.changes_rights() {
            // Who is behind learns of it there, and may stay behind for as long as it likes.
            for follow in followers.iter().filter(|follow| batch.ends_ahead(follow)) {
                self.leave_company(follow, Leaving::Asked);
            }
        }
    }

    /// Those who follow a room now.
    pub(super) fn followers(&self, stream: &StreamId) -> Vec<Rc<Follow>> {
        self.followed.borrow().get(stream).map(|room| room.followers.clone()).unwrap_or_default()
    }

    /// Looks at the connections whose time has come, for silence and for tokens. Whose token has ended is
    /// closed here: a session that waits for its client would hear of it when the client likes.
    pub(in crate::actors) fn sweep(&self, now: Instant) {
        let limits = &self.stage.limits;
        let connections = self.connections.borrow();
        for id in self.token_ends.take_due(now) {
            if let Some(outbox) = connections.get(&id) {
                outbox.close(CloseCode::Token);
            }
        }
        for id in self.token_asks.take_due(now) {
            if let Some(outbox) = connections.get(&id) {
                outbox.call(Call::Token);
            }
        }
        let ping = ServerMessage::Ping.encode();
        for id in self.heartbeats.take_due(now) {
            let Some(outbox) = connections.get(&id).filter(|outbox| !outbox.is_closing()) else { continue };
            let next = match judge(outbox, limits, now) {
                Verdict::Wait(next) => next,
                Verdict::Ping(next) => {
                    outbox.ping(ping.clone());
                    next
                }
                Verdict::Close(code) => {
                    outbox.close(code);
                    continue;
                }
            };
            self.heartbeats.look_at(id, next);
        }
    }
}
