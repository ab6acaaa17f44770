//! A thread that owns one connection, and opens it when it can, behind a bounded queue: what finds it
//! full is refused.

use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::errors::{full, stopped};
use crate::priority::step_back;
use crate::read_models::{Answer, ReadModelError};

/// So many jobs at the most go before a chore that is left.
const JOBS_FIRST_MAX: usize = 16;

type Job = Box<dyn FnOnce(Result<&mut Connection, ReadModelError>) + Send>;
/// How a connection is opened.
pub(super) type Opening = Box<dyn Fn() -> Result<Connection, ReadModelError> + Send>;

/// What may wait until there is no job, little by little: does a small part of it, and tells whether there is more.
pub(super) type Chore = Box<dyn FnMut(&mut Connection) -> bool + Send>;

/// A connection behind a queue.
pub(super) struct Worker {
    jobs: Option<mpsc::SyncSender<Job>>,
    waiting_max: usize,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Moves the connection to a thread of its own, for which so many jobs may wait; if there is none
    /// yet, each job tries to open it. All threads of a priority above `nice` go first, 0 being the usual.
    /// `chore` is looked after at the start and after every job.
    pub(super) fn start(
        name: &str,
        nice: i32,
        connection: Option<Connection>,
        open: Opening,
        waiting_max: usize,
        chore: Chore,
    ) -> Result<Self, ReadModelError> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(waiting_max);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            step_back(nice);
            work(&queue, connection, &open, chore);
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

/// Runs jobs until the queue is closed, and between them what is left of the chore.
fn work(queue: &mpsc::Receiver<Job>, mut connection: Option<Connection>, open: &Opening, mut chore: Chore) {
    let (mut is_left, mut jobs) = (true, 0);
    loop {
        let next = match is_left {
            true if jobs < JOBS_FIRST_MAX => queue.try_recv(),
            true => Err(mpsc::TryRecvError::Empty),
            false => queue.recv().map_err(|_| mpsc::TryRecvError::Disconnected),
        };
        match next {
            Ok(job) => {
                job(match &mut connection {
                    Some(connection) => Ok(connection),
                    none => open().map(|opened| none.insert(opened)),
                });
                (is_left, jobs) = (true, jobs + 1);
            }
            Err(mpsc::TryRecvError::Empty) => {
                (is_left, jobs) = (connection.as_mut().is_some_and(&mut chore), 0);
            }
            Err(mpsc::TryRecvError::Disconnected) => return,
        }
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
