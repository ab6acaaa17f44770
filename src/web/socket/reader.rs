//! Reads a socket, as a stream that its session pulls: nothing is read that nobody asked for.
//!
//! One buffer a thread serves all connections; a connection keeps bytes of its own only while
//! a frame is incomplete.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use actix_rt::net::TcpStream;
use bytes::BytesMut;
use futures_util::Stream;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;

use super::frames::{Frame, Joiner};
use super::writer::pong;
use crate::actors::outbox::Outbox;
use crate::actors::session::Inbound;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

pub(super) struct Reader {
    io: Rc<TcpStream>,
    outbox: Rc<Outbox>,
    frame_bytes_max: usize,
    /// What has come and was not yet handed on.
    buffer: BytesMut,
    joiner: Joiner,
    /// The bytes make no sense any more: they are thrown away until the other side ends.
    broken: bool,
    ended: bool,
}

impl Reader {
    pub(super) fn new(io: Rc<TcpStream>, outbox: Rc<Outbox>, frame_bytes_max: usize, early: &[u8]) -> Self {
        Self {
            io,
            outbox,
            frame_bytes_max,
            buffer: early.into(),
            joiner: Joiner::default(),
            broken: false,
            ended: false,
        }
    }

    /// The next message out of what has been read already.
    fn next_message(&mut self) -> Option<Inbound> {
        loop {
            match self.joiner.next(&mut self.buffer, self.frame_bytes_max) {
                Ok(None) => {
                    self.shrink();
                    return None;
                }
                Ok(Some(Frame::Text(text))) => return Some(Inbound::Text(text)),
                Ok(Some(Frame::Binary(bytes))) => return Some(Inbound::Binary(bytes)),
                Ok(Some(Frame::Ping(payload))) => self.outbox.control(pong(&payload)),
                Ok(Some(Frame::Pong)) => {}
                Ok(Some(Frame::Close)) => {
                    self.outbox.peer_done();
                    self.ended = true;
                    return None;
                }
                Err(code) => {
                    self.broken = true;
                    return Some(Inbound::Violation(code));
                }
            }
        }
    }

    /// Gives back memory: most of the time no frame is incomplete.
    fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            if ready!(self.io.poll_read_ready(cx)).is_err() {
                return Poll::Ready(false);
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let read = receive(&self.io, scratch)?;
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

impl Stream for Reader {
    type Item = Inbound;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        let reader = self.get_mut();
        loop {
            if reader.ended || reader.outbox.is_finished() {
                return Poll::Ready(None);
            }
            ready!(reader.outbox.poll_may_read(cx));
            if reader.broken {
                reader.buffer.clear();
            } else if let Some(message) = reader.next_message() {
                if reader.outbox.is_closing() {
                    continue;
                }
                return Poll::Ready(Some(message));
            }
            if !reader.ended && !ready!(reader.poll_read(cx)) {
                reader.outbox.peer_done();
                reader.ended = true;
            }
        }
    }
}
