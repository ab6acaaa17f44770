//! A log whose reads take as long as the test wants: each waits to be let through twice, before
//! it looks and before it answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use dramatis_events::{Epoch, Position, Recorded, Revision, StreamId};
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use crate::clock::SystemClock;
use crate::log::memory::MemoryLog;
use crate::log::{
    Append, AppendError, CommandOutcome, CommandRef, EventLog, Filter, LogError, Page, ReadLimit,
};

/// See the module.
pub(in crate::actors::tests) struct ScriptedLog {
    log: Arc<MemoryLog>,
    gate: Arc<Gate>,
    /// What followers of the tail are told; gone once the log is closed.
    head: Mutex<Option<watch::Sender<Option<Position>>>>,
}

/// Holds up reads until they are let through.
pub(in crate::actors::tests) struct Gate {
    waiting: Mutex<VecDeque<oneshot::Sender<()>>>,
    open: Mutex<bool>,
    holds: Holds,
}

/// Where reads are held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::actors::tests) enum Holds {
    /// Before they look: what they find is newer than when they were asked.
    Before,
    /// Before they answer: what they found is older than when it comes.
    After,
    /// At both.
    Both,
}

impl Gate {
    async fn pass(&self, here: bool) {
        if !here || *self.open.lock().unwrap() {
            return;
        }
        let (let_through, passed) = oneshot::channel();
        self.waiting.lock().unwrap().push_back(let_through);
        let _ = passed.await;
    }

    /// How many reads are held up.
    pub(in crate::actors::tests) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().len()
    }

    /// Lets one of them through.
    pub(in crate::actors::tests) fn let_through(&self, index: usize) {
        let waiting = self.waiting.lock().unwrap().remove(index);
        let _ = waiting.unwrap().send(());
    }

    /// Holds up nothing any more.
    pub(in crate::actors::tests) fn open(&self) {
        *self.open.lock().unwrap() = true;
        for waiting in self.waiting.lock().unwrap().drain(..) {
            let _ = waiting.send(());
        }
    }
}

impl ScriptedLog {
    pub(in crate::actors::tests) fn new(holds: Holds) -> Self {
        let gate = Gate { waiting: Mutex::default(), open: Mutex::new(false), holds };
        Self {
            log: Arc::new(MemoryLog::new(Arc::new(SystemClock))),
            gate: Arc::new(gate),
            head: Mutex::new(Some(watch::Sender::new(None))),
        }
    }

    pub(in crate::actors::tests) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Ends those who follow the tail.
    pub(in crate::actors::tests) fn close(&self) {
        self.head.lock().unwrap().take();
    }

    fn held<T: Send + 'static>(
        &self,
        read: impl FnOnce(&MemoryLog) -> BoxFuture<'static, T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let (log, gate) = (self.log.clone(), self.gate.clone());
        Box::pin(async move {
            gate.pass(gate.holds != Holds::After).await;
            let read = read(&log).await;
            gate.pass(gate.holds != Holds::Before).await;
            read
        })
    }
}

type Events = Result<Vec<Arc<Recorded>>, LogError>;

impl EventLog for ScriptedLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, AppendError>> {
        // The log in memory appends at once.
        let appended = self.log.append(append);
        if let Some(head) = &*self.head.lock().unwrap() {
            head.send_replace(*self.log.head().borrow());
        }
        appended
    }

    fn read_stream(&self, stream: &StreamId, from: Revision, limit: ReadLimit) -> BoxFuture<'static, Events> {
        let stream = stream.clone();
        self.held(move |log| log.read_stream(&stream, from, limit))
    }

    fn read_stream_backwards(
        &self,
        stream: &StreamId,
        before: Option<Revision>,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Events> {
        let stream = stream.clone();
        self.held(move |log| log.read_stream_backwards(&stream, before, limit))
    }

    fn read_all(
        &self,
        after: Option<Position>,
        filter: Filter,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Page, LogError>> {
        self.held(move |log| log.read_all(after, filter, limit))
    }

    fn stream_head(&self, stream: &StreamId) -> BoxFuture<'static, Result<Option<Revision>, LogError>> {
        let stream = stream.clone();
        self.held(move |log| log.stream_head(&stream))
    }

    fn find_command(
        &self,
        command: CommandRef,
    ) -> BoxFuture<'static, Result<Option<CommandOutcome>, LogError>> {
        self.log.find_command(command)
    }

    fn head(&self) -> watch::Receiver<Option<Position>> {
        match &*self.head.lock().unwrap() {
            Some(head) => head.subscribe(),
            None => watch::Sender::new(None).subscribe(),
        }
    }

    fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    fn poisoned(&self) -> Option<String> {
        None
    }
}
