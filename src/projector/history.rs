//! Documents as they were, and the events that made them what they are: for keys whose
//! projection says which streams feed them.

use std::sync::Arc;

use dramatis_events::{Position, Recorded, Revision, StreamId, UnixMillis};
use dramatis_projections::{DeadLetter, DynProjection, FoldError, Skipped};

use super::record::Ledger;
use super::run::RunError;
use super::{AdminError, Shared};
use crate::log::{LogError, ReadLimit};
use crate::read_models::ReadModelError;
use crate::read_models::queries::of_live;
use crate::read_models::queries::pages::fitting;

/// The most events read to fold one document, and to tell at once of those that changed it: a build as of a
/// position reads more.
pub(super) const EVENTS_MAX: u64 = 2_000_000;
/// The most events that changed one document held at once.
const EVENTS_HELD_MAX: usize = 200_000;
/// The most bytes of their data.
const BYTES_HELD_MAX: usize = 64 * 1024 * 1024;

/// The most bytes of data of the events that are told of at once, but for a single one.
const BYTES_TOLD_MAX: usize = 4 * 1024 * 1024;

/// As of when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// With every event up to this position, that one included.
    Position(Position),
    /// With every event recorded up to this time.
    Time(UnixMillis),
}

impl AsOf {
    fn has(self, event: &Recorded) -> bool {
        match self {
            Self::Position(position) => event.position <= position,
            Self::Time(time) => event.recorded_at <= time,
        }
    }
}

/// A document as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Canonical JSON; `None` if there was none.
    pub body: Option<String>,
    /// The event that had changed it last.
    pub position: Option<Position>,
    /// Why later events are not in it, if its key or its whole stream was parked.
    pub parked: Option<DeadLetter>,
}

/// An event that changed a document.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The event.
    pub recorded: Arc<Recorded>,
    /// Whether an admin let it pass, so that it changed nothing.
    pub skipped: bool,
    /// Why it cannot be read, if it cannot: it parked its whole stream.
    pub unreadable: Option<String>,
}

/// Some of the events that changed a document.
#[derive(Debug, Clone)]
pub struct Causes {
    /// The events, in log order.
    pub events: Vec<Cause>,
    /// The position past which to go on; `None` if there are no more.
    pub next: Option<Position>,
}

/// The document of a key as of a position or time.
pub(super) async fn past(
    shared: &Shared,
    projection: &'static dyn DynProjection,
    key: &str,
    as_of: AsOf,
) -> Result<Past, AdminError> {
    let causes = causes(shared, projection, key, as_of).await?;
    let skipped = skipped(shared, projection).await?;
    let only = key.to_owned();
    // It may take a while, and who asks may be on a thread that others wait for.
    let folded = tokio::task::spawn_blocking(move || {
        let events: Vec<_> = causes.into_iter().map(|cause| cause.recorded).collect();
        let folded = |each: bool| {
            let mut fold = projection.start(usize::MAX);
            fold.only(&only);
            fold.skip(skipped.clone());
            fold.check_each(each);
            fold.begin(&events);
            fold.finish()
        };
        match folded(false) {
            Err(FoldError::Unwritable { .. }) => folded(true),
            folded => folded,
        }
    });
    let broke = |error: tokio::task::JoinError| ReadModelError::Failure { reason: error.to_string() };
    let folded = folded.await.map_err(|error| RunError::Store(broke(error)))?.map_err(RunError::Document)?;
    let mut past = Past { parked: folded.parked.into_iter().next(), ..Past::default() };
    if let Some(write) = folded.writes.into_iter().find(|write| write.key == key) {
        (past.body, past.position) = (write.body, Some(write.position));
    }
    Ok(past)
}

/// All events that had changed the document of a key by then, in log order.
async fn causes(
    shared: &Shared,
    projection: &'static dyn DynProjection,
    key: &str,
    as_of: AsOf,
) -> Result<Vec<Cause>, AdminError> {
    let streams = projection.streams_of(key);
    if streams.is_empty() {
        return Err(AdminError::WholeLog { projection: projection.name(), key: key.to_owned() });
    }
    let skipped = skipped(shared, projection).await?;
    let (mut causes, mut read, mut bytes) = (Vec::new(), 0_u64, 0_usize);
    for stream in streams {
        let mut from = Revision::FIRST;
        loop {
            let page = shared.log.read_stream(&stream, from, shared.options.page).await;
            let page = page.map_err(RunError::Log)?;
            let Some(last) = page.last() else { break };
            from = last.revision.next();
            read += u64::try_from(page.len()).unwrap_or(u64::MAX);
            let past_it = !as_of.has(last);
            let within = page.into_iter().filter(|event| as_of.has(event));
            for cause in within.filter_map(|event| cause(projection, key, event, &skipped)) {
                bytes = bytes.saturating_add(cause.recorded.envelope.data.len());
                causes.push(cause);
            }
            if causes.len() > EVENTS_HELD_MAX || bytes > BYTES_HELD_MAX || read > EVENTS_MAX {
                return Err(AdminError::TooMuch { key: key.to_owned(), projection: projection.name() });
            }
            if past_it {
                break;
            }
        }
    }
    causes.sort_by_key(|cause| cause.recorded.position);
    Ok(causes)
}

/// Which of the events that changed a document are asked for.
pub(super) struct Asked<'a> {
    pub(super) key: &'a str,
    /// Only events past this position.
    pub(super) after: Option<Position>,
    /// How many at the most.
    pub(super) limit: usize,
    /// How many events of a stream are read at the most, but for the rest of a page.
    pub(super) events_max: u64,
}

/// Of the events that changed the document of a key those asked for, in log order, and where to go on. Those
/// of a long history are not all told at once, and there may be none where there are more.
pub(super) async fn causes_past(
    shared: &Shared,
    projection: &'static dyn DynProjection,
    asked: Asked<'_>,
) -> Result<Causes, AdminError> {
    let Asked { key, after, limit, events_max } = asked;
    let streams = projection.streams_of(key);
    if streams.is_empty() {
        return Err(AdminError::WholeLog { projection: projection.name(), key: key.to_owned() });
    }
    let skipped = skipped(shared, projection).await?;
    let (mut causes, mut read_to) = (Vec::new(), None);
    for stream in streams {
        let first = first_of(shared, projection, key, &stream, &skipped).await?;
        let past = revision_past(shared, &stream, after).await.map_err(RunError::Log)?;
        let (mut from, mut read, mut bytes) = (past.max(first), 0_u64, 0);
        // One more than is told of tells that there are more.
        let enough = causes.len().saturating_add(limit);
        while causes.len() <= enough && bytes <= BYTES_TOLD_MAX {
            let page = shared.log.read_stream(&stream, from, shared.options.page).await;
            let page = page.map_err(RunError::Log)?;
            let Some(last) = page.last() else { break };
            let position = last.position;
            from = last.revision.next();
            read += u64::try_from(page.len()).unwrap_or(u64::MAX);
            for cause in page.into_iter().filter_map(|event| cause(projection, key, event, &skipped)) {
                bytes += cause.recorded.envelope.data.len();
                causes.push(cause);
            }
            if read >= events_max {
                read_to = read_to.map_or(Some(position), |read_to: Position| Some(read_to.min(position)));
                break;
            }
        }
    }
    causes.sort_by_key(|cause| cause.recorded.position);
    // Past there some may lack.
    causes.retain(|cause| read_to.is_none_or(|read_to| cause.recorded.position <= read_to));
    let lengths = causes.iter().take(limit).map(|cause| cause.recorded.envelope.data.len());
    let told = fitting(lengths, BYTES_TOLD_MAX);
    let is_all = told == causes.len();
    causes.truncate(told);
    let next = if is_all { read_to } else { causes.last().map(|cause| cause.recorded.position) };
    Ok(Causes { events: causes, next })
}

/// The revision before which no event of a stream concerns the document of a key. What cannot be read concerns all
/// of the stream, wherever it stands.
async fn first_of(
    shared: &Shared,
    projection: &dyn DynProjection,
    key: &str,
    stream: &StreamId,
    skipped: &[Skipped],
) -> Result<Revision, AdminError> {
    let store = shared.store.as_ref();
    let parked = of_live(store, projection.name(), |build| store.dead_letters(build)).await;
    let parked = parked.map_err(RunError::Store)?.unwrap_or_default();
    let mut held_up =
        parked.iter().map(|letter| &letter.key).chain(skipped.iter().map(|skipped| &skipped.key));
    let is_held_up = held_up.any(|key| key == stream.as_str());
    Ok(if is_held_up { Revision::FIRST } else { projection.first_of(key) })
}

/// The revision of a stream's first event past a position, found by halving.
async fn revision_past(
    shared: &Shared,
    stream: &StreamId,
    after: Option<Position>,
) -> Result<Revision, LogError> {
    let head = shared.log.stream_head(stream).await?;
    let (Some(after), Some(head)) = (after, head) else { return Ok(Revision::FIRST) };
    let (mut low, mut high) = (Revision::FIRST.get(), head.next().get());
    while low < high {
        let middle = low + (high - low) / 2;
        let found = shared.log.read_stream(stream, Revision::new(middle), ReadLimit::events(1)).await?;
        match found.first() {
            Some(event) if event.position <= after => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(Revision::new(low))
}

fn cause(
    projection: &dyn DynProjection,
    key: &str,
    recorded: Arc<Recorded>,
    skipped: &[Skipped],
) -> Option<Cause> {
    let of = |key: &str| Skipped { key: key.to_owned(), position: recorded.position };
    match projection.keys_of(&recorded) {
        Ok(keys) if keys.iter().any(|changed| changed == key) => {
            let skipped = skipped.contains(&of(key));
            Some(Cause { recorded, skipped, unreadable: None })
        }
        Ok(_) => None,
        Err(error) => {
            let skipped = skipped.contains(&of(recorded.stream.as_str()));
            Some(Cause { recorded, skipped, unreadable: Some(error.to_string()) })
        }
    }
}

async fn skipped(shared: &Shared, projection: &dyn DynProjection) -> Result<Vec<Skipped>, AdminError> {
    let record = Ledger::new(shared.store.clone(), projection.name()).read().await;
    let record = record.map_err(RunError::Store)?;
    let ours = record.skipped_in == Some(shared.log.epoch());
    Ok(if ours { record.skipped } else { Vec::new() })
}
