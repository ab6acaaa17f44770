//! Writing beside the writer: while one large batch goes to the disk on this thread, the writer
//! puts the next one together. One batch is written at a time, after the one before it is durable.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::bytes::to_usize;
use super::storage::StoredFile;
use super::writer::{IN_FLIGHT_MAX, Message};

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
    pub(super) outcome: Outcome,
}

/// What became of a batch.
pub(super) enum Outcome {
    Durable,
    /// It may be recorded or not.
    Failed(io::Error),
    /// One before it failed, so nothing of it was written.
    NotTried,
}

impl Job {
    /// Writes the batch; it is durable after a sync of its file.
    pub(super) fn write(&self) -> io::Result<()> {
        if let Some((from, to)) = self.zeros {
            self.file.write_all_at(&vec![0; to_usize(to.saturating_sub(from))], from)?;
        }
        self.file.write_all_at(&self.bytes, self.at)
    }

    /// Writes it and makes it durable, unless one before it failed: then nothing more may be written.
    fn after(self, failed: &mut bool) -> Written {
        let outcome = if *failed {
            Outcome::NotTried
        } else {
            self.write().and_then(|()| self.file.sync()).map_or_else(Outcome::Failed, |()| Outcome::Durable)
        };
        *failed = !matches!(outcome, Outcome::Durable);
        Written { bytes: self.bytes, outcome }
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
        let (jobs, arriving) = sync_channel::<Job>(IN_FLIGHT_MAX);
        let thread = std::thread::Builder::new().name("log-syncer".to_owned()).spawn(move || {
            let mut failed = false;
            while let Ok(job) = arriving.recv() {
                if writer.send(Message::Written(job.after(&mut failed))).is_err() {
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
