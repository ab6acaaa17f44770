//! One event as bytes, for stores that keep keys and values.

use anyhow::Context as _;
use dramatis_events::{Envelope, StreamId};

/// Appends the event's fields to the buffer: numbers first, then texts by length, then the payload.
pub(super) fn encode(
    out: &mut Vec<u8>,
    stream: &StreamId,
    revision: u64,
    event: &Envelope,
) -> anyhow::Result<()> {
    let recorded_at = 0_u64;
    out.extend_from_slice(&revision.to_be_bytes());
    out.extend_from_slice(&recorded_at.to_be_bytes());
    out.extend_from_slice(&event.id.to_bytes());
    out.extend_from_slice(&event.version.to_be_bytes());
    let command = event.command.as_ref();
    out.extend_from_slice(&command.map(|stamp| stamp.hash.to_bytes()).unwrap_or_default());
    let command = command.map_or("", |stamp| stamp.id.as_str());
    for text in [stream.as_str(), event.name.as_str(), event.author.as_str(), command] {
        out.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&event.data);
    Ok(())
}

/// An event's fields, borrowed from its bytes: what a reader needs at the least.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    revision: u64,
    recorded_at: u64,
    id: &'a [u8; 16],
    version: u16,
    command_hash: &'a [u8; 16],
    /// Stream, name, author and command.
    texts: [&'a str; 4],
    data: &'a [u8],
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> anyhow::Result<Fields<'_>> {
    fields(bytes).with_context(|| format!("expected an event's bytes in the peer, got {bytes:?}"))
}

fn fields(bytes: &[u8]) -> Option<Fields<'_>> {
    let (revision, rest) = bytes.split_first_chunk()?;
    let (recorded_at, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (command_hash, mut data) = rest.split_first_chunk()?;
    let mut texts = [""; 4];
    for text in &mut texts {
        let (length, rest) = data.split_first_chunk()?;
        let (bytes, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        (*text, data) = (std::str::from_utf8(bytes).ok()?, rest);
    }
    let (revision, recorded_at) = (u64::from_be_bytes(*revision), u64::from_be_bytes(*recorded_at));
    Some(Fields {
        revision,
        recorded_at,
        id,
        version: u16::from_be_bytes(*version),
        command_hash,
        texts,
        data,
    })
}

/// The key of the index by stream: ordered by revision within it.
pub(super) fn stream_key(out: &mut Vec<u8>, stream: &StreamId, revision: u64) {
    out.extend_from_slice(stream.as_str().as_bytes());
    out.push(0);
    out.extend_from_slice(&revision.to_be_bytes());
}

/// The key of the index by command: its scope and its id.
pub(super) fn command_key(out: &mut Vec<u8>, stream: &StreamId, event: &Envelope) {
    let command = event.command.as_ref().map_or("", |stamp| stamp.id.as_str());
    for part in [stream.as_str(), event.author.as_str(), command] {
        out.extend_from_slice(part.as_bytes());
        out.push(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use crate::payload::{Payload, stream};

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let event = Payload::new(300).unwrap().template(3, 8).unwrap().next().unwrap();
        let mut bytes = Vec::new();
        encode(&mut bytes, &stream(3).unwrap(), 8, &event).unwrap();
        let fields = decode(&bytes).unwrap();
        assert_eq!((fields.revision, fields.id, fields.data), (8, &event.id.to_bytes(), &*event.data));
        assert_eq!(fields.texts, ["room-main.bench-3", "MessagePosted", "writer-3", "3-9"]);
        decode(bytes.get(..70).unwrap()).unwrap_err();
    }
}
