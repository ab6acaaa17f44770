//! What a client that does not read may hold: few bytes in the kernel, and its connection for a
//! while only.
//!
//! The HTTP dispatcher waits for such a client for ever, and with it a stream's session or a long
//! answer does. The system is asked to end a connection whose client acknowledges nothing
//! (`TCP_USER_TIMEOUT`, on Linux), and so one that is gone. But it takes who reads slowly and steadily
//! for one who takes nothing: it counts until all of a segment fits into the window at once, which over
//! loopback may be 64 KiB. So from the first write that has to wait on, and as long as such come, the
//! connection is watched here.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::net::TcpStream;
use rustix::net::{SendFlags, send, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How often a socket that takes nothing is tried. The system says that there is room only once a third
/// of its buffer is free, which a slow reader may need minutes for.
pub(super) const TRY_EVERY: Duration = Duration::from_secs(5);

/// Has the system end the connection when nothing is acknowledged for so long; zero leaves it alone.
fn end_unacknowledged(io: &TcpStream, timeout: Duration) {
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(io, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
    #[cfg(not(target_os = "linux"))]
    let _ = (io, timeout);
}

/// Writes what the socket takes, whether or not it is said to take anything.
pub(super) fn try_anyway(io: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(io, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Writes did not have to wait for so many timeouts: the client keeps up, and the system watches again.
const KEEPS_UP_AFTER: u32 = 10;

/// A connection that breaks once its client has taken nothing of what is written for too long.
pub(super) struct Watched {
    io: TcpStream,
    write_timeout: Duration,
    /// Since when nothing was taken, and when it is tried again.
    stuck: Option<(Instant, Pin<Box<Sleep>>)>,
    /// When it last was so, if the system does not watch.
    was_stuck: Option<Instant>,
}

impl Watched {
    /// Bounds what the kernel keeps for it, too: with 0 bytes that is megabytes.
    pub(super) fn new(io: TcpStream, send_buffer_bytes: usize, write_timeout: Duration) -> Self {
        if send_buffer_bytes > 0 {
            let _ = sockopt::set_socket_send_buffer_size(&io, send_buffer_bytes);
        }
        end_unacknowledged(&io, write_timeout);
        Self { io, write_timeout, stuck: None, was_stuck: None }
    }

    /// The connection itself.
    pub(super) const fn get_ref(&self) -> &TcpStream {
        &self.io
    }

    /// The connection, for who watches it better.
    pub(super) fn into_inner(self) -> TcpStream {
        end_unacknowledged(&self.io, Duration::ZERO);
        self.io
    }

    fn note_stuck(&mut self) {
        if self.was_stuck.replace(Instant::now()).is_none() {
            end_unacknowledged(&self.io, Duration::ZERO);
        }
    }

    fn note_taken(&mut self) {
        self.stuck = None;
        let keeps_up = |last: &mut Instant| last.elapsed() > self.write_timeout * KEEPS_UP_AFTER;
        if self.was_stuck.take_if(keeps_up).is_some() {
            end_unacknowledged(&self.io, self.write_timeout);
        }
    }

    /// Tries again what was not taken, once that is due.
    fn poll_again(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write_timeout = self.write_timeout;
        let begin = || (Instant::now(), Box::pin(sleep(write_timeout.min(TRY_EVERY))));
        let (since, due) = self.stuck.get_or_insert_with(begin);
        while due.as_mut().poll(cx).is_ready() {
            match try_anyway(&self.io, bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                tried => return Poll::Ready(tried),
            }
            let left = write_timeout.saturating_sub(since.elapsed());
            if left.is_zero() {
                // What waits in the kernel goes with it.
                let _ = sockopt::set_socket_linger(&self.io, Some(Duration::ZERO));
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            due.as_mut().reset(Instant::now() + left.min(TRY_EVERY));
        }
        Poll::Pending
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let watched = self.get_mut();
        let mut written = Pin::new(&mut watched.io).poll_write(cx, bytes);
        if written.is_pending() {
            watched.note_stuck();
            written = watched.poll_again(cx, bytes);
        }
        if written.is_ready() {
            watched.note_taken();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
