//! Who follows which room on this thread, and every open connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dramatis_events::{MemberKind, Recorded, Revision, StreamId};

use super::batch::{Batch, Delivered};
use super::follow::Follow;
use crate::actors::Stage;
use crate::actors::outbox::Outbox;
use crate::actors::presence::Leaving;
use crate::actors::share::Share;
use crate::actors::shrink::shrink;
use crate::config::SocketConfig;
use crate::protocol::{CloseCode, ServerMessage};

/// Followers served in one turn; after so many all others on the thread get theirs.
pub(super) const CHUNK: usize = 512;

#[derive(Default)]
struct Room {
    followers: Vec<Rc<Follow>>,
    /// The last revision the hub has seen since anyone here follows the room.
    head: Option<Revision>,
}

/// See the module.
pub struct Rooms {
    pub(super) stage: Arc<Stage>,
    /// This thread's number among the hubs.
    pub(super) hub: usize,
    followed: RefCell<HashMap<StreamId, Room>>,
    connections: RefCell<HashMap<u64, Rc<Outbox>>>,
    share: Rc<Share>,
}

impl Rooms {
    pub(super) fn new(stage: Arc<Stage>, hub: usize) -> Self {
        let share = Share::new(stage.metrics.outbox_bytes.clone(), stage.limits.outboxes_bytes_max);
        Self {
            stage,
            hub,
            followed: RefCell::default(),
            connections: RefCell::default(),
            share: Rc::new(share),
        }
    }

    /// An outbox for a connection of this thread.
    pub fn outbox(&self) -> Rc<Outbox> {
        let limits = &self.stage.limits;
        Rc::new(Outbox::new(self.share.clone(), limits.outbox_bytes_max, limits.in_flight_commands_max))
    }

    /// Registers a place: from now on the hub keeps the room's head in mind, and the reader is
    /// present in the room.
    pub fn follow(&self, follow: &Rc<Follow>) {
        {
            let mut rooms = self.followed.borrow_mut();
            let room = rooms.entry(follow.stream.clone()).or_default();
            follow.slot.set(room.followers.len());
            room.followers.push(follow.clone());
        }
        if shows_presence(follow) {
            self.stage.presence.enter(self.hub, &follow.stream, &follow.reader, counts(follow));
        }
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
        if shows_presence(follow) && counts(follow) {
            self.stage.presence.leave(&follow.stream, &follow.reader, leaving);
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
        let live = head.is_none_or(|head| head < follow.next.get())
            && !follow.is_gone()
            && !follow.rights.have_ended();
        follow.live.set(live);
        live
    }

    /// Enters a connection, so that its silence is noticed.
    pub fn connect(&self, id: u64, outbox: Rc<Outbox>) {
        outbox.set_connection(id);
        self.connections.borrow_mut().insert(id, outbox);
        self.stage.metrics.connections.inc();
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
    }

    /// Hands new events to all who follow their rooms. Small rooms are served at once; large
    /// ones in chunks, between which everything else on the thread has its turn. To be awaited
    /// before the next events: so each follower gets them in order.
    pub(super) async fn broadcast(&self, events: &[Arc<Recorded>]) {
        for (followers, batch) in self.deliver_small(events) {
            for chunk in followers.chunks(CHUNK) {
                self.count(batch.deliver(chunk.iter().map(AsRef::as_ref)));
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
                self.count(batch.deliver(room.followers.iter().map(AsRef::as_ref)));
            } else {
                large.push((room.followers.clone(), batch));
            }
        }
        large.sort_by_key(|(followers, _)| followers.len());
        large
    }

    fn count(&self, delivered: Delivered) {
        self.stage.metrics.deliveries.inc_by(delivered.events);
        if delivered.fell_behind > 0 {
            self.stage.metrics.fell_behind.inc_by(delivered.fell_behind);
        }
    }

    /// Those who follow a room now.
    pub(super) fn followers(&self, stream: &StreamId) -> Vec<Rc<Follow>> {
        self.followed.borrow().get(stream).map(|room| room.followers.clone()).unwrap_or_default()
    }

    pub(super) fn sweep(&self, limits: &SocketConfig, now: Instant) {
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

/// Rooms have presence, other streams have not.
fn shows_presence(follow: &Follow) -> bool {
    follow.stream.category() == "room"
}

/// People and personas are present; programs that look on are not.
fn counts(follow: &Follow) -> bool {
    matches!(follow.reader.kind(), MemberKind::User | MemberKind::Persona)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
