//! Where events come from, page by page, and where they end: what a filter leaves out moves a reader on
//! all the same, so it is done once it has read past the last that it asked for.

use std::sync::Arc;

use dramatis_events::{Position, Recorded, Revision, StreamId, UnixMillis};

use super::Asked;
use crate::clock::{Clock as _, SystemClock};
use crate::log::{EventLog, Filter, LogError, ReadLimit, Tail};
use crate::protocol::ErrorCode;
use crate::web::api::times::recorded_at;

/// Events read at a time. Where a page cannot be read it may be its end alone: what lies before that is
/// read one by one.
const PAGE: ReadLimit = ReadLimit::events(1_024);
const ONE: ReadLimit = ReadLimit::events(1);

/// See the module.
pub(super) enum Source {
    /// The events of a room.
    Room(OfRoom),
    /// Those of the log.
    Log(OfLog),
}

/// A room's events from a revision on.
pub(super) struct OfRoom {
    log: Arc<dyn EventLog>,
    stream: StreamId,
    next: Revision,
    /// The last one asked for.
    last: Option<Revision>,
    follow: bool,
    before: Option<UnixMillis>,
}

/// The log's events past a position.
pub(super) struct OfLog {
    log: Arc<dyn EventLog>,
    pages: Pages,
    /// The last one asked for.
    last: Option<Position>,
    /// A time that may be still to come: the first event then recorded ends it.
    before: Option<UnixMillis>,
    done: bool,
}

enum Pages {
    UpToTheEnd { after: Option<Position>, filter: Filter },
    Followed(Tail),
}

impl Source {
    pub(super) async fn new(log: Arc<dyn EventLog>, asked: &Asked) -> Result<Self, (ErrorCode, String)> {
        let unavailable = |error: LogError| (ErrorCode::Unavailable, error.to_string());
        let before = asked.filter.recorded_before.filter(|_| asked.follow);
        if let Some(room) = &asked.room {
            let stream = StreamId::room(room);
            let head = log.stream_head(&stream).await.map_err(unavailable)?;
            if head.is_none() && !asked.follow {
                return Err((ErrorCode::NotFound, format!("there is no room {room}")));
            }
            let next = Revision::new(asked.from.unwrap_or(0));
            if let Some(head) = head.filter(|head| next > head.next()) {
                let why =
                    format!("from is past the room's end: the last revision of {room} is {}", head.get());
                return Err((ErrorCode::AheadOfLog, why));
            }
            let last = ends_at(!asked.follow, asked.to.map(Revision::new), head);
            return Ok(Self::Room(OfRoom { log, stream, next, last, follow: asked.follow, before }));
        }
        let filter = asked.filter.clone();
        let head = *log.head().borrow();
        // The position before `from`: reading goes on after it.
        let after = asked.from.and_then(|from| from.checked_sub(1)).map(Position::from_engine);
        if after > head {
            let end = head.map_or_else(|| "empty".to_owned(), |head| format!("at {head}"));
            return Err((ErrorCode::AheadOfLog, format!("from is past the log's end: the log is {end}")));
        }
        let is_over = is_over(&*log, before, head).await.map_err(unavailable)?;
        let no_more = is_over || !asked.follow;
        let last = ends_at(no_more, asked.to.map(Position::from_engine), head);
        let done = (no_more && head.is_none()) || last.is_some_and(|last| after >= Some(last));
        let pages = if asked.follow {
            Pages::Followed(Tail::new(log.clone(), after, filter))
        } else {
            Pages::UpToTheEnd { after, filter }
        };
        Ok(Self::Log(OfLog { log, pages, last, before, done }))
    }

    /// The next events, perhaps none; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Arc<Recorded>>>, LogError> {
        match self {
            Self::Room(room) => room.next().await,
            Self::Log(log) => log.next().await,
        }
    }
}

impl OfRoom {
    async fn next(&mut self) -> Result<Option<Vec<Arc<Recorded>>>, LogError> {
        let mut head = self.log.head();
        loop {
            if self.last.is_some_and(|last| self.next > last) {
                return Ok(None);
            }
            let reached = *head.borrow_and_update();
            let is_over = is_over(&*self.log, self.before, reached).await?;
            let page = match self.log.read_stream(&self.stream, self.next, PAGE).await {
                Err(_) => self.log.read_stream(&self.stream, self.next, ONE).await?,
                Ok(page) => page,
            };
            if let Some(last) = page.last() {
                self.next = last.revision.next();
                return Ok(Some(page));
            }
            if is_over || !self.follow || head.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl OfLog {
    async fn next(&mut self) -> Result<Option<Vec<Arc<Recorded>>>, LogError> {
        if self.done {
            return Ok(None);
        }
        let page = match &mut self.pages {
            Pages::Followed(tail) => tail.next(PAGE).await?,
            Pages::UpToTheEnd { after, filter } => {
                let page = match self.log.read_all(*after, filter.clone(), PAGE).await {
                    Err(_) => self.log.read_all(*after, filter.clone(), ONE).await?,
                    Ok(page) => page,
                };
                let moved = page.scanned > *after;
                *after = page.scanned;
                moved.then_some(page)
            }
        };
        let Some(page) = page else { return Ok(None) };
        self.done = self.last.is_some_and(|last| page.scanned >= Some(last))
            || is_past(&*self.log, self.before, page.scanned).await?;
        Ok(Some(page.events))
    }
}

/// The last one that is given: where no more is waited for, none that is recorded meanwhile, or who reads
/// slowly of a busy log would never be done.
fn ends_at<T: Ord>(no_more: bool, to: Option<T>, head: Option<T>) -> Option<T> {
    to.into_iter().chain(head.filter(|_| no_more)).min()
}

/// Whether nothing past this head can have been recorded before the time, by the clock or by the log:
/// its times never run backwards.
async fn is_over(
    log: &dyn EventLog,
    before: Option<UnixMillis>,
    head: Option<Position>,
) -> Result<bool, LogError> {
    let by_clock = before.is_some_and(|before| SystemClock.now() >= before);
    Ok(by_clock || is_past(log, before, head).await?)
}

/// Whether the event at this position was recorded at the time or after it.
async fn is_past(
    log: &dyn EventLog,
    before: Option<UnixMillis>,
    position: Option<Position>,
) -> Result<bool, LogError> {
    let (Some(before), Some(position)) = (before, position) else { return Ok(false) };
    Ok(recorded_at(log, position).await?.is_some_and(|time| time >= before))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::log::contract::{fill, stream};
    use crate::log::embedded::{EmbeddedLog, Options};

    #[tokio::test]
    async fn what_is_recorded_while_it_is_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let log =
            EmbeddedLog::open(dir.path(), Options::default(), Arc::new(ManualClock::default())).unwrap();
        let (log, room) = (Arc::new(log), stream("room-main.lobby"));
        let asked = |of: Option<&str>| Asked { room: of.map(|of| of.parse().unwrap()), ..Asked::default() };
        let mut of_nothing = Source::new(log.clone(), &asked(None)).await.unwrap();
        fill(&*log, &room, 1, "").await;
        assert!(of_nothing.next().await.unwrap().is_none());
        for of in [None, Some("lobby")] {
            let mut source = Source::new(log.clone(), &asked(of)).await.unwrap();
            let (mut pages, mut read) = (0, 0);
            while let Some(page) = source.next().await.unwrap() {
                (pages, read) = (pages + 1, read + page.len());
                assert!(pages < 9, "there is an end to it");
                fill(&*log, &room, 1, "").await;
            }
            assert!(read > 0);
        }
    }

    /// A page that ends in damage is not given as none.
    #[tokio::test]
    async fn what_lies_before_damage_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options { segment_bytes: 4 * 1024, live_bytes_max: 1, ..Options::default() };
        let open = || EmbeddedLog::open(dir.path(), options(), Arc::new(ManualClock::default())).unwrap();
        let (log, room) = (open(), stream("room-main.lobby"));
        fill(&log, &room, 60, &"x".repeat(200)).await;
        log.close();
        drop(log);
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|e| e == "segment")).collect();
        segments.sort();
        assert!(segments.len() > 2, "{segments:?}");
        let mut bytes = std::fs::read(&segments[1]).unwrap();
        bytes[2_000] ^= 1;
        std::fs::write(&segments[1], bytes).unwrap();
        let log = Arc::new(open());
        for of in [None, Some("lobby")] {
            let asked = Asked { room: of.map(|of| of.parse().unwrap()), ..Asked::default() };
            let mut source = Source::new(log.clone(), &asked).await.unwrap();
            let mut read = 0;
            let error = loop {
                match source.next().await {
                    Ok(page) => read += page.unwrap().len(),
                    Err(error) => break error,
                }
            };
            assert!(read > 10 && matches!(error, LogError::Damaged { .. }), "{of:?}: {read}, {error}");
        }
    }
}
