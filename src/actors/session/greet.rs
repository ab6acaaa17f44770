//! `hello` and `subscribe`: who is there, and from where each room is followed.

use std::rc::Rc;

use actix::prelude::*;
use dramatis_events::{CommandId, MemberId};

use super::admission::{Identity, opens};
use super::attach::{Place, Taken, take_all, take_one};
use super::{Session, Then};
use crate::actors::hub::Follow;
use crate::actors::presence::Leaving;
use crate::protocol::{
    CloseCode, ErrorCode, Followed, HISTORY_EVENTS_MAX, Hello, Limits, Ready, Reconnect, Reject, RoomEntry,
    ServerMessage, Subscribe, Subscribed,
};

/// What is told to a client that shows a token where there is no key for them, or says nothing.
const NAMES_ITS_USER: &str = "this server has no key for tokens: a hello names its user and has no token";

impl Session {
    /// Takes a hello of so many bytes.
    pub(super) fn hello(&mut self, mut hello: Hello, bytes: usize, ctx: &mut Context<Self>) -> Then {
        let (user, pass) = match self.identify(hello.user.take(), hello.token.as_ref()) {
            Ok(identified) => identified,
            Err(CloseCode::Malformed) => {
                self.turn_away(NAMES_ITS_USER);
                return Then::GoOn;
            }
            Err(code) => {
                self.outbox.close(code);
                return Then::GoOn;
            }
        };
        if let Err(after) = self.pay_for_hello(&user, bytes) {
            self.too_fast(None, after);
            self.outbox.close(CloseCode::RateLimited);
            return Then::GoOn;
        }
        let rooms = match hello.take_rooms(&user) {
            Ok(rooms) => rooms,
            Err(error) => {
                self.turn_away(&error.to_string());
                return Then::GoOn;
            }
        };
        // A long hello is for as many rooms as may be followed, and for no list without end.
        let limits = &self.stage.limits;
        if bytes > limits.message_bytes_max && rooms.len() > limits.rooms_per_session_max {
            self.outbox.close(CloseCode::TooBig);
            return Then::GoOn;
        }
        let Hello { session, device, .. } = hello;
        let seat = match self.take_seat(&user, &session) {
            Ok(seat) => seat,
            Err(code) => {
                self.outbox.close(code);
                return Then::GoOn;
            }
        };
        let max = seat.take_rooms(rooms.len().min(limits.rooms_per_session_max));
        let shown = pass.clone();
        self.outbox.greeted();
        self.stage.note_session(&user, &session, device);
        let toll = self.stage.meters.toll(&user, self.address.clone());
        self.identity = Some(Identity::new(user.clone(), session, toll, seat, pass));
        self.watch_token();
        let (stage, hub, reader) = (self.stage.clone(), self.rooms.clone(), user.clone());
        let taking = async move {
            let _place = hub.greeting().await;
            let may_have = |room: &Followed| shown.as_ref().is_none_or(|pass| opens(pass, room));
            take_all(&stage, &reader, rooms, may_have, max).await
        };
        ctx.wait(taking.into_actor(self).map(move |taken, session, ctx| {
            match taken {
                Ok(taken) => session.greet(&user, taken, ctx),
                Err(error) => {
                    tracing::error!(%error, "a hello cannot be answered");
                    session.outbox.close(CloseCode::Internal);
                }
            }
            session.go_on(ctx);
        }));
        Then::Wait
    }

    fn greet(&mut self, user: &MemberId, taken: Vec<Taken>, ctx: &mut Context<Self>) {
        let limits = &self.stage.limits;
        let (entries, places): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|taken| (taken.entry, taken.place)).unzip();
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
        for place in places.into_iter().flatten() {
            self.follow(place, user);
        }
        self.give_back_places();
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
        self.drop_ended();
        let stream = cursor.room.stream(&user);
        let known = self.follows.iter().any(|follow| Some(&follow.stream) == stream.as_ref());
        if !known && self.follows.len() >= max {
            let message = format!("a connection follows at most {max} rooms: unsubscribe from one first");
            self.reject_too_many(id, message);
            return Then::GoOn;
        }
        if !known && !self.take_room_place() {
            let message =
                "you follow as many rooms as one user may, by all connections: unsubscribe from one first";
            self.reject_too_many(id, message);
            return Then::GoOn;
        }
        let (stage, reader, room) = (self.stage.clone(), user.clone(), cursor.room.clone());
        let taking = async move { take_one(&stage, &reader, cursor).await };
        ctx.wait(taking.into_actor(self).map(move |taken, session, ctx| {
            match taken {
                Err(error) => session.reject(Some(id), ErrorCode::Unavailable, error.to_string()),
                Ok(Taken { entry, place: None }) => session.deny(id, &room, &entry),
                Ok(Taken { entry, place: Some(place) }) => {
                    session.send(&ServerMessage::Subscribed(Subscribed { id, entry }));
                    session.follow(place, &user);
                    session.catch_up(ctx);
                }
            }
            session.give_back_places();
            session.go_on(ctx);
        }));
        Then::Wait
    }

    /// It is not a matter of time: what has to come first is that a room is left.
    fn reject_too_many(&self, id: CommandId, message: impl Into<String>) {
        let reject = Reject { retry: false, ..Reject::new(Some(id), ErrorCode::RateLimited, message) };
        self.send(&ServerMessage::Reject(reject));
    }

    fn deny(&self, id: CommandId, room: &Followed, entry: &RoomEntry) {
        let code = entry.code.unwrap_or(ErrorCode::NotFound);
        let message = match entry.head {
            None => why_not(code, room),
            Some(head) => format!("room {room} stands at revision {head}: ask for nothing after it"),
        };
        let mut reject = Reject::new(Some(id), code, message);
        reject.head = entry.head;
        self.send(&ServerMessage::Reject(reject));
    }

    fn follow(&mut self, place: Place, user: &MemberId) {
        // Whoever is present stays so until it is live again.
        self.unfollow(&place.stream, Leaving::Gone);
        let Place { stream, next, rights, wants_state } = place;
        let stream = self.rooms.name_of(stream);
        let follow = Follow::new(stream, user.clone(), next, self.outbox.clone(), rights);
        follow.wants_state.set(wants_state);
        let follow = Rc::new(follow);
        self.rooms.follow(&follow);
        self.follows.push(follow);
    }
}

/// Why a room is not to be read, for people.
pub(super) fn why_not(code: ErrorCode, room: &Followed) -> String {
    match code {
        ErrorCode::Forbidden => format!("you were removed from room {room}: join it again, or be invited"),
        ErrorCode::NotAMember => format!("only members read room {room}: be invited and join it first"),
        ErrorCode::NotFound => match room {
            Followed::Me => "only people have a stream of their own".to_owned(),
            Followed::Room(room) => format!("there is no room {room}"),
        },
        _ => format!("room {room} cannot be read now: ask again a little later"),
    }
}
