//! What comes back of a command, and the way back.

use actix::prelude::{Message, Recipient};
use dramatis_events::{CommandId, Position, Revision, StreamId};
use tokio::sync::oneshot;

use crate::protocol::ErrorCode;
use crate::telemetry::metrics::EntityMetrics;

/// The answer to one command.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The command's id.
    pub id: CommandId,
    /// The stream it was for.
    pub stream: StreamId,
    /// What became of it.
    pub outcome: Result<Accepted, Refused>,
}

/// The command holds: what it recorded is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The revision of its last event; where nothing was to be done, the stream's head.
    pub revision: Option<Revision>,
    /// The position of that event; `None` where nothing was to be done.
    pub position: Option<Position>,
    /// It had been recorded before.
    pub duplicate: bool,
}

/// The command does not hold, or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The stable word of the protocol.
    pub code: ErrorCode,
    /// The rule's own stable word.
    pub rule: Option<&'static str>,
    /// A sentence for people.
    pub message: String,
}

impl Refused {
    /// A refusal that no rule of the domain made.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, rule: None, message: message.into() }
    }
}

/// Counts an outcome.
pub fn count(outcome: &Result<Accepted, Refused>, metrics: &EntityMetrics) {
    match outcome {
        Ok(Accepted { duplicate: true, .. }) => {
            metrics.duplicate.inc();
        }
        Ok(Accepted { position: None, .. }) => {
            metrics.no_op.inc();
        }
        Ok(_) => {
            metrics.recorded.inc();
        }
        Err(refused) => metrics.refused(refused.code.as_str()),
    }
}

/// Answers for one session, in the order in which its entity settled them.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Answers(pub Vec<Answer>);

/// Where an answer goes.
#[derive(Debug)]
pub enum ReplyTo {
    /// To a session, together with others.
    Session(Recipient<Answers>),
    /// To one waiting caller.
    Caller(oneshot::Sender<Answer>),
}

/// Answers on their way, grouped so that a session gets one message for all of its own.
#[derive(Default)]
pub struct Outgoing {
    sessions: Vec<(Recipient<Answers>, Vec<Answer>)>,
    callers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

/// How many groups back a session's own is looked for; further back it gets a second one.
const GROUPS_LOOKED_AT: usize = 128;

impl Outgoing {
    /// Adds an answer.
    pub fn push(&mut self, to: ReplyTo, answer: Answer) {
        match to {
            ReplyTo::Caller(caller) => self.callers.push((caller, answer)),
            ReplyTo::Session(session) => {
                let mut recent = self.sessions.iter_mut().rev().take(GROUPS_LOOKED_AT);
                match recent.find(|(known, _)| *known == session) {
                    Some((_, answers)) => answers.push(answer),
                    None => self.sessions.push((session, vec![answer])),
                }
            }
        }
    }

    /// Sends everything; who is gone by now asks again after coming back.
    pub fn send(self) {
        for (session, answers) in self.sessions {
            session.do_send(Answers(answers));
        }
        for (caller, answer) in self.callers {
            let _ = caller.send(answer);
        }
    }
}
