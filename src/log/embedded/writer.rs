//! The one thread that decides what is recorded, and where: it takes everything that waits,
//! checks it, has it written as one batch with one sync, publishes it, and only then answers.
//!
//! A small batch it writes itself. A large one goes to the disk on the syncer's thread, and the
//! next is put together meanwhile; it follows when the one before it is durable, or, if it is
//! large enough by then, waits for that at the syncer's door.

mod rolling;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dramatis_events::{Position, StreamId, UnixMillis};
use foldhash::fast::RandomState;

use self::rolling::NotBegun;
use super::Shared;
use super::attention::Attention;
use super::batch::{Batch, Placed, Request, Waiting};
use super::bytes::{to_u32, to_u64, to_usize};
use super::closer::Closer;
use super::draft::Draft;
use super::end::{Durability, End};
use super::epoch;
use super::ring::Block;
use super::state::{head_before, older_next_revision};
use super::syncer::{Outcome, Syncer, Written};
#[cfg(test)]
use super::tests::bugs::{self, Bug};
use crate::clock::Clock;
use crate::log::{AppendError, Expected, LogError};

/// Says that the log is poisoned if the writer's thread ends by a fault of its own.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the thread that writes the log has ended by a fault, restart the process";
            *self.0.poisoned.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

/// What the writer is told.
pub(super) enum Message {
    Append(Request),
    /// The batch that was on its way.
    Written(Written),
    /// End after what waits.
    Close,
}

/// Bytes of records written with one sync, at about the most.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Batches from this size on are written beside the writer: below it, handing one over would
/// take longer than it saves.
const BESIDE_BYTES: usize = if cfg!(test) { 1024 } else { 32 * 1024 };
/// A batch of this size is sent on its way while one before it is still there; smaller ones wait for
/// more to come.
const AHEAD_BYTES: usize = if cfg!(test) { 2 * 1024 } else { 256 * 1024 };
/// Batches on their way at a time: one is written, one waits at the syncer's door.
pub(super) const IN_FLIGHT_MAX: usize = 2;
/// Stream heads kept in memory; past this, old ones are looked up in the segments again.
const HEADS_MAX: usize = 262_144;

/// Nothing having come for this long, readers have read what is in memory: most of it may go.
const REST_AFTER: Duration = Duration::from_secs(5);
/// What of it stays.
const REST_BYTES: usize = 256 * 1024;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) durability: Durability,
    pub(super) end: End,
    pub(super) closer: Closer,
    pub(super) syncer: Syncer,
    pub(super) messages: Receiver<Message>,
    pub(super) attention: Attention,
    /// The next revision of streams, what waits to be written included.
    pub(super) heads: HashMap<StreamId, u64, RandomState>,
    pub(super) poisoned: Option<String>,
    /// The commands of what failed, which may be recorded: that is known after a restart.
    pub(super) unsure: HashSet<[u8; 16], RandomState>,
    /// When what was answered must be synced, in the relaxed mode.
    pub(super) sync_at: Option<Instant>,
    /// When the next segment is tried again, if it could not be made.
    pub(super) roll_at: Option<Instant>,
    /// When memory is given back, if nothing comes.
    pub(super) rest_at: Option<Instant>,
    /// What is put together.
    pub(super) batch: Batch,
    /// What is on its way to the disk, in order.
    pub(super) in_flight: VecDeque<Batch>,
    /// What came while the batch was full.
    pub(super) overflow: VecDeque<Request>,
    pub(super) closing: bool,
    /// Whether the last batch was refused for lack of space: that is logged once.
    pub(super) refusing: bool,
}

impl Writer {
    /// Starts its thread.
    pub(super) fn start(self) -> std::io::Result<JoinHandle<()>> {
        let guard = Guard(self.shared.clone());
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
            let _guard = guard;
            self.run();
        })
    }

    fn run(mut self) {
        loop {
            if self.in_flight.is_empty() {
                self.drain();
                if !self.batch.waiting.is_empty() {
                    self.commit();
                    continue;
                }
                if self.closing {
                    break;
                }
            }
            self.wait();
        }
        self.finish();
    }

    /// Takes all that waits, without waiting for more.
    fn drain(&mut self) {
        while !self.is_full()
            && let Some(request) = self.overflow.pop_front()
        {
            self.add(request);
        }
        while !self.is_full()
            && let Ok(message) = self.messages.try_recv()
        {
            self.hear(message);
        }
    }

    /// Waits for one message, or for the time to sync, to try again, or to rest.
    fn wait(&mut self) {
        if let Some(message) = self.attention.look(&self.messages) {
            return self.hear(message);
        }
        let asleep = Instant::now();
        let message = match [self.sync_at, self.roll_at, self.rest_at].into_iter().flatten().min() {
            None => self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => self.messages.recv_timeout(at.saturating_duration_since(asleep)),
        };
        self.attention.slept(asleep.elapsed());
        match message {
            Ok(message) => self.hear(message),
            Err(RecvTimeoutError::Timeout) if self.sync_at.is_some_and(|at| at <= Instant::now()) => {
                self.sync_late();
            }
            Err(RecvTimeoutError::Timeout) if self.roll_at.is_some_and(|at| at <= Instant::now()) => {
                self.begin_late();
            }
            Err(RecvTimeoutError::Timeout) => self.rest(),
            Err(RecvTimeoutError::Disconnected) => self.closing = true,
        }
    }

    fn rest(&mut self) {
        self.rest_at = None;
        let gone = self.shared.state.write().unwrap_or_else(PoisonError::into_inner).ring.keep(REST_BYTES);
        drop(gone);
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Append(request) if self.closing => request.refuse("it is being closed"),
            Message::Append(request) if self.is_full() => self.overflow.push_back(request),
            Message::Append(request) => {
                self.add(request);
                if !self.in_flight.is_empty() {
                    self.follow();
                    self.stage();
                }
            }
            Message::Written(written) => self.written(written),
            Message::Close => self.closing = true,
        }
    }

    fn is_full(&self) -> bool {
        self.batch.sealed.bytes.len() >= BATCH_BYTES
    }

    fn add(&mut self, mut request: Request) {
        let from = self.batch.offsets.len();
        let placed = self.take(&mut request.draft);
        self.batch.waiting.push(Waiting { request, placed, range: from..self.batch.offsets.len() });
    }

    /// Checks an append and puts its events into the batch.
    fn take(&mut self, draft: &mut Draft) -> Result<Placed, AppendError> {
        if let Some(reason) = self.poisoned.clone() {
            let is_unsure = draft.commands().any(|command| self.unsure.contains(&command));
            let error =
                if is_unsure { AppendError::Failure { reason } } else { AppendError::Unavailable { reason } };
            return Err(error);
        }
        let next = self.next_revision(draft)?;
        let fits = match draft.expected {
            Expected::NoStream => next == 0,
            Expected::Exact(revision) => next == revision.next().get(),
            Expected::Any => true,
        };
        if !fits {
            return Err(AppendError::Conflict { expected: draft.expected, actual: head_before(next) });
        }
        let last = self.batch.sealed.recorded_at.max(self.end.chain.last_recorded_at);
        let placed = Placed {
            position: self.end.next_position + to_u64(self.batch.offsets.len()),
            revision: next,
            recorded_at: UnixMillis::new(last.max(self.clock.now().get())),
        };
        self.batch.push(draft, placed);
        self.remember(&draft.stream, next + to_u64(draft.parts.len()));
        Ok(placed)
    }

    fn remember(&mut self, stream: &StreamId, next: u64) {
        if let Some(head) = self.heads.get_mut(stream) {
            *head = next;
        } else {
            self.heads.insert(stream.clone(), next);
        }
    }

    fn next_revision(&self, draft: &Draft) -> Result<u64, AppendError> {
        let stream = &draft.stream;
        if let Some(next) = self.heads.get(stream) {
            return Ok(*next);
        }
        let closed = match (self.shared.next_revision(stream), draft.older) {
            (Ok(next), _) => return Ok(next),
            (Err(closed), Some(older)) if older.segments == closed.len() => return Ok(older.next),
            (Err(closed), _) => closed,
        };
        let unavailable = |error: LogError| AppendError::Unavailable { reason: error.to_string() };
        older_next_revision(&closed, stream).map_err(unavailable)
    }

    fn taken(&mut self) -> Batch {
        let next = Batch::with_capacity(self.batch.sealed.bytes.len());
        std::mem::replace(&mut self.batch, next)
    }

    /// Writes the batch, or sends it on its way; nothing else is on its way.
    fn commit(&mut self) {
        let mut batch = self.taken();
        if batch.offsets.is_empty() {
            batch.answer();
            return;
        }
        // It may have been put together before the log was poisoned.
        if let Some(reason) = &self.poisoned {
            batch.refuse(reason);
            batch.answer();
            return;
        }
        if let Some(reason) = self.end.refuses(&batch.sealed) {
            return self.turn_away(batch, &reason);
        }
        if self.end.is_full(&batch.sealed) {
            match self.begin_next() {
                Ok(()) => {}
                Err(NotBegun::Later(reason)) => return self.turn_away(batch, &reason),
                Err(NotBegun::Never(error)) => return self.fail(batch, &error),
            }
        }
        self.refusing = false;
        if self.durability == Durability::Sync && batch.sealed.bytes.len() >= BESIDE_BYTES {
            self.send(batch);
            self.stage();
            return;
        }
        let job = self.end.place(&mut batch.sealed, self.end.synced);
        let written = job.write().and_then(|()| self.sync());
        batch.sealed.bytes = job.bytes;
        match written {
            Ok(()) => self.publish(batch),
            Err(error) => self.fail(batch, &error),
        }
    }

    /// Nothing of the batch is written, and whatever comes next is tried again.
    fn turn_away(&mut self, mut batch: Batch, reason: &str) {
        if !self.refusing {
            tracing::warn!(%reason, "appends are refused");
        }
        self.refusing = true;
        // All that was recorded is published: the state knows every head.
        self.heads.clear();
        batch.refuse(reason);
        batch.answer();
    }

    /// Sends a batch on its way. It is written only once all before it is durable, and says so.
    fn send(&mut self, mut batch: Batch) {
        let job = self.end.place(&mut batch.sealed, self.end.chain.next_batch);
        match self.syncer.take(job) {
            Ok(()) => self.in_flight.push_back(batch),
            Err(job) => {
                batch.sealed.bytes = job.bytes;
                self.fail(batch, &std::io::Error::other("the thread that syncs has ended"));
            }
        }
    }

    /// What was on its way has arrived, or not: the next one goes, then this one is published.
    fn written(&mut self, written: Written) {
        let Some(mut batch) = self.in_flight.pop_front() else { return };
        batch.sealed.bytes = written.bytes;
        match (written.outcome, self.poisoned.clone()) {
            (Outcome::Durable, None) => {}
            (Outcome::Failed(error), None) => return self.fail(batch, &error),
            (Outcome::NotTried, reason) => {
                batch.refuse(&reason.unwrap_or_default());
                return batch.answer();
            }
            (_, Some(reason)) => return self.tell_unsure(batch, &reason),
        }
        if self.in_flight.is_empty() {
            self.end.synced();
            self.drain();
        }
        self.follow();
        self.publish(batch);
        self.stage();
    }

    /// Sends what is put together after what is on its way, if there is enough of it.
    fn follow(&mut self) {
        let next = &self.batch.sealed;
        let bytes_min = if self.in_flight.is_empty() { BESIDE_BYTES } else { AHEAD_BYTES };
        let due = self.in_flight.len() < IN_FLIGHT_MAX && next.bytes.len() >= bytes_min;
        let sound = self.durability == Durability::Sync && self.poisoned.is_none();
        if due && sound && !self.end.is_full(next) && self.end.refuses(next).is_none() {
            let batch = self.taken();
            self.send(batch);
        }
    }

    /// Makes what was written durable, unless the mode is relaxed and its time has not come.
    fn sync(&mut self) -> std::io::Result<()> {
        #[cfg(test)]
        if bugs::has(Bug::AckBeforeSync) {
            return Ok(());
        }
        if let Durability::Interval(every) = self.durability {
            let at = *self.sync_at.get_or_insert_with(|| Instant::now() + every);
            if at > Instant::now() {
                return Ok(());
            }
            self.sync_at = None;
        }
        self.end.sync()
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

    /// A write failed: whether the batch is recorded is not known, and nothing more is written.
    fn fail(&mut self, batch: Batch, error: &std::io::Error) {
        let reason = self.give_up(error);
        self.tell_unsure(batch, &reason);
        let mut rest = self.taken();
        rest.refuse(&reason);
        rest.answer();
    }

    fn tell_unsure(&mut self, mut batch: Batch, reason: &str) {
        self.unsure.extend(batch.waiting.iter().flat_map(|waiting| waiting.request.draft.commands()));
        batch.fail(reason);
        batch.answer();
    }

    fn give_up(&mut self, error: &std::io::Error) -> String {
        let reason = format!("a write to the log failed, no further one is tried until a restart: {error}");
        self.poison(&reason);
        reason
    }

    fn poison(&mut self, reason: &str) {
        tracing::error!(%reason, "the log is poisoned");
        self.poisoned = Some(reason.to_owned());
        *self.shared.poisoned.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// Adds what is on its way to the index, unseen, while the disk is busy with it: whoever waits
    /// for it need not wait for that too.
    fn stage(&mut self) {
        let Some(batch) = self.in_flight.iter_mut().find(|batch| !batch.indexed) else { return };
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        state.open.index.stage();
        let staged = batch.index(&mut state.open.index);
        drop(state);
        batch.indexed = true;
        if let Err(reason) = staged {
            self.poison(&refused(reason));
        }
    }

    /// Shows the batch to readers, then answers.
    fn publish(&mut self, mut batch: Batch) {
        let gone = match self.show(&mut batch) {
            Ok(gone) => gone,
            Err(reason) => {
                self.poison(&refused(reason));
                Vec::new()
            }
        };
        self.attention.answered(batch.waiting.len());
        // Nobody waits for their memory.
        batch.answer();
        drop(gone);
        self.rest_at = Instant::now().checked_add(REST_AFTER);
        self.forget();
    }

    /// Shows it; gives back what made room for it in memory.
    fn show(&self, batch: &mut Batch) -> Result<Vec<Arc<Block>>, &'static str> {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        if !batch.indexed {
            batch.index(&mut state.open.index)?;
        }
        let end = batch.sealed.first_position + to_u64(batch.offsets.len());
        let shown = to_u32(to_usize(end - state.open.first));
        state.open.index.reveal(shown);
        let bytes = std::mem::take(&mut batch.sealed.bytes);
        let offsets = std::mem::take(&mut batch.offsets);
        let first = batch.sealed.first_position;
        let last = first + to_u64(offsets.len()) - 1;
        state.open.end = batch.sealed.at + to_u64(bytes.len());
        let gone = state.ring.push(Block::new(first, bytes, offsets));
        drop(state);
        self.shared.head.send_replace(Some(Position::from_engine(last)));
        Ok(gone)
    }

    /// Bounds the known heads: those that are not published yet must stay.
    fn forget(&mut self) {
        if self.heads.len() <= HEADS_MAX {
            return;
        }
        let mut kept = HashMap::with_hasher(RandomState::default());
        for waiting in self.in_flight.iter().chain([&self.batch]).flat_map(|batch| &batch.waiting) {
            let stream = &waiting.request.draft.stream;
            kept.extend(self.heads.get(stream).map(|next| (stream.clone(), *next)));
        }
        self.heads = kept;
    }

    /// The end: what was answered is synced, what closed segments lack is made.
    fn finish(mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.hear(message);
        }
        if self.sync_at.is_some() {
            self.sync_late();
        }
        self.syncer.end();
        if self.durability != Durability::Sync
            && self.poisoned.is_none()
            && let Err(error) = epoch::settled(&*self.end.storage)
        {
            tracing::warn!(%error, "the log was synced, but the next start will not know it");
        }
        // It may take longer than the process is given.
        self.closer.end();
    }
}

fn refused(reason: &str) -> String {
    format!("the index refuses an event that was recorded: {reason}")
}
