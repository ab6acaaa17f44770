//! Writing beside the writer: while one large batch goes to the disk on this thread, the writer
//! puts the next one together. One batch is on its way at a time.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::bytes::to_usize;
use super::storage::StoredFile;
use super::writer::Message;

/// A batch with its place in a file.
pub(super) struct Job {
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) bytes: Vec<u8>,
    pub(super) at: u64,
    /// From where to where zeros are filled in first.
    pub(super) zeros: Option<(u64, u64)>,
}

/// How it went; the bytes come back.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) result: io::Result<()>,
}

impl Job {
    /// Writes the batch; it is durable after a sync of its file.
    pub(super) fn write(&self) -> io::Result<()> {
        if let Some((from, to)) = self.zeros {
            self.file.write_all_at(&vec![0; to_usize(to.saturating_sub(from))], from)?;
        }
        self.file.write_all_at(&self.bytes, self.at)
    }

    fn write_and_sync(self) -> Written {
        let result = self.write().and_then(|()| self.file.sync());
        Written { bytes: self.bytes, result }
    }
}

/// The thread, and the way to it.
pub(super) struct Syncer {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl Syncer {
    /// Starts the thread; it tells the writer what was written.
    pub(super) fn start(writer: Sender<Message>) -> io::Result<Self> {
        let (jobs, arriving) = sync_channel::<Job>(1);
        let thread = std::thread::Builder::new().name("log-syncer".to_owned()).spawn(move || {
            while let Ok(job) = arriving.recv() {
                if writer.send(Message::Written(job.write_and_sync())).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs, thread })
    }

    /// Sends a batch on its way; it comes back if the thread has ended.
    pub(super) fn take(&self, job: Job) -> Result<(), Job> {
        self.jobs.send(job).map_err(|job| job.0)
    }

    pub(super) fn end(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}
