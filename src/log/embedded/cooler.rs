//! Moves old closed segments to the cold tier, on a thread of its own: that tier may be slow or not
//! answer at all, and neither appends nor indexes wait for it.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use super::Shared;
use super::format::{index_name, segment_name};
use super::segment::Index;

/// Looks that may be due: one sees all there is.
const DUE_MAX: usize = 1;

/// See the module.
pub(super) struct Cooler {
    looks: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Cooler {
    /// Keeps so many closed segments beside the open one.
    pub(super) fn start(shared: Arc<Shared>, hot_segments: usize) -> io::Result<Self> {
        let (looks, due) = sync_channel(DUE_MAX);
        let thread = std::thread::Builder::new().name("log-cooler".to_owned()).spawn(move || {
            while due.recv().is_ok() {
                if let Err(error) = cool(&shared, hot_segments) {
                    tracing::warn!(%error, "a closed segment did not move to the cold tier");
                }
            }
        })?;
        Ok(Self { looks, thread })
    }

    /// Asks for a look at what may move.
    pub(super) fn look(&self) {
        // One that is due sees this too.
        let _ = self.looks.try_send(());
    }

    /// Moves what waits.
    pub(super) fn end(self) {
        drop(self.looks);
        let _ = self.thread.join();
    }
}

/// Moves the oldest segments away, if there is where to.
fn cool(shared: &Shared, hot_segments: usize) -> io::Result<()> {
    let closed = shared.state.read().unwrap_or_else(PoisonError::into_inner).closed.clone();
    let stored = closed.iter().take_while(|closed| matches!(closed.index, Index::Stored(_)));
    let old = closed.len().saturating_sub(hot_segments);
    for segment in stored.take(old) {
        // The index goes after its segment, and so it does if a crash came between the two.
        let moved = shared.storage.cool(&segment_name(segment.first()))?;
        shared.storage.cool(&index_name(segment.first()))?;
        if moved {
            tracing::info!(segment = %segment_name(segment.first()), "a closed segment moved to the cold tier");
        }
    }
    Ok(())
}
