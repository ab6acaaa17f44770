//! One event as bytes, for stores that keep keys and values.

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
