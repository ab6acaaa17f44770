//! A thread that owns one connection, and opens it when it can. Callers wait for each answer, so a queue is never
//! longer than there are callers.

use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::errors::stopped;
use crate::read_models::{Answer, ReadModelError};

type Job = Box<dyn FnOnce(Result<&mut Connection, ReadModelError>) + Send>;
/// How a connection is opened.
pub(super) type Opening = Box<dyn Fn() -> Result<Connection, ReadModelError> + Send>;

/// A connection behind a queue.
pub(super) struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Moves the connection to a thread of its own; if there is none yet, each job tries to open it.
    pub(super) fn start(
        name: &str,
        mut connection: Option<Connection>,
        open: Opening,
    ) -> Result<Self, ReadModelError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in queue {
                job(match &mut connection {
                    Some(connection) => Ok(connection),
                    none => open().map(|opened| none.insert(opened)),
                });
            }
        });
        let thread = thread.map_err(|e| ReadModelError::Failure { reason: e.to_string() })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs a job on the connection. It runs even if nobody waits for its answer any more.
    pub(super) fn run<T, F>(&self, job: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, ReadModelError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody waiting is fine.
            let _ = answer.send(connection.and_then(job));
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(stopped());
            }
            answered.await.unwrap_or_else(|_| Err(stopped()))
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
