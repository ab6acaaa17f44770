//! Writes a socket: everything that waits goes out in as few writes as it fits.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_http::ws::{CloseCode as WsCloseCode, CloseReason, OpCode, Parser};
use actix_rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::frames::write_header;
use crate::actors::outbox::{Next, Outbox, Pen};
use crate::protocol::CloseCode;
use crate::web::stalled::{TRY_EVERY, try_anyway};

/// Bytes of messages put into one write.
const WRITE_BYTES: usize = 64 * 1024;
/// How long the other side has to take a goodbye, and to answer it.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// Up to so many bytes are copied into one piece, which costs less than to write several.
const COPIED_BYTES_MAX: usize = 4 * 1024;
/// Of more, messages longer than that on the average are written from where they lie: to copy them would
/// cost more than the system takes for each further piece.
const GATHERED_BYTES_MIN: usize = 256;
/// At most so many: the system takes 1,024 pieces in one call (`IOV_MAX`), two of which each message is.
const GATHERED_MAX: usize = 512;

/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(WRITE_BYTES * 2));
}

/// A connection's socket. Who waits for it does so in a task: the many that do not need none.
pub(super) struct Wire<Kept> {
    pub(super) io: TcpStream,
    patience: Patience,
    /// Dropped at the end.
    kept: RefCell<Option<Kept>>,
}

/// How long who takes nothing is waited for, in milliseconds: every connection has one.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    write_ms: u32,
    last_goodbye_ms: u32,
}

impl Patience {
    /// What is written may take nothing for `write`. When the process ends its clients come back
    /// `successor` later, and its successor begins once all are gone: a quarter of that is for goodbyes.
    pub fn new(write: Duration, successor: Duration) -> Self {
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self { write_ms: ms(write), last_goodbye_ms: ms((successor / 4).min(GOODBYE_WITHIN)) }
    }

    fn to_write(self) -> Duration {
        Duration::from_millis(self.write_ms.into())
    }

    /// For a goodbye to be taken, and for its answer.
    fn for_goodbye(self, code: CloseCode) -> Duration {
        match code {
            CloseCode::Drain => Duration::from_millis(self.last_goodbye_ms.into()),
            _ => GOODBYE_WITHIN,
        }
    }
}

impl<Kept: 'static> Wire<Kept> {
    /// A socket, and what goes when it does.
    pub(super) fn new(io: TcpStream, patience: Patience, kept: Kept) -> Self {
        Self { io, patience, kept: RefCell::new(Some(kept)) }
    }

    /// Waits until the rest of what counts as so many bytes is written, and goes on. A client that
    /// does not read is dropped: a goodbye would wait behind what it does not read.
    async fn wait(self: Rc<Self>, outbox: Rc<Outbox>, size: usize, rest: Vec<u8>) {
        let written = write(&self.io, &outbox, &rest, self.patience.to_write()).await;
        outbox.drained(size);
        if written { self.write(&outbox) } else { self.end(&outbox) }
    }

    async fn leave(self: Rc<Self>, outbox: Rc<Outbox>, code: CloseCode) {
        say_goodbye(&self.io, &outbox, code, self.patience.for_goodbye(code)).await;
        self.end(&outbox);
    }

    fn end(&self, outbox: &Outbox) {
        outbox.finish();
        self.kept.take();
    }
}

impl<Kept: 'static> Pen for Wire<Kept> {
    fn write(self: Rc<Self>, outbox: &Rc<Outbox>) {
        while let Some(next) = outbox.next(WRITE_BYTES) {
            let (size, left) = match next {
                Next::Write(messages) => (messages.bytes(), write_frame(&self.io, &messages)),
                Next::Control(control) => (0, write_some(&self.io, &control)),
                Next::Close(code) => {
                    actix_rt::spawn(self.leave(outbox.clone(), code));
                    return;
                }
            };
            match left {
                Ok(rest) if rest.is_empty() => outbox.drained(size),
                Ok(rest) => {
                    actix_rt::spawn(self.wait(outbox.clone(), size, rest));
                    return;
                }
                Err(_) => {
                    outbox.drained(size);
                    return self.end(outbox);
                }
            }
        }
    }

    fn cut(&self) {
        let _ = rustix::net::shutdown(&self.io, rustix::net::Shutdown::Both);
    }
}

async fn say_goodbye(io: &TcpStream, outbox: &Outbox, code: CloseCode, within: Duration) {
    if !write(io, outbox, &goodbye(code), within).await {
        return;
    }
    if code.ends_reading() {
        // What comes now cannot be understood, so neither can an answer.
        let _ = rustix::net::shutdown(io, rustix::net::Shutdown::Write);
    }
    let _ = actix_rt::time::timeout(within, outbox.peer_is_done()).await;
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

/// Writes one text frame that holds all of these messages, as far as the socket takes it at once.
fn write_frame(io: &TcpStream, messages: &[Bytes]) -> io::Result<Vec<u8>> {
    let len = messages.iter().map(Bytes::len).sum::<usize>() + messages.len().saturating_sub(1);
    let gathered_min = messages.len().saturating_mul(GATHERED_BYTES_MIN).max(COPIED_BYTES_MAX);
    if len > gathered_min && messages.len() <= GATHERED_MAX {
        return write_gathered(io, messages, len);
    }
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
        write_some(io, scratch)
    })
}

/// The same from where the messages lie, which many connections share.
fn write_gathered(io: &TcpStream, messages: &[Bytes], len: usize) -> io::Result<Vec<u8>> {
    let mut header = Vec::with_capacity(HEADER_BYTES_MAX);
    write_header(&mut header, OpCode::Text, len);
    let mut parts = Vec::with_capacity(messages.len() * 2);
    for (index, message) in messages.iter().enumerate() {
        parts.push(IoSlice::new(if index > 0 { b"\n" } else { &header }));
        parts.push(IoSlice::new(message));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = sendmsg(io, &parts, &mut SendAncillaryBuffer::default(), flags);
    let mut written = taken(sent.map_err(io::Error::from))?;
    if written == header.len() + len {
        return Ok(Vec::new());
    }
    let mut rest = Vec::with_capacity(header.len() + len - written);
    for part in &parts {
        rest.extend_from_slice(part.get(written..).unwrap_or_default());
        written = written.saturating_sub(part.len());
    }
    Ok(rest)
}

/// Writes as much as the socket takes at once; what is left, mostly nothing, is a copy that holds on
/// to nothing else.
fn write_some(io: &TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    // Mostly there is room: whether there is, only the system is asked.
    let written = taken(try_anyway(io, bytes))?;
    Ok(bytes.get(written..).unwrap_or_default().to_vec())
}

/// How much a socket took.
fn taken(sent: io::Result<usize>) -> io::Result<usize> {
    match sent {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
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
                if stuck_since.is_some() {
                    outbox.heard(Instant::now());
                }
                // Who is closed has no more time for all of it: else it stayed by taking it drop by drop.
                if !outbox.is_closing() {
                    stuck_since = None;
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::actors::meters::Seat;
    use crate::actors::places::Place;
    use crate::actors::share::Share;

    /// Every connection has one of these, from its first to its last moment.
    #[test]
    fn what_a_socket_is_written_by_is_small() {
        let size = size_of::<Wire<(Option<Place>, Option<Seat>)>>();
        assert!(size <= 96, "{size} bytes");
    }

    #[test]
    fn who_is_closed_stays_no_longer_by_taking_it_drop_by_drop() {
        actix_rt::System::new().block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let io = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut other, _) = listener.accept().unwrap();
            rustix::net::sockopt::set_socket_send_buffer_size(&io, 16_384).unwrap();
            let share = Share::new(Gauge::default(), Gauge::default(), 1 << 20);
            let outbox = Outbox::new(Rc::new(share), 1 << 18, 1);
            outbox.close(CloseCode::Replaced);
            let is_done = Arc::new(AtomicBool::new(false));
            let dripping = std::thread::spawn({
                let is_done = is_done.clone();
                move || {
                    while !is_done.load(Ordering::Relaxed)
                        && other.read(&mut [0; 4_096]).is_ok_and(|read| read > 0)
                    {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
            // Drop by drop this takes many times as long.
            let is_written = write(&io, &outbox, &vec![0; 8 << 20], Duration::from_millis(200)).await;
            is_done.store(true, Ordering::Relaxed);
            assert!(!is_written);
            drop(io);
            dripping.join().unwrap();
        });
    }

    #[test]
    fn what_a_socket_takes_and_what_is_left_is_one_frame() {
        let numbered = |len: usize| move |number: usize| Bytes::from(number.to_string().repeat(len));
        let of = |count: usize, len: usize| (0..count).map(numbered(len)).collect::<Vec<_>>();
        // Copied into one piece, and from where they lie; all taken at once, and more than is taken.
        for (messages, is_left) in [
            (of(1, 10), false),
            (of(3, 1_000), false),
            (of(GATHERED_MAX, GATHERED_BYTES_MIN + 1), false),
            (of(GATHERED_MAX + 1, 1_000), true),
            (of(100, 100_000), true),
        ] {
            actix_rt::System::new().block_on(async {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let io = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut other, _) = listener.accept().unwrap();
                // Fixes what the system buffers, which it else adapts.
                rustix::net::sockopt::set_socket_send_buffer_size(&io, 300_000).unwrap();
                let rest = write_frame(&io, &messages).unwrap();
                assert_eq!(rest.is_empty(), !is_left);
                drop(io);
                let mut read = Vec::new();
                other.read_to_end(&mut read).unwrap();
                read.extend(rest);
                let text = messages.join(&b"\n"[..]);
                let mut expected = Vec::new();
                write_header(&mut expected, OpCode::Text, text.len());
                expected.extend(text);
                assert!(read == expected, "{} messages: {} bytes", messages.len(), read.len());
            });
        }
    }
}
