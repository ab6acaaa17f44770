//! One batch of an entity: look up what its commands need, then decide them in order.

use std::collections::HashMap;
use std::sync::Arc;

use dramatis_events::{
    CommandKey, CommandStamp, ContentHash, Envelope, Event, EventId, Recorded, Revision, StreamId,
};

use super::{Pending, Request};
use crate::actors::answer::{Accepted, Refused};
use crate::domain::{Context, Decider, Rejection, RejectionClass, Target};
use crate::log::{
    APPEND_BYTES_MAX, APPEND_EVENTS_MAX, CommandOutcome, CommandRef, EVENT_BYTES_MAX, EventLog, LogError,
    ReadLimit,
};
use crate::protocol::ErrorCode;

/// A request with everything that deciding it needs.
pub(super) struct Prepared<D: Decider> {
    pending: Pending<D>,
    key: CommandKey,
    facts: Result<Facts<D>, LogError>,
}

struct Facts<D: Decider> {
    known: Option<CommandOutcome>,
    target: Option<Target<D::Event>>,
}

/// Looks up, for each request, its first outcome and the event it refers to.
pub(super) async fn prepare<D: Decider>(
    log: Arc<dyn EventLog>,
    stream: StreamId,
    head: Option<Revision>,
    batch: Vec<Pending<D>>,
) -> Vec<Prepared<D>> {
    let mut prepared = Vec::with_capacity(batch.len());
    for pending in batch {
        let request = &pending.request;
        let command =
            CommandRef { stream: stream.clone(), author: request.author.clone(), id: request.id.clone() };
        let key = command.key();
        let target = D::target(&request.command);
        let facts = facts(&*log, command, target, head).await;
        prepared.push(Prepared { pending, key, facts });
    }
    prepared
}

async fn facts<D: Decider>(
    log: &dyn EventLog,
    command: CommandRef,
    target: Option<Revision>,
    head: Option<Revision>,
) -> Result<Facts<D>, LogError> {
    let stream = command.stream.clone();
    let known = log.find_command(command).await?;
    let target = match target {
        Some(revision) if known.is_none() && Some(revision) <= head => {
            let found = log.read_stream(&stream, revision, ReadLimit::events(1)).await?;
            found.first().filter(|event| event.revision == revision).and_then(|event| {
                let decoded = D::Event::from_envelope(&event.envelope).ok()?;
                Some(Target { revision, author: event.envelope.author.clone(), event: decoded })
            })
        }
        _ => None,
    };
    Ok(Facts { known, target })
}

/// What was decided for one request, before the append resolves.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// Settled whatever the append does.
    Now(Result<Accepted, Refused>),
    /// Nothing to do: holds with the stream's head.
    NoOp,
    /// Recorded by the append's event of this index.
    Recorded { last: usize, duplicate: bool },
}

impl Verdict {
    /// The outcome, once the append has succeeded.
    pub(super) fn resolve(
        self,
        events: &[Arc<Recorded>],
        head: Option<Revision>,
    ) -> Result<Accepted, Refused> {
        match self {
            Self::Now(outcome) => outcome,
            Self::NoOp => Ok(Accepted { revision: head, position: None, duplicate: false }),
            Self::Recorded { last, duplicate } => events
                .get(last)
                .map(|event| Accepted {
                    revision: Some(event.revision),
                    position: Some(event.position),
                    duplicate,
                })
                .ok_or_else(|| {
                    Refused::new(ErrorCode::Internal, "the log answered with fewer events than it took")
                }),
        }
    }
}

/// A decided batch: what to append, and what to answer.
pub(super) struct Decided<D: Decider> {
    pub(super) envelopes: Vec<Envelope>,
    pub(super) verdicts: Vec<(Pending<D>, Verdict)>,
    /// What did not fit into this append, in order.
    pub(super) left_over: Vec<Pending<D>>,
    /// The state is not what the events make of it and must be read again.
    pub(super) is_state_spoiled: bool,
}

impl<D: Decider> Decided<D> {
    /// The requests, to be decided again or refused.
    pub(super) fn into_pending(self) -> Vec<Pending<D>> {
        self.verdicts.into_iter().map(|(pending, _)| pending).collect()
    }
}

/// Decides a batch in order, each command on the state that those before it left.
pub(super) fn decide<D: Decider>(
    stream: &StreamId,
    state: &mut D::State,
    head: Option<Revision>,
    limits: &D::Limits,
    batch: Vec<Prepared<D>>,
) -> Decided<D> {
    let mut deciding = Batch::<D> {
        stream,
        state,
        head,
        limits,
        seen: HashMap::new(),
        envelopes: Vec::with_capacity(batch.len()),
        bytes: 0,
        is_state_spoiled: false,
    };
    let mut decided = Decided {
        envelopes: Vec::new(),
        verdicts: Vec::with_capacity(batch.len()),
        left_over: Vec::new(),
        is_state_spoiled: false,
    };
    for prepared in batch {
        if !decided.left_over.is_empty() || deciding.is_full() {
            decided.left_over.push(prepared.pending);
            continue;
        }
        let verdict = deciding.decide(&prepared.pending.request, prepared.key, prepared.facts);
        decided.verdicts.push((prepared.pending, verdict));
    }
    decided.envelopes = deciding.envelopes;
    decided.is_state_spoiled = deciding.is_state_spoiled;
    decided
}

struct Batch<'a, D: Decider> {
    stream: &'a StreamId,
    state: &'a mut D::State,
    head: Option<Revision>,
    limits: &'a D::Limits,
    /// Commands of this batch that record something: a retry may stand beside its original.
    seen: HashMap<CommandKey, (ContentHash, usize)>,
    envelopes: Vec<Envelope>,
    bytes: usize,
    is_state_spoiled: bool,
}

/// Events one command may record; so many must be left in an append for one more command.
const COMMAND_EVENTS_MAX: usize = 16;

impl<D: Decider> Batch<'_, D> {
    fn is_full(&self) -> bool {
        self.is_state_spoiled
            || self.envelopes.len() + COMMAND_EVENTS_MAX > APPEND_EVENTS_MAX
            || self.bytes + EVENT_BYTES_MAX > APPEND_BYTES_MAX
    }

    fn decide(
        &mut self,
        request: &Request<D>,
        key: CommandKey,
        facts: Result<Facts<D>, LogError>,
    ) -> Verdict {
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => return refuse(ErrorCode::Unavailable, error.to_string()),
        };
        if let Some(first) = facts.known {
            return if first.hash == request.hash {
                let (revision, position) = (Some(first.revision), Some(first.position));
                Verdict::Now(Ok(Accepted { revision, position, duplicate: true }))
            } else {
                reused()
            };
        }
        if let Some((hash, last)) = self.seen.get(&key) {
            let same = *hash == request.hash;
            return if same { Verdict::Recorded { last: *last, duplicate: true } } else { reused() };
        }
        let context = Context { author: &request.author, target: facts.target.as_ref(), limits: self.limits };
        // First: who may not do this is not told where the room stands.
        let events = match D::decide(self.state, &context, &request.command) {
            Err(rejection) => return rejected(&rejection),
            Ok(events) => events,
        };
        if let Some(expected) = request.expected
            && self.head_now() != Some(expected)
        {
            let stands = self.head_now().map_or_else(|| "empty".to_owned(), |head| format!("at {head}"));
            return refuse(
                ErrorCode::Conflict,
                format!("expected revision {expected}, but the room is {stands}"),
            );
        }
        if events.is_empty() { Verdict::NoOp } else { self.record(request, key, &events) }
    }

    fn head_now(&self) -> Option<Revision> {
        let count = u64::try_from(self.envelopes.len()).unwrap_or(u64::MAX);
        match self.head {
            Some(head) => Some(Revision::new(head.get().saturating_add(count))),
            None => count.checked_sub(1).map(Revision::new),
        }
    }

    fn record(&mut self, request: &Request<D>, key: CommandKey, events: &[D::Event]) -> Verdict {
        let mut envelopes = Vec::with_capacity(events.len());
        for (index, event) in (0..).zip(events) {
            match envelope::<D>(request, EventId::derive(key, index), event) {
                Ok(envelope) => envelopes.push(envelope),
                Err(verdict) => return verdict,
            }
        }
        for event in events {
            if let Err(error) = D::evolve(self.state, event) {
                tracing::error!(stream = %self.stream, %error, "a decider returned an event it does not accept");
                // Events of this command before it may be folded already.
                self.is_state_spoiled = true;
                return refuse(ErrorCode::Internal, error.to_string());
            }
        }
        self.bytes += envelopes.iter().map(|envelope| envelope.data.len()).sum::<usize>();
        self.envelopes.append(&mut envelopes);
        let last = self.envelopes.len().saturating_sub(1);
        self.seen.insert(key, (request.hash, last));
        Verdict::Recorded { last, duplicate: false }
    }
}

fn envelope<D: Decider>(request: &Request<D>, id: EventId, event: &D::Event) -> Result<Envelope, Verdict> {
    let data = event.encode().map_err(|error| refuse(ErrorCode::Internal, error.to_string()))?;
    if data.len() > EVENT_BYTES_MAX {
        let message = format!("an event holds at most {EVENT_BYTES_MAX} bytes, this one has {}", data.len());
        return Err(Verdict::Now(Err(Refused { code: ErrorCode::Rule, rule: Some("too_large"), message })));
    }
    Ok(Envelope {
        id,
        name: event.event_name(),
        version: event.version(),
        occurred_at: request.occurred_at,
        author: request.author.clone(),
        command: Some(CommandStamp { id: request.id.clone(), hash: request.hash }),
        correlation_id: request.cause.map(|cause| cause.began_with),
        causation_id: request.cause.map(|cause| cause.event),
        subject: request.author.user(),
        data,
    })
}

fn refuse(code: ErrorCode, message: String) -> Verdict {
    Verdict::Now(Err(Refused::new(code, message)))
}

fn reused() -> Verdict {
    let message = "this command id came before with other content: choose a new id for a new command";
    refuse(ErrorCode::CommandIdReused, message.to_owned())
}

fn rejected(rejection: &impl Rejection) -> Verdict {
    let code = match rejection.class() {
        RejectionClass::NotFound => ErrorCode::NotFound,
        RejectionClass::NotAMember => ErrorCode::NotAMember,
        RejectionClass::Forbidden => ErrorCode::Forbidden,
        RejectionClass::Rule => ErrorCode::Rule,
    };
    Verdict::Now(Err(Refused { code, rule: Some(rejection.word()), message: rejection.to_string() }))
}
