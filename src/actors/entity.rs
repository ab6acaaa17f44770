//! The actor that owns one stream: it drains what is pending, decides in order on speculative
//! state, has one append in flight, and answers only when that append has resolved.
//!
//! The state in hand may be ahead of the log while an append is in flight. It becomes the
//! truth when the append succeeds and is thrown away and read again when it does not. Only what
//! is the truth is ever saved as a snapshot.

mod ask;
mod batch;
mod load;
mod saving;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use dramatis_events::{
    CommandId, ContentHash, Envelope, Epoch, EventId, MemberId, Recorded, Revision, StreamId, UnixMillis,
};

pub use self::ask::{Ask, Question, Standing};
use self::batch::{Decided, Prepared, decide, prepare};
use self::load::{LoadError, Loaded, Origin, event_count, key, load};
use self::saving::Saving;
use super::answer::{Answer, Outgoing, Refused, ReplyTo, count};
use super::pending_count::PendingCount;
use crate::domain::Decider;
use crate::log::{Append, AppendError, EventLog, Expected};
use crate::protocol::ErrorCode;
use crate::snapshots::{LastEvent, Snapshot, Snapshots};
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
    /// The event that it follows from, if it is not a client's own wish.
    pub cause: Option<Cause>,
    /// What is asked.
    pub command: D::Command,
}

/// The event that made a reactor ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// The event itself.
    pub event: EventId,
    /// The event that began the chain.
    pub began_with: EventId,
}

impl Cause {
    /// As the cause of what follows from it.
    pub fn of(event: &Envelope) -> Self {
        Self { event: event.id, began_with: event.correlation_id.unwrap_or(event.id) }
    }
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

/// After this an entity asks itself for the first time whether it is still needed; one whose
/// stream is empty, or that nobody used, leaves then.
const FIRST_IDLE_CHECK: Duration = Duration::from_secs(2);
/// An entity that was due to leave but had a request in hand asks again after this.
const NEXT_IDLE_CHECK: Duration = Duration::from_millis(100);
/// How far the queue's buffer may stay grown while nothing waits.
const IDLE_CAPACITY_MAX: usize = 64;

/// What the entities of a decider share.
pub struct Surroundings<D: Decider> {
    /// The one truth.
    pub log: Arc<dyn EventLog>,
    /// What saves reading it.
    pub snapshots: Arc<dyn Snapshots>,
    /// Events between two snapshots of a small state; 0 makes none.
    pub snapshot_every_events: u64,
    /// The limits in force.
    pub limits: D::Limits,
    /// What is counted.
    pub metrics: EntityMetrics,
}

impl<D: Decider> Clone for Surroundings<D> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            snapshots: self.snapshots.clone(),
            snapshot_every_events: self.snapshot_every_events,
            limits: self.limits.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

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
    around: Surroundings<D>,
    state: D::State,
    last: Option<LastEvent>,
    epoch: Epoch,
    saving: Saving,
    phase: Phase,
    pending: VecDeque<Pending<D>>,
    questions: Vec<Question<D>>,
    count: PendingCount,
    conflicts: u32,
    /// When it was used last; one that was only looked at was not.
    used_at: Option<Instant>,
    idle: Option<Idle>,
}

/// When an entity may leave memory, and who is told.
pub struct Idle {
    /// Without a request for this long it leaves; one whose stream is empty, or that was only looked at,
    /// does so at once.
    pub timeout: Duration,
    /// Told after the entity has retired.
    pub retired: Box<dyn FnOnce() + Send>,
}

impl<D: Decider> Entity<D> {
    /// An entity for this stream; it reads the stream when it starts.
    pub fn new(stream: StreamId, around: Surroundings<D>, count: PendingCount, idle: Idle) -> Self {
        Self {
            stream,
            epoch: around.log.epoch(),
            saving: Saving::every(around.snapshot_every_events),
            around,
            state: D::State::default(),
            last: None,
            phase: Phase::Loading,
            pending: VecDeque::new(),
            questions: Vec::new(),
            count,
            conflicts: 0,
            used_at: None,
            idle: Some(idle),
        }
    }

    fn head(&self) -> Option<Revision> {
        self.last.map(|last| last.revision)
    }

    fn load(&mut self, ctx: &mut Context<Self>) {
        self.phase = Phase::Loading;
        let around = &self.around;
        let reading = load::<D>(around.log.clone(), around.snapshots.clone(), self.stream.clone());
        ctx.spawn(reading.into_actor(self).map(|loaded, entity, ctx| entity.loaded(loaded, ctx)));
    }

    fn loaded(&mut self, loaded: Result<Loaded<D>, LoadError>, ctx: &mut Context<Self>) {
        match loaded {
            Ok(Loaded { state, last, epoch, read, origin }) => {
                (self.state, self.last, self.epoch) = (state, last, epoch);
                self.around.metrics.loaded(matches!(origin, Origin::Snapshot { .. }), read);
                self.saving.loaded(origin);
                self.next_batch(ctx);
                self.save_if_due(ctx);
            }
            Err(error) => {
                tracing::error!(stream = %self.stream, %error, "an entity cannot read its stream");
                self.phase = Phase::Unloaded;
                let refused = Refused::new(error.code(), error.to_string());
                self.refuse_pending(&refused);
                self.refuse_questions(&refused);
            }
        }
    }

    /// Goes on, on a state that is what is recorded.
    fn next_batch(&mut self, ctx: &mut Context<Self>) {
        self.answer_questions();
        if self.pending.is_empty() {
            self.phase = Phase::Idle;
            return;
        }
        self.phase = Phase::Busy;
        let take = self.pending.len().min(BATCH_COMMANDS_MAX);
        let batch: Vec<_> = self.pending.drain(..take).collect();
        let preparing = prepare::<D>(self.around.log.clone(), self.stream.clone(), self.head(), batch);
        ctx.spawn(preparing.into_actor(self).map(|prepared, entity, ctx| entity.decide(prepared, ctx)));
    }

    fn decide(&mut self, prepared: Vec<Prepared<D>>, ctx: &mut Context<Self>) {
        let (head, limits) = (self.head(), &self.around.limits);
        let mut decided = decide::<D>(&self.stream, &mut self.state, head, limits, prepared);
        for pending in decided.left_over.drain(..).rev() {
            self.pending.push_front(pending);
        }
        if decided.envelopes.is_empty() {
            self.go_on(decided.is_state_spoiled, ctx);
            self.settle(decided, &[]);
            return;
        }
        let append = Append {
            stream: self.stream.clone(),
            expected: Expected::after(head),
            envelopes: std::mem::take(&mut decided.envelopes),
        };
        let appending = self.around.log.append(append);
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
                self.last = events.last().map(|event| LastEvent::from(&**event)).or(self.last);
                let is_state_spoiled = decided.is_state_spoiled;
                self.go_on(is_state_spoiled, ctx);
                self.settle(decided, &events);
                if !is_state_spoiled {
                    self.save_if_due(ctx);
                }
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

    /// Takes up what waits, on a state that was read again if it is not what was recorded.
    fn go_on(&mut self, is_state_spoiled: bool, ctx: &mut Context<Self>) {
        if is_state_spoiled { self.load(ctx) } else { self.next_batch(ctx) }
    }

    fn settle(&mut self, decided: Decided<D>, events: &[Arc<Recorded>]) {
        let head = self.head();
        let mut outgoing = Outgoing::default();
        let mut settled = 0;
        for (pending, verdict) in decided.verdicts {
            let outcome = verdict.resolve(events, head);
            count(&outcome, &self.around.metrics);
            let answer = Answer { id: pending.request.id, stream: self.stream.clone(), outcome };
            outgoing.push(pending.reply, answer);
            settled += 1;
        }
        self.count.remove(settled);
        outgoing.send();
    }

    /// Saves the state, which must be what the log says up to the last event. Answers do not
    /// wait for it: it is called when they are on their way.
    fn save_if_due(&mut self, ctx: &mut Context<Self>) {
        let events = event_count(self.last);
        if self.saving.is_due(events)
            && let Some(kept) = self.save(events)
        {
            ctx.spawn(kept.into_actor(self).map(move |kept, entity, _| entity.saving.ended(events, kept)));
        }
    }

    /// Begins to save the state; whether it was kept is counted, and said to who waits.
    fn save(&mut self, events: u64) -> Option<impl Future<Output = bool> + use<D>> {
        let last = self.last?;
        let state = match serde_json::to_vec(&self.state) {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(stream = %self.stream, %error, "an entity's state cannot be saved");
                self.saving.failed(events);
                return None;
            }
        };
        self.saving.begun(events, state.len());
        let key = key::<D>(&self.stream, self.epoch);
        let saving = self.around.snapshots.save(&key, Snapshot { last, state });
        let metrics = self.around.metrics.clone();
        Some(async move {
            let kept = saving.await;
            metrics.snapshot(kept);
            kept
        })
    }

    fn used(&mut self) {
        self.used_at = Some(Instant::now());
    }

    /// Leaves memory if it was not used for long enough. The count closes the race with a
    /// sender: once retired, no request can be counted, and the registry starts a new entity.
    fn retire_if_idle(&mut self, ctx: &mut Context<Self>) {
        let timeout = self.idle.as_ref().map_or(Duration::MAX, |idle| idle.timeout);
        let left = self.used_at.map_or(Duration::ZERO, |at| timeout.saturating_sub(at.elapsed()));
        let is_due = self.last.is_none() || left.is_zero();
        if !is_due || !self.count.retire() {
            if self.pending.is_empty() {
                self.pending.shrink_to(IDLE_CAPACITY_MAX);
            }
            ctx.run_later(left.max(NEXT_IDLE_CHECK.min(timeout)), Self::retire_if_idle);
            return;
        }
        let events = event_count(self.last);
        if matches!(self.phase, Phase::Idle)
            && self.saving.is_due_on_leaving(events)
            && let Some(kept) = self.save(events)
        {
            actix_rt::spawn(kept);
        }
        if let Some(idle) = self.idle.take() {
            (idle.retired)();
        }
        ctx.stop();
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
            count(&outcome, &self.around.metrics);
            outgoing.push(reply, Answer { id: request.id, stream: self.stream.clone(), outcome });
        }
        outgoing.send();
    }
}

impl<D: Decider> Actor for Entity<D> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.load(ctx);
        let timeout = self.idle.as_ref().map_or(Duration::MAX, |idle| idle.timeout);
        ctx.run_later(timeout.min(FIRST_IDLE_CHECK), Self::retire_if_idle);
    }
}

impl<D: Decider> Handler<Submit<D>> for Entity<D> {
    type Result = ();

    fn handle(&mut self, Submit(requests): Submit<D>, ctx: &mut Self::Context) {
        self.used();
        self.pending.extend(requests);
        match self.phase {
            Phase::Idle => self.next_batch(ctx),
            Phase::Unloaded => self.load(ctx),
            Phase::Loading | Phase::Busy => {}
        }
    }
}
