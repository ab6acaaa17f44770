//! Reading what a client is behind from the log, a page at a time and only while there is
//! room in its outbox, until the hub can take over.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use actix_rt::time::sleep;
use dramatis_events::user::UserEvent;
use dramatis_events::{Event, MemberId, Recorded, Revision};
use serde_json::value::RawValue;

use super::{Session, presented};
use crate::actors::Stage;
use crate::actors::answer::Refused;
use crate::actors::hub::{Follow, Rooms, joined};
use crate::actors::outbox::Outbox;
use crate::actors::rights::Changes;
use crate::log::{LogError, ReadLimit};
use crate::protocol::{CloseCode, EventFrame, Followed, Live, RoomState, ServerMessage};

/// Events read at a time.
const PAGE_EVENTS: usize = 256;
/// Events sent with a state, at the most.
const STATE_EVENTS: usize = 50;
/// A state that could not be had, since too much waits at its entity, is asked for again after this.
const STATE_AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Session {
    /// Catches up on every room that is not live. One run at a time serves all of them.
    pub(super) fn catch_up(&mut self, ctx: &mut Context<Self>) {
        self.drop_ended();
        if self.catching_up || self.outbox.is_closing() {
            return;
        }
        let behind: Vec<_> = self.follows.iter().filter(|follow| !follow.is_live()).cloned().collect();
        if behind.is_empty() {
            return;
        }
        self.catching_up = true;
        let running = run(self.stage.clone(), self.rooms.clone(), self.outbox.clone(), behind);
        ctx.spawn(running.into_actor(self).map(|result, session, ctx| {
            session.catching_up = false;
            match result {
                // Those that are not live yet, and what has fallen behind meanwhile, have their next turn.
                Ok(()) => session.catch_up(ctx),
                Err(error) => {
                    tracing::error!(%error, "a client's history cannot be read");
                    session.outbox.close(CloseCode::Internal);
                }
            }
        }));
    }
}

/// One turn of each: a room in which so much is said that a slow client never comes to its end
/// keeps it from no other.
async fn run(
    stage: Arc<Stage>,
    rooms: Rc<Rooms>,
    outbox: Rc<Outbox>,
    behind: Vec<Rc<Follow>>,
) -> Result<(), LogError> {
    for follow in &behind {
        read_on(&stage, &rooms, &outbox, follow).await?;
    }
    if behind.iter().any(|follow| follow.wants_state.get() && !follow.is_gone()) {
        sleep(STATE_AGAIN_AFTER).await;
    }
    Ok(())
}

/// Sends one page; a room of which there is none left turns live.
async fn read_on(stage: &Stage, rooms: &Rooms, outbox: &Outbox, follow: &Follow) -> Result<(), LogError> {
    if !outbox.has_room().await || follow.is_gone() {
        return Ok(());
    }
    if follow.wants_state.get() && !show(stage, outbox, follow).await? {
        return Ok(());
    }
    follow.wants_state.set(false);
    if follow.is_gone() || follow.rights.have_ended() {
        return Ok(());
    }
    let page = stage.log.read_stream(&follow.stream, follow.next.get(), page_limit(outbox)).await?;
    if !follow.is_gone() && !push(outbox, follow, &page) && rooms.try_live(follow) {
        announce(outbox, follow);
    }
    Ok(())
}

/// How much is read at a time: what there is room for.
fn page_limit(outbox: &Outbox) -> ReadLimit {
    ReadLimit { events: PAGE_EVENTS, bytes: outbox.bytes_max_now() / 4 }
}

/// Sends the stream's state and its last events up to that, in place of all before. `false` if it
/// cannot be had now: the client was told that it comes, and nothing else may come before.
async fn show(stage: &Stage, outbox: &Outbox, follow: &Follow) -> Result<bool, LogError> {
    let (shown, revision) = match state_of(stage, follow).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(true),
        Err(refused) => {
            tracing::debug!(stream = %follow.stream, ?refused, "no state yet");
            return Ok(false);
        }
    };
    let limit = ReadLimit { events: STATE_EVENTS, bytes: page_limit(outbox).bytes };
    let events = stage.log.read_stream_backwards(&follow.stream, Some(revision.next()), limit).await?;
    // Whoever has unsubscribed or may read no more meanwhile gets none of it.
    if follow.is_gone() {
        return Ok(true);
    }
    if follow.rights.have_ended() {
        end(outbox, follow);
        return Ok(true);
    }
    let events = events.iter().rev().filter_map(|event| EventFrame::encode(event).to_json(&follow.reader));
    let room = Followed::of(&follow.stream);
    let message = RoomState { room, revision, state: shown, events: events.collect() };
    outbox.push(ServerMessage::RoomState(message).encode());
    follow.next.set(revision.next());
    Ok(true)
}

/// The state, and the revision that it stands at.
async fn state_of(stage: &Stage, follow: &Follow) -> Result<Option<(Box<RawValue>, Revision)>, Refused> {
    let own = follow.stream.category() == UserEvent::CATEGORY;
    if own {
        stage.users.ask(&follow.stream, |standing| presented::user(standing.state).zip(standing.head)).await
    } else {
        let reader = follow.reader.clone();
        let asked = stage.rooms.ask(&follow.stream, move |standing| {
            let reading = standing.state.reading(&reader);
            reading.zip(presented::room(standing.state)).zip(standing.head)
        });
        asked.await.map(|found| {
            let ((reading, shown), revision) = found?;
            follow.rights.renew(reading, revision);
            Some((shown, revision))
        })
    }
}

/// Pushes a page; `false` if there was nothing to push. What the reader may no longer read is
/// left out.
fn push(outbox: &Outbox, follow: &Follow, page: &[Arc<Recorded>]) -> bool {
    let mut frames = fitting(page, outbox.room(), &follow.reader);
    let page = page.get(..frames.len()).unwrap_or_default();
    let ends = follow.rights.end_at(&Changes::among(page), &follow.reader);
    frames.truncate(page.partition_point(|event| ends.is_none_or(|end| event.revision <= end)));
    let Some(last) = frames.len().checked_sub(1).and_then(|last| page.get(last)) else { return false };
    outbox.push(joined(&frames, &follow.reader));
    follow.next.set(last.revision.next());
    if ends.is_some() {
        end(outbox, follow);
    }
    true
}

/// The first of these events that fit into so many bytes, and one at the least.
pub(super) fn fitting(page: &[Arc<Recorded>], mut room: usize, reader: &MemberId) -> Vec<EventFrame> {
    let mut frames = Vec::with_capacity(page.len());
    for event in page {
        let frame = EventFrame::encode(event);
        let size = frame.bytes_for(reader) + 1;
        if size > room && !frames.is_empty() {
            break;
        }
        room = room.saturating_sub(size);
        frames.push(frame);
    }
    frames
}

/// Tells the reader that nothing more comes.
fn end(outbox: &Outbox, follow: &Follow) {
    if let Some(closed) = follow.goodbye() {
        outbox.push(closed);
    }
    outbox.set_behind();
}

fn announce(outbox: &Outbox, follow: &Follow) {
    if follow.announced.replace(true) {
        return;
    }
    let revision = follow.next.get().get().checked_sub(1).map(Revision::new);
    outbox.push(ServerMessage::Live(Live { room: Followed::of(&follow.stream), revision }).encode());
}
