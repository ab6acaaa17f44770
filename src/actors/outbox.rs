//! What waits for one client, bounded by bytes, and the signals between the four who share it:
//! the session and the hub push, the transport's writer drains, the transport's reader stops
//! reading while too much waits. All live on one thread.

mod bounds;
mod fleeting;
mod messages;
mod pen;
mod silence;
#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use actix::WeakRecipient;
use actix::prelude::Message;
use bytes::Bytes;
use dramatis_events::StreamId;

use bounds::Bounds;
pub use fleeting::Fate;
use fleeting::Fleeting;
pub use messages::Messages;
pub use pen::Pen;

use super::line::Line;
use super::share::Share;
use crate::protocol::CloseCode;

/// What a session is called for.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub enum Call {
    /// To read the rooms it is behind in from the log again.
    CatchUp,
    /// To ask its client for a fresh token.
    Token,
}

/// How far the queue's buffer may stay grown while nothing waits.
const IDLE_CAPACITY_MAX: usize = 8;

/// How many answers of the transport's own may wait; the oldest give way.
const CONTROLS_MAX: usize = 32;

/// See the module. There is one for each connection, idle or not: what few need is in a box.
pub struct Outbox {
    queue: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    /// How many of them the writer has taken and not yet reported as drained.
    taken: Cell<usize>,
    bounds: Bounds,
    share: Rc<Share>,
    /// Where the writer waits for its turn; without one it has it at once.
    line: Option<Rc<Line>>,
    fleeting: RefCell<Fleeting>,
    #[allow(clippy::box_collection, reason = "a pointer for the many that have none")]
    controls: Cell<Option<Box<VecDeque<Bytes>>>>,
    connection: Cell<u64>,
    in_flight: Cell<u32>,
    /// Bytes that the answers to these may take.
    reserved: Cell<u32>,
    session: OnceCell<WeakRecipient<Call>>,
    /// When something was last heard; before its hello, when the connection was opened.
    heard: Cell<Instant>,
    closing: Cell<Option<CloseCode>>,
    peer_done: Cell<bool>,
    finished: Cell<bool>,
    behind: Cell<bool>,
    greeted: Cell<bool>,
    waits_for_turn: Cell<bool>,
    /// Whether a request of the client waits for what there will be.
    waited_at: Cell<bool>,
    leaving: Cell<bool>,
    /// Whether the session is in the middle of what was read last.
    occupied: Cell<bool>,
    pinged: Cell<bool>,
    /// A ping has gone out that no message has answered.
    pong_due: Cell<bool>,
    /// Whether the reader waits for room, and not only for the end.
    reader_waits: Cell<bool>,
    /// Whether the pen stands in the line, or waits for its socket.
    called: Cell<bool>,
    pen: OnceCell<(Weak<Self>, Rc<dyn Pen>)>,
    writer: Cell<Option<Waker>>,
    reader: Cell<Option<Waker>>,
    pump: Cell<Option<Waker>>,
}

/// What the writer is to do next.
pub enum Next {
    /// Write these messages.
    Write(Messages),
    /// Write these bytes of the transport's own.
    Control(Bytes),
    /// Say goodbye and end.
    Close(CloseCode),
}

impl Outbox {
    /// An outbox that holds so many bytes, out of the share of its thread, for a client that may
    /// have so many requests in flight.
    pub fn new(share: Rc<Share>, bytes_max: usize, in_flight_max: usize) -> Self {
        let bounds = Bounds::new(bytes_max, in_flight_max);
        Self {
            queue: RefCell::default(),
            bytes: Cell::new(0),
            taken: Cell::new(0),
            bounds,
            share,
            line: None,
            fleeting: RefCell::default(),
            controls: Cell::default(),
            connection: Cell::new(0),
            in_flight: Cell::new(0),
            reserved: Cell::new(0),
            session: OnceCell::new(),
            heard: Cell::new(Instant::now()),
            closing: Cell::new(None),
            peer_done: Cell::new(false),
            finished: Cell::new(false),
            behind: Cell::new(false),
            greeted: Cell::new(false),
            waits_for_turn: Cell::new(false),
            waited_at: Cell::new(false),
            leaving: Cell::new(false),
            occupied: Cell::new(false),
            pinged: Cell::new(false),
            pong_due: Cell::new(false),
            reader_waits: Cell::new(false),
            called: Cell::new(false),
            pen: OnceCell::new(),
            writer: Cell::new(None),
            reader: Cell::new(None),
            pump: Cell::new(None),
        }
    }

    /// The same, whose writer stands in this line for its turn.
    pub(super) fn in_line(mut self, line: Rc<Line>) -> Self {
        self.line = Some(line);
        self
    }

    /// Queues messages. Answers are always taken: the reader stops before they can pile up.
    pub fn push(&self, messages: Bytes) {
        if self.queue_up(messages) {
            self.call_writer();
        }
    }

    /// Queues what many are sent at once; to be followed by [`Outbox::call_writer_in_turn`].
    pub(super) fn queue_up(&self, messages: Bytes) -> bool {
        if self.closing.get().is_some() {
            return false;
        }
        self.bytes.set(self.bytes.get().saturating_add(messages.len()));
        self.share.take(messages.len());
        self.queue.borrow_mut().push_back(messages);
        self.share.note(self.bytes.get().saturating_add(self.fleeting.borrow().bytes()));
        true
    }

    /// Queues an ephemeral behind all else, in place of an older one of its key.
    pub fn push_newest(&self, stream: &StreamId, key: u64, message: Bytes) -> Fate {
        self.fleet(|fleeting, room| fleeting.push_newest(stream, key, message, room))
    }

    /// Queues presence behind events and answers; refused, it must be told anew as a whole.
    pub fn push_presence(&self, stream: &StreamId, message: Bytes) -> Fate {
        self.fleet(|fleeting, room| fleeting.push_whole(stream, message, room))
    }

    fn fleet(&self, push: impl FnOnce(&mut Fleeting, usize) -> Fate) -> Fate {
        if self.is_closing() || self.share.is_scarce() {
            return Fate::Refused;
        }
        let mut fleeting = self.fleeting.borrow_mut();
        let before = fleeting.bytes();
        let fate = push(&mut fleeting, self.left());
        self.share.take(fleeting.bytes());
        self.share.give(before);
        self.share.note(self.bytes.get().saturating_add(fleeting.bytes()));
        self.call_writer_in_turn();
        fate
    }

    /// Drops what waits of a room's ephemerals and presence.
    pub fn forget(&self, stream: &StreamId) {
        let mut fleeting = self.fleeting.borrow_mut();
        self.share.give(fleeting.bytes());
        fleeting.forget(stream);
        self.share.take(fleeting.bytes());
    }

    /// For the reader: bytes of the transport's own, such as the answer to a ping. Few may wait.
    pub fn control(&self, bytes: Bytes) {
        let mut controls = self.controls.take().unwrap_or_default();
        if controls.len() >= CONTROLS_MAX {
            controls.pop_front();
        }
        controls.push_back(bytes);
        self.controls.set(Some(controls));
        self.call_writer();
    }

    /// Ends the connection after what waits; the first reason stands.
    pub fn close(&self, code: CloseCode) {
        if self.closing.get().is_none() {
            self.closing.set(Some(code));
            self.call_writer();
            wake(&self.pump);
            wake(&self.reader);
        }
    }

    /// For the reader: the other side has said goodbye or is gone.
    pub fn peer_done(&self) {
        self.peer_done.set(true);
        wake(&self.writer);
    }

    /// For the writer: waits until the other side has said goodbye too.
    pub async fn peer_is_done(&self) {
        std::future::poll_fn(|cx| {
            if self.peer_done.get() {
                return Poll::Ready(());
            }
            self.writer.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// For a writer that takes nothing now: waits until the end was asked for.
    pub async fn ending(&self) {
        std::future::poll_fn(|cx| {
            if self.is_closing() {
                return Poll::Ready(());
            }
            self.writer.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// For the writer: nothing more will be written.
    pub fn finish(&self) {
        self.close(CloseCode::Normal);
        self.finished.set(true);
        self.queue.borrow_mut().clear();
        self.give_back();
        wake(&self.reader);
        wake(&self.pump);
    }

    fn give_back(&self) {
        let mut fleeting = self.fleeting.borrow_mut();
        self.share.give(self.bytes.take().saturating_add(fleeting.bytes()));
        self.taken.set(0);
        fleeting.clear();
    }

    /// Whether nothing more will be written.
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }

    /// Why the end was asked for, if it was.
    pub fn close_code(&self) -> Option<CloseCode> {
        self.closing.get()
    }

    /// Whether the end was asked for.
    pub fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// For the writer: waits for something to do; takes messages up to about `bytes` at a time.
    pub fn poll_next(&self, cx: &Context<'_>, bytes: usize) -> Poll<Next> {
        let next = self.take_next(bytes);
        if next.is_none() {
            self.writer.set(Some(cx.waker().clone()));
        }
        next.map_or(Poll::Pending, Poll::Ready)
    }

    fn take_next(&self, bytes: usize) -> Option<Next> {
        if let Some(control) = self.take_control() {
            return Some(Next::Control(control));
        }
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty()
            && let Some(code) = self.closing.get()
        {
            return Some(Next::Close(code));
        }
        let mut taken = queue.pop_front().map(Messages::new);
        let mut size = taken.as_deref().map_or(0, |first| first.iter().map(Bytes::len).sum());
        while let Some((taken, front)) = taken.as_mut().zip(queue.front())
            && size + front.len() <= bytes
        {
            size += front.len();
            queue.pop_front().into_iter().for_each(|message| taken.push(message));
        }
        if queue.is_empty() && queue.capacity() > IDLE_CAPACITY_MAX {
            *queue = VecDeque::new();
        }
        self.taken.set(self.taken.get().saturating_add(size));
        if queue.is_empty() {
            self.take_fleeting(&mut taken, bytes.saturating_sub(size));
        }
        taken.map(Next::Write)
    }

    fn take_control(&self) -> Option<Bytes> {
        let mut controls = self.controls.take()?;
        let control = controls.pop_front();
        self.controls.set(Some(controls).filter(|left| !left.is_empty()));
        control
    }

    fn take_fleeting(&self, taken: &mut Option<Messages>, mut bytes: usize) {
        let mut fleeting = self.fleeting.borrow_mut();
        while let Some(message) = fleeting.pop(bytes, taken.is_none()) {
            bytes = bytes.saturating_sub(message.len());
            self.share.give(message.len());
            match taken {
                Some(taken) => taken.push(message),
                None => *taken = Some(Messages::new(message)),
            }
        }
    }

    /// For the writer: so many bytes of messages have left. What is fleeting goes last and is
    /// no longer counted.
    pub fn drained(&self, bytes: usize) {
        let bytes = bytes.min(self.taken.get());
        self.taken.set(self.taken.get().saturating_sub(bytes));
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        self.share.give(bytes);
        if self.pinged.get() && self.bytes.get() == 0 {
            // Nothing was said for long, and nothing is.
            *self.queue.borrow_mut() = VecDeque::new();
        }
        if self.is_low() {
            self.let_read();
            wake(&self.pump);
            if self.behind.get() {
                self.ask_catch_up();
            }
        }
    }

    /// For the hub: the client is behind in a room and must be caught up from the log.
    pub fn set_behind(&self) {
        self.behind.set(true);
        if !self.is_full() {
            self.ask_catch_up();
        }
    }

    /// Who is called; set once by the session.
    pub fn calls(&self, session: WeakRecipient<Call>) {
        let _ = self.session.set(session);
    }

    /// Calls the session.
    pub fn call(&self, call: Call) {
        if let Some(session) = self.session.get().and_then(WeakRecipient::upgrade) {
            session.do_send(call);
        }
    }

    fn ask_catch_up(&self) {
        self.behind.set(false);
        self.call(Call::CatchUp);
    }

    /// For whoever reads rooms from the log: waits for room; `false` once the end was asked for.
    pub async fn has_room(&self) -> bool {
        std::future::poll_fn(|cx| {
            if self.is_closing() {
                Poll::Ready(false)
            } else if self.is_low() {
                Poll::Ready(true)
            } else {
                self.pump.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }

    /// The process ends: nothing more is read, what is in flight is answered, and then the
    /// connection is closed.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.leave_once_answered();
    }

    fn leave_once_answered(&self) {
        if self.leaving.get() && self.in_flight.get() == 0 {
            self.close(CloseCode::Drain);
        }
    }

    /// For the reader: waits while the session is not done with what was read last, while the client
    /// has too much in flight or does not drain. Woken too when the end was asked for or has come.
    pub fn poll_may_read(&self, cx: &Context<'_>) -> Poll<()> {
        self.reader.set(Some(cx.waker().clone()));
        let room = !self.occupied.get() && !self.is_busy() && !self.is_full() && !self.leaving.get();
        let may_read = room || self.is_closing();
        self.reader_waits.set(!may_read);
        if may_read { Poll::Ready(()) } else { Poll::Pending }
    }

    /// For the session: whether it is in the middle of what was read last. What else it waits for may
    /// come at any moment, and by other hands: only it knows whether it can take more.
    pub fn occupied(&self, occupied: bool) {
        self.occupied.set(occupied);
        if !occupied {
            self.let_read();
        }
    }

    /// There may be room for what the client sends. A reader that waits for its socket is not
    /// woken: it would be with every write to it.
    fn let_read(&self) {
        if self.reader_waits.get() {
            wake(&self.reader);
        }
    }

    /// Which connection this is of.
    pub fn connection(&self) -> u64 {
        self.connection.get()
    }

    /// For the hub: which connection this is of.
    pub(super) fn set_connection(&self, id: u64) {
        self.connection.set(id);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn wake(waker: &Cell<Option<Waker>>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
