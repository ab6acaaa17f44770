//! WebSocket frames in and out (RFC 6455): messages are joined from their fragments, control
//! frames answered, and every limit is checked before a byte of the payload is waited for.

use actix_http::ws::{OpCode, Parser, ProtocolError};
use bytes::{BufMut, BytesMut};

use crate::protocol::CloseCode;

/// What a frame turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A piece of a message of which more is to come.
    Piece,
    /// Answer with the same payload.
    Ping(Vec<u8>),
    /// Something was heard.
    Pong,
    /// The other side says goodbye.
    Close,
}

/// Joins fragments into messages.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// A message whose last fragment has not come.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    payload: Vec<u8>,
}

impl Joiner {
    /// The bytes that it keeps room for.
    pub(super) fn capacity(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.payload.capacity())
    }

    /// The next frame in the buffer; `None` until more bytes have come.
    pub(super) fn next(
        &mut self,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> Result<Option<Frame>, CloseCode> {
        if declared_len(buffer).is_some_and(|len| len > bytes_max as u64) {
            return Err(CloseCode::TooBig);
        }
        let Some((last, code, payload)) =
            Parser::parse(buffer, true, bytes_max).map_err(|e| violation(&e))?
        else {
            return Ok(None);
        };
        self.take(last, code, &payload.unwrap_or_default(), bytes_max).map(Some)
    }

    fn take(
        &mut self,
        last: bool,
        code: OpCode,
        payload: &[u8],
        bytes_max: usize,
    ) -> Result<Frame, CloseCode> {
        match code {
            OpCode::Ping | OpCode::Pong | OpCode::Close if !last => Err(CloseCode::Protocol),
            OpCode::Ping => Ok(Frame::Ping(payload.to_vec())),
            OpCode::Pong => Ok(Frame::Pong),
            OpCode::Close => close(payload),
            OpCode::Text | OpCode::Binary if self.partial.is_none() => {
                let begun = Partial { is_text: code == OpCode::Text, payload: payload.to_vec() };
                self.end_or_keep(last, begun)
            }
            OpCode::Continue => self.join(last, payload, bytes_max),
            OpCode::Text | OpCode::Binary | OpCode::Bad => Err(CloseCode::Protocol),
        }
    }

    fn join(&mut self, last: bool, payload: &[u8], bytes_max: usize) -> Result<Frame, CloseCode> {
        let mut message = self.partial.take().ok_or(CloseCode::Protocol)?;
        if message.payload.len() + payload.len() > bytes_max {
            return Err(CloseCode::TooBig);
        }
        message.payload.extend_from_slice(payload);
        self.end_or_keep(last, message)
    }

    fn end_or_keep(&mut self, last: bool, Partial { is_text, payload }: Partial) -> Result<Frame, CloseCode> {
        match (last, is_text) {
            (false, _) => {
                self.partial = Some(Partial { is_text, payload });
                Ok(Frame::Piece)
            }
            (true, true) => match String::from_utf8(payload) {
                Ok(text) => Ok(Frame::Text(text)),
                Err(_) => Err(CloseCode::NotUtf8),
            },
            (true, false) => Ok(Frame::Binary(payload)),
        }
    }
}

fn close(payload: &[u8]) -> Result<Frame, CloseCode> {
    Parser::try_parse_close_payload(payload).map_err(|e| match e {
        ProtocolError::BadOpCode
            if payload.len() > 2 && std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_err() =>
        {
            CloseCode::NotUtf8
        }
        _ => CloseCode::Protocol,
    })?;
    Ok(Frame::Close)
}

fn violation(error: &ProtocolError) -> CloseCode {
    match error {
        ProtocolError::Overflow => CloseCode::TooBig,
        _ => CloseCode::Protocol,
    }
}

/// The payload length in a frame's header, as soon as it has come.
fn declared_len(buffer: &[u8]) -> Option<u64> {
    match buffer.get(1)? & 0x7f {
        126 => {
            buffer.get(2..4).and_then(|len| len.try_into().ok()).map(|len| u64::from(u16::from_be_bytes(len)))
        }
        127 => buffer.get(2..10).and_then(|len| len.try_into().ok()).map(u64::from_be_bytes),
        len => Some(u64::from(len)),
    }
}

/// Writes the header of an unmasked frame that is whole in itself.
pub(super) fn write_header(out: &mut impl BufMut, code: OpCode, len: usize) {
    out.put_u8(0x80 | u8::from(code));
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    const MAX: usize = 1_000;

    fn masked(last: bool, code: OpCode, payload: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        Parser::write_message(&mut bytes, payload, code, last, true);
        bytes
    }

    fn read(frames: &[BytesMut]) -> Result<Vec<Frame>, CloseCode> {
        let (mut joiner, mut buffer, mut read) = (Joiner::default(), BytesMut::new(), Vec::new());
        for byte in frames.concat() {
            buffer.put_u8(byte);
            while let Some(frame) = joiner.next(&mut buffer, MAX)? {
                read.extend(Some(frame).filter(|frame| *frame != Frame::Piece));
            }
        }
        Ok(read)
    }

    #[test]
    fn fragments_are_joined_around_control_frames() {
        let frames = [
            masked(false, OpCode::Text, b"he"),
            masked(true, OpCode::Ping, b"?"),
            masked(false, OpCode::Continue, b"ll"),
            masked(true, OpCode::Continue, b"o"),
            masked(false, OpCode::Binary, b"\xff"),
            masked(true, OpCode::Continue, b"\xfe"),
        ];
        let read = read(&frames).unwrap();
        let [ping, text, binary] =
            [Frame::Ping(b"?".to_vec()), Frame::Text("hello".to_owned()), Frame::Binary(vec![0xff, 0xfe])];
        assert_eq!(read, [ping, text, binary]);
    }

    #[test]
    fn what_breaks_the_rules_names_its_close_code() {
        for (frames, code) in [
            (
                vec![masked(false, OpCode::Binary, b"x"), masked(true, OpCode::Text, b"x")],
                CloseCode::Protocol,
            ),
            (vec![masked(true, OpCode::Text, b"\xff")], CloseCode::NotUtf8),
            (vec![masked(true, OpCode::Text, &[b'x'; MAX + 1])], CloseCode::TooBig),
            (
                vec![masked(false, OpCode::Text, &[b'x'; MAX]), masked(true, OpCode::Continue, b"x")],
                CloseCode::TooBig,
            ),
            (vec![masked(true, OpCode::Continue, b"x")], CloseCode::Protocol),
            (vec![masked(false, OpCode::Text, b"x"), masked(true, OpCode::Text, b"x")], CloseCode::Protocol),
            (vec![masked(false, OpCode::Ping, b"")], CloseCode::Protocol),
            (vec![masked(true, OpCode::Close, b"x")], CloseCode::Protocol),
            (vec![masked(true, OpCode::Close, b"\x03\xe8\xff")], CloseCode::NotUtf8),
        ] {
            assert_eq!(read(&frames), Err(code));
        }
    }

    #[test]
    fn a_huge_frame_is_refused_by_its_header() {
        let mut buffer = BytesMut::from(&[0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0][..]);
        assert_eq!(Joiner::default().next(&mut buffer, MAX), Err(CloseCode::TooBig));
    }

    #[test]
    fn written_headers_read_back() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let mut bytes = BytesMut::new();
            write_header(&mut bytes, OpCode::Text, len);
            assert_eq!(declared_len(&bytes), Some(len as u64));
        }
    }
}
