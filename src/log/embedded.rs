//! The embedded log: a directory of plain files, one process, no server.
//!
//! | file | what |
//! |---|---|
//! | `LOCK` | held by the one process that owns the directory; names it |
//! | `epoch` | the log's id and epoch counter, as text |
//! | `<first position>.segment` | batches of records (`format`, `record` document the bytes) |
//! | `<first position>.index` | derived, beside a closed segment; rebuilt when missing |
//!
//! One writer thread takes every append that waits, writes them as one batch with one
//! `fdatasync`, publishes, and only then answers. Readers see what the writer has published,
//! from memory if it is recent, else from the files. A failed write poisons the writer: it is
//! never tried again on the same file; reads go on; a restart recovers by scan.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use dramatis_events::{Epoch, Position, Recorded, Revision, StreamId};
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, oneshot, watch};

use self::bytes::{to_u64, to_usize};
use self::recovery::{Recovered, recover};
use self::ring::Ring;
use self::state::{
    Found, State, head_before, look_at, older_command, older_stream, outcome, read_page, read_stream_places,
    within,
};
use self::storage::{Directory, Storage};
use self::writer::{Message, Outcome, Request, Writer};
use super::{Append, AppendError, CommandOutcome, CommandRef, EventLog, Filter, LogError, Page, ReadLimit};
use crate::clock::Clock;

mod bytes;
mod format;
mod index;
mod record;
mod recovery;
mod ring;
mod segment;
mod sidecar;
mod state;
mod storage;
mod table;
#[cfg(test)]
mod tests;
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            append_queue_len_max: 16_384,
            live_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// The longest segment, in bytes: offsets in it are stored in 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Events read at a time when a stream is read backwards.
const BACKWARDS_EVENTS: usize = 64;
/// Recent events kept in memory, by number.
const LIVE_EVENTS_MAX: usize = 65_536;

/// Why a directory does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the log is in use by {owner}: stop that first, or choose another data directory")]
    InUse {
        /// What the owner wrote into the lock file.
        owner: String,
    },
    /// Acknowledged bytes do not read back.
    #[error(
        "{file} is damaged at byte {offset}: {reason}; what was acknowledged is never cut silently: restore the file from a backup"
    )]
    Damaged {
        /// The file's name.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer release.
    #[error(
        "{file} has format version {version}, newer than this release reads ({}): upgrade",
        format::VERSION
    )]
    Newer {
        /// The file's name.
        file: String,
        /// Its version.
        version: u8,
    },
    /// The files cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What readers and the writer share.
struct Shared {
    storage: Arc<dyn Storage>,
    state: RwLock<State>,
    head: watch::Sender<Option<Position>>,
    poisoned: Mutex<Option<String>>,
}

/// See the module.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    epoch: Epoch,
    requests: mpsc::Sender<Message>,
    places: Arc<Semaphore>,
    places_max: u32,
    writer: Mutex<Option<JoinHandle<()>>>,
    _lock: Option<File>,
}

impl EmbeddedLog {
    /// Opens a directory, making it if it is not there.
    pub fn open(dir: &Path, options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir)?;
        let lock = lock(dir)?;
        Self::open_storage(Arc::new(Directory::new(dir)), Some(lock), options, clock)
    }

    fn open_storage(
        storage: Arc<dyn Storage>,
        lock: Option<File>,
        mut options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        options.segment_bytes = options.segment_bytes.min(SEGMENT_BYTES_MAX);
        let epoch = epoch(&*storage)?;
        let Recovered { closed, open, chain, allocated } = recover(&*storage, epoch.log(), epoch.counter())?;
        let next_position = open.next_position();
        let (file, segment_first, end) = (open.file.clone(), open.first, open.end);
        let ring = Ring::new(next_position, options.live_bytes_max, LIVE_EVENTS_MAX);
        let shared = Arc::new(Shared {
            storage,
            state: RwLock::new(State { closed, open, ring }),
            head: watch::channel(next_position.checked_sub(1).map(Position::from_engine)).0,
            poisoned: Mutex::new(None),
        });
        let places_max = u32::try_from(options.append_queue_len_max.max(1)).unwrap_or(u32::MAX);
        let places = Arc::new(Semaphore::new(options.append_queue_len_max.max(1)));
        let writer = Writer {
            shared: shared.clone(),
            options,
            clock,
            epoch,
            chain,
            file,
            segment_first,
            end,
            allocated,
            next_position,
            heads: HashMap::new(),
            poisoned: None,
            batch_bytes: 0,
        };
        let (requests, arriving) = mpsc::channel();
        let thread =
            std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run(&arriving))?;
        Ok(Self {
            shared,
            epoch,
            requests,
            places,
            places_max,
            writer: Mutex::new(Some(thread)),
            _lock: lock,
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

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.shared.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl EventLog for EmbeddedLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Outcome> {
        if let Err(error) = append.check() {
            return ready(Err(error));
        }
        let weight = weight(&append).min(self.places_max);
        let (places, requests) = (self.places.clone(), self.requests.clone());
        Box::pin(async move {
            let closed = || AppendError::Unavailable { reason: "it is being closed".to_owned() };
            let place = places.acquire_many_owned(weight).await.map_err(|_| closed())?;
            let (answer, answered) = oneshot::channel();
            let request = Request { append, answer, place };
            requests.send(Message::Append(request)).map_err(|_| closed())?;
            answered.await.unwrap_or_else(|_| {
                Err(AppendError::Failure { reason: "the log was closed before it answered".to_owned() })
            })
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
            let (mut events, mut left) = (Vec::new(), state::Left::new(limit));
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
        let next = self.read(State::next_position);
        if from >= next {
            return ready(match after {
                Some(asked) if from > next => Err(LogError::AheadOfLog { asked }),
                _ => Ok(Page { events: Vec::new(), scanned: after }),
            });
        }
        if let Some(page) = self.read(|state| state.recent(from, &filter, limit)) {
            return ready(Ok(page));
        }
        let shared = self.shared.clone();
        blocking(move || {
            let places = {
                let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
                state.places(from, look_at(&filter, limit))?
            };
            match places {
                Some(places) => read_page(&places, &filter, limit),
                None => Ok(Page { events: Vec::new(), scanned: after }),
            }
        })
    }

    fn stream_head(&self, stream: &StreamId) -> BoxFuture<'static, Result<Option<Revision>, LogError>> {
        let known = self.read(|state| state.knows_stream(stream).then(|| state.next_revision(stream)));
        if let Some(next) = known {
            return ready(next.map(head_before));
        }
        let (shared, stream) = (self.shared.clone(), stream.clone());
        blocking(move || {
            let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
            state.next_revision(&stream).map(head_before)
        })
    }

    fn find_command(
        &self,
        command: CommandRef,
    ) -> BoxFuture<'static, Result<Option<CommandOutcome>, LogError>> {
        let (here, older) = self.read(|state| (state.open_command(&command), state.may_be_older(&command)));
        if !older {
            match here {
                None | Some(Found::Older) => return ready(Ok(None)),
                Some(Found::Here(events)) => {
                    return ready(Ok(events.first().and_then(|event| outcome(event, &command))));
                }
                Some(Found::There(_)) => {}
            }
        }
        let shared = self.shared.clone();
        blocking(move || {
            let closed = shared.state.read().unwrap_or_else(PoisonError::into_inner).closed.clone();
            if let Some(outcome) = older_command(&closed, &command)? {
                return Ok(Some(outcome));
            }
            state::first_outcome(here, &command)
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
}

/// Events of a stream ascending, wherever they are.
fn read_forward(
    shared: &Arc<Shared>,
    stream: &StreamId,
    from: u64,
    limit: ReadLimit,
) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>> {
    let found = shared.state.read().unwrap_or_else(PoisonError::into_inner).stream(stream, from, limit);
    let (shared, stream) = (shared.clone(), stream.clone());
    match found {
        Found::Here(events) => ready(Ok(within(events, limit))),
        Found::There(places) => blocking(move || {
            let (mut events, mut left, mut next) = (Vec::new(), state::Left::new(limit), from);
            read_stream_places(&places, &stream, &mut next, &mut left, &mut events)?;
            Ok(events)
        }),
        Found::Older => blocking(move || {
            let (closed, open) = {
                let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
                (state.closed.clone(), state.open_part(&stream, from, limit))
            };
            older_stream(&closed, open, &stream, from, limit)
        }),
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

/// Reads files on a thread that may wait for them.
fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> BoxFuture<'static, Result<T, LogError>> {
    Box::pin(async move {
        let stopped = |error: tokio::task::JoinError| LogError::Failure { reason: error.to_string() };
        tokio::task::spawn_blocking(read).await.map_err(stopped)?
    })
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    if file.try_lock().is_err() {
        let mut owner = String::new();
        let _ = file.read_to_string(&mut owner);
        let owner =
            owner.lines().next().filter(|line| !line.is_empty()).unwrap_or("another process").to_owned();
        return Err(OpenError::InUse { owner });
    }
    file.set_len(0)?;
    writeln!(file, "process {}", std::process::id())?;
    Ok(file)
}

const EPOCH_FILE: &str = "epoch";

/// The log's epoch; a new log draws its id.
fn epoch(storage: &dyn Storage) -> Result<Epoch, OpenError> {
    let names = storage.list()?;
    if names.iter().any(|name| name == EPOCH_FILE) {
        let file = storage.open(EPOCH_FILE)?;
        let text = storage::read_up_to(&*file, 0, 64)?;
        let text = String::from_utf8_lossy(&text);
        return text.trim().parse().map_err(|error: dramatis_events::ParseEpochError| OpenError::Damaged {
            file: EPOCH_FILE.to_owned(),
            offset: 0,
            reason: error.to_string(),
        });
    }
    if let Some(segment) = names.iter().find(|name| name.ends_with(".segment")) {
        let reason = format!("it is missing, although {segment} is there");
        return Err(OpenError::Damaged { file: EPOCH_FILE.to_owned(), offset: 0, reason });
    }
    let epoch = Epoch::first(uuid::Uuid::new_v4().as_u64_pair().0);
    storage.replace(EPOCH_FILE, format!("{epoch}\n").as_bytes())?;
    Ok(epoch)
}
