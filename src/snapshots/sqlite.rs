//! Snapshots in one `SQLite` file, on a thread of its own.
//!
//! Nothing is ever synced: after a power cut the file may be stale, torn or no database at
//! all. Each row carries a checksum over all of it, and a file that is not ours, not whole or
//! of another epoch is removed and begun anew. While the file cannot be used there are simply
//! no snapshots; it is tried again after a while.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use dramatis_events::Epoch;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use self::file::SnapshotFile;
use self::queue::{Job, Queue};
use super::{Key, Snapshot, Snapshots};

mod file;
mod queue;
#[cfg(test)]
mod tests;

/// How long a file that could not be used is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The store. Dropping it keeps what was to be saved and closes the file.
pub struct SqliteSnapshots {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteSnapshots {
    /// A store in this file for the history of this epoch. The file is opened, or made, on the
    /// store's thread; whatever is wrong with it, there is a store.
    pub fn open(path: impl Into<PathBuf>, epoch: Epoch) -> Self {
        Self::start(path.into(), epoch, RETRY_AFTER)
    }

    fn start(path: PathBuf, epoch: Epoch, retry_after: Duration) -> Self {
        let queue = Arc::new(Queue::default());
        let jobs = queue.clone();
        let started = std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
            let mut file = SnapshotFile::new(path, epoch, retry_after);
            while let Some(job) = jobs.next() {
                // Nobody waiting is fine.
                match job {
                    Job::Load { key, answer } => drop(answer.send(file.load(&key))),
                    Job::Save { key, snapshot, answer } => drop(answer.send(file.save(&key, snapshot))),
                }
            }
        });
        if let Err(error) = &started {
            tracing::warn!(%error, "there are no entity snapshots: their thread does not start");
            queue.close();
        }
        Self { queue, thread: started.ok() }
    }
}

impl Snapshots for SqliteSnapshots {
    fn load(&self, key: &Key) -> BoxFuture<'static, Option<Snapshot>> {
        let (answer, answered) = oneshot::channel();
        self.queue.add(Job::Load { key: key.clone(), answer });
        Box::pin(async move { answered.await.ok().flatten() })
    }

    fn save(&self, key: &Key, snapshot: Snapshot) -> BoxFuture<'static, bool> {
        let (answer, answered) = oneshot::channel();
        self.queue.add(Job::Save { key: key.clone(), snapshot, answer });
        Box::pin(async move { answered.await.unwrap_or(false) })
    }
}

impl Drop for SqliteSnapshots {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
