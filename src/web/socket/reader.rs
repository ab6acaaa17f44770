//! Reads a socket, as a stream that its session pulls: nothing is read that nobody asked for.
//!
//! One buffer a thread serves all connections; a connection keeps bytes of its own only while
//! a frame is incomplete.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_rt::net::TcpStream;
use bytes::BytesMut;
use futures_util::Stream;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

use super::frames::{Frame, Joiner};
use super::writer::{Wire, pong};
use crate::actors::outbox::Outbox;
use crate::actors::session::Inbound;
use crate::actors::unfinished::Unfinished;
use crate::config::SocketConfig;
use crate::protocol::CloseCode;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// What is done for one connection before others of the thread have their turn: so many frames, or
/// reads, each of which counts as some. A client may send pings and pieces without end.
const TURN: usize = 256;
const READ_COUNTS_AS: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

pub(super) struct Reader<Kept> {
    wire: Rc<Wire<Kept>>,
    outbox: Rc<Outbox>,
    frame_bytes_max: usize,
    /// What has come and was not yet handed on.
    buffer: BytesMut,
    joiner: Joiner,
    /// Where it is counted what of that has not come whole, and as how much.
    unfinished: Rc<Unfinished>,
    counted: usize,
    /// When the rest of it has to be there, and how long it may take.
    due: Option<Pin<Box<Sleep>>>,
    due_within: Duration,
    /// The bytes make no sense any more: they are thrown away until the other side ends.
    broken: bool,
    ended: bool,
}

/// What was read came to this.
enum Heard {
    Message(Inbound),
    /// A frame that says nothing to the session.
    Nothing,
    /// Less than a frame.
    Less,
}

impl<Kept> Reader<Kept> {
    pub(super) fn new(
        wire: Rc<Wire<Kept>>,
        outbox: Rc<Outbox>,
        limits: &SocketConfig,
        unfinished: Rc<Unfinished>,
        early: &[u8],
    ) -> Self {
        Self {
            unfinished,
            counted: 0,
            due: None,
            due_within: Duration::from_millis(limits.body_timeout_ms),
            wire,
            outbox,
            frame_bytes_max: limits.frame_bytes_max,
            buffer: early.into(),
            joiner: Joiner::default(),
            broken: false,
            ended: false,
        }
    }

    /// The next frame out of what has been read already.
    fn next_frame(&mut self) -> Heard {
        let next = self.joiner.next(&mut self.buffer, self.frame_bytes_max);
        if matches!(next, Ok(Some(_))) && self.joiner.capacity() == 0 {
            self.due = None;
        }
        match next {
            Ok(None) => {
                self.shrink();
                if self.count() { Heard::Less } else { self.give_up(CloseCode::Overloaded) }
            }
            Ok(Some(Frame::Text(text))) => self.whole(Inbound::Text(text)),
            Ok(Some(Frame::Binary(bytes))) => self.whole(Inbound::Binary(bytes)),
            Ok(Some(Frame::Ping(payload))) => {
                self.outbox.control(pong(&payload));
                Heard::Nothing
            }
            Ok(Some(Frame::Pong | Frame::Piece)) => Heard::Nothing,
            Ok(Some(Frame::Close)) => {
                self.outbox.peer_done();
                self.ended = true;
                Heard::Nothing
            }
            Err(code) => self.give_up(code),
        }
    }

    /// A message that has come whole. It may be long until the next one is asked for.
    fn whole(&mut self, message: Inbound) -> Heard {
        self.shrink();
        self.count();
        Heard::Message(message)
    }

    fn give_up(&mut self, code: CloseCode) -> Heard {
        self.broken = true;
        self.throw_away();
        Heard::Message(Inbound::Violation(code))
    }

    fn throw_away(&mut self) {
        (self.buffer, self.joiner) = (BytesMut::new(), Joiner::default());
        self.count();
    }

    /// Counts what has not come whole; whether that may be kept.
    fn count(&mut self) -> bool {
        let (before, now) = (self.counted, self.buffer.capacity() + self.joiner.capacity());
        if now == 0 {
            self.due = None;
        }
        self.counted = now;
        before == now || self.unfinished.change(self.outbox.connection(), before, now)
    }

    /// Whether what has come in part has taken too long. Only the time in which it is waited for counts.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.counted == 0 || self.broken {
            return Poll::Pending;
        }
        let due_within = self.due_within;
        self.due.get_or_insert_with(|| Box::pin(sleep(due_within))).as_mut().poll(cx)
    }

    /// Gives back memory: most of the time no frame is incomplete.
    fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            if ready!(self.wire.io.poll_read_ready(cx)).is_err() {
                return Poll::Ready(false);
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let read = receive(&self.wire.io, scratch)?;
                self.buffer.extend_from_slice(scratch.get(..read).unwrap_or_default());
                Ok::<_, io::Error>(read)
            });
            match read {
                Ok(0) => return Poll::Ready(false),
                Ok(_) => {
                    self.outbox.heard(Instant::now());
                    return Poll::Ready(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(false),
            }
        }
    }
}

/// Reads what has come. Where that is less than there was room for the socket is empty now, and is
/// marked so: it need not be asked once more to find that out.
fn receive(io: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut received = None;
    let asked = io.try_io(Interest::READABLE, || {
        let (count, _) = recv(io, &mut *buffer, RecvFlags::empty())?;
        received = Some(count);
        if (1..buffer.len()).contains(&count) { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    });
    received.map_or(asked, Ok)
}

impl<Kept> Drop for Reader<Kept> {
    fn drop(&mut self) {
        self.throw_away();
    }
}

impl<Kept> Stream for Reader<Kept> {
    type Item = Inbound;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        let reader = self.get_mut();
        let mut turn = TURN;
        loop {
            if reader.ended || reader.outbox.is_finished() {
                return Poll::Ready(None);
            }
            if reader.outbox.poll_may_read(cx).is_pending() {
                reader.due = None;
                return Poll::Pending;
            }
            if turn == 0 {
                // Woken behind whatever else there is to do, what has come on other sockets included.
                return pin!(yield_now()).poll(cx).map(|()| None);
            }
            reader.broken |= reader.outbox.close_code().is_some_and(CloseCode::ends_reading);
            if reader.broken {
                reader.throw_away();
            }
            match reader.next_frame() {
                Heard::Message(message) if !reader.outbox.is_closing() => return Poll::Ready(Some(message)),
                Heard::Message(_) | Heard::Nothing => turn = turn.saturating_sub(1),
                Heard::Less => {
                    turn = turn.saturating_sub(READ_COUNTS_AS);
                    match reader.poll_read(cx) {
                        Poll::Ready(true) => {}
                        Poll::Ready(false) => {
                            reader.outbox.peer_done();
                            reader.ended = true;
                        }
                        Poll::Pending => {
                            ready!(reader.poll_overdue(cx));
                            let code = CloseCode::Unfinished;
                            reader.give_up(code);
                            return Poll::Ready(Some(Inbound::Violation(code)));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::sync::Arc;

    use actix_http::ws::{OpCode, Parser};
    use futures_util::task::noop_waker;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::actors::share::Share;
    use crate::actors::unfinished::Budget;
    use crate::config::Config;
    use crate::web::socket::Patience;

    const FRAMES: usize = 10_000;

    /// How many turns pass until the message behind so many frames is heard.
    async fn turns(code: OpCode, last: bool) -> usize {
        let mut early = BytesMut::new();
        if code == OpCode::Continue {
            Parser::write_message(&mut early, "", OpCode::Text, false, true);
        }
        for _ in 0..FRAMES {
            Parser::write_message(&mut early, "", code, last, true);
        }
        let behind = if code == OpCode::Continue { code } else { OpCode::Text };
        Parser::write_message(&mut early, "behind", behind, true, true);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let io = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let wire = Rc::new(Wire::new(io, Patience::new(Duration::from_secs(1), Duration::ZERO), ()));
        let share = Rc::new(Share::new(Gauge::default(), Gauge::default(), 1 << 20));
        let outbox = Rc::new(Outbox::new(share, 1 << 18, 1));
        let limits = Config::defaults().unwrap().socket;
        let budget = Arc::new(Budget::new(Gauge::default(), 1 << 20));
        let mut reader =
            Reader::new(wire, outbox, &limits, Rc::new(Unfinished::new(budget, Arc::default())), &early);
        for turn in 1.. {
            match Pin::new(&mut reader).poll_next(&mut Context::from_waker(&noop_waker())) {
                Poll::Pending => assert!(turn <= FRAMES, "the message never came"),
                Poll::Ready(heard) => {
                    assert!(matches!(heard, Some(Inbound::Text(text)) if text == "behind"));
                    return turn;
                }
            }
        }
        0
    }

    #[test]
    fn frames_that_say_nothing_are_read_in_turns() {
        actix_rt::System::new().block_on(async {
            for (code, last) in [(OpCode::Ping, true), (OpCode::Pong, true), (OpCode::Continue, false)] {
                let turns = turns(code, last).await;
                assert!(turns > FRAMES / 512, "{turns} turns for {FRAMES} frames of {code:?}");
            }
        });
    }
}
