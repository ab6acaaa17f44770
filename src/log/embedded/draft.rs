//! An append on its way to the writer: encoded by whoever asks for it, so that the one thread
//! that writes has little left to do.

use std::sync::Arc;

use dramatis_events::{CommandKey, EventName, Position, Recorded, Revision, StreamId, UnixMillis};

use super::batch::Placed;
use super::bytes::to_u32;
use super::format::BATCH_HEADER_BYTES;
use super::record;
use crate::log::{Append, Expected};

/// One event of a draft.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Where its record begins.
    pub(super) at: u32,
    /// Its command, as the index holds it.
    pub(super) command: Option<[u8; 16]>,
}

/// What closed segments said of a stream, before the append was on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Older {
    /// The revision after the last one that they know.
    pub(super) next: u64,
    /// How many there were: it holds as long as there are no more.
    pub(super) segments: usize,
}

/// An append, encoded but for what only the writer knows.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) stream: StreamId,
    pub(super) expected: Expected,
    /// Where its stream stands, if that was looked up.
    pub(super) older: Option<Older>,
    /// Room for a batch's header, so that a large draft can become one, then its records.
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<Part>,
    /// The names of its events, each once.
    pub(super) names: Vec<EventName>,
}

/// What a record takes besides its payload, at about the most.
const METADATA_BYTES: usize = 192;

impl Draft {
    /// The commands that its events come from, as the index holds them.
    pub(super) fn commands(&self) -> impl Iterator<Item = [u8; 16]> {
        self.parts.iter().filter_map(|part| part.command)
    }

    /// Encodes an append whose sizes were checked.
    pub(super) fn of(append: &Append) -> Self {
        let payload: usize = append.envelopes.iter().map(|envelope| envelope.data.len()).sum();
        let count = append.envelopes.len();
        let mut draft = Self {
            stream: append.stream.clone(),
            expected: append.expected,
            older: None,
            bytes: Vec::with_capacity(BATCH_HEADER_BYTES + payload + count * METADATA_BYTES),
            parts: Vec::with_capacity(count),
            names: Vec::with_capacity(1),
        };
        draft.bytes.resize(BATCH_HEADER_BYTES, 0);
        let mut last = None;
        for envelope in &append.envelopes {
            let command = envelope.command.as_ref().map(|stamp| {
                // Mostly all events of an append are of one command.
                match last {
                    Some((author, id, key)) if (author, id) == (&envelope.author, &stamp.id) => key,
                    _ => CommandKey::derive(&append.stream, &envelope.author, &stamp.id).to_bytes(),
                }
            });
            last =
                envelope.command.as_ref().zip(command).map(|(stamp, key)| (&envelope.author, &stamp.id, key));
            draft.parts.push(Part { at: to_u32(draft.bytes.len()), command });
            if !draft.names.contains(&envelope.name) {
                draft.names.push(envelope.name.clone());
            }
            record::encode(&mut draft.bytes, &append.stream, envelope);
        }
        draft
    }
}

/// The events of an append, but for their places.
pub(super) fn unplaced(append: Append) -> Vec<Arc<Recorded>> {
    let Append { stream, envelopes, .. } = append;
    let event = |envelope| {
        Arc::new(Recorded {
            stream: stream.clone(),
            revision: Revision::new(0),
            position: Position::from_engine(0),
            recorded_at: UnixMillis::new(0),
            envelope,
        })
    };
    envelopes.into_iter().map(event).collect()
}

/// Gives them their places: they are as they stand in the log.
pub(super) fn give_place(events: &mut [Arc<Recorded>], placed: Placed) {
    for (nth, event) in (0_u64..).zip(events) {
        let event = Arc::make_mut(event);
        event.revision = Revision::new(placed.revision + nth);
        event.position = Position::from_engine(placed.position + nth);
        event.recorded_at = placed.recorded_at;
    }
}
