//! What a closed segment gets besides its bytes, made beside the writer: its index file and its
//! line in the chain. In time [`Cooler`] gives it a place in the cold tier.
//!
//! All of it is derived. What fails here is logged and tried again after a while, with the next
//! segment and at the next opening; until then the segment is read by its index in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Options;
use super::chain::{Chain, Reading, sum};
use super::cooler::Cooler;
use super::format::{index_name, segment_name};
use super::segment::{Closed, Index};
use super::shared::{Shared, Trouble};
use super::sidecar::Sidecar;
use super::storage::StoredFile;
use crate::priority::step_back;

/// Segments that may wait; the writer waits when there are more, for each holds its index in memory.
const WAITING_MAX: usize = 2;

/// How often work that is done behind all others is looked up from.
const LOOK_UP_EVERY: Duration = Duration::from_millis(50);

/// How often what failed is tried again, and what could not be read is looked at.
const AGAIN_EVERY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };

/// The priority of what nobody waits for, unless [`WAITING_MAX`] is reached, as `nice` counts it.
const PRIORITY: i32 = 19;

/// Does what is to be done for closed segments.
pub(super) struct Work {
    shared: Arc<Shared>,
    /// `None` once it is found broken: `verify` says where, nothing is written over it.
    chain: Option<Chain>,
    /// Whether lines of it are not in its file yet.
    is_unwritten: bool,
    /// Closed segments kept beside the open one; older ones go to the cold tier.
    hot_segments: usize,
    moving_patience: Duration,
    /// Bytes of lookup filters that stay in memory.
    filter_bytes_max: u64,
    waiting: VecDeque<Arc<Closed>>,
    /// Whether somebody waits for the end.
    ending: Ending,
}

type Ending = Arc<AtomicBool>;

impl Work {
    pub(super) fn new(shared: Arc<Shared>, lines: Reading, options: &Options) -> Self {
        const BROKEN: &str = "the chain of segment hashes is broken: run `dramatis log verify`";
        let told = match &lines {
            Ok(Ok(_)) => None,
            Ok(Err(broken)) => {
                tracing::error!(offset = broken.offset, reason = broken.reason, "{BROKEN}");
                Some(BROKEN.to_owned())
            }
            Err(error) => {
                let told = format!("the chain of segment hashes cannot be read: {error}");
                tracing::error!("{told}");
                Some(told)
            }
        };
        if told.is_some() {
            shared.note(Trouble::Chain, told);
        }
        let chain = lines.ok().and_then(Result::ok);
        Self {
            shared,
            chain,
            is_unwritten: false,
            hot_segments: options.hot_segments_max,
            moving_patience: options.moving_patience,
            filter_bytes_max: options.filter_bytes_max,
            waiting: VecDeque::new(),
            ending: Ending::default(),
        }
    }

    /// Takes up what an earlier process left undone.
    pub(super) fn begin(&mut self) {
        let closed = self.closed();
        let known = |closed: &Arc<Closed>| {
            self.chain.as_ref().is_none_or(|chain| chain.last().is_some_and(|last| closed.first() <= last))
        };
        let undone = |closed: &&Arc<Closed>| !known(closed) || matches!(closed.index, Index::Memory(_));
        self.waiting = closed.iter().filter(undone).cloned().collect();
        self.work();
    }

    fn closed(&self) -> Arc<Vec<Arc<Closed>>> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner).closed.clone()
    }

    fn take(&mut self, segment: Arc<Closed>) {
        self.waiting.push_back(segment);
        self.work();
    }

    /// Whether something failed, here or at what the cooler looks at.
    fn is_to_try_again(&self) -> bool {
        !self.waiting.is_empty() || self.shared.is_out_of_reach()
    }

    fn work(&mut self) {
        while let Some(segment) = self.waiting.front().cloned() {
            if let Err(error) = self.finish(&segment) {
                let name = segment_name(segment.first());
                tracing::warn!(segment = %name, %error, "a closed segment's index or hash is not written yet");
                let why =
                    format!("the index or the hash of {name} is not written, which is tried again: {error}");
                self.shared.note(Trouble::Index, Some(why));
                return;
            }
            self.waiting.pop_front();
        }
        self.shared.note(Trouble::Index, None);
        self.bound_filters();
    }

    fn finish(&mut self, segment: &Arc<Closed>) -> io::Result<()> {
        let storage = self.shared.storage.clone();
        let file: Arc<dyn StoredFile> = storage.open(&segment_name(segment.first()))?;
        if file.size()? > segment.facts.end {
            file.set_size(segment.facts.end)?;
        }
        let closed = segment.clone();
        let build = move || match &closed.index {
            Index::Memory(index) => Some(Sidecar::build(closed.facts, index)),
            Index::Stored(_) => None,
        };
        if let Index::Memory(_) = &segment.index
            && let Some((sidecar, bytes)) = behind(&self.ending, build)?
        {
            storage.replace(&index_name(segment.first()), &bytes)?;
            let stored =
                Closed { storage: storage.clone(), facts: segment.facts, index: Index::Stored(sidecar) };
            self.shared.state.write().unwrap_or_else(PoisonError::into_inner).stored(Arc::new(stored));
        }
        if let Some(chain) = &mut self.chain
            && chain.last().is_none_or(|last| last < segment.first())
        {
            let end = segment.facts.end;
            chain.add_segment(segment.first(), behind(&self.ending, move || sum(&*file, end))??);
            self.is_unwritten = true;
        }
        if let Some(chain) = self.chain.as_ref().filter(|_| self.is_unwritten) {
            chain.write(&*storage)?;
            self.is_unwritten = false;
        }
        Ok(())
    }

    /// Lets go of the oldest segments' filters while there are too many bytes of them. No file is read:
    /// theirs may lie in a cold tier that is slow.
    fn bound_filters(&self) {
        let closed = self.closed();
        let mut bytes: u64 = closed.iter().map(|closed| closed.filter_bytes()).sum();
        for segment in closed.iter().filter(|closed| closed.filter_bytes() > 0) {
            if bytes <= self.filter_bytes_max {
                break;
            }
            let Some(bare) = segment.without_filters() else { continue };
            bytes -= segment.filter_bytes();
            self.shared.state.write().unwrap_or_else(PoisonError::into_inner).stored(Arc::new(bare));
        }
    }
}

/// Does what takes the processor for long, but nothing else, on a thread that lets all others go
/// first. Files are written at the closer's own priority: a file system's journal waits for whoever
/// is within it, and so would the writer's syncs. Once somebody waits for the end it is done here, and
/// again if that thread is still at it: on a busy machine that could take minutes.
fn behind<T: Send + 'static>(
    ending: &AtomicBool,
    work: impl Fn() -> T + Send + Sync + 'static,
) -> io::Result<T> {
    let work = Arc::new(work);
    let (done, outcome) = sync_channel(1);
    if !ending.load(Ordering::Relaxed) {
        let work = work.clone();
        std::thread::Builder::new().name("log-closer-cpu".to_owned()).spawn(move || {
            step_back(PRIORITY);
            // Nobody may want it any longer.
            let _ = done.send(work());
        })?;
    }
    while !ending.load(Ordering::Relaxed) {
        match outcome.recv_timeout(LOOK_UP_EVERY) {
            Ok(made) => return Ok(made),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("it panicked")),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    // It may have been done in that moment.
    Ok(outcome.try_recv().unwrap_or_else(|_| work()))
}

/// Where the writer hands closed segments to.
pub(super) enum Closer {
    /// On a thread of its own.
    Beside(SyncSender<Arc<Closed>>, JoinHandle<()>, Ending),
    /// Within the hand-over: one thing after the other, for tests that must replay.
    #[cfg(test)]
    Within(Box<Work>),
}

impl Closer {
    pub(super) fn beside(mut work: Work) -> io::Result<Self> {
        let (segments, arriving): (_, Receiver<Arc<Closed>>) = sync_channel(WAITING_MAX);
        let ending = work.ending.clone();
        let cooler = Cooler::start(work.shared.clone(), work.hot_segments, work.moving_patience)?;
        let thread = std::thread::Builder::new().name("log-closer".to_owned()).spawn(move || {
            work.begin();
            cooler.look();
            loop {
                match arriving.recv_timeout(AGAIN_EVERY) {
                    Ok(segment) => work.take(segment),
                    Err(RecvTimeoutError::Timeout) if work.is_to_try_again() => work.work(),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                cooler.look();
            }
            cooler.end();
        })?;
        Ok(Self::Beside(segments, thread, ending))
    }

    pub(super) fn take(&mut self, segment: Arc<Closed>) {
        match self {
            Self::Beside(segments, ..) => {
                if segments.send(segment).is_err() {
                    tracing::error!("the log's closer has ended: closed segments keep their index in memory");
                }
            }
            #[cfg(test)]
            Self::Within(work) => work.take(segment),
        }
    }

    /// Finishes what waits.
    pub(super) fn end(self) {
        match self {
            Self::Beside(segments, thread, ending) => {
                ending.store(true, Ordering::Relaxed);
                drop(segments);
                let _ = thread.join();
            }
            #[cfg(test)]
            Self::Within(_) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn the_end_does_not_wait_for_what_all_others_go_before() {
        let ending = Ending::default();
        // The first to come in is stuck until this test is over.
        let (over, stuck) = channel::<()>();
        let (stuck, first, at_end) = (Mutex::new(stuck), AtomicBool::new(true), ending.clone());
        let made = behind(&ending, move || {
            if first.swap(false, Ordering::Relaxed) {
                at_end.store(true, Ordering::Relaxed);
                let _ = stuck.lock().unwrap().recv();
            }
            std::thread::current().name().map(str::to_owned)
        });
        assert_eq!(made.unwrap().as_deref(), std::thread::current().name());
        drop(over);
    }

    #[test]
    fn what_panics_is_told() {
        let made = behind(&AtomicBool::new(false), || -> u8 { panic!("as it must") });
        assert_eq!(made.unwrap_err().to_string(), "it panicked");
    }
}
