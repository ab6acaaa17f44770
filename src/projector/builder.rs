//! The task that makes builds beside the live one: to replace it, to check it, or to show how it
//! was. What it has done is in the store, so a restart goes on from there.

use std::time::Duration;

use dramatis_events::Position;
use dramatis_projections::DynProjection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::proof::Proof;
use super::asks::{Ask, Compared, Switch};
use super::backoff::Backoff;
use super::compare::Difference;
use super::record::{Completion, Job, JobState, Kept, Ledger, Purpose, Record};
use super::run::{Run, RunError};
use super::sitting::{Pace, Sitting, left};
use super::status::JobProgress;
use super::trouble::answers_again;
use super::{Health, History, Shared, Status};
use crate::read_models::ReadModelError;

mod proof;
mod sweep;

/// How often what was done is written down while a build is made.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The longest wait between two pages to give way to live traffic.
const GIVE_WAY_MAX: Duration = Duration::from_secs(1);
/// How many keys more than the live build has a build may park before it counts as failed.
const PARKED_MAX: usize = 10_000;

pub(super) struct Builder {
    projection: &'static dyn DynProjection,
    shared: Shared,
    ledger: Ledger,
    asks: mpsc::Sender<Ask>,
    live: watch::Receiver<Status>,
    wake: watch::Receiver<u64>,
    progress: watch::Sender<Option<JobProgress>>,
    /// Whether it has told of the record once.
    looked: watch::Sender<bool>,
    backoff: Backoff,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    /// An admin changed something, the process ends, or another projector took over.
    Halt,
}

impl Builder {
    pub(super) fn new(
        projection: &'static dyn DynProjection,
        shared: Shared,
        asks: mpsc::Sender<Ask>,
        live: watch::Receiver<Status>,
        wake: watch::Receiver<u64>,
        progress: watch::Sender<Option<JobProgress>>,
        looked: watch::Sender<bool>,
    ) -> Self {
        let backoff = Backoff::new(&shared.options, projection.name());
        let ledger = Ledger::new(shared.store.clone(), projection.name());
        Self { projection, shared, ledger, asks, live, wake, progress, looked, backoff }
    }

    /// Works whenever there is a job, until it is stopped.
    pub(super) async fn work(mut self) {
        let mut stop = self.shared.stop.clone();
        while !*stop.borrow() {
            self.wake.borrow_and_update();
            let wait = match self.attend().await {
                Ok(()) => {
                    self.backoff.reset();
                    None
                }
                Err(error) => {
                    let wait = self.backoff.fail();
                    if self.shared.store.health().trouble.is_none() && self.backoff.is_worth_saying() {
                        tracing::warn!(
                            projection = self.projection.name(), %error, failures = self.backoff.failures(),
                            "a build stopped where it is and goes on from there"
                        );
                    }
                    Some(wait)
                }
            };
            tokio::select! {
                changed = self.wake.changed() => if changed.is_err() { return },
                () = async { tokio::time::sleep(wait.unwrap_or_default()).await }, if wait.is_some() => {}
                () = answers_again(self.shared.store.as_ref()), if wait.is_some() => {}
                _ = stop.changed() => {}
            }
        }
    }

    async fn attend(&mut self) -> Result<(), RunError> {
        let (live, elsewhere) = {
            let status = self.live.borrow();
            (status.collection.clone(), status.health.is_elsewhere())
        };
        if live.is_empty() || elsewhere {
            // The worker wakes this task once it has found the live build.
            return Ok(());
        }
        let record = self.ledger.read().await?;
        let Some(job) = record.job.clone() else {
            self.tell(None);
            return Ok(());
        };
        if !job.state.is_active() {
            self.publish(&job, None);
            return self.sweep().await;
        }
        if matches!(job.state, JobState::Paused | JobState::Differs) {
            let position = self.checkpoint_of(&job.collection).await?.and_then(|build| build.position);
            self.publish(&job, position);
            return Ok(());
        }
        if job.version != self.projection.version() || job.epoch != self.shared.log.epoch() {
            return self.fail(&job, "it is of another version of the fold or of another history").await;
        }
        self.sweep().await?;
        self.build(job).await
    }

    async fn checkpoint_of(
        &self,
        collection: &str,
    ) -> Result<Option<crate::read_models::Checkpoint>, RunError> {
        let builds = self.shared.store.builds().await?;
        Ok(builds.into_iter().find(|build| build.collection == collection).map(|build| build.checkpoint))
    }

    async fn build(&mut self, job: Job) -> Result<(), RunError> {
        let collection = job.collection.clone();
        let run = match self.checkpoint_of(&collection).await? {
            Some(checkpoint) => Run::open(&self.shared, self.projection, collection, checkpoint).await?,
            None => Run::create(&self.shared, self.projection, collection).await?,
        };
        let now = Instant::now();
        let mut sitting = Sitting { job, run, began: now, saved: now };
        let made = match sitting.job.purpose {
            Purpose::AsOf { position } => self.show(&mut sitting, position).await,
            Purpose::Rebuild | Purpose::Verify => return self.replace(sitting).await,
        };
        self.save(&mut sitting).await?;
        made.map(|_| ())
    }

    /// Makes a build as of a position, to be kept for a while.
    async fn show(&mut self, sitting: &mut Sitting, position: Position) -> Result<Flow, RunError> {
        if self.read_to(sitting, Some(position)).await? == Flow::Halt {
            return Ok(Flow::Halt);
        }
        let Some(completion) = self.counted(sitting).await? else { return Ok(Flow::Halt) };
        let (now, retention) = (self.shared.clock.now(), self.shared.options.retention);
        let later = now.get().saturating_add(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
        let kept = Kept {
            collection: sitting.run.collection.clone(),
            as_of: Some(position),
            warm_until: None,
            drop_at: dramatis_events::UnixMillis::new(later),
        };
        self.save(sitting).await?;
        self.end(sitting, JobState::Done, |record, job| {
            job.completion = Some(completion);
            record.keep(kept.clone());
        })
        .await?;
        // Who hears that it is done finds it among what is kept.
        let (answer, answered) = oneshot::channel();
        if self.asks.send(Ask::Look(answer)).await.is_ok() {
            let _ = answered.await;
        }
        Ok(Flow::On)
    }

    /// Makes a build that is proven against the live one, and switched to unless it is only to
    /// tell whether they are the same.
    async fn replace(&mut self, mut sitting: Sitting) -> Result<(), RunError> {
        let (frozen, live, history) = {
            let status = self.live.borrow();
            let frozen = matches!(status.health, Health::Frozen { .. });
            (frozen.then_some(status.position), status.collection.clone(), status.history)
        };
        if let (Some(at), Purpose::Verify) = (frozen, sitting.job.purpose) {
            return self.verify_frozen(sitting, &live, at, history).await;
        }
        let mut difference = sitting.job.difference.clone().unwrap_or_default();
        let mut compared = sitting.job.difference.is_some();
        if let Some(at @ Some(_)) = frozen
            && !compared
        {
            if self.read_to(&mut sitting, at).await? == Flow::Halt {
                return self.save(&mut sitting).await;
            }
            difference = match self.compare_with_frozen(&mut sitting, &live, at).await? {
                Some((difference, _)) => difference,
                None => return self.save(&mut sitting).await,
            };
            compared = true;
            if difference.is_some() && !sitting.job.accept {
                return self.differs(sitting, difference).await;
            }
        }
        if self.read_to(&mut sitting, None).await? == Flow::Halt {
            return self.save(&mut sitting).await;
        }
        self.enter(&mut sitting, JobState::Proving).await?;
        // What an admin accepted is compared again if anything has moved since, so that the record
        // shows how what is switched to differs.
        let seen = sitting.job.completion.is_some_and(|known| known.position == sitting.run.position);
        let proof = if frozen.is_some() || (compared && sitting.job.accept && seen) {
            self.counted(&mut sitting).await?.map(Proof::of)
        } else {
            self.prove(&mut sitting, &live, &mut difference).await?
        };
        let Some(proof) = proof else { return self.save(&mut sitting).await };
        if difference.is_some() && !sitting.job.accept {
            sitting.job.completion = Some(proof.completion);
            return self.differs(sitting, difference).await;
        }
        // Comparing and counting took their time: little is to be left to the moment of the switch.
        if self.read_to(&mut sitting, None).await? == Flow::Halt {
            return self.save(&mut sitting).await;
        }
        self.hand_over(sitting, proof, difference).await
    }

    /// Has the task of the live build compare the rest and switch.
    async fn hand_over(
        &mut self,
        sitting: Sitting,
        proof: Proof,
        difference: Difference,
    ) -> Result<(), RunError> {
        let Proof { suspects, parked, completion } = proof;
        let (job, accept) = (sitting.job(), sitting.job.accept);
        let verify = sitting.job.purpose == Purpose::Verify;
        let found = difference.is_some().then_some(difference);
        self.note(&job, |_, noted| {
            noted.completion = Some(completion);
            noted.difference.clone_from(&found);
        })
        .await?;
        let (answer, answered) = oneshot::channel();
        let switch = Switch { run: sitting.run, suspects, parked, accept, verify, completion, answer };
        let stopped = || RunError::Store(ReadModelError::Failure { reason: "the projector stops".into() });
        self.asks.send(Ask::Switch(Box::new(switch))).await.map_err(|_| stopped())?;
        match answered.await.map_err(|_| stopped())?? {
            Compared::Same => {
                let Completion { position, documents, digest } = completion;
                let position = position.map(tracing::field::display);
                tracing::info!(
                    projection = self.projection.name(), position, documents, %digest, "built and proven"
                );
                // If it was switched to, that is written down already.
                let now = self.shared.clock.now();
                self.note(&job, |_, noted| noted.end(JobState::Done, now)).await?;
            }
            Compared::Differs(difference) => return self.note_difference(&job, difference).await,
        }
        let record = self.ledger.read().await?;
        let ended = record.job.clone().unwrap_or(job);
        self.publish(&ended, completion.position);
        if ended.state.is_active() { Ok(()) } else { self.sweep().await }
    }

    async fn differs(&mut self, sitting: Sitting, difference: Difference) -> Result<(), RunError> {
        let mut job = sitting.job();
        job.completion = sitting.job.completion;
        self.note_difference(&job, difference).await
    }

    /// A rebuild that differs waits for an admin; a check has said what it was to say.
    async fn note_difference(&mut self, job: &Job, difference: Difference) -> Result<(), RunError> {
        tracing::error!(
            projection = self.projection.name(),
            collection = job.collection,
            documents = difference.documents,
            parked = difference.parked,
            "the new build shows other documents than the live one, or has other keys parked: that stays"
        );
        let (verify, now) = (job.purpose == Purpose::Verify, self.shared.clock.now());
        self.note(job, |_, noted| {
            noted.difference = Some(difference.clone());
            if verify {
                noted.end(JobState::Done, now);
            } else if !noted.accept && noted.state != JobState::Paused {
                noted.state = JobState::Differs;
            }
        })
        .await?;
        // Shows it, drops what is to be dropped, and goes on if it was accepted meanwhile.
        self.wake.mark_changed();
        Ok(())
    }

    async fn fail(&mut self, job: &Job, why: &str) -> Result<(), RunError> {
        let now = self.shared.clock.now();
        self.note(job, |_, noted| {
            noted.error = Some(why.to_owned());
            noted.end(JobState::Failed, now);
        })
        .await?;
        self.wake.mark_changed();
        Ok(())
    }

    /// Reads and folds up to the target, or to the log's end; while that moves on, up to a page
    /// before it, and the moment of the switch does the rest. What was folded is written then.
    async fn read_to(&mut self, sitting: &mut Sitting, target: Option<Position>) -> Result<Flow, RunError> {
        sitting.run.overlap(Some(sitting.page_events_max()));
        let flow = self.read_on(sitting, target).await?;
        sitting.run.overlap(None);
        sitting.run.settle().await.map(|_| flow)
    }

    async fn read_on(&mut self, sitting: &mut Sitting, target: Option<Position>) -> Result<Flow, RunError> {
        let mut head = self.shared.log.head();
        let (from, began) = (sitting.run.events, Instant::now());
        let mut pace = Pace::new();
        loop {
            if self.is_halted() || self.parks_too_much(sitting).await? {
                return Ok(Flow::Halt);
            }
            let started = Instant::now();
            let moved = match target {
                Some(target) => sitting.run.step_to(Some(target)).await?,
                None => sitting.run.step().await?,
            };
            self.publish(&sitting.job(), sitting.run.position);
            let left = left(sitting.run.position, *head.borrow());
            let near = u64::try_from(self.shared.options.page.events).unwrap_or(u64::MAX);
            let busy = head.has_changed().unwrap_or(false);
            if !moved || (target.is_none() && busy && left <= near) {
                return Ok(Flow::On);
            }
            if sitting.saved.elapsed() >= SAVE_EVERY {
                self.save(sitting).await?;
            }
            head.borrow_and_update();
            self.give_way(started.elapsed(), busy && pace.gains(left)).await;
            if let Some(max) = sitting.job.events_per_s_max {
                let folded = sitting.run.events.saturating_sub(from);
                let due = Duration::from_millis(folded.saturating_mul(1_000) / max.max(1));
                self.pause(due.saturating_sub(began.elapsed())).await;
            }
        }
    }

    /// Whether an admin changed something, the process ends, or another projector took over.
    fn is_halted(&self) -> bool {
        *self.shared.stop.borrow()
            || self.wake.has_changed().unwrap_or(true)
            || self.live.borrow().health.is_elsewhere()
    }

    /// Ends a job whose fold cannot be meant so: every parked key is held in memory.
    async fn parks_too_much(&mut self, sitting: &Sitting) -> Result<bool, RunError> {
        let (parked, known) = (sitting.run.parked.len(), self.live.borrow().parked.len());
        if parked <= known.saturating_add(PARKED_MAX) {
            return Ok(false);
        }
        let why = format!(
            "it has parked {parked} keys and the live build {known}; at most {PARKED_MAX} more are taken: mend \
             the fold"
        );
        self.fail(&sitting.job(), &why).await.map(|()| true)
    }

    /// Leaves the store and the processor to live traffic for its share of the time.
    async fn give_way(&mut self, worked: Duration, busy: bool) {
        let share = self.shared.options.rebuild_share_percent.clamp(1, 100);
        if busy && share < 100 {
            self.pause((worked * (100 - share) / share).min(GIVE_WAY_MAX)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    /// Waits, unless there is something else to do.
    async fn pause(&mut self, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let mut stop = self.shared.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = self.wake.changed() => self.wake.mark_changed(),
            _ = stop.changed() => {}
        }
    }

    async fn enter(&mut self, sitting: &mut Sitting, state: JobState) -> Result<(), RunError> {
        let job = sitting.job();
        self.note(&job, |_, noted| {
            // An admin's word counts more.
            if matches!(noted.state, JobState::Building | JobState::Proving) {
                noted.state = state;
            }
        })
        .await?;
        sitting.job.state = state;
        self.publish(&sitting.job(), sitting.run.position);
        Ok(())
    }

    async fn save(&mut self, sitting: &mut Sitting) -> Result<(), RunError> {
        sitting.saved = Instant::now();
        self.note(&sitting.job(), |_, _| {}).await
    }

    async fn end(
        &mut self,
        sitting: &Sitting,
        state: JobState,
        mut change: impl FnMut(&mut Record, &mut Job),
    ) -> Result<(), RunError> {
        let now = self.shared.clock.now();
        self.note(&sitting.job(), |record, job| {
            job.end(state, now);
            change(record, job);
        })
        .await?;
        self.wake.mark_changed();
        Ok(())
    }

    /// Writes down what was done for a job, and a change, if the job is active still.
    async fn note(&self, job: &Job, mut change: impl FnMut(&mut Record, &mut Job)) -> Result<(), RunError> {
        let change = |record: &mut Record| {
            let Some(mut noted) = record.active_mut(&job.collection).map(|noted| noted.clone()) else {
                return Ok::<_, RunError>(());
            };
            (noted.events, noted.documents_written) = (job.events, job.documents_written);
            noted.worked_ms = job.worked_ms;
            noted.parked.clone_from(&job.parked);
            noted.completion = job.completion.or(noted.completion);
            change(record, &mut noted);
            record.job = Some(noted);
            Ok(())
        };
        self.ledger.update(change).await
    }

    fn publish(&self, job: &Job, position: Option<Position>) {
        let head = *self.shared.log.head().borrow();
        let position = position.or(job.completion.and_then(|completion| completion.position));
        self.tell(Some(JobProgress::of(job.clone(), position, head)));
    }

    /// Tells how a job stands, unless an admin changed something since the record was read: what was
    /// changed is told already.
    fn tell(&self, progress: Option<JobProgress>) {
        self.progress.send_if_modified(|told| {
            let is_as_read = !self.wake.has_changed().unwrap_or(false);
            if is_as_read {
                *told = progress;
            }
            is_as_read
        });
        self.looked.send_if_modified(|looked| !std::mem::replace(looked, true));
    }
}
