//! Writes a socket: everything that waits goes out in as few writes as it fits.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_http::ws::{CloseCode as WsCloseCode, CloseReason, OpCode, Parser};
use actix_rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use rustix::net::{SendFlags, send};

use super::frames::write_header;
use crate::actors::outbox::{Next, Outbox};
use crate::protocol::CloseCode;

/// Bytes of messages put into one write.
const WRITE_BYTES: usize = 64 * 1024;
/// How long the other side has to take a goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// How often a socket that takes nothing is tried. The system says that there is room only once a third
/// of its buffer is free, which a slow reader may need minutes for.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(WRITE_BYTES * 2));
}

/// Writes until the end was asked for, or the socket takes nothing for too long. A client that
/// does not read is dropped: a goodbye would wait behind what it does not read.
///
/// What waits for a socket waits in a box: the many that do not wait need no room for it.
pub(super) async fn run(io: Rc<TcpStream>, outbox: &Outbox, timeout: Duration) {
    loop {
        let (size, left) = match std::future::poll_fn(|cx| outbox.poll_next(cx, WRITE_BYTES)).await {
            Next::Write(messages) => (messages.iter().map(Bytes::len).sum(), write_frame(&io, &messages)),
            Next::Control(control) => (0, Ok(control.into())),
            Next::Close(code) => {
                Box::pin(say_goodbye(&io, outbox, code)).await;
                break;
            }
        };
        let written = match left {
            Ok(left) => left.is_empty() || Box::pin(write(&io, outbox, &left, timeout)).await,
            Err(_) => false,
        };
        outbox.drained(size);
        if !written {
            break;
        }
    }
    outbox.finish();
}

async fn say_goodbye(io: &TcpStream, outbox: &Outbox, code: CloseCode) {
    if !write(io, outbox, &goodbye(code), GOODBYE_WITHIN).await {
        return;
    }
    if code.ends_reading() {
        // What comes now cannot be understood, so neither can an answer.
        let _ = rustix::net::shutdown(io, rustix::net::Shutdown::Write);
    }
    let _ = actix_rt::time::timeout(GOODBYE_WITHIN, outbox.peer_is_done()).await;
}

/// The answer to a ping.
pub(super) fn pong(payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    Parser::write_message(&mut bytes, payload, OpCode::Pong, true, false);
    bytes.freeze()
}

fn goodbye(code: CloseCode) -> Bytes {
    let mut bytes = BytesMut::new();
    let description = Some(code.reason().to_owned()).filter(|reason| !reason.is_empty());
    let reason = CloseReason { code: WsCloseCode::from(code.number()), description };
    Parser::write_close(&mut bytes, Some(reason), false);
    bytes.freeze()
}

/// Writes one text frame that holds all of these messages, as far as the socket takes it at once;
/// what is left, mostly nothing, is a copy that holds on to nothing else.
fn write_frame(io: &TcpStream, messages: &[Bytes]) -> io::Result<Vec<u8>> {
    let len = messages.iter().map(Bytes::len).sum::<usize>() + messages.len().saturating_sub(1);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        scratch.reserve(len + HEADER_BYTES_MAX);
        write_header(scratch, OpCode::Text, len);
        for (index, message) in messages.iter().enumerate() {
            if index > 0 {
                scratch.push(b'\n');
            }
            scratch.extend_from_slice(message);
        }
        let written = match io.try_write(scratch) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        Ok(scratch.get(written..).unwrap_or_default().to_vec())
    })
}

/// Writes all of it; `false` when the other side is gone or takes nothing for too long.
async fn write(io: &TcpStream, outbox: &Outbox, mut bytes: &[u8], timeout: Duration) -> bool {
    let mut stuck_since: Option<Instant> = None;
    let mut is_said_writable = true;
    while !bytes.is_empty() {
        let tried = if is_said_writable { io.try_write(bytes) } else { try_anyway(io, bytes) };
        match tried {
            Ok(0) => return false,
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                if stuck_since.take().is_some() {
                    outbox.heard(Instant::now());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let since = *stuck_since.get_or_insert_with(Instant::now);
                let left = timeout.saturating_sub(since.elapsed());
                if left.is_zero() {
                    outbox.close(CloseCode::TooSlow);
                    return false;
                }
                is_said_writable = match actix_rt::time::timeout(left.min(TRY_EVERY), io.writable()).await {
                    Ok(Ok(())) => true,
                    Ok(Err(_)) => return false,
                    Err(_) => false,
                };
            }
            Err(_) => return false,
        }
    }
    true
}

/// Writes what the socket takes, whether or not it is said to take anything.
fn try_anyway(io: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(io, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::actors::share::Share;

    /// Every connection has one of these, from its first to its last moment.
    #[test]
    fn a_writer_that_does_not_wait_is_small() {
        actix_rt::System::new().block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let io = Rc::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let share = Rc::new(Share::new(Gauge::default(), Gauge::default(), 1 << 20));
            let outbox = Outbox::new(share, 1 << 18, 1);
            let size = size_of_val(&run(io, &outbox, Duration::from_secs(1)));
            assert!(size <= 192, "{size} bytes");
        });
    }
}
