//! The one thread that writes: it takes everything that waits, checks it, writes it as one
//! batch with one sync, publishes it, and only then answers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use dramatis_events::{Position, StreamId, UnixMillis};
use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Shared;
use super::bytes::{to_u32, to_u64, to_usize};
use super::closer::Closer;
use super::draft::Draft;
use super::end::{Durability, End, Sealed};
use super::epoch;
use super::format::BATCH_HEADER_BYTES;
use super::index::{Following, MemoryIndex};
use super::record;
use super::ring::Block;
use super::segment::{Closed, Index};
use super::state::{head_before, older_next_revision};
use crate::clock::Clock;
use crate::log::{AppendError, Expected, LogError};

/// An append on its way, and the place it takes in the queue.
pub(super) struct Request {
    pub(super) draft: Draft,
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) place: OwnedSemaphorePermit,
}

/// What the writer is asked.
pub(super) enum Message {
    Append(Request),
    /// End after what waits.
    Close,
}

/// Where an append's events stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) position: u64,
    pub(super) revision: u64,
    pub(super) recorded_at: UnixMillis,
}

/// The outcome, and the draft: who asked lets go of its memory.
pub(super) type Answer = (Result<Placed, AppendError>, Draft);

/// Bytes of records written with one sync, at about the most.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Stream heads kept in memory; past this, old ones are looked up in the segments again.
const HEADS_MAX: usize = 262_144;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) durability: Durability,
    pub(super) end: End,
    pub(super) closer: Closer,
    /// The next revision of streams, what waits to be written included.
    pub(super) heads: HashMap<StreamId, u64, RandomState>,
    pub(super) poisoned: Option<String>,
    /// When what was answered must be synced, in the relaxed mode.
    pub(super) sync_at: Option<Instant>,
    /// What the last batch took: about what the next one will.
    pub(super) batch_bytes: usize,
}

/// One batch while it is put together.
#[derive(Default)]
struct Batch {
    sealed: Sealed,
    /// Where each record begins in its bytes.
    offsets: Vec<u32>,
    waiting: Vec<Waiting>,
}

/// An append of the batch, until it is answered.
struct Waiting {
    request: Request,
    /// Where its events go, or why they go nowhere.
    placed: Result<Placed, AppendError>,
    /// Its events in the batch.
    range: Range<usize>,
}

/// What an append of a failed batch is told. A conflict may have been with an event of that
/// very batch, so it is not told as one.
fn after_failure<T>(placed: &Result<T, AppendError>, reason: &str) -> AppendError {
    match placed {
        Ok(_) => AppendError::Failure { reason: reason.to_owned() },
        Err(AppendError::Conflict { .. }) => AppendError::Unavailable { reason: reason.to_owned() },
        Err(error) => error.clone(),
    }
}

/// What came behind the end was not recorded.
fn refuse_rest(requests: &Receiver<Message>) {
    while let Ok(message) = requests.try_recv() {
        if let Message::Append(Request { answer, draft, .. }) = message {
            let refused = Err(AppendError::Unavailable { reason: "it is being closed".to_owned() });
            let _ = answer.send((refused, draft));
        }
    }
}

impl Writer {
    pub(super) fn run(mut self, requests: &Receiver<Message>) {
        while let Some(first) = self.first(requests) {
            let mut batch = self.begin();
            self.add(&mut batch, first);
            let mut closing = false;
            while batch.sealed.bytes.len() < BATCH_BYTES {
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
            if closing {
                break;
            }
        }
        refuse_rest(requests);
        self.finish();
    }

    /// Waits for an append, and for the time to sync; `None` at the end.
    fn first(&mut self, requests: &Receiver<Message>) -> Option<Request> {
        loop {
            let message = match self.sync_at {
                None => requests.recv().ok()?,
                Some(at) => match requests.recv_timeout(at.saturating_duration_since(Instant::now())) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => {
                        self.sync_late();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return None,
                },
            };
            match message {
                Message::Append(request) => return Some(request),
                Message::Close => return None,
            }
        }
    }

    fn begin(&self) -> Batch {
        let mut bytes = Vec::with_capacity(self.batch_bytes);
        bytes.resize(BATCH_HEADER_BYTES, 0);
        Batch { sealed: Sealed { bytes, ..Sealed::default() }, ..Batch::default() }
    }

    fn add(&mut self, batch: &mut Batch, request: Request) {
        let from = batch.offsets.len();
        let placed = self.take(batch, &request.draft);
        batch.waiting.push(Waiting { request, placed, range: from..batch.offsets.len() });
    }

    /// Checks an append and puts its events into the batch.
    fn take(&mut self, batch: &mut Batch, draft: &Draft) -> Result<Placed, AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Unavailable { reason: reason.clone() });
        }
        let next = self.next_revision(&draft.stream)?;
        let fits = match draft.expected {
            Expected::NoStream => next == 0,
            Expected::Exact(revision) => next == revision.next().get(),
            Expected::Any => true,
        };
        if !fits {
            return Err(AppendError::Conflict { expected: draft.expected, actual: head_before(next) });
        }
        let last = batch.sealed.recorded_at.max(self.end.chain.last_recorded_at);
        let recorded_at = last.max(self.clock.now().get());
        batch.sealed.recorded_at = recorded_at;
        let position = self.end.next_position + to_u64(batch.offsets.len());
        let start = batch.sealed.bytes.len();
        batch.sealed.bytes.extend_from_slice(&draft.bytes);
        let mut ends = draft.parts.iter().skip(1).map(|part| part.at).chain([to_u32(draft.bytes.len())]);
        for (nth, part) in (0_u64..).zip(&draft.parts) {
            let (from, to) = (to_usize(u64::from(part.at)), to_usize(u64::from(ends.next().unwrap_or(0))));
            batch.offsets.push(to_u32(start + from));
            if let Some(record) = batch.sealed.bytes.get_mut(start + from..start + to) {
                record::place(record, position + nth, next + nth, recorded_at);
            }
        }
        self.remember(&draft.stream, next + to_u64(draft.parts.len()));
        Ok(Placed { position, revision: next, recorded_at: UnixMillis::new(recorded_at) })
    }

    fn remember(&mut self, stream: &StreamId, next: u64) {
        if let Some(head) = self.heads.get_mut(stream) {
            *head = next;
        } else {
            self.heads.insert(stream.clone(), next);
        }
    }

    fn next_revision(&self, stream: &StreamId) -> Result<u64, AppendError> {
        if let Some(next) = self.heads.get(stream) {
            return Ok(*next);
        }
        let closed = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(next) = state.next_revision(stream) {
                return Ok(next);
            }
            state.closed.clone()
        };
        let unavailable = |error: LogError| AppendError::Unavailable { reason: error.to_string() };
        older_next_revision(&closed, stream).map_err(unavailable)
    }

    fn commit(&mut self, mut batch: Batch) {
        batch.sealed.count = to_u32(batch.offsets.len());
        if !batch.offsets.is_empty() {
            if let Some(reason) = self.end.refuses(&batch.sealed) {
                self.refuse(&mut batch, &reason);
            } else if let Err(error) = self.write(&mut batch.sealed) {
                let reason =
                    format!("a write to the log failed, no further one is tried until a restart: {error}");
                self.poison(&reason);
                for Waiting { placed, .. } in &mut batch.waiting {
                    *placed = Err(after_failure(placed, &reason));
                }
            } else if let Err(reason) = self.publish(&mut batch) {
                self.poison(&format!("the index refuses an event that was recorded: {reason}"));
            }
        }
        for Waiting { request: Request { draft, answer, place }, placed, .. } in batch.waiting {
            drop(place);
            let _ = answer.send((placed, draft));
        }
        if self.heads.len() > HEADS_MAX {
            self.heads.clear();
        }
    }

    /// Nothing of the batch is written, and the next one may be.
    fn refuse(&mut self, batch: &mut Batch, reason: &str) {
        tracing::warn!(%reason, "appends are refused");
        self.heads.clear();
        for Waiting { placed, .. } in &mut batch.waiting {
            *placed = match placed {
                Err(error) if !matches!(error, AppendError::Conflict { .. }) => continue,
                _ => Err(AppendError::Unavailable { reason: reason.to_owned() }),
            };
        }
    }

    fn poison(&mut self, reason: &str) {
        tracing::error!(%reason, "the log is poisoned");
        self.poisoned = Some(reason.to_owned());
        *self.shared.poisoned.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// Writes the batch, and makes it durable unless the mode is relaxed.
    fn write(&mut self, batch: &mut Sealed) -> std::io::Result<()> {
        if self.end.is_full(batch) {
            self.roll()?;
        }
        self.end.write(batch)?;
        match self.durability {
            Durability::Sync => self.end.sync()?,
            Durability::Interval(every) => {
                let at = *self.sync_at.get_or_insert_with(|| Instant::now() + every);
                if at <= Instant::now() {
                    self.sync_at = None;
                    self.end.sync()?;
                }
            }
        }
        Ok(())
    }

    /// Syncs what was answered before.
    fn sync_late(&mut self) {
        self.sync_at = None;
        if self.poisoned.is_none()
            && let Err(error) = self.end.sync()
        {
            self.poison(&format!("a sync failed after its appends were answered: {error}"));
        }
    }

    /// Shows the batch to readers.
    fn publish(&mut self, batch: &mut Batch) -> Result<(), &'static str> {
        let bytes = std::mem::take(&mut batch.sealed.bytes);
        let offsets = std::mem::take(&mut batch.offsets);
        self.batch_bytes = bytes.len();
        let first = self.end.next_position - u64::from(batch.sealed.count);
        let start = to_u32(to_usize(self.end.at) - bytes.len());
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        for waiting in &batch.waiting {
            let Ok(placed) = &waiting.placed else { continue };
            let draft = &waiting.request.draft;
            let events = Following {
                stream: &draft.stream,
                first_revision: placed.revision,
                recorded_at: placed.recorded_at.get(),
                names: &draft.names,
            };
            let offsets = offsets.get(waiting.range.clone()).unwrap_or_default();
            let each = offsets.iter().zip(&draft.parts);
            state.open.index.push(&events, each.map(|(offset, part)| (start + offset, part.command)))?;
        }
        state.open.end = self.end.at;
        let gone = state.ring.push(Block::new(first, bytes, offsets));
        drop(state);
        drop(gone);
        self.shared.head.send_replace(self.end.next_position.checked_sub(1).map(Position::from_engine));
        Ok(())
    }

    /// Closes the open segment and begins the next.
    fn roll(&mut self) -> std::io::Result<()> {
        let first_recorded_at = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            state.open.index.first_recorded_at.unwrap_or(0)
        };
        let (facts, mut open) = self.end.roll(first_recorded_at)?;
        let closed = {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            open.index = MemoryIndex::like(&state.open.index);
            let index = Index::Memory(std::mem::replace(&mut state.open, open).index);
            let closed = Arc::new(Closed { storage: self.end.storage.clone(), facts, index });
            Arc::make_mut(&mut state.closed).push(closed.clone());
            closed
        };
        self.closer.take(closed);
        Ok(())
    }

    /// The end: what was answered is synced, what closed segments lack is made.
    fn finish(mut self) {
        if self.sync_at.is_some() {
            self.sync_late();
        }
        self.closer.end();
        if self.durability != Durability::Sync
            && self.poisoned.is_none()
            && let Err(error) = epoch::settled(&*self.end.storage)
        {
            tracing::warn!(%error, "the log was synced, but the next start will not know it");
        }
    }
}
