//! The one thread that writes: it takes everything that waits, checks it, writes it as one
//! batch with one sync, publishes it, and only then answers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, PoisonError};

use dramatis_events::{CommandKey, Epoch, Position, Recorded, Revision, StreamId, UnixMillis};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::bytes::{to_u32, to_u64, to_usize};
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, SEGMENT_HEADER_BYTES, SegmentHeader, index_name, segment_name,
};
use super::index::MemoryIndex;
use super::record;
use super::segment::{Closed, Open};
use super::sidecar::{Facts, Sidecar};
use super::state::head_before;
use super::storage::StoredFile;
use super::{Options, Shared};
use crate::clock::Clock;
use crate::log::{Append, AppendError, Expected};

/// An append on its way, and the place it takes in the queue.
pub(super) struct Request {
    pub(super) append: Append,
    pub(super) answer: oneshot::Sender<Outcome>,
    pub(super) place: OwnedSemaphorePermit,
}

/// What the writer is asked.
pub(super) enum Message {
    Append(Request),
    /// End after what waits.
    Close,
}

pub(super) type Outcome = Result<Vec<Arc<Recorded>>, AppendError>;

/// Bytes of records written with one sync, at about the most.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Stream heads kept in memory; past this, old ones are looked up in the segments again.
const HEADS_MAX: usize = 262_144;
/// The first step of zero-filling ahead; it doubles up to the last.
const AHEAD_BYTES_MIN: u64 = 256 * 1024;
const AHEAD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The end of the chain of batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub(super) next_batch: u64,
    pub(super) last_crc: u32,
    pub(super) last_recorded_at: i64,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) epoch: Epoch,
    pub(super) chain: Chain,
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) segment_first: u64,
    /// Where the next batch goes.
    pub(super) end: u64,
    /// Up to where the file is filled with zeros.
    pub(super) allocated: u64,
    pub(super) next_position: u64,
    pub(super) heads: HashMap<StreamId, u64>,
    pub(super) poisoned: Option<String>,
    /// What the last batch took: about what the next one will.
    pub(super) batch_bytes: usize,
}

/// One batch while it is put together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each record begins in `bytes`.
    offsets: Vec<usize>,
    events: Vec<Arc<Recorded>>,
    /// Each event's command, as the index holds it.
    commands: Vec<Option<[u8; 16]>>,
    answers: Vec<Waiting>,
    /// Stream heads that this batch moves.
    heads: HashMap<StreamId, u64>,
}

/// An append of the batch, until it is answered.
struct Waiting {
    answer: oneshot::Sender<Outcome>,
    /// Its events in the batch, or why it has none.
    taken: Result<Range<usize>, AppendError>,
    /// Given back with the answer.
    _place: OwnedSemaphorePermit,
}

/// What an append of a failed batch is told. A conflict may have been with an event of that
/// very batch, so it is not told as one.
fn after_failure<T>(taken: &Result<T, AppendError>, reason: &str) -> AppendError {
    match taken {
        Ok(_) => AppendError::Failure { reason: reason.to_owned() },
        Err(AppendError::Conflict { .. }) => AppendError::Unavailable { reason: reason.to_owned() },
        Err(error) => error.clone(),
    }
}

/// What came behind the end was not recorded.
fn refuse_rest(requests: &Receiver<Message>) {
    while let Ok(message) = requests.try_recv() {
        if let Message::Append(Request { answer, .. }) = message {
            let _ = answer.send(Err(AppendError::Unavailable { reason: "it is being closed".to_owned() }));
        }
    }
}

impl Writer {
    pub(super) fn run(mut self, requests: &Receiver<Message>) {
        let mut closing = false;
        while !closing {
            let Ok(Message::Append(first)) = requests.recv() else { break };
            let mut batch = self.begin(first);
            while batch.bytes.len() < BATCH_BYTES {
                match requests.try_recv() {
                    Ok(Message::Append(request)) => self.add(&mut batch, request),
                    Ok(Message::Close) | Err(TryRecvError::Disconnected) => {
                        closing = true;
                        break;
                    }
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.commit(batch);
        }
        refuse_rest(requests);
    }

    fn begin(&self, first: Request) -> Batch {
        let mut bytes = Vec::with_capacity(self.batch_bytes);
        bytes.resize(BATCH_HEADER_BYTES, 0);
        let mut batch = Batch { bytes, ..Batch::default() };
        self.add(&mut batch, first);
        batch
    }

    fn add(&self, batch: &mut Batch, request: Request) {
        let Request { append, answer, place } = request;
        let taken = self.take(batch, append);
        batch.answers.push(Waiting { answer, taken, _place: place });
    }

    /// Checks an append and puts its events into the batch.
    fn take(&self, batch: &mut Batch, append: Append) -> Result<Range<usize>, AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Unavailable { reason: reason.clone() });
        }
        let mut next = self.next_revision(batch, &append.stream)?;
        let fits = match append.expected {
            Expected::NoStream => next == 0,
            Expected::Exact(revision) => next == revision.next().get(),
            Expected::Any => true,
        };
        if !fits {
            return Err(AppendError::Conflict { expected: append.expected, actual: head_before(next) });
        }
        let from = batch.events.len();
        let recorded_at = UnixMillis::new(self.chain.last_recorded_at.max(self.clock.now().get()));
        for envelope in append.envelopes {
            let event = Recorded {
                stream: append.stream.clone(),
                revision: Revision::new(next),
                position: Position::from_engine(self.next_position + to_u64(batch.events.len())),
                recorded_at: batch
                    .events
                    .last()
                    .map_or(recorded_at, |last| last.recorded_at.max(recorded_at)),
                envelope,
            };
            next += 1;
            let stamp = event.envelope.command.as_ref();
            batch.commands.push(stamp.map(|stamp| {
                CommandKey::derive(&event.stream, &event.envelope.author, &stamp.id).to_bytes()
            }));
            batch.offsets.push(batch.bytes.len());
            record::encode(&mut batch.bytes, &event);
            batch.events.push(Arc::new(event));
        }
        batch.heads.insert(append.stream, next);
        Ok(from..batch.events.len())
    }

    fn next_revision(&self, batch: &Batch, stream: &StreamId) -> Result<u64, AppendError> {
        if let Some(next) = batch.heads.get(stream).or_else(|| self.heads.get(stream)) {
            return Ok(*next);
        }
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        state.next_revision(stream).map_err(|error| AppendError::Unavailable { reason: error.to_string() })
    }

    fn commit(&mut self, mut batch: Batch) {
        if !batch.events.is_empty() {
            match self.write(&mut batch) {
                Ok(()) => {
                    if let Err(reason) = self.publish(&batch) {
                        let reason = format!("the index refuses an event that was recorded: {reason}");
                        tracing::error!(%reason, "the log is poisoned");
                        self.poison(&reason);
                    }
                }
                Err(error) => {
                    let reason = format!(
                        "a write to the log failed, no further one is tried until a restart: {error}"
                    );
                    tracing::error!(%reason, "the log is poisoned");
                    self.poison(&reason);
                    for Waiting { taken, .. } in &mut batch.answers {
                        *taken = Err(after_failure(taken, &reason));
                    }
                }
            }
        }
        for Waiting { answer, taken, .. } in batch.answers {
            let events = taken.map(|range| batch.events.get(range).unwrap_or_default().to_vec());
            let _ = answer.send(events);
        }
    }

    fn poison(&mut self, reason: &str) {
        self.poisoned = Some(reason.to_owned());
        *self.shared.poisoned.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// Writes the batch and makes it durable. After an error nothing more is written.
    fn write(&mut self, batch: &mut Batch) -> std::io::Result<()> {
        let len = to_u64(batch.bytes.len());
        if self.next_position > self.segment_first && self.end + len > self.options.segment_bytes {
            self.roll()?;
        }
        let body = batch.bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        let recorded_at = batch.events.last().map_or(0, |event| event.recorded_at.get());
        let (header, crc) = BatchHeader {
            number: self.chain.next_batch,
            // One sync is outstanding at a time: all batches before this one are durable.
            watermark: self.chain.next_batch,
            first_position: self.next_position,
            recorded_at,
            previous: self.chain.last_crc,
            count: to_u32(batch.events.len()),
            body_len: to_u32(body.len()),
            body_crc: crc32c::crc32c(body),
        }
        .encode(self.epoch.log());
        if let Some(head) = batch.bytes.get_mut(..BATCH_HEADER_BYTES) {
            head.copy_from_slice(&header);
        }
        self.batch_bytes = batch.bytes.len();
        self.allocate(self.end + len)?;
        self.file.write_all_at(&batch.bytes, self.end)?;
        self.file.sync()?;
        self.chain =
            Chain { next_batch: self.chain.next_batch + 1, last_crc: crc, last_recorded_at: recorded_at };
        Ok(())
    }

    /// Fills with zeros ahead, so that a sync need not wait for the file to grow.
    fn allocate(&mut self, until: u64) -> std::io::Result<()> {
        if until <= self.allocated {
            return Ok(());
        }
        let step = self.allocated.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
        let target = until.saturating_add(step).min(self.options.segment_bytes.max(until));
        let zeros = vec![0; to_usize(target.saturating_sub(self.allocated))];
        self.file.write_all_at(&zeros, self.allocated)?;
        self.allocated = target;
        Ok(())
    }

    /// Shows the batch to readers: it is durable.
    fn publish(&mut self, batch: &Batch) -> Result<(), &'static str> {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        for ((event, offset), command) in batch.events.iter().zip(&batch.offsets).zip(&batch.commands) {
            let offset = to_u32(to_usize(self.end) + offset);
            state.open.index.push(offset, &event.stream, event.revision.get(), *command)?;
            state.ring.push(event.clone());
        }
        self.end += to_u64(batch.bytes.len());
        state.open.end = self.end;
        drop(state);
        self.next_position += to_u64(batch.events.len());
        if self.heads.len() + batch.heads.len() > HEADS_MAX {
            self.heads.clear();
        }
        self.heads.extend(batch.heads.iter().map(|(stream, next)| (stream.clone(), *next)));
        self.shared.head.send_replace(batch.events.last().map(|event| event.position));
        Ok(())
    }

    /// Closes the open segment with its index, and begins the next.
    fn roll(&mut self) -> std::io::Result<()> {
        let (sidecar, bytes) = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            Sidecar::build(self.facts(state.open.index.count()), &state.open.index)
        };
        let storage = &self.shared.storage;
        let index_name = index_name(self.segment_first);
        storage.replace(&index_name, &bytes)?;
        let closed = Closed {
            name: segment_name(self.segment_first),
            file: self.file.clone(),
            index: storage.open(&index_name)?,
            index_name,
            sidecar,
        };
        let header = SegmentHeader {
            counter: self.epoch.counter(),
            log: self.epoch.log(),
            first_position: self.next_position,
            first_batch: self.chain.next_batch,
            previous: self.chain.last_crc,
        };
        let name = segment_name(self.next_position);
        let file = storage.create(&name)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync()?;
        storage.sync_names()?;
        self.file = file.clone();
        self.segment_first = self.next_position;
        self.end = to_u64(SEGMENT_HEADER_BYTES);
        self.allocated = self.end;
        let open =
            Open { name, file, first: self.next_position, end: self.end, index: MemoryIndex::default() };
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        state.closed.push(Arc::new(closed));
        state.open = open;
        Ok(())
    }

    fn facts(&self, count: u32) -> Facts {
        Facts {
            first: self.segment_first,
            count,
            end: self.end,
            next_batch: self.chain.next_batch,
            last_crc: self.chain.last_crc,
            last_recorded_at: self.chain.last_recorded_at,
        }
    }
}
