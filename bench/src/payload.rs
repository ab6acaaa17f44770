//! The events that are recorded while measuring: chat messages of an exact size.

use bytes::Bytes;
use dramatis_events::room::{MessageKind, MessagePosted, RoomEvent};
use dramatis_events::{
    CommandId, CommandStamp, ContentHash, EntityId, Envelope, Event as _, EventId, MemberId, Personal,
    StreamId,
};

/// Makes envelopes that share one payload; their ids and commands differ, so that every index
/// of the log has its full work.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    stream: StreamId,
    author: MemberId,
    data: Bytes,
    event: RoomEvent,
    writer: u64,
    made: u64,
}

/// Bytes of metadata that are numbers and hashes: position, revision, time, event id, command
/// hash, length and checksum.
const FIXED_BYTES: usize = 8 * 3 + 16 * 2 + 8;

impl Template {
    /// Events of `bytes` of payload for the writer's own room.
    pub(crate) fn new(writer: u64, bytes: usize) -> anyhow::Result<Self> {
        let message = |len: usize| {
            let (kind, text) = (MessageKind::Text, Personal::Plain("x".repeat(len)));
            RoomEvent::from(MessagePosted { kind, text, reply_to: None, thread_root: None })
        };
        let frame = message(0).encode()?.len();
        let event = message(bytes.saturating_sub(frame));
        Ok(Self {
            stream: StreamId::room(&EntityId::parse(&format!("bench-{writer}"))?),
            author: MemberId::parse(&format!("writer-{writer}"))?,
            data: event.encode()?,
            event,
            writer,
            made: 0,
        })
    }

    /// The writer's stream.
    pub(crate) fn stream(&self) -> StreamId {
        self.stream.clone()
    }

    /// The next envelope, from a command of its own.
    pub(crate) fn next(&mut self) -> anyhow::Result<Envelope> {
        self.made += 1;
        let number = (u128::from(self.writer) << 64) | u128::from(self.made);
        Ok(Envelope {
            id: EventId::from_bytes(number.to_be_bytes()),
            name: self.event.event_name(),
            version: self.event.version(),
            occurred_at: None,
            author: self.author.clone(),
            command: Some(CommandStamp {
                id: CommandId::parse(&format!("{}-{}", self.writer, self.made))?,
                hash: ContentHash::from_bytes(number.to_le_bytes()),
            }),
            correlation_id: None,
            causation_id: None,
            subject: None,
            data: self.data.clone(),
        })
    }

    /// Bytes of one event with all its metadata: what any store would have to write.
    pub(crate) fn stored_bytes(&self) -> usize {
        let texts = self.stream.as_str().len() + self.author.as_str().len() + self.event.name().len();
        let command = format!("{}-{}", self.writer, self.made).len();
        self.data.len() + texts + command + FIXED_BYTES
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_size_asked_and_decodes() {
        let mut template = Template::new(7, 300).unwrap();
        let (first, second) = (template.next().unwrap(), template.next().unwrap());
        assert_eq!(first.data.len(), 300);
        assert_eq!(RoomEvent::from_envelope(&first).unwrap(), template.event);
        assert!(first.id != second.id && first.command != second.command);
    }
}
