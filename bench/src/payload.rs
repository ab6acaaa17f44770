//! The events that are recorded while measuring: chat messages of an exact size.

use std::fmt::Write as _;

use bytes::Bytes;
use dramatis::log::{Append, Expected};
use dramatis_events::room::{MessageKind, MessagePosted, RoomEvent};
use dramatis_events::{
    CommandId, CommandStamp, ContentHash, EntityId, Envelope, Event as _, EventId, EventName, MemberId,
    Personal, Revision, StreamId,
};

/// What all events of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    data: Bytes,
    name: EventName,
    version: u16,
}

impl Payload {
    /// A chat message whose payload has this many bytes.
    pub(crate) fn new(bytes: usize) -> anyhow::Result<Self> {
        let message = |len: usize| {
            let (kind, text) = (MessageKind::Text, Personal::from("x".repeat(len)));
            RoomEvent::from(MessagePosted { kind, text, reply_to: None, thread_root: None })
        };
        let frame = message(0).encode()?.len();
        let event = message(bytes.saturating_sub(frame));
        Ok(Self { data: event.encode()?, name: event.event_name(), version: event.version() })
    }

    /// Events of a writer for its own room, the first of them at this revision.
    pub(crate) fn template(&self, writer: u64, revision: u64) -> anyhow::Result<Template> {
        let author = author(writer)?;
        // A copy of its own, so that writers do not contend for one count of references.
        let payload = Self { data: Bytes::copy_from_slice(&self.data), ..self.clone() };
        let prefix = format!("{writer}-");
        let command = prefix.clone();
        Ok(Template {
            payload,
            stream: stream(writer)?,
            author,
            writer,
            made: revision,
            prefix: prefix.len(),
            command,
        })
    }
}

/// The stream of a writer.
pub(crate) fn stream(writer: u64) -> anyhow::Result<StreamId> {
    Ok(StreamId::room(&EntityId::parse(&format!("bench-{writer}"))?))
}

/// The author of a writer's events.
pub(crate) fn author(writer: u64) -> anyhow::Result<MemberId> {
    Ok(MemberId::parse(&format!("writer-{writer}"))?)
}

/// The command of the event that a writer's stream has at this revision.
pub(crate) fn command(writer: u64, revision: u64) -> anyhow::Result<CommandId> {
    Ok(CommandId::parse(&format!("{writer}-{}", revision + 1))?)
}

/// Makes envelopes that share one payload; their ids and commands differ, so that every index
/// of the log has its full work.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    payload: Payload,
    stream: StreamId,
    author: MemberId,
    writer: u64,
    made: u64,
    /// The text of the last command's id, and how much of it all ids of the writer begin with.
    command: String,
    prefix: usize,
}

/// Events of one append.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Their stream.
    pub(crate) stream: StreamId,
    /// The revision of the first.
    pub(crate) revision: u64,
    /// The events.
    pub(crate) envelopes: Vec<Envelope>,
}

impl Batch {
    /// As the log takes it: the stream is expected to stand just before.
    pub(crate) fn into_append(self) -> Append {
        let expected = Expected::after(self.revision.checked_sub(1).map(Revision::new));
        Append { stream: self.stream, expected, envelopes: self.envelopes }
    }
}

/// Bytes of metadata that are numbers and hashes: position, revision, time, event id, command
/// hash, length and checksum.
const FIXED_BYTES: usize = 8 * 3 + 16 * 2 + 8;

impl Template {
    /// The next envelope, from a command of its own.
    pub(crate) fn next(&mut self) -> anyhow::Result<Envelope> {
        self.made += 1;
        let number = (u128::from(self.writer) << 64) | u128::from(self.made);
        self.command.truncate(self.prefix);
        write!(self.command, "{}", self.made)?;
        Ok(Envelope {
            id: EventId::from_bytes(number.to_be_bytes()),
            name: self.payload.name.clone(),
            version: self.payload.version,
            occurred_at: None,
            author: self.author.clone(),
            command: Some(CommandStamp {
                id: CommandId::parse(&self.command)?,
                hash: ContentHash::from_bytes(number.to_le_bytes()),
            }),
            correlation_id: None,
            causation_id: None,
            subject: None,
            data: self.payload.data.clone(),
        })
    }

    /// The next envelopes as one append.
    pub(crate) fn batch(&mut self, events: usize) -> anyhow::Result<Batch> {
        let (stream, revision) = (self.stream.clone(), self.made);
        let mut envelopes = Vec::with_capacity(events);
        for _ in 0..events {
            envelopes.push(self.next()?);
        }
        Ok(Batch { stream, revision, envelopes })
    }

    /// Bytes of one event with all its metadata: what any store would have to write.
    pub(crate) fn stored_bytes(&self) -> usize {
        let name = self.payload.name.as_str();
        let texts = self.stream.as_str().len() + self.author.as_str().len() + name.len();
        self.payload.data.len() + texts + self.command.len() + FIXED_BYTES
    }
}

/// For each of so many writers its batches, composed ahead so that no clock sees it.
pub(crate) fn lanes(
    payload: &Payload,
    writers: u64,
    events: usize,
    batch: usize,
) -> anyhow::Result<Vec<Vec<Batch>>> {
    let batches = events.div_ceil(usize::try_from(writers)?).div_ceil(batch);
    (0..writers)
        .map(|writer| {
            let mut template = payload.template(writer, 0)?;
            (0..batches).map(|_| template.batch(batch)).collect()
        })
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_payload_has_the_size_asked_and_decodes() {
        let payload = Payload::new(300).unwrap();
        let first = payload.template(7, 0).unwrap().next().unwrap();
        assert_eq!(first.data.len(), 300);
        let RoomEvent::MessagePosted(_) = RoomEvent::from_envelope(&first).unwrap() else {
            panic!("expected a message, got {first:?}");
        };
    }

    #[test]
    fn ids_and_commands_differ_from_event_to_event_and_can_be_told_from_the_place() {
        let lanes = lanes(&Payload::new(300).unwrap(), 3, 30, 4).unwrap();
        assert!(lanes.iter().all(|lane| lane.len() == 3), "3 batches of 4 hold a third of 30");
        let events: Vec<&Envelope> = lanes.iter().flatten().flat_map(|batch| &batch.envelopes).collect();
        let ids: HashSet<_> = events.iter().map(|event| event.id.to_bytes()).collect();
        let commands: HashSet<_> =
            events.iter().map(|event| event.command.as_ref().unwrap().id.as_str()).collect();
        assert_eq!((ids.len(), commands.len()), (36, 36));
        let last = &lanes[2][1];
        assert_eq!((last.revision, &last.stream), (4, &stream(2).unwrap()));
        assert_eq!(last.envelopes[3].command.as_ref().unwrap().id, command(2, 7).unwrap());
    }
}
