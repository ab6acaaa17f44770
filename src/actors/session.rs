//! The actor behind one client connection: it owns the connection's outbox and a cursor a
//! room, reads frames, checks rights and limits, and passes commands to the rooms' entities.
//!
//! It never holds events: what a client is behind is read from the log when there is room.

pub(crate) mod admission;
pub(crate) mod attach;
mod catch_up;
pub(crate) mod commands;
mod ephemerals;
mod frame;
mod greet;
mod history;
pub(crate) mod presented;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use dramatis_events::{CommandId, MemberId, Revision, StreamId};

use super::Stage;
use super::answer::Answers;
use super::directory::Arrival;
use super::hub::{Follow, Rooms};
use super::meters::Account;
use super::outbox::{Call, Outbox};
use super::presence::Leaving;
use crate::auth::Pass;
use crate::protocol::{
    ClientMessage, CloseCode, ErrorCode, Reject, Seen, ServerMessage, Unsubscribe, Unsubscribed, message_id,
    parse_message,
};
use admission::{Identity, objected};
use frame::Frame;

/// What a transport hears of its client.
#[derive(Debug)]
pub enum Inbound {
    /// Messages, newline-joined.
    Text(String),
    /// What no message of this protocol is.
    Binary(Vec<u8>),
    /// The client broke the transport's rules.
    Violation(CloseCode),
    /// The client has shown this with a request, on its way to what the session has for it.
    Pass(Pass),
}

/// Where a client comes from.
#[derive(Default)]
pub struct Origin {
    /// Its address, if that is limited.
    pub address: Option<Arc<Account>>,
    /// Whether a request has paid for its hello already.
    pub has_paid: bool,
}

/// What comes after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The next one.
    GoOn,
    /// The next one, once this one's answer is on its way.
    Wait,
}

/// See the module.
pub struct Session {
    stage: Arc<Stage>,
    rooms: Rc<Rooms>,
    outbox: Rc<Outbox>,
    connection: u64,
    arrival: Arrival,
    address: Option<Arc<Account>>,
    /// Whether its hello is paid for.
    has_paid: bool,
    identity: Option<Identity>,
    follows: Vec<Rc<Follow>>,
    /// Whether it has had its turn among those who come.
    has_come: bool,
    catching_up: bool,
    malformed: Malformed,
    ephemeral_rate: ephemerals::Rate,
    /// Messages behind one that waits, or behind as many commands as may be in flight.
    rest: Frame,
    /// As how much of what is not handled it counts.
    rest_counted: usize,
}

/// Messages handled before others of the thread have their turn: a frame holds half a million
/// empty ones.
const MESSAGES_A_TURN: usize = 256;

impl Session {
    /// Starts a session on this thread, fed by `inbound`, speaking through `outbox`.
    pub fn start_here<S>(
        stage: Arc<Stage>,
        rooms: Rc<Rooms>,
        outbox: Rc<Outbox>,
        connection: u64,
        arrival: Arrival,
        Origin { address, has_paid }: Origin,
        inbound: S,
    ) where
        S: futures_util::Stream<Item = Inbound> + 'static,
    {
        Self::create(move |ctx| {
            ctx.add_stream(inbound);
            outbox.calls(ctx.address().downgrade().recipient());
            rooms.connect(connection, outbox.clone());
            Self {
                stage,
                rooms,
                outbox,
                connection,
                arrival,
                address,
                has_paid,
                identity: None,
                follows: Vec::new(),
                has_come: false,
                catching_up: false,
                malformed: Malformed::default(),
                ephemeral_rate: ephemerals::Rate::default(),
                rest: Frame::default(),
                rest_counted: 0,
            }
        });
    }

    fn send(&self, message: &ServerMessage<'_>) {
        if let ServerMessage::Reject(reject) = message {
            self.stage.metrics.message_refused(reject.code.as_str());
        }
        self.outbox.push(message.encode());
    }

    fn reject(&self, id: Option<CommandId>, code: ErrorCode, message: impl Into<String>) {
        self.send(&ServerMessage::Reject(Reject::new(id, code, message)));
    }

    /// Handles messages in their order. One that waits for the log holds up those behind it, and
    /// all reading: so no client has more than one such answer on its way.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        let mut frame = std::mem::take(&mut self.rest);
        let mut turn = MESSAGES_A_TURN;
        let then = loop {
            let mut commands = commands::Batch::default();
            let then = self.take(&mut frame, &mut turn, &mut commands, ctx);
            self.submit(commands, ctx);
            // Of the commands some may have been refused at once: then others may follow.
            if then == Then::Wait || frame.is_done() || self.outbox.is_busy() {
                break then;
            }
        };
        if !frame.is_done() {
            self.rest = frame;
        }
        self.count_rest();
        // A wait that begins here holds up the mailbox, but not a stream that is polled already.
        self.outbox.occupied(then == Then::Wait || !self.rest.is_done());
    }

    fn count_rest(&mut self) {
        let (before, now) = (self.rest_counted, self.rest.capacity());
        if before != now {
            self.rest_counted = now;
            if !self.rooms.unfinished().change(self.connection, before, now) {
                self.outbox.close(CloseCode::Overloaded);
            }
        }
    }

    /// Handles messages until one waits, the turn is over, or as many commands are in flight as may be.
    fn take(
        &mut self,
        frame: &mut Frame,
        turn: &mut usize,
        commands: &mut commands::Batch,
        ctx: &mut Context<Self>,
    ) -> Then {
        while !frame.is_done() && !self.outbox.is_busy() {
            if self.outbox.is_closing() {
                *frame = Frame::default();
            } else if self.outbox.is_full() {
                // Goes on once the client has taken answers: one frame may ask for more than may wait.
                let outbox = self.outbox.clone();
                self.wait(async move { outbox.has_room().await }, ctx);
                return Then::Wait;
            } else if *turn == 0 {
                self.wait(tokio::task::yield_now(), ctx);
                return Then::Wait;
            } else if !std::mem::replace(&mut self.has_come, true) {
                self.wait_among_newcomers(ctx);
                return Then::Wait;
            }
            let Some(message) = frame.next() else { break };
            *turn = turn.saturating_sub(1);
            if message.len() > self.message_bytes_max() {
                self.outbox.close(CloseCode::TooBig);
            } else if message.trim_ascii().is_empty() {
                // It says nothing, and is read all the same.
                self.is_too_fast(message);
            } else if self.message(message, commands, ctx) == Then::Wait {
                return Then::Wait;
            }
        }
        Then::GoOn
    }

    /// A hello names all rooms at once: it may be as long as a frame.
    fn message_bytes_max(&self) -> usize {
        let limits = &self.stage.limits;
        if self.identity.is_some() { limits.message_bytes_max } else { limits.frame_bytes_max }
    }

    /// Goes on with the frame once this is over; nothing else is handled until then.
    fn wait<F: Future + 'static>(&self, over: F, ctx: &mut Context<Self>) {
        ctx.wait(over.into_actor(self).map(|_, session, ctx| session.go_on(ctx)));
    }

    /// Goes on once its turn has come. What it says has come in time, whenever that is.
    fn wait_among_newcomers(&self, ctx: &mut Context<Self>) {
        let newcomers = self.rooms.newcomers().clone();
        self.outbox.waits_for_turn(true);
        let turn = async move { newcomers.turn().await };
        ctx.wait(turn.into_actor(self).map(|(), session, ctx| {
            session.outbox.waits_for_turn(false);
            session.go_on(ctx);
        }));
    }

    fn message(&mut self, text: &str, commands: &mut commands::Batch, ctx: &mut Context<Self>) -> Then {
        if self.is_too_fast(text) {
            return Then::GoOn;
        }
        let message = match (parse_message(text), &self.identity) {
            (Ok(ClientMessage::Hello(hello)), None) => return self.hello(hello, text.len(), ctx),
            (other, None) => {
                let why = other.err().map_or_else(String::new, |error| format!(": {}", error.reason));
                self.turn_away(&format!("a connection begins with a hello{why}"));
                return Then::GoOn;
            }
            (Err(error), Some(_)) => {
                self.malformed(error.id, error.reason);
                return Then::GoOn;
            }
            (Ok(message), Some(identity)) => match identity.objection(&message) {
                None => (message, identity.user.clone()),
                Some(code) => {
                    self.send(&ServerMessage::Reject(objected(code, message_id(text))));
                    return Then::GoOn;
                }
            },
        };
        match message {
            (ClientMessage::Command(frame), user) => self.command(&user, frame, commands),
            (ClientMessage::Subscribe(subscribe), user) => return self.subscribe(user, subscribe, ctx),
            (ClientMessage::History(request), user) => return self.history(user, request, ctx),
            (ClientMessage::Unsubscribe(unsubscribe), user) => self.unsubscribe(&user, unsubscribe),
            (ClientMessage::Pong, _) => {}
            (ClientMessage::Ephemeral(ephemeral), user) => self.ephemeral(&user, &ephemeral),
            (ClientMessage::Seen(seen), user) => self.seen(&user, &seen),
            (ClientMessage::Authenticate(request), _) => self.authenticate(request),
            (ClientMessage::Hello(_), _) => {
                self.malformed(None, "hello is only the first message of a connection".to_owned());
            }
        }
        Then::GoOn
    }

    fn malformed(&mut self, id: Option<CommandId>, reason: String) {
        self.stage.metrics.malformed.inc();
        self.reject(id, ErrorCode::Malformed, reason);
        if self.malformed.is_too_many(self.stage.limits.malformed_per_minute_max, Instant::now()) {
            self.outbox.close(CloseCode::Malformed);
        }
    }

    /// Says why a connection cannot begin like this, and ends it.
    fn turn_away(&self, why: &str) {
        self.reject(None, ErrorCode::Malformed, why);
        self.outbox.close(CloseCode::Malformed);
    }

    fn unsubscribe(&mut self, user: &MemberId, unsubscribe: Unsubscribe) {
        let (id, room) = unsubscribe.into_parts();
        if let Some(stream) = room.stream(user) {
            self.unfollow(&stream, Leaving::Asked);
            self.give_back_places();
        }
        self.send(&ServerMessage::Unsubscribed(Unsubscribed { id, room }));
    }

    fn unfollow(&mut self, stream: &StreamId, leaving: Leaving) {
        let rooms = self.rooms.clone();
        self.follows.retain(|follow| {
            let keep = follow.stream != *stream;
            if !keep {
                rooms.unfollow(follow, leaving);
            }
            keep
        });
    }

    /// Lets go of places whose reader was told that nothing more comes.
    fn drop_ended(&mut self) {
        let rooms = self.rooms.clone();
        self.follows.retain(|follow| {
            let keep = !follow.rights.have_ended();
            if !keep {
                rooms.unfollow(follow, Leaving::Asked);
            }
            keep
        });
        self.give_back_places();
    }

    /// Of what was sent, so much was shown. What was not sent cannot have been.
    fn seen(&mut self, user: &MemberId, seen: &Seen) {
        let stream = StreamId::room(&seen.room);
        let (Some(user), Some(follow)) =
            (user.user(), self.follows.iter().find(|follow| follow.stream == stream))
        else {
            return;
        };
        if let Some(sent) = follow.next.get().get().checked_sub(1) {
            let revision = seen.revision.min(Revision::new(sent));
            self.stage.read_markers.note(user, seen.room.clone(), revision);
        }
    }
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

    fn stopped(&mut self, _: &mut Self::Context) {
        for follow in self.follows.drain(..) {
            self.rooms.unfollow(&follow, Leaving::Gone);
        }
        if let Some(identity) = &self.identity {
            self.stage.directory.leave(&identity.user, &identity.session, self.arrival);
        }
        self.rest = Frame::default();
        self.count_rest();
        self.forget_token();
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
            Inbound::Text(text) => {
                debug_assert!(self.rest.is_done(), "nothing is read while there is a rest");
                self.rest = Frame::from(text);
                self.go_on(ctx);
            }
            Inbound::Binary(_) => self.outbox.close(CloseCode::NotText),
            Inbound::Violation(code) => self.outbox.close(code),
            Inbound::Pass(pass) => self.renew(pass),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Answers> for Session {
    type Result = ();

    fn handle(&mut self, Answers(answers): Answers, ctx: &mut Self::Context) {
        let kept = answers.iter().map(|answer| commands::answer_bytes(&answer.id, &answer.stream)).sum();
        for refused in answers.iter().filter_map(|answer| answer.outcome.as_ref().err()) {
            self.stage.metrics.message_refused(refused.code.as_str());
        }
        self.outbox.push(commands::encode_answers(&answers));
        self.outbox.end(answers.len(), kept);
        if !self.rest.is_done() && !self.outbox.is_busy() {
            self.go_on(ctx);
        }
    }
}

impl Handler<Call> for Session {
    type Result = ();

    fn handle(&mut self, call: Call, ctx: &mut Self::Context) {
        match call {
            Call::CatchUp => self.catch_up(ctx),
            Call::Token => self.ask_for_token(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every connection has one of these, from its hello to its last moment.
    #[test]
    fn a_session_that_says_nothing_is_small() {
        let size = size_of::<Session>();
        assert!(size <= 320, "{size} bytes");
    }
}
