//! `hello` and `subscribe`: who is there, and from where each room is followed.

use std::rc::Rc;

use actix::prelude::*;
use dramatis_events::{Epoch, MemberId, Revision, StreamId};

use super::admission::{Identity, opens};
use super::{Session, Then};
use crate::actors::hub::Follow;
use crate::log::{EventLog, LogError};
use crate::protocol::{
    CloseCode, ErrorCode, HISTORY_EVENTS_MAX, Hello, How, Limits, Ready, Reconnect, Reject, RoomCursor,
    RoomEntry, ServerMessage, Subscribe, Subscribed,
};

/// Without a cursor a client gets so many of a room's last events.
const LATEST_EVENTS: u64 = 50;

/// A room's entry in the answer, and where to read on, unless it was denied.
struct Taken {
    entry: RoomEntry,
    follow: Option<(StreamId, Revision)>,
}

impl Taken {
    fn deny(&mut self, code: ErrorCode) {
        self.entry.how = How::Denied;
        self.entry.code = Some(code);
        self.follow = None;
    }
}

impl Session {
    pub(super) fn hello(&mut self, hello: Hello, ctx: &mut Context<Self>) -> Then {
        let Hello { user, token, session, rooms, .. } = hello;
        let (user, pass) = match self.identify(user, token.as_ref()) {
            Ok(identified) => identified,
            Err(code) => {
                self.outbox.close(code);
                return Then::GoOn;
            }
        };
        self.outbox.greeted();
        self.stage.directory.enter(&user, &session, self.arrival, ctx.address().recipient());
        let toll = self.stage.meters.toll(&user, self.address.clone());
        let Some(place) = toll.user().connections.enter() else {
            self.outbox.close(CloseCode::TooManyConnections);
            return Then::GoOn;
        };
        let wanted = rooms.len().min(self.stage.limits.rooms_per_session_max);
        self.room_places.extend(std::iter::from_fn(|| toll.user().rooms.enter()).take(wanted));
        let max = self.room_places.len();
        let denied: Vec<bool> = rooms.iter().map(|cursor| !opens(pass.as_ref(), cursor)).collect();
        self.identity = Some(Identity::new(user.clone(), session, toll, place, pass));
        self.watch_token(ctx);
        let log = self.stage.log.clone();
        let taking = async move {
            let mut taken = Vec::with_capacity(rooms.len());
            for (cursor, denied) in rooms.into_iter().zip(denied) {
                let mut room = take(&*log, cursor).await?;
                if denied {
                    room.deny(ErrorCode::Forbidden);
                } else if taken.len() >= max {
                    room.deny(ErrorCode::RateLimited);
                }
                taken.push(room);
            }
            Ok::<_, LogError>(taken)
        };
        ctx.wait(taking.into_actor(self).map(move |taken, session, ctx| {
            match taken {
                Ok(taken) => session.greet(&user, taken, ctx),
                Err(error) => {
                    tracing::error!(%error, "a hello cannot be answered");
                    session.outbox.close(CloseCode::Internal);
                }
            }
            session.resume(ctx);
        }));
        Then::Wait
    }

    fn greet(&mut self, user: &MemberId, taken: Vec<Taken>, ctx: &mut Context<Self>) {
        let limits = &self.stage.limits;
        let (entries, places): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|taken| (taken.entry, taken.follow)).unzip();
        let ready = Ready {
            connection: format!("{:016x}", self.connection),
            user: user.clone(),
            token_expires_at: self.token_expires_at(),
            heartbeat_ms: limits.heartbeat_ms,
            limits: Limits {
                message_bytes_max: limits.message_bytes_max,
                frame_bytes_max: limits.frame_bytes_max,
                in_flight_commands_max: limits.in_flight_commands_max,
                rooms_max: limits.rooms_per_session_max,
                history_events_max: HISTORY_EVENTS_MAX,
            },
            reconnect: Reconnect {
                base_ms: limits.reconnect.base_ms,
                cap_ms: limits.reconnect.cap_ms,
                jitter: "full",
            },
            rooms: entries,
        };
        self.send(&ServerMessage::Ready(ready));
        for (stream, next) in places.into_iter().flatten() {
            self.follow(stream, next, user);
        }
        self.room_places.truncate(self.follows.len());
        self.catch_up(ctx);
    }

    pub(super) fn subscribe(
        &mut self,
        user: MemberId,
        subscribe: Subscribe,
        ctx: &mut Context<Self>,
    ) -> Then {
        let (id, cursor) = subscribe.into_parts();
        let max = self.stage.limits.rooms_per_session_max;
        let stream = cursor.room.room().map(StreamId::room);
        let known = self.follows.iter().any(|follow| Some(&follow.stream) == stream.as_ref());
        if !known && self.follows.len() >= max {
            let message = format!("a connection follows at most {max} rooms: unsubscribe from one first");
            self.reject(Some(id), ErrorCode::RateLimited, message);
            return Then::GoOn;
        }
        if !known && !self.take_room_place() {
            let message =
                "you follow as many rooms as one user may, by all connections: unsubscribe from one first";
            self.reject(Some(id), ErrorCode::RateLimited, message);
            return Then::GoOn;
        }
        let log = self.stage.log.clone();
        let taking = async move { take(&*log, cursor).await };
        ctx.wait(taking.into_actor(self).map(move |taken, session, ctx| {
            match taken {
                Err(error) => session.reject(Some(id), ErrorCode::Unavailable, error.to_string()),
                Ok(Taken { entry, follow: None }) => session.deny(id, &entry),
                Ok(Taken { entry, follow: Some((stream, next)) }) => {
                    session.send(&ServerMessage::Subscribed(Subscribed { id, entry }));
                    session.follow(stream, next, &user);
                    session.catch_up(ctx);
                }
            }
            session.room_places.truncate(session.follows.len());
            session.resume(ctx);
        }));
        Then::Wait
    }

    fn deny(&self, id: dramatis_events::CommandId, entry: &RoomEntry) {
        let code = entry.code.unwrap_or(ErrorCode::NotFound);
        let message = match entry.head {
            None => format!("there is no room {}", entry.room),
            Some(head) => format!("room {} stands at revision {head}: ask for nothing after it", entry.room),
        };
        let mut reject = Reject::new(Some(id), code, message);
        reject.head = entry.head;
        self.send(&ServerMessage::Reject(reject));
    }

    fn follow(&mut self, stream: StreamId, next: Revision, user: &MemberId) {
        self.unfollow(&stream);
        let follow = Rc::new(Follow::new(stream, user.clone(), next, self.outbox.clone()));
        self.rooms.follow(follow.clone());
        self.follows.push(follow);
    }
}

async fn take(log: &dyn EventLog, cursor: RoomCursor) -> Result<Taken, LogError> {
    let stream = cursor.room.room().map(StreamId::room);
    let head = match &stream {
        Some(stream) => log.stream_head(stream).await?,
        None => None,
    };
    let epoch = log.epoch();
    let (how, code, next) = place(&cursor, head, epoch);
    Ok(Taken { entry: RoomEntry { room: cursor.room, epoch, head, how, code }, follow: stream.zip(next) })
}

/// From where a room is followed.
fn place(
    cursor: &RoomCursor,
    head: Option<Revision>,
    epoch: Epoch,
) -> (How, Option<ErrorCode>, Option<Revision>) {
    let Some(head) = head else { return (How::Denied, Some(ErrorCode::NotFound), None) };
    let latest = Revision::new((head.get() + 1).saturating_sub(LATEST_EVENTS));
    if cursor.epoch.is_some_and(|known| known != epoch) {
        return (How::Reset, None, Some(latest));
    }
    match cursor.after {
        None => (How::Events, None, Some(latest)),
        Some(after) if after > head => (How::Denied, Some(ErrorCode::AheadOfLog), None),
        Some(after) => (How::Events, None, Some(after.next())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_taken_by_epoch_and_head() {
        let epoch = Epoch::first(1);
        let cursor = |after: Option<u64>, epoch: Option<Epoch>| -> RoomCursor {
            let json = serde_json::json!({"room": "r", "after": after, "epoch": epoch});
            serde_json::from_value(json).unwrap()
        };
        let head = Some(Revision::new(99));
        let at = |revision| Some(Revision::new(revision));
        for (after, of, head, want) in [
            (None, None, None, (How::Denied, Some(ErrorCode::NotFound), None)),
            (None, None, head, (How::Events, None, at(50))),
            (Some(10), Some(epoch), head, (How::Events, None, at(11))),
            (Some(99), Some(epoch), head, (How::Events, None, at(100))),
            (Some(100), Some(epoch), head, (How::Denied, Some(ErrorCode::AheadOfLog), None)),
            (Some(100), Some(epoch.raised()), head, (How::Reset, None, at(50))),
        ] {
            assert_eq!(place(&cursor(after, of), head, epoch), want);
        }
    }
}
