//! Connections of HTTP, for as long as they are kept: how many an address has, and what is still to come
//! over one that was answered.
//!
//! The HTTP dispatcher times a connection's first head, and one over which nothing comes after an answer.
//! Where a piece of a further head has come, or the rest of a body that nobody reads has not, it would wait
//! for ever. So from an answer on there is a time here in which the next request has to begin and its head
//! to come, whole. And who sends more behind a request that is under way than is kept is let go.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_rt::net::TcpStream;
use actix_web::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::api::{PROBLEM_TYPE, problem_text};
use super::fallback::refusal;
use super::peer::Proxies;
use super::stalled::{Watched, try_anyway};
use crate::actors::Stage;
use crate::actors::meters::{Account, Permit};
use crate::protocol::CloseCode;

/// How long a connection is kept over which nothing comes after an answer.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(5);

/// How often the dispatcher may come by without reading or writing. Where a client has sent more behind a
/// request than is kept, it neither reads nor waits, but comes by again and again for as long as that
/// request is under way: of a stream, for ever.
const IDLE_ROUNDS_MAX: u32 = 4_096;

/// Whose turn it is on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The server's. At first it is nobody's, and the dispatcher has the time.
    Server,
    /// The server has made its answer, and may have to write of it.
    Answered,
    /// The client's, which has the whole answer.
    Client,
}

/// The turns of one connection.
#[derive(Debug, Clone)]
pub(super) struct Turns(Rc<Cell<Turn>>);

impl Turns {
    /// A request has come: it is under way until this is dropped.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.set(Turn::Server);
        UnderWay(self.clone())
    }
}

/// A request, up to the end of its answer.
pub(super) struct UnderWay(Turns);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.set(Turn::Answered);
    }
}

/// A connection that is counted for its address, and closed when the next request does not come in its time.
pub(super) struct Kept {
    io: Watched,
    turns: Turns,
    next_within: Duration,
    /// When the next request has to be there.
    due: Option<Pin<Box<Sleep>>>,
    /// How often the dispatcher has come by since it last read or wrote.
    idle_rounds: u32,
    _seat: Option<Permit>,
}

impl Kept {
    /// Takes a connection, unless its address has as many as it may: then it is told so and let go. Behind a
    /// proxy that is trusted is everyone, and so its own are not counted.
    pub(super) fn take(
        io: TcpStream,
        peer: Option<SocketAddr>,
        stage: &Stage,
        proxies: &Proxies,
    ) -> Option<Self> {
        let client = peer.map(|peer| peer.ip()).filter(|address| !proxies.trusts(*address));
        let account = client.and_then(|address| stage.meters.address(address));
        let seat = account.as_ref().map(Account::connect_http);
        if matches!(seat, Some(None)) {
            // Who cannot take so few bytes at once goes without.
            let _ = try_anyway(&io, full(stage).as_bytes());
            return None;
        }
        let limits = &stage.limits;
        let write_timeout = Duration::from_millis(limits.write_timeout_ms);
        Some(Self {
            io: Watched::new(io, limits.send_buffer_bytes, write_timeout),
            turns: Turns(Rc::new(Cell::new(Turn::Server))),
            next_within: KEPT_FOR + Duration::from_millis(limits.head_timeout_ms),
            due: None,
            idle_rounds: 0,
            _seat: seat.flatten(),
        })
    }

    /// Its turns, for who answers.
    pub(super) fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// The connection itself.
    pub(super) const fn get_ref(&self) -> &TcpStream {
        self.io.get_ref()
    }

    /// The connection, which is none of HTTP any more.
    pub(super) fn into_inner(self) -> TcpStream {
        self.io.into_inner()
    }

    /// Whether the client's time is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.turns.0.get() != Turn::Client {
            self.due = None;
        }
        self.due.as_mut().is_some_and(|due| due.as_mut().poll(cx).is_ready())
    }
}

/// The answer to a connection that is too many.
fn full(stage: &Stage) -> String {
    let reject = refusal(CloseCode::TooManyConnections);
    stage.metrics.request_refused(reject.code.as_str());
    let body = problem_text(StatusCode::SERVICE_UNAVAILABLE, reject);
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: {PROBLEM_TYPE}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl AsyncRead for Kept {
    /// Ends when the client's time is over, as if the client had ended it.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let kept = self.get_mut();
        kept.idle_rounds = 0;
        if kept.poll_over(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut kept.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let kept = self.get_mut();
        kept.idle_rounds = 0;
        Pin::new(&mut kept.io).poll_write(cx, bytes)
    }

    /// The dispatcher comes here once all was written: from then on it is the client's turn.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let kept = self.get_mut();
        kept.idle_rounds += 1;
        if kept.idle_rounds > IDLE_ROUNDS_MAX {
            return Poll::Ready(Err(io::Error::other("more came behind a request than is kept")));
        }
        ready!(Pin::new(&mut kept.io).poll_flush(cx))?;
        if kept.turns.0.get() == Turn::Answered {
            kept.turns.0.set(Turn::Client);
            kept.due = Some(Box::pin(sleep(kept.next_within)));
        }
        if kept.poll_over(cx) {
            cx.waker().wake_by_ref(); // to read, and find the end
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
