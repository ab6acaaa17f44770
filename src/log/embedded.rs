//! The embedded log: a directory of plain files, one process, no server.
//!
//! | file | what |
//! |---|---|
//! | `LOCK` | held by the one process that owns the directory; names it |
//! | `epoch` | the log's id and epoch counter, as text |
//! | `<first position>.segment` | batches of records (`format`, `record` document the bytes) |
//! | `<first position>.index` | derived, beside a closed segment; rebuilt when missing |
//! | `tier` | the id that this directory and its cold tier share |
//! | `chain` | a hash for each closed segment, each line linked to the one before it |
//! | `cut-<time>/` | what a repair moved aside; never read again |
//!
//! One writer thread takes every append that waits, writes them as one batch with one
//! `fdatasync`, publishes, and only then answers. Readers see what the writer has published,
//! from memory if it is recent, else from the files. A failed write poisons the writer: it is
//! never tried again on the same file; reads go on; a restart recovers by scan.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use dramatis_events::{Epoch, Position, Recorded, Revision, StreamId};
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, oneshot, watch};

use self::attention::Attention;
use self::batch::{Answer, Batch, Request};
use self::bytes::{to_u64, to_usize};
use self::closer::{Closer, Work};
use self::draft::{Draft, Older, give_place, unplaced};
pub use self::end::Durability;
use self::end::{AHEAD_BYTES, End};
pub use self::error::OpenError;
use self::lock::{Lock, lock_both};
use self::read::{Left, first_outcome, live_events, live_page, look_at, older_command, older_stream};
use self::recovery::{Recovered, recover};
use self::ring::Ring;
use self::shared::{Shared, blocking};
use self::state::{Found, Next, State, head_before, older_next_revision};
use self::storage::{Directory, Storage};
use self::syncer::Syncer;
use self::writer::{Message, Writer};
use super::{
    Append, AppendError, CommandOutcome, CommandRef, EventLog, Filter, LogError, Page, ReadLimit, Usage,
};
use crate::clock::Clock;
use crate::dirs;

mod attention;
pub mod backup;
mod batch;
mod bytes;
mod chain;
mod checksum;
mod closer;
mod cooler;
mod draft;
mod end;
mod epoch;
mod error;
mod format;
mod index;
mod lock;
pub mod offline;
mod read;
mod record;
mod recovery;
mod ring;
mod scan;
mod segment;
mod shared;
mod sidecar;
mod state;
mod storage;
mod sweep;
mod syncer;
mod table;
#[cfg(test)]
mod tests;
mod tier;
mod window;
mod writer;

/// How the log keeps its files.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment is closed when the next batch would make it longer than this, in bytes.
    pub segment_bytes: u64,
    /// Appends that may wait for the writer, one of more than 4 KiB counting as several; further
    /// ones wait for a place.
    pub append_queue_len_max: usize,
    /// Recent events kept in memory, in bytes.
    pub live_bytes_max: usize,
    /// Filters that spare lookups in closed segments, bytes in memory; the oldest segments go
    /// without beyond that.
    pub filter_bytes_max: u64,
    /// When an append is answered.
    pub durability: Durability,
    /// Appends are refused while the disk has fewer bytes free than this; 0 is no reserve.
    pub reserve_bytes: u64,
    /// Where closed segments move when there are more than `hot_segments_max`.
    pub cold_dir: Option<PathBuf>,
    /// Closed segments that stay in the log's own directory if there is another for them.
    pub hot_segments_max: usize,
    /// How long the end waits for segments that move there.
    pub moving_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 128 * 1024 * 1024,
            append_queue_len_max: 16_384,
            live_bytes_max: 4 * 1024 * 1024,
            filter_bytes_max: 128 * 1024 * 1024,
            durability: Durability::Sync,
            reserve_bytes: 0,
            cold_dir: None,
            hot_segments_max: usize::MAX,
            moving_patience: Duration::from_secs(5),
        }
    }
}

/// The longest segment, in bytes: offsets in it are stored in 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What an error names if a thread does not start.
const THREADS: &str = "the log's threads";
/// Events read at a time when a stream is read backwards.
const BACKWARDS_EVENTS: usize = 64;

/// See the module.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    epoch: Epoch,
    durability: Durability,
    reserve_bytes: u64,
    /// Whether closed segments may lie where they are slow to read.
    tiered: bool,
    requests: mpsc::Sender<Message>,
    places: Arc<Semaphore>,
    places_max: u32,
    writer: Mutex<Option<JoinHandle<()>>>,
    _locks: Vec<Lock>,
}

impl EmbeddedLog {
    /// Opens a directory, making it if it is not there.
    pub fn open(dir: &Path, mut options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let cold = options.cold_dir.take();
        dirs::make(dir).map_err(OpenError::io(dir.display()))?;
        if let Some(cold) = cold.as_deref().filter(|cold| !cold.is_dir()) {
            // An empty directory in its place would stand in the way of the one that is missed.
            tier::may_be_made(dir, cold)?;
            dirs::make(cold).map_err(OpenError::io(cold.display()))?;
        }
        let locks = lock_both(dir, cold.as_deref())?;
        if let Some(cold) = &cold {
            tier::take(dir, cold)?;
        }
        let storage = Arc::new(Directory::new(dir, cold.as_deref()));
        let mut log = Self::open_storage(storage, locks, &options, clock, Closer::beside)?;
        log.tiered = cold.is_some();
        Ok(log)
    }

    fn open_storage(
        storage: Arc<dyn Storage>,
        locks: Vec<Lock>,
        options: &Options,
        clock: Arc<dyn Clock>,
        closer: impl FnOnce(Work) -> io::Result<Closer>,
    ) -> Result<Self, OpenError> {
        let (epoch, durability) = settled(&*storage, options.durability)?;
        let Recovered { closed, open, chain, lines, allocated } =
            recover(&storage, epoch, options.filter_bytes_max)?;
        let end = End {
            storage: storage.clone(),
            epoch,
            segment_bytes: options.segment_bytes.min(SEGMENT_BYTES_MAX),
            reserve_bytes: options.reserve_bytes,
            chain,
            file: open.file.clone(),
            segment_first: open.first,
            at: open.end,
            allocated,
            next_position: open.next_position(),
            // Recovery has synced the tail.
            synced: chain.next_batch,
        };
        let ring = Ring::new(end.next_position, options.live_bytes_max);
        let shared = Arc::new(Shared {
            storage,
            head: watch::Sender::new(end.next_position.checked_sub(1).map(Position::from_engine)),
            state: RwLock::new(State { closed: Arc::new(closed), open, ring }),
            poisoned: Mutex::new(None),
            troubles: Mutex::default(),
            unread: Mutex::default(),
        });
        let places = options.append_queue_len_max.max(1);
        let (requests, messages) = mpsc::channel();
        let writer = Writer {
            syncer: Syncer::start(requests.clone()).map_err(OpenError::io(THREADS))?,
            messages,
            attention: Attention::new(),
            shared: shared.clone(),
            clock,
            durability,
            end,
            closer: closer(Work::new(shared.clone(), lines, options)).map_err(OpenError::io(THREADS))?,
            heads: HashMap::default(),
            unsure: HashSet::default(),
            poisoned: None,
            sync_at: None,
            roll_at: None,
            rest_at: None,
            batch: Batch::with_capacity(0),
            in_flight: VecDeque::new(),
            overflow: VecDeque::new(),
            closing: false,
            refusing: false,
        };
        let thread = writer.start().map_err(OpenError::io(THREADS))?;
        Ok(Self {
            shared,
            epoch,
            durability,
            reserve_bytes: options.reserve_bytes,
            tiered: false,
            requests,
            places: Arc::new(Semaphore::new(places)),
            places_max: u32::try_from(places).unwrap_or(u32::MAX),
            writer: Mutex::new(Some(thread)),
            _locks: locks,
        })
    }

    /// Finishes what waits and ends the writer. Later appends are refused as unavailable.
    pub fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = self.requests.send(Message::Close);
            let _ = writer.join();
        }
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl EventLog for EmbeddedLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, AppendError>> {
        if let Err(error) = append.check() {
            return ready(Err(error));
        }
        let weight = weight(&append).min(self.places_max);
        let (places, requests) = (self.places.clone(), self.requests.clone());
        let older = self.tiered.then(|| older(&self.shared, &append.stream));
        Box::pin(async move {
            let closed = || AppendError::Unavailable { reason: "it is being closed".to_owned() };
            let mut draft = Draft::of(&append);
            if let Some(older) = older {
                draft.older = older.await?;
            }
            let place = places.acquire_many_owned(weight).await.map_err(|_| closed())?;
            let (answer, answered) = oneshot::channel();
            let request = Request { draft, answer, place };
            requests.send(Message::Append(request)).map_err(|_| closed())?;
            // While it is on its way there is time to make what is given back.
            let mut events = unplaced(append);
            let (outcome, _draft): Answer = answered.await.map_err(|_| AppendError::Failure {
                reason: "the log was closed before it answered".to_owned(),
            })?;
            give_place(&mut events, outcome?);
            Ok(events)
        })
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        from: Revision,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>> {
        read_forward(&self.shared, stream, from.get(), limit)
    }

    fn read_stream_backwards(
        &self,
        stream: &StreamId,
        before: Option<Revision>,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>> {
        let head = self.stream_head(stream);
        let (shared, stream) = (self.shared.clone(), stream.clone());
        Box::pin(async move {
            let next = head.await?.map_or(0, |head| head.get() + 1);
            let mut end = before.map_or(next, |before| before.get().min(next));
            let (mut events, mut left) = (Vec::new(), Left::new(limit));
            while end > 0 && !left.is_full() {
                let from = end.saturating_sub(to_u64(left.events.min(BACKWARDS_EVENTS)));
                // The bound by bytes counts from the newest, so it is held to afterwards.
                let page = ReadLimit { events: to_usize(end - from), bytes: usize::MAX };
                let read = read_forward(&shared, &stream, from, page).await?;
                let newest = read.into_iter().rev().take_while(|event| left.take(event.envelope.data.len()));
                events.extend(newest);
                end = from;
            }
            Ok(events)
        })
    }

    fn read_all(
        &self,
        after: Option<Position>,
        filter: Filter,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Page, LogError>> {
        let from = after.map_or(0, |after| after.to_engine().saturating_add(1));
        let next = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            let next = state.next_position();
            if from >= next {
                return ready(match after {
                    Some(asked) if from > next => Err(LogError::AheadOfLog { asked }),
                    _ => Ok(Page { events: Vec::new(), scanned: after }),
                });
            }
            state.next(from, &filter, look_at(&filter, limit))
        };
        match next {
            Next::Live(blocks) => ready(live_page(&blocks, from, &filter, limit)),
            Next::Stored(stored) => {
                blocking(&self.shared, move || read::stored_page(&stored, from, &filter, limit))
            }
        }
    }

    fn stream_head(&self, stream: &StreamId) -> BoxFuture<'static, Result<Option<Revision>, LogError>> {
        let closed = match self.shared.next_revision(stream) {
            Ok(next) => return ready(Ok(head_before(next))),
            Err(closed) => closed,
        };
        let stream = stream.clone();
        blocking(&self.shared, move || older_next_revision(&closed, &stream).map(head_before))
    }

    fn find_command(
        &self,
        command: CommandRef,
    ) -> BoxFuture<'static, Result<Option<CommandOutcome>, LogError>> {
        let (here, closed) = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            let here = state.open_command(&command);
            if !state.may_be_older(&command) && !matches!(here, Some(Found::There(_))) {
                return ready(first_outcome(here, &command));
            }
            (here, state.closed.clone())
        };
        blocking(&self.shared, move || match older_command(&closed, &command)? {
            Some(outcome) => Ok(Some(outcome)),
            None => first_outcome(here, &command),
        })
    }

    fn head(&self) -> watch::Receiver<Option<Position>> {
        self.shared.head.subscribe()
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn poisoned(&self) -> Option<String> {
        self.shared.poisoned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.shared.troubles();
        if let Durability::Interval(every) = self.durability {
            warnings.push(format!(
                "log.durability is \"interval\": what was acknowledged in the last {} ms may be lost with the machine",
                every.as_millis()
            ));
        }
        if self.reserve_bytes > 0
            && let Ok(space) = self.shared.storage.space()
        {
            warnings.extend(space.refuses(AHEAD_BYTES, self.reserve_bytes));
        }
        warnings
    }

    fn usage(&self) -> Usage {
        // Nobody waits for the disk that is asked below.
        let (segments, stored_bytes) = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            let closed: u64 = state.closed.iter().map(|closed| closed.facts.end).sum();
            (to_u64(state.closed.len()) + 1, closed + state.open.end)
        };
        Usage {
            segments,
            stored_bytes,
            free_bytes: self.shared.storage.space().map_or(0, |space| space.free),
            relaxed: self.durability != Durability::Sync,
        }
    }
}

/// Looks up where a stream stands if only closed segments can tell: the writer, for whom everybody
/// waits, need not.
fn older(shared: &Arc<Shared>, stream: &StreamId) -> BoxFuture<'static, Result<Option<Older>, AppendError>> {
    let Err(closed) = shared.next_revision(stream) else { return ready(Ok(None)) };
    let stream = stream.clone();
    let looking = blocking(shared, move || {
        Ok(Some(Older { next: older_next_revision(&closed, &stream)?, segments: closed.len() }))
    });
    Box::pin(async { looking.await.map_err(|error| AppendError::Unavailable { reason: error.to_string() }) })
}

/// Events of a stream ascending, wherever they are.
fn read_forward(
    shared: &Arc<Shared>,
    stream: &StreamId,
    from: u64,
    limit: ReadLimit,
) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>> {
    let (found, closed, open) = {
        let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
        match state.stream(stream, from, limit) {
            Found::Older => (Found::Older, state.closed.clone(), state.open_part(stream, from, limit)),
            found => (found, Arc::default(), None),
        }
    };
    let stream = stream.clone();
    match found {
        Found::Here(events) => ready(live_events(&events, limit)),
        Found::There(places) => blocking(shared, move || {
            let (mut events, mut left, mut next) = (Vec::new(), Left::new(limit), from);
            read::stream_events(&places, &stream, &mut next, &mut left, &mut events)?;
            Ok(events)
        }),
        Found::Older => blocking(shared, move || older_stream(&closed, open, &stream, from, limit)),
    }
}

/// The epoch to go on with, a new one if answers of a relaxed process may have been lost, and when to
/// answer from now on.
fn settled(storage: &dyn Storage, durability: Durability) -> Result<(Epoch, Durability), OpenError> {
    let mut epoch = epoch::of(storage)?;
    if epoch::is_unsettled(storage)? {
        epoch = epoch::next(epoch);
        epoch::write(storage, epoch).map_err(OpenError::io(epoch::FILE))?;
        tracing::warn!(
            %epoch,
            "the log ran with durability \"interval\" and did not end cleanly: what it acknowledged last may be \
             lost, so a new epoch begins; clients and projections start over"
        );
    }
    let noted = match durability {
        Durability::Sync if epoch::is_unsettled(storage)? => epoch::settled(storage),
        Durability::Sync => Ok(()),
        Durability::Interval(_) => epoch::relax(storage),
    };
    match noted {
        Err(error) if error.kind() == ErrorKind::StorageFull && durability != Durability::Sync => {
            let so = "every append waits for its sync until the next start: a full disk cannot note that they do not";
            tracing::warn!(%error, "{so}");
            // It may be there all the same, or from before: then another epoch begins once more, for nothing.
            let _ = epoch::settled(storage);
            Ok((epoch, Durability::Sync))
        }
        noted => noted.map(|()| (epoch, durability)).map_err(OpenError::io(epoch::RELAXED)),
    }
}

/// How many places in the queue an append takes: one for every 4 KiB begun.
fn weight(append: &Append) -> u32 {
    let bytes: usize = append.envelopes.iter().map(|envelope| envelope.data.len()).sum();
    u32::try_from(bytes / 4_096 + 1).unwrap_or(u32::MAX)
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}
