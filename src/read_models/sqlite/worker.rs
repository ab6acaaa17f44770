//! A thread that owns one connection, and opens it when it can, behind a bounded queue: what finds it
//! full is refused.

use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::errors::{full, stopped};
use crate::priority::step_back;
use crate::read_models::{Answer, ReadModelError};

type Job = Box<dyn FnOnce(Result<&mut Connection, ReadModelError>) + Send>;
/// How a connection is opened.
pub(super) type Opening = Box<dyn Fn() -> Result<Connection, ReadModelError> + Send>;

/// A connection behind a queue.
pub(super) struct Worker {
    jobs: Option<mpsc::SyncSender<Job>>,
    waiting_max: usize,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Moves the connection to a thread of its own, for which so many jobs may wait; if there is none
    /// yet, each job tries to open it. All threads of a priority above `nice` go first, 0 being the usual.
    pub(super) fn start(
        name: &str,
        nice: i32,
        mut connection: Option<Connection>,
        open: Opening,
        waiting_max: usize,
    ) -> Result<Self, ReadModelError> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(waiting_max);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            step_back(nice);
            for job in queue {
                job(match &mut connection {
                    Some(connection) => Ok(connection),
                    none => open().map(|opened| none.insert(opened)),
                });
            }
        });
        let thread = thread.map_err(|e| ReadModelError::Failure { reason: e.to_string() })?;
        Ok(Self { jobs: Some(jobs), waiting_max, thread: Some(thread) })
    }

    /// Runs a job on the connection. It runs even if nobody waits for its answer any more.
    pub(super) fn run<T, F>(&self, job: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, ReadModelError> + Send + 'static,
    {
        self.queue(job, true)
    }

    /// The same for a job that is not worth running if nobody waits once its turn comes.
    pub(super) fn ask<T, F>(&self, job: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, ReadModelError> + Send + 'static,
    {
        self.queue(job, false)
    }

    fn queue<T, F>(&self, job: F, anyway: bool) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, ReadModelError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if anyway || !answer.is_closed() {
                // Nobody waiting is fine.
                let _ = answer.send(connection.and_then(job));
            }
        });
        let refused = match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => None,
            Some(Err(mpsc::TrySendError::Full(_))) => Some(full(self.waiting_max)),
            Some(Err(mpsc::TrySendError::Disconnected(_))) | None => Some(stopped()),
        };
        Box::pin(async move {
            match refused {
                Some(error) => Err(error),
                None => answered.await.unwrap_or_else(|_| Err(stopped())),
            }
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Closes the queue, and waits so that the file is closed when the store is gone.
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
