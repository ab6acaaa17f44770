//! What waits for the store's thread. Loads go first: an entity waits for them, for a save
//! nobody does. Loads are bounded by number, saves by bytes too; past that they are dropped. So is a
//! load that nobody waits for any more when its turn comes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::snapshots::{Key, Snapshot};

/// Snapshots that may wait to be loaded. Past that a stream is read sooner without its snapshot.
const LOADS_MAX: usize = 16_384;
/// Snapshots that may wait to be saved.
const SAVES_MAX: usize = 4_096;
/// Bytes of state that may wait to be saved, unless it is a single one.
const SAVE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Something to do. An answer that is dropped is a "no".
pub(super) enum Job {
    Load { key: Key, answer: oneshot::Sender<Option<Snapshot>> },
    Save { key: Key, snapshot: Snapshot, answer: oneshot::Sender<bool> },
}

impl Job {
    fn is_awaited(&self) -> bool {
        match self {
            Self::Load { answer, .. } => !answer.is_closed(),
            Self::Save { .. } => true,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    added: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// One for each entity that is being loaded.
    loads: VecDeque<Job>,
    saves: VecDeque<Job>,
    save_bytes: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn add(&self, job: Job) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        match &job {
            Job::Load { .. } if waiting.loads.len() >= LOADS_MAX => return,
            Job::Load { .. } => waiting.loads.push_back(job),
            Job::Save { snapshot, .. } => {
                let bytes = waiting.save_bytes.saturating_add(snapshot.state.len());
                let fits = waiting.saves.len() < SAVES_MAX && bytes <= SAVE_BYTES_MAX;
                if !fits && !waiting.saves.is_empty() {
                    return;
                }
                waiting.save_bytes = bytes;
                waiting.saves.push_back(job);
            }
        }
        drop(waiting);
        self.added.notify_one();
    }

    /// The next job; `None` once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            while let Some(load) = waiting.loads.pop_front() {
                if load.is_awaited() {
                    return Some(load);
                }
            }
            if let Some(save) = waiting.saves.pop_front() {
                if let Job::Save { snapshot, .. } = &save {
                    waiting.save_bytes = waiting.save_bytes.saturating_sub(snapshot.state.len());
                }
                return Some(save);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.added.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes nothing more. What waits is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.added.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::contract::{key, snapshot};

    fn save(queue: &Queue, bytes: usize) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        queue.add(Job::Save { key: key("room-main.a"), snapshot: snapshot(0, &vec![0; bytes]), answer });
        answered
    }

    fn load(queue: &Queue, stream: &str) -> oneshot::Receiver<Option<Snapshot>> {
        let (answer, answered) = oneshot::channel();
        queue.add(Job::Load { key: key(stream), answer });
        answered
    }

    #[test]
    fn loads_are_bounded_and_those_that_nobody_waits_for_are_left_out() {
        let queue = Queue::default();
        let mut waiting: Vec<_> = (0..LOADS_MAX).map(|_| load(&queue, "room-main.a")).collect();
        let last = waiting.pop();
        assert!(
            load(&queue, "room-main.b").try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        drop(waiting);
        assert!(matches!(queue.next(), Some(Job::Load { answer, .. }) if !answer.is_closed()));
        drop(last);
        let _awaited = load(&queue, "room-main.b");
        assert!(matches!(queue.next(), Some(Job::Load { key, .. }) if key.stream.id() == "b"));
        queue.close();
        assert!(queue.next().is_none());
    }

    #[test]
    fn loads_go_first_and_saves_are_bounded() {
        let queue = Queue::default();
        let _kept: Vec<_> = (0..SAVES_MAX).map(|_| save(&queue, 1)).collect();
        assert!(save(&queue, 1).try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
        let _awaited = load(&queue, "room-main.a");
        assert!(matches!(queue.next(), Some(Job::Load { .. })));
        assert!(matches!(queue.next(), Some(Job::Save { .. })));
        assert!(save(&queue, 1).try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn saves_are_bounded_by_bytes_but_for_a_single_one() {
        let queue = Queue::default();
        let _kept = save(&queue, SAVE_BYTES_MAX + 1);
        assert!(save(&queue, 1).try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
        queue.close();
        assert!(matches!(queue.next(), Some(Job::Save { .. })), "what waits is still handed out");
        assert!(queue.next().is_none());
        assert!(save(&queue, 1).try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
    }
}
