//! One event as stored bytes.
//!
//! A record is a frame, `length u32, crc32c u32` over the body, and a body, little-endian:
//!
//! | field | bytes |
//! |---|---|
//! | position, revision, `recorded_at` | 8 each |
//! | event id | 16 |
//! | schema version | 2 |
//! | flags: 1 `occurred_at`, 2 command, 4 correlation, 8 causation, 16 subject | 1 |
//! | stream, name, author | 1 for the length, then the text, each |
//! | `occurred_at`, if flagged | 8 |
//! | command, if flagged | 1 for the length, the id, 16 for the content hash |
//! | correlation id, causation id, if flagged | 16 each |
//! | subject, if flagged | 1 for the length, then the text |
//! | payload | the rest |
//!
//! A record proves its own place, so an index that points astray is noticed.

use bytes::Bytes;
use dramatis_events::{
    CommandId, CommandStamp, ContentHash, Envelope, EventId, EventName, MemberId, Position, Recorded,
    Revision, StreamId, UnixMillis, UserId,
};

use super::bytes::{Fields, to_u32};
use super::checksum::crc32c;
#[cfg(test)]
use super::tests::bugs::{self, Bug};

/// Bytes before a record's body.
pub(super) const FRAME_BYTES: usize = 8;
/// The longest body that is looked at: the largest payload and more than all its metadata.
pub(super) const BODY_BYTES_MAX: usize = crate::log::EVENT_BYTES_MAX + 4_096;

const OCCURRED: u8 = 1;
const COMMAND: u8 = 2;
const CORRELATION: u8 = 4;
const CAUSATION: u8 = 8;
const SUBJECT: u8 = 16;
const FLAGS_ALL: u8 = 31;

/// Bytes of a record's place in its body: position, revision, `recorded_at`.
const PLACE_BYTES: usize = 24;

/// Appends a record to the buffer: whole but for its place and checksum, which [`place`] fills in.
pub(super) fn encode(buffer: &mut Vec<u8>, stream: &StreamId, envelope: &Envelope) {
    let frame = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_BYTES + PLACE_BYTES]);
    buffer.extend_from_slice(&envelope.id.to_bytes());
    buffer.extend_from_slice(&envelope.version.to_le_bytes());
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    buffer.push(
        flag(envelope.occurred_at.is_some(), OCCURRED)
            | flag(envelope.command.is_some(), COMMAND)
            | flag(envelope.correlation_id.is_some(), CORRELATION)
            | flag(envelope.causation_id.is_some(), CAUSATION)
            | flag(envelope.subject.is_some(), SUBJECT),
    );
    put_text(buffer, stream.as_str());
    put_text(buffer, envelope.name.as_str());
    put_text(buffer, envelope.author.as_str());
    if let Some(at) = envelope.occurred_at {
        buffer.extend_from_slice(&at.get().to_le_bytes());
    }
    if let Some(command) = &envelope.command {
        put_text(buffer, command.id.as_str());
        buffer.extend_from_slice(&command.hash.to_bytes());
    }
    for id in [envelope.correlation_id, envelope.causation_id].into_iter().flatten() {
        buffer.extend_from_slice(&id.to_bytes());
    }
    if let Some(subject) = &envelope.subject {
        put_text(buffer, subject.as_str());
    }
    buffer.extend_from_slice(&envelope.data);
    let len = to_u32(buffer.len() - frame - FRAME_BYTES).to_le_bytes();
    if let Some(to) = buffer.get_mut(frame..frame + 4) {
        to.copy_from_slice(&len);
    }
}

/// Gives an encoded record its place, and with it its checksum.
pub(super) fn place(record: &mut [u8], position: u64, revision: u64, recorded_at: i64) {
    let Some((frame, body)) = record.split_at_mut_checked(FRAME_BYTES) else { return };
    let Some(to) = body.first_chunk_mut::<PLACE_BYTES>() else { return };
    let fields = [position.to_le_bytes(), revision.to_le_bytes(), recorded_at.to_le_bytes()];
    for (to, from) in to.chunks_exact_mut(8).zip(&fields) {
        to.copy_from_slice(from);
    }
    if let Some(to) = frame.last_chunk_mut::<4>() {
        *to = crc32c(body).to_le_bytes();
    }
}

/// Ids are at most 227 bytes, so one byte holds the length.
fn put_text(buffer: &mut Vec<u8>, text: &str) {
    let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
    buffer.push(len);
    buffer.extend_from_slice(text.as_bytes().get(..usize::from(len)).unwrap_or_default());
}

/// Takes one record's body off the front of the bytes; its checksum is right.
pub(super) fn take_body<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], &'static str> {
    let (Some(len), Some(crc)) = (fields.u32(), fields.u32()) else {
        return Err("a record's frame is cut short");
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > BODY_BYTES_MAX {
        return Err("a record's length is past the limit");
    }
    let body = fields.take(len).ok_or("a record is cut short")?;
    let right = crc32c(body) == crc;
    #[cfg(test)]
    let right = right || bugs::has(Bug::SkipChecksum);
    if right { Ok(body) } else { Err("a record's checksum is wrong") }
}

/// A stored text as an id; `None` if it is none.
pub(super) fn parsed<T, E>(text: &[u8], parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
    parse(std::str::from_utf8(text).ok()?).ok()
}

/// The raw fields of a record: enough to filter and to index, nothing allocated, texts as bytes.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) position: u64,
    pub(super) revision: u64,
    pub(super) recorded_at: i64,
    id: [u8; 16],
    version: u16,
    flags: u8,
    pub(super) stream: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) author: &'a [u8],
    rest: Fields<'a>,
}

impl<'a> Raw<'a> {
    /// Reads the fields that every record has.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, &'static str> {
        let mut fields = Fields(body);
        let raw = (|| {
            Some(Self {
                position: fields.u64()?,
                revision: fields.u64()?,
                recorded_at: fields.i64()?,
                id: fields.array()?,
                version: fields.u16()?,
                flags: fields.u8()?,
                stream: fields.short()?,
                name: fields.short()?,
                author: fields.short()?,
                rest: fields,
            })
        })();
        match raw {
            Some(raw) if raw.flags <= FLAGS_ALL => Ok(raw),
            Some(_) => Err("a record has unknown flags"),
            None => Err("a record's fields are cut short"),
        }
    }

    /// The command's id, if the record names one.
    pub(super) fn command(&self) -> Option<&'a [u8]> {
        let mut rest = self.rest;
        if self.flags & COMMAND == 0 {
            return None;
        }
        if self.flags & OCCURRED != 0 {
            rest.u64()?;
        }
        rest.short()
    }

    /// The whole event; every field passes the door that new events pass.
    pub(super) fn decode(self) -> Result<Recorded, &'static str> {
        self.decode_beside(None)
    }

    /// The same, sharing names with an event before it where they are the same.
    pub(super) fn decode_beside(self, beside: Option<&Recorded>) -> Result<Recorded, &'static str> {
        let stream = match beside {
            Some(other) if other.stream.as_str().as_bytes() == self.stream => other.stream.clone(),
            _ => parsed(self.stream, StreamId::parse).ok_or("a stream name is malformed")?,
        };
        let name = match beside {
            Some(other) if other.envelope.name.as_str().as_bytes() == self.name => {
                other.envelope.name.clone()
            }
            _ => parsed(self.name, EventName::parse).ok_or("an event name is malformed")?,
        };
        let author = match beside {
            Some(other) if other.envelope.author.as_str().as_bytes() == self.author => {
                other.envelope.author.clone()
            }
            _ => parsed(self.author, MemberId::parse).ok_or("an author is malformed")?,
        };
        let mut rest = self.rest;
        let cut = "a record's optional fields are cut short";
        let has = |bit| self.flags & bit != 0;
        let occurred_at = if has(OCCURRED) { Some(UnixMillis::new(rest.i64().ok_or(cut)?)) } else { None };
        let command = if has(COMMAND) {
            let id = parsed(rest.short().ok_or(cut)?, CommandId::parse).ok_or("a command id is malformed")?;
            Some(CommandStamp { id, hash: ContentHash::from_bytes(rest.array().ok_or(cut)?) })
        } else {
            None
        };
        let mut id_if = |bit| -> Result<Option<EventId>, &'static str> {
            if has(bit) { Ok(Some(EventId::from_bytes(rest.array().ok_or(cut)?))) } else { Ok(None) }
        };
        let (correlation_id, causation_id) = (id_if(CORRELATION)?, id_if(CAUSATION)?);
        let subject = if has(SUBJECT) {
            Some(parsed(rest.short().ok_or(cut)?, UserId::parse).ok_or("a subject is malformed")?)
        } else {
            None
        };
        Ok(Recorded {
            stream,
            revision: Revision::new(self.revision),
            position: Position::from_engine(self.position),
            recorded_at: UnixMillis::new(self.recorded_at),
            envelope: Envelope {
                id: EventId::from_bytes(self.id),
                name,
                version: self.version,
                occurred_at,
                author,
                command,
                correlation_id,
                causation_id,
                subject,
                data: Bytes::copy_from_slice(rest.0),
            },
        })
    }
}
