//! Pages of the past, for who may read it.

use std::sync::Arc;

use actix::prelude::*;
use dramatis_events::{CommandId, EntityId, MemberId, Recorded, Revision, StreamId};

use super::attach::{read_on, reading, unreadable};
use super::catch_up::fitting;
use super::greet::why_not;
use super::{Session, Then};
use crate::actors::Stage;
use crate::actors::outbox::Outbox;
use crate::log::{LogError, ReadLimit};
use crate::protocol::{ErrorCode, Followed, HISTORY_EVENTS_MAX, HistoryRequest, Page, ServerMessage};

impl Session {
    pub(super) fn history(
        &mut self,
        user: MemberId,
        request: HistoryRequest,
        ctx: &mut Context<Self>,
    ) -> Then {
        let (id, room) = (request.id.clone(), request.room.clone());
        let (stage, outbox, reader) = (self.stage.clone(), self.outbox.clone(), user.clone());
        let reading = async move { read(&stage, &outbox, &reader, request).await };
        ctx.wait(reading.into_actor(self).map(move |read, session, ctx| {
            match read {
                Ok(Ok(events)) => {
                    let bytes = session.outbox.bytes_max_now() / 4;
                    session.send(&ServerMessage::Page(page(id, room, &user, &events, bytes)));
                }
                Ok(Err(code)) => session.reject(Some(id), code, why_not(code, &Followed::from(room))),
                Err(error) => session.reject(Some(id), ErrorCode::Unavailable, error.to_string()),
            }
            session.go_on(ctx);
        }));
        Then::Wait
    }
}

/// Events of a page, descending, or why there are none to be had.
async fn read(
    stage: &Stage,
    outbox: &Outbox,
    user: &MemberId,
    request: HistoryRequest,
) -> Result<Result<Vec<Arc<Recorded>>, ErrorCode>, LogError> {
    let HistoryRequest { room, mut before, limit, .. } = request;
    let room = Followed::from(room);
    let Some(stream) = room.stream(user) else { return Ok(Err(ErrorCode::NotFound)) };
    // The client decides how long this takes: what it may read is asked for after that.
    outbox.has_room().await;
    if matches!(room, Followed::Room(_)) {
        let end = match may_read_up_to(stage, &stream, user).await? {
            Ok(last) => last.next(),
            Err(code) => return Ok(Err(code)),
        };
        before = Some(before.map_or(end, |before| before.min(end)));
    }
    let events = usize::try_from(limit.clamp(1, HISTORY_EVENTS_MAX)).unwrap_or(1);
    let limit = ReadLimit { events, bytes: outbox.bytes_max_now() / 4 };
    stage.log.read_stream_backwards(&stream, before, limit).await.map(Ok)
}

/// The last revision of a room that this one may read for sure. Who is removed later may not read on.
async fn may_read_up_to(
    stage: &Stage,
    stream: &StreamId,
    user: &MemberId,
) -> Result<Result<Revision, ErrorCode>, LogError> {
    let Some(head) = stage.log.stream_head(stream).await? else { return Ok(Err(ErrorCode::NotFound)) };
    let (reading, at) = match reading(stage, stream, user).await {
        // The client may have been sent what its entity has not noticed yet.
        Ok(Some(known)) if known.1 < head => read_on(stage, stream, user, known).await?,
        Ok(Some(known)) => known,
        Ok(None) => return Ok(Err(ErrorCode::NotFound)),
        Err(refused) => return Ok(Err(refused.code)),
    };
    Ok(if reading.may_read() { Ok(at) } else { Err(unreadable(reading)) })
}

/// A page of the past, ascending, from events that descend: as many of the newest as fit into so
/// many bytes, and one at the least.
fn page(id: CommandId, room: EntityId, user: &MemberId, events: &[Arc<Recorded>], bytes: usize) -> Page {
    let frames = fitting(events, bytes, user);
    let oldest = frames.len().checked_sub(1).and_then(|last| events.get(last));
    let more = oldest.is_some_and(|oldest| oldest.revision.get() > 0);
    let events = frames.iter().rev().filter_map(|frame| frame.to_json(user)).collect();
    Page { id, room, events, more }
}
