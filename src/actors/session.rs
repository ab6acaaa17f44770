//! The actor behind one client connection: it owns the connection's outbox and a cursor a
//! room, reads frames, checks rights and limits, and passes commands to the rooms' entities.
//!
//! It never holds events: what a client is behind is read from the log when there is room.

mod catch_up;
mod commands;
mod greet;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use dramatis_events::{CommandId, EntityId, MemberId, StreamId};

use super::Stage;
use super::answer::Answers;
use super::directory::Replaced;
use super::hub::{Follow, Rooms};
use super::outbox::{CatchUp, Outbox};
use crate::log::{LogError, ReadLimit};
use crate::protocol::{
    ClientMessage, CloseCode, ErrorCode, EventFrame, HISTORY_EVENTS_MAX, HistoryRequest, Page, Reject,
    ServerMessage, Unsubscribe, Unsubscribed, parse_message,
};

/// What a transport hears of its client.
#[derive(Debug)]
pub enum Inbound {
    /// Messages, newline-joined.
    Text(String),
    /// The client broke the transport's rules.
    Violation(CloseCode),
}

/// The client's name and the session it named.
#[derive(Debug, Clone)]
struct Identity {
    user: MemberId,
    session: CommandId,
}

/// See the module.
pub struct Session {
    stage: Arc<Stage>,
    rooms: Rc<Rooms>,
    outbox: Rc<Outbox>,
    connection: u64,
    identity: Option<Identity>,
    follows: Vec<Rc<Follow>>,
    catching_up: bool,
    malformed: Malformed,
    /// The answer to a message is being read from the log.
    waiting: bool,
    /// The frame it came in, and where the messages behind it begin.
    unread: Option<(String, usize)>,
}

impl Session {
    /// Starts a session on this thread, fed by `inbound`, speaking through `outbox`.
    pub fn start_here<S>(stage: Arc<Stage>, rooms: Rc<Rooms>, outbox: Rc<Outbox>, connection: u64, inbound: S)
    where
        S: futures_util::Stream<Item = Inbound> + 'static,
    {
        Self::create(move |ctx| {
            ctx.add_stream(inbound);
            outbox.on_behind(ctx.address().recipient());
            rooms.connect(connection, outbox.clone());
            Self {
                stage,
                rooms,
                outbox,
                connection,
                identity: None,
                follows: Vec::new(),
                catching_up: false,
                malformed: Malformed::default(),
                waiting: false,
                unread: None,
            }
        });
    }

    fn send(&self, message: &ServerMessage<'_>) {
        self.outbox.push(message.encode());
    }

    fn reject(&self, id: Option<CommandId>, code: ErrorCode, message: impl Into<String>) {
        self.send(&ServerMessage::Reject(Reject::new(id, code, message)));
    }

    /// Takes a frame's messages, from this byte on, in their order. One that has to wait for the
    /// log makes those behind it wait too; [`Self::go_on`] takes them up again.
    fn text(&mut self, text: String, mut at: usize, ctx: &mut Context<Self>) {
        let mut commands = commands::Batch::default();
        while let Some(message) = text.get(at..).and_then(|rest| rest.split('\n').next()) {
            if self.waiting || self.outbox.is_closing() {
                break;
            }
            at += message.len() + 1;
            if message.trim_ascii().is_empty() {
                continue;
            }
            if message.len() > self.stage.limits.message_bytes_max {
                self.outbox.close(CloseCode::TooBig);
                break;
            }
            match parse_message(message) {
                Ok(message) => self.message(message, &mut commands, ctx),
                Err(_) if self.identity.is_none() => self.outbox.close(CloseCode::Malformed),
                Err(error) => self.malformed(error.id, error.reason),
            }
        }
        self.unread = self.waiting.then_some((text, at));
        self.submit(commands, ctx);
    }

    /// What was waited for is there.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.waiting = false;
        if let Some((text, at)) = self.unread.take() {
            self.text(text, at, ctx);
        }
    }

    fn message(&mut self, message: ClientMessage, commands: &mut commands::Batch, ctx: &mut Context<Self>) {
        let Some(identity) = self.identity.clone() else {
            match message {
                ClientMessage::Hello(hello) => self.hello(hello, ctx),
                _ => self.outbox.close(CloseCode::Malformed),
            }
            return;
        };
        match message {
            ClientMessage::Command(frame) => self.command(&identity.user, frame, commands),
            ClientMessage::Subscribe(subscribe) => self.subscribe(identity.user, subscribe, ctx),
            ClientMessage::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
            ClientMessage::History(request) => self.history(identity.user, request, ctx),
            ClientMessage::Pong => {}
            ClientMessage::Hello(_) => {
                self.malformed(None, "hello is only the first message of a connection".to_owned());
            }
        }
    }

    fn malformed(&mut self, id: Option<CommandId>, reason: String) {
        self.stage.metrics.malformed.inc();
        self.reject(id, ErrorCode::Malformed, reason);
        if self.malformed.is_too_many(self.stage.limits.malformed_per_minute_max, Instant::now()) {
            self.outbox.close(CloseCode::Malformed);
        }
    }

    fn unsubscribe(&mut self, unsubscribe: Unsubscribe) {
        let (id, room) = unsubscribe.into_parts();
        self.unfollow(&StreamId::room(&room));
        self.send(&ServerMessage::Unsubscribed(Unsubscribed { id, room }));
    }

    fn unfollow(&mut self, stream: &StreamId) {
        let rooms = self.rooms.clone();
        self.follows.retain(|follow| {
            let keep = follow.stream != *stream;
            if !keep {
                rooms.unfollow(follow);
            }
            keep
        });
    }

    fn history(&mut self, user: MemberId, request: HistoryRequest, ctx: &mut Context<Self>) {
        let HistoryRequest { id, room, before, limit, .. } = request;
        let events = limit.clamp(1, HISTORY_EVENTS_MAX);
        let limit = ReadLimit {
            events: usize::try_from(events).unwrap_or(1),
            bytes: self.stage.limits.outbox_bytes_max,
        };
        let (log, stream) = (self.stage.log.clone(), StreamId::room(&room));
        let reading = async move {
            let events = log.read_stream_backwards(&stream, before, limit).await?;
            let found = !events.is_empty() || log.stream_head(&stream).await?.is_some();
            Ok::<_, LogError>(found.then_some(events))
        };
        self.outbox.begin();
        ctx.spawn(reading.into_actor(self).map(move |read, session, _| {
            session.outbox.end(1);
            match read {
                Ok(Some(events)) => session.send(&ServerMessage::Page(page(id, room, &user, &events))),
                Ok(None) => session.reject(Some(id), ErrorCode::NotFound, format!("there is no room {room}")),
                Err(error) => session.reject(Some(id), ErrorCode::Unavailable, error.to_string()),
            }
        }));
    }
}

/// A page of the past, ascending, from events that descend.
fn page(id: CommandId, room: EntityId, user: &MemberId, events: &[Arc<dramatis_events::Recorded>]) -> Page {
    let more = events.last().is_some_and(|oldest| oldest.revision.get() > 0);
    let events = events.iter().rev().filter_map(|event| EventFrame::encode(event).to_json(user)).collect();
    Page { id, room, events, more }
}

/// Counts malformed messages in windows of a minute.
#[derive(Default)]
struct Malformed {
    since: Option<Instant>,
    count: u32,
}

impl Malformed {
    fn is_too_many(&mut self, max: u32, now: Instant) -> bool {
        let fresh = self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_mins(1));
        if fresh {
            self.since = Some(now);
            self.count = 0;
        }
        self.count += 1;
        self.count >= max
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(SESSION_MAILBOX_LEN);
    }

    fn stopped(&mut self, ctx: &mut Self::Context) {
        for follow in self.follows.drain(..) {
            self.rooms.unfollow(&follow);
        }
        if let Some(identity) = &self.identity {
            self.stage.directory.leave(&identity.user, &identity.session, &ctx.address().recipient());
        }
        self.rooms.disconnect(self.connection);
        // Wakes the writer, which else would keep the socket open.
        self.outbox.close(CloseCode::Normal);
    }
}

/// Only `do_send` is used, which does not ask for capacity; the buffer need not be large.
const SESSION_MAILBOX_LEN: usize = 2;

impl StreamHandler<Inbound> for Session {
    fn handle(&mut self, inbound: Inbound, ctx: &mut Self::Context) {
        match inbound {
            Inbound::Text(text) => self.text(text, 0, ctx),
            Inbound::Violation(code) => self.outbox.close(code),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Answers> for Session {
    type Result = ();

    fn handle(&mut self, Answers(answers): Answers, _: &mut Self::Context) {
        self.outbox.push(commands::encode_answers(&answers));
        self.outbox.end(answers.len());
    }
}

impl Handler<CatchUp> for Session {
    type Result = ();

    fn handle(&mut self, _: CatchUp, ctx: &mut Self::Context) {
        self.catch_up(ctx);
    }
}

impl Handler<Replaced> for Session {
    type Result = ();

    fn handle(&mut self, _: Replaced, _: &mut Self::Context) {
        self.outbox.close(CloseCode::Replaced);
    }
}

/// Messages joined by newlines.
fn join(messages: impl Iterator<Item = Bytes>) -> Bytes {
    let mut text = Vec::new();
    for message in messages {
        if !text.is_empty() {
            text.push(b'\n');
        }
        text.extend_from_slice(&message);
    }
    text.into()
}
