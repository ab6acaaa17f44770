//! The driver's side of a socket: the client protocol over WebSocket, as cheaply as it goes.
//!
//! Messages are told apart by how they begin and timed by a stamp that the driver itself put
//! into them; nothing is parsed as JSON. Frames are masked with a key of zero, which is a valid
//! key, so that masking costs the driver nothing; the server unmasks as ever.

mod address;
mod nchan;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use memchr::memmem;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};

pub(crate) use address::{Address, Dialect};

/// Bytes read at a time, by all links of a thread into one buffer.
const READ_BYTES: usize = 256 * 1024;
/// The longest answer to a handshake.
const HANDSHAKE_BYTES_MAX: usize = 4_096;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// One message of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A recorded event.
    Event(&'a [u8]),
    /// A command is durable.
    Ack(&'a [u8]),
    /// A room's history is done.
    Live,
    /// Anything else that is no trouble.
    Other,
}

/// A connection; cheap to share, but only one may send and one may read.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    stream: Arc<TcpStream>,
    dialect: Dialect,
}

/// What came of a frame that is not yet whole.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    partial: Vec<u8>,
    /// The transport's pings that were not answered yet.
    pings: usize,
}

impl Link {
    /// Connects without a handshake.
    pub(crate) async fn raw(address: Address) -> anyhow::Result<Self> {
        Self::over(TcpStream::connect(address.socket).await, address.dialect)
    }

    fn over(stream: io::Result<TcpStream>, dialect: Dialect) -> anyhow::Result<Self> {
        let stream = stream.context("the server takes no connection")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Arc::new(stream), dialect })
    }

    /// Connects and shakes hands.
    pub(crate) async fn open(address: Address) -> anyhow::Result<Self> {
        let path = if address.dialect == Dialect::SocketIo { SOCKET_IO_PATH } else { "/socket" };
        Self::raw(address).await?.shake_hands(address, path).await
    }

    /// Connects to nchan as one who follows these rooms, or who publishes if there are none.
    pub(crate) async fn open_nchan(address: Address, rooms: &[String]) -> anyhow::Result<Self> {
        if rooms.is_empty() {
            return Self::raw(Address { dialect: Dialect::NchanPublisher, ..address }).await;
        }
        let path = format!("/follow/{}", rooms.join(","));
        Self::raw(address).await?.shake_hands(address, &path).await
    }

    /// The same with a small receive buffer, so that what is not read waits at the server.
    pub(crate) async fn open_narrow(address: Address, buffer_bytes: u32) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(buffer_bytes)?;
        Self::over(socket.connect(address.socket).await, address.dialect)?
            .shake_hands(address, "/socket")
            .await
    }

    async fn shake_hands(self, address: Address, path: &str) -> anyhow::Result<Self> {
        let link = self;
        let protocol = match address.dialect {
            Dialect::Plain => "Sec-WebSocket-Protocol: dramatis.v1.json\r\n",
            _ => "",
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{protocol}\r\n",
            address.socket
        );
        link.write(request.as_bytes()).await?;
        // Our server says nothing after its answer before it hears a hello.
        let answer = link.hear(b"\r\n\r\n").await?;
        if !answer.starts_with(b"HTTP/1.1 101") {
            bail!("expected 101 to the handshake, got: {}", String::from_utf8_lossy(&answer));
        }
        if address.dialect == Dialect::SocketIo {
            // Its own greeting may have come with the answer, and is not needed. Before it lets us in
            // it hears nothing.
            link.write(&frame(b"40")).await?;
            link.hear(b"40{").await?;
        }
        Ok(link)
    }

    /// Whether it leads to nchan, which is there to hand on messages and for nothing else.
    pub(crate) fn is_nchan(&self) -> bool {
        matches!(self.dialect, Dialect::Nchan | Dialect::NchanPublisher)
    }

    /// Waits until the answers of a handshake hold this, and gives them.
    async fn hear(&self, wanted: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut answer = Vec::new();
        while memmem::find(&answer, wanted).is_none() {
            self.stream.readable().await?;
            let read = read_some(&self.stream, |bytes| {
                answer.extend_from_slice(bytes);
                Ok(())
            })?;
            ensure!(
                read != Read::End && answer.len() < HANDSHAKE_BYTES_MAX,
                "the handshake was not answered"
            );
        }
        Ok(answer)
    }

    /// Newline-joined messages as they go over the wire.
    fn wrap(&self, messages: &[u8]) -> Vec<u8> {
        match self.dialect {
            Dialect::Plain | Dialect::Nchan => frame(messages),
            Dialect::NchanPublisher => Lines(messages).flat_map(nchan::publication).collect(),
            Dialect::SocketIo => {
                Lines(messages).flat_map(|line| frame(&[SOCKET_IO_EVENT, line, b"]"].concat())).collect()
            }
        }
    }

    /// Sends newline-joined messages as one frame.
    pub(crate) async fn send(&self, messages: &[u8]) -> anyhow::Result<()> {
        self.write(&self.wrap(messages)).await
    }

    /// Sends as one frame without waiting; false when the socket has no room for all of it.
    pub(crate) fn try_send(&self, messages: &[u8]) -> anyhow::Result<bool> {
        let frame = self.wrap(messages);
        match self.stream.try_write(&frame) {
            Ok(written) => Ok(written == frame.len()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("the server is gone"),
        }
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error).context("the server is gone"),
            }
        }
        Ok(())
    }

    /// Waits for bytes, whatever they are; how many came, 0 at the end.
    pub(crate) async fn read_raw(&self) -> anyhow::Result<usize> {
        loop {
            self.stream.readable().await?;
            let mut count = 0;
            let read = read_some(&self.stream, |bytes| {
                count = bytes.len();
                Ok(())
            })?;
            match read {
                Read::Some => return Ok(count),
                Read::End => return Ok(0),
                Read::NotYet => {}
            }
        }
    }

    /// Waits for bytes and hands on every message that is whole. A rejection is an error: what
    /// is measured must have happened.
    pub(crate) async fn read<F>(&self, inbox: &mut Inbox, mut on_message: F) -> anyhow::Result<()>
    where
        F: FnMut(Message<'_>) -> anyhow::Result<()>,
    {
        if self.dialect == Dialect::NchanPublisher {
            // What became of a publication is not looked at: it is missed where it did not come.
            let read = self.read_raw().await?;
            ensure!(read > 0, "the server closed a connection");
            return Ok(());
        }
        let mut pinged = false;
        loop {
            self.stream.readable().await?;
            let read = read_some(&self.stream, |bytes| {
                inbox.feed(bytes, |text| {
                    let text = match self.dialect {
                        Dialect::Nchan => return on_message(Message::Event(text)),
                        Dialect::SocketIo => unwrapped(text, &mut pinged),
                        Dialect::Plain | Dialect::NchanPublisher => text,
                    };
                    for line in Lines(text) {
                        match classify(line)? {
                            None => pinged = true,
                            Some(message) => on_message(message)?,
                        }
                    }
                    Ok(())
                })
            })?;
            match read {
                Read::Some => break,
                Read::End => bail!("the server closed a connection"),
                Read::NotYet => {}
            }
        }
        for _ in 0..std::mem::take(&mut inbox.pings) {
            self.write(&[PONG, MASKED, 0, 0, 0, 0]).await?;
        }
        match self.dialect {
            Dialect::Plain if pinged => self.send(br#"{"type":"pong"}"#).await,
            Dialect::SocketIo if pinged => self.write(&frame(b"3")).await,
            _ => Ok(()),
        }
    }

    /// Waits for bytes, at most so many, and hands on every message that is whole.
    pub(crate) async fn sip<F>(
        &self,
        inbox: &mut Inbox,
        bytes: usize,
        mut on_message: F,
    ) -> anyhow::Result<()>
    where
        F: FnMut(Message<'_>) -> anyhow::Result<()>,
    {
        let mut sip = vec![0; bytes];
        self.stream.readable().await?;
        match self.stream.try_read(&mut sip) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(read) => inbox.feed(sip.get(..read).unwrap_or_default(), |text| {
                Lines(text).try_for_each(|line| classify(line)?.map_or(Ok(()), &mut on_message))
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("the server is gone"),
        }
    }
}

/// Where Socket.IO listens.
const SOCKET_IO_PATH: &str = "/socket.io/?EIO=4&transport=websocket";

/// How Socket.IO's frame of an event with one argument begins.
const SOCKET_IO_EVENT: &[u8] = br#"42["message","#;

/// The message in a frame of Socket.IO; empty for its own, of which a ping is noted.
fn unwrapped<'a>(text: &'a [u8], pinged: &mut bool) -> &'a [u8] {
    *pinged |= text == b"2";
    text.strip_prefix(SOCKET_IO_EVENT).and_then(|rest| rest.strip_suffix(b"]")).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Some,
    NotYet,
    End,
}

fn read_some(stream: &TcpStream, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<Read> {
    SCRATCH.with_borrow_mut(|scratch| match receive(stream, scratch) {
        Ok(0) => Ok(Read::End),
        Ok(read) => take(scratch.get(..read).unwrap_or_default()).map(|()| Read::Some),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Read::NotYet),
        Err(error) => Err(error).context("the server is gone"),
    })
}

/// Reads what has come. Where that is less than there was room for the socket is marked empty, as
/// it is: asking it once more would cost as much again.
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut received = None;
    let asked = stream.try_io(Interest::READABLE, || {
        let (count, _) = recv(stream, &mut *buffer, RecvFlags::empty())?;
        received = Some(count);
        if (1..buffer.len()).contains(&count) { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    });
    received.map_or(asked, Ok)
}

impl Inbox {
    /// Takes bytes and hands on the text of every frame that is now whole.
    fn feed(
        &mut self,
        bytes: &[u8],
        mut on_text: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.partial.is_empty() {
            let rest = frames(bytes, &mut on_text, &mut self.pings)?;
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(bytes);
        let rest = frames(&whole, &mut on_text, &mut self.pings)?.len();
        whole.drain(..whole.len() - rest);
        self.partial = whole;
        Ok(())
    }
}

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// Hands on whole frames; returns what is left.
fn frames<'a>(
    mut bytes: &'a [u8],
    on_text: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    pings: &mut usize,
) -> anyhow::Result<&'a [u8]> {
    loop {
        let Some((kind, body, rest)) = split_frame(bytes) else { return Ok(bytes) };
        match kind {
            TEXT => on_text(body)?,
            CLOSE => {
                let code = body.first_chunk().map(|code| u16::from_be_bytes(*code));
                bail!("the server closed a connection with code {code:?}");
            }
            PING => *pings += 1,
            PONG => {}
            other => bail!("expected whole text frames, got one that begins with {other:#04x}"),
        }
        bytes = rest;
    }
}

/// The first byte, the body and what follows, if the frame is whole.
fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, short], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match short {
        127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest))?,
        126 => rest.split_first_chunk().map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest))?,
        len => (u64::from(len), rest),
    };
    let (body, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    Some((kind, body, rest))
}

/// A client's text frame under the key zero.
fn frame(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 14);
    bytes.push(TEXT);
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(len @ 0..=125), _) => bytes.push(MASKED | len),
        (_, Ok(len)) => {
            bytes.push(MASKED | 0x7e);
            bytes.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            bytes.push(MASKED | 0x7f);
            bytes.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(text);
    bytes
}

/// The newline-joined messages of a frame.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.0).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..).unwrap_or_default();
        Some(line)
    }
}

/// What a message is; `None` for a ping.
fn classify(message: &[u8]) -> anyhow::Result<Option<Message<'_>>> {
    let kind = message.strip_prefix(br#"{"type":""#).unwrap_or_default();
    Ok(Some(match kind {
        [b'e', b'v', ..] => Message::Event(message),
        [b'a', b'c', ..] => Message::Ack(message),
        [b'l', b'i', ..] => Message::Live,
        [b'p', b'i', ..] => return Ok(None),
        [b'r', b'e', b'j', ..] => bail!("the server rejected: {}", String::from_utf8_lossy(message)),
        [b'r', b'e', b'a', ..] if memmem::find(message, br#""how":"denied""#).is_some() => {
            bail!("a room was denied: {}", String::from_utf8_lossy(message))
        }
        _ => Message::Other,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let (short, long) = (vec![b'a'; 100], vec![b'b'; 70_000]);
        let mut bytes = vec![TEXT, 100];
        bytes.extend_from_slice(&short);
        bytes.extend_from_slice(&[TEXT, 127]);
        bytes.extend_from_slice(&70_000_u64.to_be_bytes());
        bytes.extend_from_slice(&long);
        for cut in [1, 2, 50, 101, 102, 103, 111, 112, 40_000, bytes.len() - 1] {
            let (mut inbox, mut seen) = (Inbox::default(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                inbox
                    .feed(part, |text| {
                        seen.push(text.to_vec());
                        Ok(())
                    })
                    .unwrap();
            }
            assert!(seen == [short.clone(), long.clone()] && inbox.partial.is_empty(), "cut at {cut}");
        }
    }

    #[test]
    fn messages_are_told_apart_and_a_rejection_is_an_error() {
        assert!(matches!(classify(br#"{"type":"event","room":"a"}"#).unwrap(), Some(Message::Event(_))));
        assert!(matches!(classify(br#"{"type":"ack","id":"a"}"#).unwrap(), Some(Message::Ack(_))));
        assert_eq!(classify(br#"{"type":"live","room":"a"}"#).unwrap(), Some(Message::Live));
        assert_eq!(classify(br#"{"type":"ping"}"#).unwrap(), None);
        assert!(classify(br#"{"type":"reject","code":"rule"}"#).is_err());
        assert!(classify(br#"{"type":"ready","rooms":[{"how":"denied"}]}"#).is_err());
        assert_eq!(Lines(b"a\nbc").collect::<Vec<_>>(), [&b"a"[..], b"bc"]);
    }

    #[test]
    fn socket_io_wraps_each_message() {
        let mut pinged = false;
        assert_eq!(unwrapped(br#"42["message",{"type":"live"}]"#, &mut pinged), br#"{"type":"live"}"#);
        assert_eq!((unwrapped(br#"0{"sid":"a"}"#, &mut pinged), pinged), (&b""[..], false));
        assert_eq!((unwrapped(b"2", &mut pinged), pinged), (&b""[..], true));
    }

    #[test]
    fn a_frame_of_ours_has_a_mask_of_zero() {
        assert_eq!(frame(b"hi"), [TEXT, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(frame(&[b'x'; 200])[..4], [TEXT, 0xfe, 0, 200]);
    }
}
