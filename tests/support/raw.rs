//! A socket client down at the bytes, for floods: whole batches of frames go out in one write.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::support::PATIENCE;

/// What a connection heard until it was closed, or until it was enough.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    /// Messages of a `reject`.
    pub rejects: usize,
    /// The close code, once it came.
    pub closed: Option<u16>,
}

/// An upgraded connection.
pub struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    /// Connects and upgrades; `early` goes out right behind the request, before any answer.
    pub fn connect(address: SocketAddr, early: &[u8]) -> Self {
        Self::connect_over(TcpStream::connect(address).unwrap(), address, early)
    }

    /// The same over a connection to the server.
    pub fn connect_over(mut stream: TcpStream, address: SocketAddr, early: &[u8]) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = format!(
            "GET /socket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(early);
        stream.write_all(&request).unwrap();
        let mut raw = Self { stream: BufReader::new(stream) };
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        raw
    }

    /// Another handle, to write by.
    pub fn writer(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }

    /// What comes from here on, as bytes.
    pub fn into_stream(self) -> BufReader<TcpStream> {
        self.stream
    }

    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.bytes::<1>().expect("an answer to the handshake")[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Sends bytes as they are; `false` when the server has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.get_mut().write_all(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server neither reads nor closes: {error}")
            }
            Err(_) => false,
        }
    }

    /// Reads until so many rejects have come, or the end.
    pub fn listen(&mut self, rejects: usize) -> Heard {
        let mut heard = Heard { rejects: 0, closed: None };
        while heard.rejects < rejects && heard.closed.is_none() {
            let Some((code, payload)) = self.frame() else { return heard };
            match code {
                0x1 => heard.rejects += count(&payload, br#""type":"reject""#),
                0x8 => heard.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                _ => {}
            }
        }
        heard
    }

    /// The next frame's opcode and payload; `None` at the end.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second] = self.bytes::<2>()?;
        let len = match second {
            126 => u64::from(u16::from_be_bytes(self.bytes()?)),
            127 => u64::from_be_bytes(self.bytes()?),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        self.stream.read_exact(&mut payload).ok()?;
        Some((first & 0x0f, payload))
    }

    fn bytes<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let mut bytes = [0; LEN];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}

/// The opcode of text.
pub const TEXT: u8 = 0x1;
/// The opcode of a ping.
pub const PING: u8 = 0x9;

/// Appends a whole masked frame; the mask is zero, so the payload stays as it is.
pub fn put_frame(out: &mut Vec<u8>, code: u8, payload: &[u8]) {
    out.push(0x80 | code);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => out.push(0x80 | short),
        (_, Ok(medium)) => {
            out.push(0xfe);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}
