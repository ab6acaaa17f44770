//! From where a client follows a stream: one consistent cut of each, asked of its entity.
//!
//! The entity tells at one revision who may read and what the state is; the log tells from
//! there on. So head, right, state and what follows fit together, whatever happens meanwhile.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dramatis_events::room::RoomEvent;
use dramatis_events::{EntityId, Epoch, Event, EventName, MemberId, Recorded, Revision, StreamId};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::actors::Stage;
use crate::actors::answer::Refused;
use crate::actors::rights::Rights;
use crate::domain::room::Reading;
use crate::log::{EventLog, LogError, ReadLimit};
use crate::protocol::{CatchUp, ErrorCode, Followed, How, RoomCursor, RoomEntry, UNREAD_EVENTS_MAX, Wanted};

/// Without a cursor a client gets so many of a room's last events. One that is no further behind
/// gets the events although it asked for the state.
pub(super) const LATEST_EVENTS: u64 = 50;
/// Events that an entity may be behind its log, one batch of the largest, and some.
const BEHIND: ReadLimit = ReadLimit::events(8_192);
/// Streams of one hello that are asked for at a time.
const ASKED_AT_ONCE: usize = 64;

/// A stream's entry in the answer, and where it is followed from, unless it was denied.
pub(super) struct Taken {
    pub(super) entry: RoomEntry,
    pub(super) place: Option<Place>,
}

/// Where a stream is followed from.
pub(super) struct Place {
    pub(super) stream: StreamId,
    pub(super) next: Revision,
    pub(super) rights: Rights,
    /// Whether its state comes first.
    pub(super) wants_state: bool,
}

/// What becomes of one entry of a hello.
enum Entered {
    /// It is not asked for.
    Denied(Taken),
    /// It is as this question is answered.
    Asked(usize),
}

/// Takes those cursors of a hello that its client may have, of which so many may be followed. What is
/// denied takes up no place, what is named twice one, and what is said twice is asked for once. A hello waits for answers as long
/// as it was waited for: others come after it, and one file that does not answer keeps none of them out.
pub(super) async fn take_all(
    stage: &Stage,
    user: &MemberId,
    wanted: Vec<Wanted>,
    may_have: impl Fn(&Followed) -> bool,
    max: usize,
) -> Result<Vec<Taken>, LogError> {
    let until = Instant::now() + Duration::from_millis(stage.limits.hello_timeout_ms);
    let epoch = stage.log.epoch();
    let (entered, questions) = sift(wanted, may_have, stage.limits.rooms_per_session_max, epoch);
    let rooms = questions.iter().filter_map(|cursor| cursor.room.room().cloned());
    // Without it the client counts for itself.
    let seen = &timeout_at(until, seen(stage, user, rooms)).await.unwrap_or_else(|_| Ok(HashMap::new()))?;
    let followed = &RefCell::new(HashSet::<Followed>::new());
    let is_full = &|room: &Followed| {
        let followed = followed.borrow();
        followed.len() >= max && !followed.contains(room)
    };
    let taking = questions.into_iter().map(|cursor| async move {
        let room = cursor.room.to_string();
        if is_full(&cursor.room) {
            return Ok(denied(room, epoch, &Stands::default(), Denied(ErrorCode::RateLimited)));
        }
        let taken = timeout_at(until, take(stage, user, cursor, seen)).await;
        taken.unwrap_or_else(|_| Ok(denied(room, epoch, &Stands::default(), Denied(ErrorCode::Unavailable))))
    });
    let mut taking = futures_util::stream::iter(taking).buffered(ASKED_AT_ONCE);
    let mut answers = Vec::new();
    while let Some(taken) = taking.next().await {
        let mut taken = taken?;
        if let Some(room) = taken.place.as_ref().map(|place| Followed::of(&place.stream)) {
            // It was asked for while there was a place, with those that have them all now.
            if is_full(&room) {
                let room = taken.entry.room;
                taken = denied(room, epoch, &Stands::default(), Denied(ErrorCode::RateLimited));
            } else {
                followed.borrow_mut().insert(room);
            }
        }
        answers.push(taken);
    }
    let answered = entered.into_iter().filter_map(|entered| match entered {
        Entered::Denied(taken) => Some(taken),
        Entered::Asked(question) => {
            let answer = answers.get_mut(question)?;
            Some(Taken { entry: answer.entry.clone(), place: answer.place.take() })
        }
    });
    Ok(answered.collect())
}

/// What of a hello is to be asked, and what then becomes of each of its entries: no more is asked than a
/// connection may follow, whatever the answers are.
fn sift(
    wanted: Vec<Wanted>,
    may_have: impl Fn(&Followed) -> bool,
    asked_max: usize,
    epoch: Epoch,
) -> (Vec<Entered>, Vec<RoomCursor>) {
    let (mut asked, mut questions) = (HashMap::new(), Vec::new());
    let deny = |room, code| Entered::Denied(denied(room, epoch, &Stands::default(), Denied(code)));
    let entered = wanted.into_iter().map(|wanted| match wanted {
        Wanted::Malformed(room) => deny(room, ErrorCode::Malformed),
        Wanted::Cursor(cursor) if !may_have(&cursor.room) => {
            deny(cursor.room.to_string(), ErrorCode::Forbidden)
        }
        Wanted::Cursor(cursor) => match asked.get(&cursor) {
            Some(question) => Entered::Asked(*question),
            None if questions.len() >= asked_max => deny(cursor.room.to_string(), ErrorCode::RateLimited),
            None => {
                asked.insert(cursor.clone(), questions.len());
                questions.push(cursor);
                Entered::Asked(questions.len() - 1)
            }
        },
    });
    (entered.collect(), questions)
}

/// Takes one cursor.
pub(super) async fn take_one(stage: &Stage, user: &MemberId, cursor: RoomCursor) -> Result<Taken, LogError> {
    let seen = seen(stage, user, cursor.room.room().cloned()).await?;
    take(stage, user, cursor, &seen).await
}

/// How far the user has read in these rooms, where that is known.
async fn seen(
    stage: &Stage,
    user: &MemberId,
    rooms: impl IntoIterator<Item = EntityId>,
) -> Result<HashMap<EntityId, Revision>, LogError> {
    let rooms: Vec<EntityId> = rooms.into_iter().collect();
    let (Some(person), false) = (user.user(), rooms.is_empty()) else { return Ok(HashMap::new()) };
    // Before the question: what is recorded meanwhile is in its answer.
    let waiting = stage.read_markers.waiting(&person);
    let mut seen = recorded(stage, &StreamId::user(&person), rooms).await?;
    for (room, revision) in waiting {
        let known = seen.entry(room).or_insert(revision);
        *known = revision.max(*known);
    }
    Ok(seen)
}

/// The same, as far as it is recorded.
async fn recorded(
    stage: &Stage,
    stream: &StreamId,
    rooms: Vec<EntityId>,
) -> Result<HashMap<EntityId, Revision>, LogError> {
    if stage.log.stream_head(stream).await?.is_none() {
        return Ok(HashMap::new());
    }
    let known = stage.users.ask(stream, move |standing| {
        let known = |room: EntityId| Some((room.clone(), standing.state.read_marker(&room)?));
        rooms.into_iter().filter_map(known).collect()
    });
    // Without it the client counts for itself.
    Ok(known.await.unwrap_or_default())
}

/// Where a stream stands, and what this reader may do with it.
#[derive(Default)]
struct Stands {
    head: Option<Revision>,
    /// The right to read, and the revision it was asked at; none for one's own stream.
    reading: Option<(Reading, Revision)>,
}

/// Asks who may read a room, at its head, and whether the state of one's own stream is to be had, if that is
/// wanted.
async fn stands(
    stage: &Stage,
    user: &MemberId,
    cursor: &RoomCursor,
) -> Result<Result<(StreamId, Stands), ErrorCode>, LogError> {
    let Some(stream) = cursor.room.stream(user) else { return Ok(Err(ErrorCode::NotFound)) };
    let logged = stage.log.stream_head(&stream).await?;
    if matches!(cursor.room, Followed::Me) {
        if logged.is_some()
            && cursor.catch_up == CatchUp::State
            && let Err(refused) = stage.users.ask(&stream, |_| ()).await
        {
            return Ok(Err(refused.code));
        }
        return Ok(Ok((stream, Stands { head: logged, reading: None })));
    }
    if logged.is_none() {
        return Ok(Err(ErrorCode::NotFound));
    }
    match reading(stage, &stream, user).await {
        Err(refused) => Ok(Err(refused.code)),
        Ok(None) => Ok(Err(ErrorCode::NotFound)),
        Ok(Some(known)) => {
            let (reading, at) = if cursor.after > Some(known.1) {
                read_on(stage, &stream, user, known).await?
            } else {
                known
            };
            if !reading.may_read() {
                return Ok(Err(unreadable(reading)));
            }
            Ok(Ok((stream, Stands { head: Some(at), reading: Some((reading, at)) })))
        }
    }
}

/// Reads on from where an entity stands: it is behind the log by what it has just appended, and a
/// client may have that already.
pub(super) async fn read_on(
    stage: &Stage,
    stream: &StreamId,
    user: &MemberId,
    (mut reading, mut at): (Reading, Revision),
) -> Result<(Reading, Revision), LogError> {
    for event in stage.log.read_stream(stream, at.next(), BEHIND).await? {
        if let Ok(what) = RoomEvent::from_envelope(&event.envelope) {
            reading = reading.after(&what, user);
        }
        at = event.revision;
    }
    Ok((reading, at))
}

/// How this one stands to the reading of a room, and at which revision.
pub(crate) async fn reading(
    stage: &Stage,
    stream: &StreamId,
    user: &MemberId,
) -> Result<Option<(Reading, Revision)>, Refused> {
    let user = user.clone();
    stage.rooms.ask(stream, move |standing| standing.state.reading(&user).zip(standing.head)).await
}

/// Why this one may not read.
pub(crate) fn unreadable(reading: Reading) -> ErrorCode {
    if reading.is_removed { ErrorCode::Forbidden } else { ErrorCode::NotAMember }
}

async fn take(
    stage: &Stage,
    user: &MemberId,
    cursor: RoomCursor,
    seen: &HashMap<EntityId, Revision>,
) -> Result<Taken, LogError> {
    let epoch = stage.log.epoch();
    let (stream, stands) = match stands(stage, user, &cursor).await? {
        Ok(stands) => stands,
        Err(code) => return Ok(denied(cursor.room.to_string(), epoch, &Stands::default(), Denied(code))),
    };
    let start = match start(&cursor, stands.head, epoch) {
        Ok(start) => start,
        Err(code) => return Ok(denied(cursor.room.to_string(), epoch, &stands, Denied(code))),
    };
    let seen = cursor.room.room().and_then(|room| seen.get(room)).copied();
    let unread = match (seen, stands.head) {
        (Some(seen), Some(head)) => Some(unread(&*stage.log, &stream, user, seen, head).await?),
        _ => None,
    };
    let entry = RoomEntry {
        room: cursor.room.to_string(),
        epoch,
        head: stands.head,
        how: start.how,
        after: start.next.get().checked_sub(1).filter(|_| !start.wants_state).map(Revision::new),
        seen,
        unread: unread.map(|unread| unread.count),
        unread_more: unread.is_some_and(|unread| unread.more),
        code: None,
    };
    let rights = stands.reading.map_or_else(Rights::default, |(reading, at)| Rights::at(reading, at));
    Ok(Taken {
        entry,
        place: Some(Place { stream, next: start.next, rights, wants_state: start.wants_state }),
    })
}

struct Denied(ErrorCode);

fn denied(room: String, epoch: Epoch, stands: &Stands, Denied(code): Denied) -> Taken {
    let (head, code) = (stands.head, Some(code));
    let entry = RoomEntry {
        room,
        epoch,
        head,
        how: How::Denied,
        after: None,
        seen: None,
        unread: None,
        unread_more: false,
        code,
    };
    Taken { entry, place: None }
}

#[derive(Debug, PartialEq, Eq)]
struct Start {
    how: How,
    next: Revision,
    wants_state: bool,
}

/// From where a stream is followed.
fn start(cursor: &RoomCursor, head: Option<Revision>, epoch: Epoch) -> Result<Start, ErrorCode> {
    let end = head.map_or(Revision::FIRST, Revision::next);
    let latest = Revision::new(end.get().saturating_sub(LATEST_EVENTS));
    let is_of_now = cursor.epoch.is_none_or(|known| known == epoch);
    let after = cursor.after.filter(|_| is_of_now);
    if after > head {
        return Err(ErrorCode::AheadOfLog);
    }
    let wants_state = cursor.catch_up == CatchUp::State
        && head.is_some()
        && after.is_none_or(|after| after.next() < latest);
    // A state stands in place of all that the client holds, of whichever epoch that is.
    let how = match (wants_state, is_of_now) {
        (true, _) => How::State,
        (false, true) => How::Events,
        (false, false) => How::Reset,
    };
    let begin = if cursor.from_first && is_of_now { Revision::FIRST } else { latest };
    let next = if wants_state { end } else { after.map_or(begin, Revision::next) };
    Ok(Start { how, next, wants_state })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unread {
    count: u32,
    more: bool,
}

/// Messages of others past what was read. Only a room's last events are looked through: a count
/// of hundreds says no more than that it is many.
async fn unread(
    log: &dyn EventLog,
    stream: &StreamId,
    user: &MemberId,
    seen: Revision,
    head: Revision,
) -> Result<Unread, LogError> {
    let behind = usize::try_from(head.get().saturating_sub(seen.get())).unwrap_or(usize::MAX);
    if behind == 0 {
        return Ok(Unread { count: 0, more: false });
    }
    let limit = ReadLimit::events(behind.min(UNREAD_EVENTS_MAX));
    let events = log.read_stream_backwards(stream, Some(head.next()), limit).await?;
    let is_unread = |event: &&Arc<Recorded>| {
        event.revision > seen && event.envelope.author != *user && is_message(&event.envelope.name)
    };
    let count = u32::try_from(events.iter().filter(is_unread).count()).unwrap_or(u32::MAX);
    Ok(Unread { count, more: events.len() < behind })
}

fn is_message(name: &EventName) -> bool {
    debug_assert!(RoomEvent::NAMES.iter().any(|(name, _)| *name == MESSAGE));
    name.as_str() == MESSAGE
}

/// The event by which a room holds something to read.
const MESSAGE: &str = "MessagePosted";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_taken_by_epoch_and_head() {
        let epoch = Epoch::first(1);
        let cursor = |after: Option<u64>, epoch: Option<Epoch>, catch_up: &str| -> RoomCursor {
            let json = serde_json::json!({"room": "r", "after": after, "epoch": epoch, "catch_up": catch_up});
            serde_json::from_value(json).unwrap()
        };
        let head = Some(Revision::new(99));
        let events = |how, next| Ok(Start { how, next: Revision::new(next), wants_state: false });
        let state = || Ok(Start { how: How::State, next: Revision::new(100), wants_state: true });
        for (after, of, how, head, want) in [
            (None, None, "events", None, events(How::Events, 0)),
            (None, None, "state", None, events(How::Events, 0)),
            (Some(0), None, "events", None, Err(ErrorCode::AheadOfLog)),
            (None, None, "events", head, events(How::Events, 50)),
            (Some(10), Some(epoch), "events", head, events(How::Events, 11)),
            (Some(99), Some(epoch), "events", head, events(How::Events, 100)),
            (Some(100), Some(epoch), "events", head, Err(ErrorCode::AheadOfLog)),
            (Some(100), Some(epoch.raised()), "events", head, events(How::Reset, 50)),
            (None, None, "state", head, state()),
            (Some(48), Some(epoch), "state", head, state()),
            (Some(49), Some(epoch), "state", head, events(How::Events, 50)),
            (Some(99), Some(epoch), "state", head, events(How::Events, 100)),
            (Some(500), Some(epoch.raised()), "state", head, state()),
        ] {
            assert_eq!(start(&cursor(after, of, how), head, epoch), want, "{after:?} {of:?} {how}");
        }
        let first = |of| RoomCursor { from_first: true, ..cursor(None, Some(of), "events") };
        assert_eq!(start(&first(epoch), head, epoch), events(How::Events, 0));
        assert_eq!(start(&first(epoch.raised()), head, epoch), events(How::Reset, 50));
    }
}
