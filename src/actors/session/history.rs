//! Pages of the past, for who may read it.

use std::sync::Arc;

use actix::prelude::*;
use dramatis_events::{CommandId, EntityId, MemberId, Recorded};

use super::attach::{reading, unreadable};
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
    let HistoryRequest { room, before, limit, .. } = request;
    let room = Followed::from(room);
    let Some(stream) = room.stream(user) else { return Ok(Err(ErrorCode::NotFound)) };
    if matches!(room, Followed::Room(_)) {
        if stage.log.stream_head(&stream).await?.is_none() {
            return Ok(Err(ErrorCode::NotFound));
        }
        match reading(stage, &stream, user).await {
            Ok(Some((reading, _))) if reading.may_read() => {}
            Ok(Some((reading, _))) => return Ok(Err(unreadable(reading))),
            Ok(None) => return Ok(Err(ErrorCode::NotFound)),
            Err(refused) => return Ok(Err(refused.code)),
        }
    }
    outbox.has_room().await;
    let events = usize::try_from(limit.clamp(1, HISTORY_EVENTS_MAX)).unwrap_or(1);
    let limit = ReadLimit { events, bytes: outbox.bytes_max_now() / 4 };
    stage.log.read_stream_backwards(&stream, before, limit).await.map(Ok)
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
