//! Reading a stream into decider state, from a snapshot on if there is one that fits.

use std::sync::Arc;
use std::time::Duration;

use dramatis_events::{Epoch, Event, Recorded, Revision, StreamId};

use crate::domain::{Decider, IllegalEvent};
use crate::log::{EventLog, LogError, ReadLimit};
use crate::protocol::ErrorCode;
use crate::snapshots::{Key, LastEvent, Snapshot, Snapshots};

/// A stream's state and where it stands.
pub(super) struct Loaded<D: Decider> {
    pub(super) state: D::State,
    pub(super) last: Option<LastEvent>,
    /// The epoch of the history that was folded.
    pub(super) epoch: Epoch,
    /// Events folded.
    pub(super) read: u64,
    pub(super) origin: Origin,
}

/// What the fold began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A snapshot of so many events, in so many bytes.
    Snapshot { events: u64, bytes: usize },
    /// The stream's start.
    Start,
    /// The stream's start, after a snapshot that did not fit it.
    UnfitSnapshot,
}

/// Why a stream gives no state.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("revision {revision} does not follow what came before it: {error}")]
    Illegal { revision: Revision, error: IllegalEvent },
}

impl LoadError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Log(LogError::Failure { .. }) => ErrorCode::Unavailable,
            Self::Log(_) | Self::Illegal { .. } => ErrorCode::Internal,
        }
    }
}

/// Events read at a time.
const PAGE: ReadLimit = ReadLimit::events(4_096);
/// How long a snapshot is waited for before the stream is read without it.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(2);

/// What a decider's snapshot of a stream is kept under.
pub(super) fn key<D: Decider>(stream: &StreamId, epoch: Epoch) -> Key {
    Key { stream: stream.clone(), decider: D::NAME, state_version: D::STATE_VERSION, epoch }
}

pub(super) async fn load<D: Decider>(
    log: Arc<dyn EventLog>,
    snapshots: Arc<dyn Snapshots>,
    stream: StreamId,
) -> Result<Loaded<D>, LoadError> {
    let epoch = log.epoch();
    let loading = snapshots.load(&key::<D>(&stream, epoch));
    let snapshot = actix_rt::time::timeout(SNAPSHOT_PATIENCE, loading).await.ok().flatten();
    let mut origin = Origin::Start;
    if let Some(snapshot) = snapshot {
        match Fold::<D>::go_on_from(&snapshot, &*log, &stream).await? {
            Ok(fold) => {
                let events = event_count(Some(snapshot.last));
                return Ok(fold.loaded(epoch, Origin::Snapshot { events, bytes: snapshot.state.len() }));
            }
            Err(reason) => {
                tracing::warn!(%stream, reason, "a snapshot does not fit its stream, which is read instead");
                origin = Origin::UnfitSnapshot;
            }
        }
    }
    let mut fold = Fold::<D> { state: D::State::default(), last: None, read: 0 };
    fold.read_on(&*log, &stream).await?;
    Ok(fold.loaded(epoch, origin))
}

/// How many events a stream has up to its last one.
pub(super) fn event_count(last: Option<LastEvent>) -> u64 {
    last.map_or(0, |last| last.revision.get().saturating_add(1))
}

struct Fold<D: Decider> {
    state: D::State,
    last: Option<LastEvent>,
    read: u64,
}

impl<D: Decider> Fold<D> {
    /// Folds what came after the snapshot, or says why the snapshot is not of this stream. Its
    /// last event must be in the log as the snapshot knows it: else the log was cut, whether or
    /// not its epoch tells.
    async fn go_on_from(
        snapshot: &Snapshot,
        log: &dyn EventLog,
        stream: &StreamId,
    ) -> Result<Result<Self, String>, LogError> {
        let state = match serde_json::from_slice(&snapshot.state) {
            Ok(state) => state,
            Err(error) => return Ok(Err(format!("its state does not parse: {error}"))),
        };
        let page = log.read_stream(stream, snapshot.last.revision, PAGE).await?;
        let after = match page.split_first() {
            Some((first, after)) if LastEvent::from(&**first) == snapshot.last => after,
            found => {
                let revision = snapshot.last.revision;
                let there = if found.is_some() { "another event is there" } else { "the log ends before it" };
                return Ok(Err(format!("it was made at revision {revision}, but {there}")));
            }
        };
        let mut fold = Self { state, last: Some(snapshot.last), read: 0 };
        let folded = match fold.fold(after) {
            Ok(()) => fold.read_on(log, stream).await,
            illegal => illegal,
        };
        match folded {
            Ok(()) => Ok(Ok(fold)),
            Err(LoadError::Log(error)) => Err(error),
            Err(illegal @ LoadError::Illegal { .. }) => Ok(Err(illegal.to_string())),
        }
    }

    /// Folds the stream to its end.
    async fn read_on(&mut self, log: &dyn EventLog, stream: &StreamId) -> Result<(), LoadError> {
        loop {
            let from = self.last.map_or(Revision::FIRST, |last| last.revision.next());
            let page = log.read_stream(stream, from, PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            self.fold(&page)?;
        }
    }

    fn fold(&mut self, page: &[Arc<Recorded>]) -> Result<(), LoadError> {
        for recorded in page {
            D::Event::from_envelope(&recorded.envelope)
                .map_err(IllegalEvent::from)
                .and_then(|event| D::evolve(&mut self.state, &event))
                .map_err(|error| LoadError::Illegal { revision: recorded.revision, error })?;
            self.last = Some(LastEvent::from(&**recorded));
            self.read += 1;
        }
        Ok(())
    }

    fn loaded(self, epoch: Epoch, origin: Origin) -> Loaded<D> {
        let Self { state, last, read } = self;
        Loaded { state, last, epoch, read, origin }
    }
}
