//! The actor that owns one stream: it drains what is pending, decides in order on speculative
//! state, has one append in flight, and answers only when that append has resolved.
//!
//! The state in hand may be ahead of the log while an append is in flight. It becomes the
//! truth when the append succeeds and is thrown away and read again when it does not.

mod batch;
mod load;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use dramatis_events::{CommandId, ContentHash, MemberId, Recorded, Revision, StreamId, UnixMillis};

use self::batch::{Decided, Prepared, decide, prepare};
use self::load::{LoadError, Loaded, load};
use super::answer::{Answer, Outgoing, Refused, ReplyTo, count};
use super::pending_count::PendingCount;
use crate::domain::Decider;
use crate::log::{Append, AppendError, EventLog, Expected};
use crate::protocol::ErrorCode;
use crate::telemetry::metrics::EntityMetrics;

/// Commands decided and appended together at the most.
const BATCH_COMMANDS_MAX: usize = 1_024;
/// How often a batch is decided again after a conflict before its commands are refused.
const CONFLICT_RETRIES_MAX: u32 = 8;

/// A command for an entity of decider `D`.
pub struct Request<D: Decider> {
    /// The client's id for it.
    pub id: CommandId,
    /// Hash of target, name and canonical data.
    pub hash: ContentHash,
    /// Who asks.
    pub author: MemberId,
    /// When it happened by the author's account.
    pub occurred_at: Option<UnixMillis>,
    /// The revision the stream must stand at.
    pub expected: Option<Revision>,
    /// What is asked.
    pub command: D::Command,
}

/// A request and the way back.
pub struct Pending<D: Decider> {
    /// What is asked.
    pub request: Request<D>,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// Requests in their order, counted by the sender in the entity's [`PendingCount`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Submit<D: Decider>(pub Vec<Pending<D>>);

/// How often an entity asks itself whether it is still needed.
const IDLE_CHECK: Duration = Duration::from_secs(10);

enum Phase {
    /// The stream is being read.
    Loading,
    /// Nothing is in flight.
    Idle,
    /// A batch is being prepared or appended.
    Busy,
    /// The stream could not be read; the next request tries again.
    Unloaded,
}

/// See the module.
pub struct Entity<D: Decider> {
    stream: StreamId,
    log: Arc<dyn EventLog>,
    limits: D::Limits,
    state: D::State,
    head: Option<Revision>,
    phase: Phase,
    pending: VecDeque<Pending<D>>,
    count: PendingCount,
    conflicts: u32,
    touched: Instant,
    idle: Option<Idle>,
    metrics: EntityMetrics,
}

/// When an entity may leave memory, and who is told.
pub struct Idle {
    /// Without a request for this long it leaves; one whose stream is empty does so at once.
    pub timeout: Duration,
    /// Told after the entity has retired.
    pub retired: Box<dyn FnOnce() + Send>,
}

impl<D: Decider> Entity<D> {
    /// An entity for this stream; it reads the stream when it starts.
    pub fn new(
        stream: StreamId,
        log: Arc<dyn EventLog>,
        limits: D::Limits,
        count: PendingCount,
        idle: Idle,
        metrics: EntityMetrics,
    ) -> Self {
        Self {
            stream,
            log,
            limits,
            state: D::State::default(),
            head: None,
            phase: Phase::Loading,
            pending: VecDeque::new(),
            count,
            conflicts: 0,
            touched: Instant::now(),
            idle: Some(idle),
            metrics,
        }
    }

    fn load(&mut self, ctx: &mut Context<Self>) {
        self.phase = Phase::Loading;
        let reading = load::<D>(self.log.clone(), self.stream.clone());
        ctx.spawn(reading.into_actor(self).map(|loaded, entity, ctx| entity.loaded(loaded, ctx)));
    }

    fn loaded(&mut self, loaded: Result<Loaded<D>, LoadError>, ctx: &mut Context<Self>) {
        match loaded {
            Ok(Loaded { state, head }) => {
                self.state = state;
                self.head = head;
                self.phase = Phase::Idle;
                self.next_batch(ctx);
            }
            Err(error) => {
                tracing::error!(stream = %self.stream, %error, "an entity cannot read its stream");
                self.phase = Phase::Unloaded;
                let refused = Refused::new(error.code(), error.to_string());
                self.refuse_pending(&refused);
            }
        }
    }

    fn next_batch(&mut self, ctx: &mut Context<Self>) {
        if self.pending.is_empty() {
            self.phase = Phase::Idle;
            return;
        }
        self.phase = Phase::Busy;
        let take = self.pending.len().min(BATCH_COMMANDS_MAX);
        let batch: Vec<_> = self.pending.drain(..take).collect();
        let preparing = prepare::<D>(self.log.clone(), self.stream.clone(), self.head, batch);
        ctx.spawn(preparing.into_actor(self).map(|prepared, entity, ctx| entity.decide(prepared, ctx)));
    }

    fn decide(&mut self, prepared: Vec<Prepared<D>>, ctx: &mut Context<Self>) {
        let mut decided = decide::<D>(&self.stream, &mut self.state, self.head, &self.limits, prepared);
        for pending in decided.left_over.drain(..).rev() {
            self.pending.push_front(pending);
        }
        if decided.envelopes.is_empty() {
            self.settle(decided, &[]);
            self.next_batch(ctx);
            return;
        }
        let append = Append {
            stream: self.stream.clone(),
            expected: Expected::after(self.head),
            envelopes: std::mem::take(&mut decided.envelopes),
        };
        let appending = self.log.append(append);
        ctx.spawn(
            appending.into_actor(self).map(move |result, entity, ctx| entity.appended(result, decided, ctx)),
        );
    }

    fn appended(
        &mut self,
        result: Result<Vec<Arc<Recorded>>, AppendError>,
        decided: Decided<D>,
        ctx: &mut Context<Self>,
    ) {
        match result {
            Ok(events) => {
                self.conflicts = 0;
                self.head = events.last().map(|event| event.revision).or(self.head);
                self.next_batch(ctx);
                self.settle(decided, &events);
            }
            Err(AppendError::Conflict { .. }) if self.conflicts < CONFLICT_RETRIES_MAX => {
                self.conflicts += 1;
                for pending in decided.into_pending().into_iter().rev() {
                    self.pending.push_front(pending);
                }
                self.load(ctx);
            }
            Err(error) => {
                tracing::error!(stream = %self.stream, %error, "an append did not succeed");
                self.conflicts = 0;
                let code = match error {
                    AppendError::Failure { .. } => ErrorCode::UnknownOutcome,
                    AppendError::Unavailable { .. } | AppendError::Conflict { .. } => ErrorCode::Unavailable,
                    AppendError::Empty | AppendError::TooLarge { .. } => ErrorCode::Internal,
                };
                self.refuse(decided.into_pending(), &Refused::new(code, error.to_string()));
                self.load(ctx);
            }
        }
    }

    fn settle(&mut self, decided: Decided<D>, events: &[Arc<Recorded>]) {
        let head = self.head;
        let mut outgoing = Outgoing::default();
        let mut settled = 0;
        for (pending, verdict) in decided.verdicts {
            let outcome = verdict.resolve(events, head);
            count(&outcome, &self.metrics);
            let answer = Answer { id: pending.request.id, stream: self.stream.clone(), outcome };
            outgoing.push(pending.reply, answer);
            settled += 1;
        }
        self.count.remove(settled);
        outgoing.send();
    }

    /// Leaves memory if nothing was asked for long enough. The count closes the race with a
    /// sender: once retired, no request can be counted, and the registry starts a new entity.
    fn retire_if_idle(&mut self, ctx: &mut Context<Self>) {
        let timeout = self.idle.as_ref().map_or(Duration::MAX, |idle| idle.timeout);
        let due = self.head.is_none() || self.touched.elapsed() >= timeout;
        if due && self.count.retire() {
            if let Some(idle) = self.idle.take() {
                (idle.retired)();
            }
            ctx.stop();
        }
    }

    fn refuse_pending(&mut self, refused: &Refused) {
        let pending = std::mem::take(&mut self.pending).into();
        self.refuse(pending, refused);
    }

    fn refuse(&mut self, pending: Vec<Pending<D>>, refused: &Refused) {
        let mut outgoing = Outgoing::default();
        self.count.remove(pending.len());
        for Pending { request, reply } in pending {
            let outcome = Err(refused.clone());
            count(&outcome, &self.metrics);
            outgoing.push(reply, Answer { id: request.id, stream: self.stream.clone(), outcome });
        }
        outgoing.send();
    }
}

impl<D: Decider> Actor for Entity<D> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.load(ctx);
        ctx.run_interval(IDLE_CHECK, Self::retire_if_idle);
    }
}

impl<D: Decider> Handler<Submit<D>> for Entity<D> {
    type Result = ();

    fn handle(&mut self, Submit(requests): Submit<D>, ctx: &mut Self::Context) {
        self.touched = Instant::now();
        self.pending.extend(requests);
        match self.phase {
            Phase::Idle => self.next_batch(ctx),
            Phase::Unloaded => self.load(ctx),
            Phase::Loading | Phase::Busy => {}
        }
    }
}
