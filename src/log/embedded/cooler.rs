//! Moves old closed segments to the cold tier, on a thread of its own: that tier may be slow or not
//! answer at all, and neither appends nor indexes wait for it, nor does the end for long. For the same
//! reason it is here that what could not be read is looked at again.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::format::{index_name, segment_name};
use super::segment::Index;
use super::shared::{Shared, Trouble};

/// Looks that may be due: one sees all there is.
const DUE_MAX: usize = 1;

/// See the module.
pub(super) struct Cooler {
    looks: SyncSender<()>,
    thread: JoinHandle<()>,
    /// Is cut off when the thread ends.
    ended: Receiver<()>,
    given_up: Arc<AtomicBool>,
    patience: Duration,
}

impl Cooler {
    /// Keeps so many closed segments beside the open one; its end waits so long for others to move.
    pub(super) fn start(shared: Arc<Shared>, hot_segments: usize, patience: Duration) -> io::Result<Self> {
        let (looks, due) = sync_channel(DUE_MAX);
        let (ends, ended) = sync_channel(0);
        let given_up = Arc::new(AtomicBool::new(false));
        let stop = given_up.clone();
        let thread = std::thread::Builder::new().name("log-cooler".to_owned()).spawn(move || {
            let _ends = ends;
            while due.recv().is_ok() {
                shared.look_again();
                let moved = cool(&shared, hot_segments, &stop);
                let undone = moved.err().map(|error| {
                    tracing::warn!(%error, "a closed segment did not move to the cold tier");
                    format!("closed segments do not move to log.cold_dir, which is tried again: {error}")
                });
                shared.note(Trouble::Moving, undone);
            }
        })?;
        Ok(Self { looks, thread, ended, given_up, patience })
    }

    /// Asks for a look at what may move.
    pub(super) fn look(&self) {
        // One that is due sees this too.
        let _ = self.looks.try_send(());
    }

    /// Moves what waits, as far as there is time. A move that is cut short is begun anew after the
    /// next start.
    pub(super) fn end(self) {
        drop(self.looks);
        if self.ended.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
            self.given_up.store(true, Ordering::Relaxed);
            tracing::warn!(
                patience = ?self.patience,
                "closed segments still move to the cold tier: that is not waited for, it goes on after the next start"
            );
            return;
        }
        let _ = self.thread.join();
    }
}

/// Moves the oldest segments away, if there is where to.
fn cool(shared: &Shared, hot_segments: usize, stop: &AtomicBool) -> io::Result<()> {
    let closed = shared.state.read().unwrap_or_else(PoisonError::into_inner).closed.clone();
    let stored = closed.iter().take_while(|closed| matches!(closed.index, Index::Stored(_)));
    let old = closed.len().saturating_sub(hot_segments);
    for segment in stored.take(old) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // The index goes after its segment, and so it does if a crash came between the two.
        let moved = shared.storage.cool(&segment_name(segment.first()))?;
        shared.storage.cool(&index_name(segment.first()))?;
        if moved {
            tracing::info!(segment = %segment_name(segment.first()), "a closed segment moved to the cold tier");
        }
    }
    Ok(())
}
