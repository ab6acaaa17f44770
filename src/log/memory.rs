//! The log in memory: for tests. It keeps the contract of the port, and nothing over a restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dramatis_events::{Epoch, Position, Recorded, Revision, StreamId, UnixMillis};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::watch;

use super::{
    Append, AppendError, CommandOutcome, CommandRef, EventLog, Expected, Filter, Header, LogError, Page,
    ReadLimit,
};
use crate::clock::Clock;

/// What an append ends with all the same, after recording it where that is `true`.
pub type Failing = dyn Fn(&Append) -> Option<(bool, AppendError)> + Send + Sync;

/// A log that is gone with its process.
pub struct MemoryLog {
    clock: Arc<dyn Clock>,
    epoch: Epoch,
    failing: Option<Box<Failing>>,
    state: Mutex<State>,
    head: watch::Sender<Option<Position>>,
}

#[derive(Default)]
struct State {
    events: Vec<Arc<Recorded>>,
    streams: HashMap<StreamId, Vec<Arc<Recorded>>>,
    recorded_at: Option<UnixMillis>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let log = uuid::Uuid::new_v4().as_u64_pair().0;
        let (epoch, head) = (Epoch::first(log), watch::Sender::new(None));
        Self { clock, epoch, failing: None, state: Mutex::default(), head }
    }

    /// The same, of which some appends fail.
    #[must_use]
    pub fn failing(
        mut self,
        fails: impl Fn(&Append) -> Option<(bool, AppendError)> + Send + Sync + 'static,
    ) -> Self {
        self.failing = Some(Box::new(fails));
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, append: Append) -> Result<Vec<Arc<Recorded>>, AppendError> {
        append.check()?;
        let mut state = self.state();
        let actual = state.head_of(&append.stream);
        let stands = match append.expected {
            Expected::Any => true,
            expected => expected == Expected::after(actual),
        };
        if !stands {
            return Err(AppendError::Conflict { expected: append.expected, actual });
        }
        let now = self.clock.now();
        let recorded_at = state.recorded_at.map_or(now, |last| last.max(now));
        state.recorded_at = Some(recorded_at);
        let first = actual.map_or(Revision::FIRST, Revision::next).get();
        let mut recorded = Vec::with_capacity(append.envelopes.len());
        for (revision, envelope) in (first..).zip(append.envelopes) {
            let position = u64::try_from(state.events.len()).unwrap_or(u64::MAX);
            let event = Arc::new(Recorded {
                stream: append.stream.clone(),
                revision: Revision::new(revision),
                position: Position::from_engine(position),
                recorded_at,
                envelope,
            });
            state.events.push(event.clone());
            state.streams.entry(append.stream.clone()).or_default().push(event.clone());
            recorded.push(event);
        }
        self.head.send_replace(state.events.last().map(|event| event.position));
        Ok(recorded)
    }
}

impl State {
    fn head_of(&self, stream: &StreamId) -> Option<Revision> {
        self.streams.get(stream)?.last().map(|event| event.revision)
    }

    fn stream(&self, stream: &StreamId) -> &[Arc<Recorded>] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }
}

/// Takes events until one would pass the limit; the first always fits.
fn take<'a>(events: impl Iterator<Item = &'a Arc<Recorded>>, limit: ReadLimit) -> Vec<Arc<Recorded>> {
    let mut bytes = 0_usize;
    let mut taken = Vec::new();
    for event in events {
        bytes = bytes.saturating_add(event.envelope.data.len());
        if taken.len() >= limit.events.max(1) || (!taken.is_empty() && bytes > limit.bytes) {
            break;
        }
        taken.push(event.clone());
    }
    taken
}

impl EventLog for MemoryLog {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, AppendError>> {
        let fails = self.failing.as_ref().and_then(|fails| fails(&append));
        let appended = match fails {
            Some((false, error)) => Err(error),
            Some((true, error)) => self.append_now(append).and(Err(error)),
            None => self.append_now(append),
        };
        ready(appended).boxed()
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        from: Revision,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>> {
        let state = self.state();
        ready(Ok(take(state.stream(stream).iter().filter(|event| event.revision >= from), limit))).boxed()
    }

    fn read_stream_backwards(
        &self,
        stream: &StreamId,
        before: Option<Revision>,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>> {
        let state = self.state();
        let wanted = |event: &&Arc<Recorded>| before.is_none_or(|before| event.revision < before);
        ready(Ok(take(state.stream(stream).iter().rev().filter(wanted), limit))).boxed()
    }

    fn read_all(
        &self,
        after: Option<Position>,
        filter: Filter,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Page, LogError>> {
        let state = self.state();
        let end = state.events.last().map(|event| event.position);
        if let Some(asked) = after.filter(|after| Some(*after) > end) {
            return ready(Err(LogError::AheadOfLog { asked })).boxed();
        }
        let passing = state
            .events
            .iter()
            .filter(|event| Some(event.position) > after)
            .filter(|event| filter.passes(&Header::of(event)));
        let events = take(passing.clone(), limit);
        let all = passing.count() == events.len();
        let scanned = if all { end } else { events.last().map(|event| event.position) };
        ready(Ok(Page { events, scanned })).boxed()
    }

    fn stream_head(&self, stream: &StreamId) -> BoxFuture<'static, Result<Option<Revision>, LogError>> {
        ready(Ok(self.state().head_of(stream))).boxed()
    }

    fn find_command(
        &self,
        command: CommandRef,
    ) -> BoxFuture<'static, Result<Option<CommandOutcome>, LogError>> {
        let state = self.state();
        let events = state.events.iter().skip_while(|event| !command.is_of(event));
        let last = events.take_while(|event| command.is_of(event)).last();
        let outcome = last.and_then(|event| {
            let hash = event.envelope.command.as_ref()?.hash;
            Some(CommandOutcome { hash, revision: event.revision, position: event.position })
        });
        ready(Ok(outcome)).boxed()
    }

    fn head(&self) -> watch::Receiver<Option<Position>> {
        self.head.subscribe()
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn poisoned(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::log::contract;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn it_keeps_the_contract() {
        let clock = ManualClock::default();
        contract::run(Arc::new(MemoryLog::new(Arc::new(clock.clone()))), &clock).await;
    }
}
