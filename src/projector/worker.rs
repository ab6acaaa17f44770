//! The task that keeps one projection's live build up with the log, and the build before it warm.

use dramatis_events::Position;
use dramatis_projections::DynProjection;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::asks::Ask;
use super::backoff::Backoff;
use super::beside::Beside;
use super::frozen::Frozen;
use super::gather::{Found, Gathering};
use super::lease::Renewed;
use super::record::{Kept, Ledger};
use super::run::{Run, RunError};
use super::upkeep::{Looking, Purge, TICK};
use super::{Health, History, Shared, Status};
use crate::log::LogError;
use crate::read_models::{Build, ReadModelError};

pub(super) struct Worker {
    pub(super) projection: &'static dyn DynProjection,
    pub(super) shared: Shared,
    pub(super) ledger: Ledger,
    status: watch::Sender<Status>,
    pub(super) asks: mpsc::Receiver<Ask>,
    /// Wakes the builder.
    pub(super) wake: watch::Sender<u64>,
    pub(super) backoff: Backoff,
    gathering: Gathering,
    pub(super) run: Option<Run>,
    pub(super) frozen: Option<Frozen>,
    /// The build that was live before, kept up as well.
    pub(super) warm: Option<Run>,
    /// The same on its way there.
    pub(super) warming: Option<Beside<Run>>,
    /// One that cannot be kept up.
    cold: Option<String>,
    pub(super) kept: Vec<Kept>,
    /// Folded by builds that were live before.
    events_before: u64,
    pub(super) cleaned: bool,
    pub(super) looking: Looking,
    /// Until when it holds the lease for sure.
    pub(super) leads_until: Option<Instant>,
    pub(super) renewing: Option<Beside<Renewed>>,
    /// Of the lease; 0 until this process has held it.
    pub(super) token: u64,
    /// Where the log ended when this process began.
    pub(super) began_at: Option<Position>,
    /// Builds that a copy of this log made which went another way.
    pub(super) strangers: Vec<String>,
    /// Builds of events that this log had before an older state of it was put back.
    pub(super) lost: Vec<String>,
    /// Where the last event is that was noted of this log.
    pub(super) marked: Option<Position>,
    pub(super) purge: Option<Purge>,
}

impl Worker {
    pub(super) fn new(
        projection: &'static dyn DynProjection,
        shared: Shared,
        status: watch::Sender<Status>,
        asks: mpsc::Receiver<Ask>,
        wake: watch::Sender<u64>,
        gathering: Gathering,
    ) -> Self {
        let backoff = Backoff::new(&shared.options, projection.name());
        let ledger = Ledger::new(shared.store.clone(), projection.name());
        let began_at = *shared.log.head().borrow();
        Self {
            projection,
            shared,
            ledger,
            status,
            asks,
            wake,
            backoff,
            gathering,
            run: None,
            frozen: None,
            warm: None,
            warming: None,
            cold: None,
            kept: Vec::new(),
            events_before: 0,
            cleaned: false,
            looking: Looking::default(),
            leads_until: None,
            renewing: None,
            token: 0,
            began_at,
            strangers: Vec::new(),
            lost: Vec::new(),
            marked: None,
            purge: None,
        }
    }

    /// Works until it is stopped or the log is closed.
    pub(super) async fn work(mut self) {
        let (mut head, mut stop) = (self.shared.log.head(), self.shared.stop.clone());
        while !*stop.borrow_and_update() {
            let last = *head.borrow_and_update();
            self.gathering.begin();
            let stepped = self.step().await;
            self.gathering.end(self.run.as_ref().map_or(Found::Nothing, |run| run.found));
            let moved = match stepped {
                Ok(Some(moved)) => moved,
                Ok(None) => {
                    self.stand_by(&mut stop).await;
                    continue;
                }
                Err(error) => {
                    self.wait_after(error, &mut stop).await;
                    continue;
                }
            };
            self.recovered();
            self.publish(None);
            if moved && self.is_behind(last) {
                // A store that answers at once must not keep others from the thread.
                tokio::task::yield_now().await;
                if let Ok(ask) = self.asks.try_recv() {
                    self.attend(ask).await;
                }
                continue;
            }
            tokio::select! {
                changed = head.changed() => {
                    if changed.is_err() { break }
                    let position = self.run.as_ref().and_then(|run| run.position);
                    tokio::select! {
                        () = self.gathering.gather(position, &mut stop) => {}
                        Some(ask) = self.asks.recv() => self.attend(ask).await,
                    }
                }
                Some(ask) = self.asks.recv() => self.attend(ask).await,
                // Often enough to keep the lease.
                () = tokio::time::sleep(TICK.min(self.shared.options.lease / 3)) => {}
                () = self.looking.over() => {}
                _ = stop.changed() => {}
            }
        }
        for run in self.run.iter_mut().chain(&mut self.warm) {
            // What is not written down is read again.
            let _ = run.save().await;
        }
        self.end_renewing().await;
        if self.leads_until.is_some() {
            // The next process on this data has the same name. Another one waits as after a crash, so
            // that a restart does not hand over what is here to whoever else has this store.
            let _ = self.end_keeping().await;
            let ttl = self.shared.options.lease;
            let _ = self.shared.store.lease(&self.lease_name(), &self.shared.holder, ttl).await;
        }
        self.publish(Some(Health::Stopped));
    }

    /// Whether a build that is kept up is not at this position yet.
    fn is_behind(&self, last: Option<Position>) -> bool {
        self.run.iter().chain(&self.warm).any(|run| run.position < last)
    }

    /// Whoever is answered finds it done: how things stand is published before.
    async fn attend(&mut self, ask: Ask) {
        match ask {
            Ask::Switch(switch) => self.switch(*switch).await,
            Ask::RollBack(answer) => {
                let made = self.roll_back().await;
                self.publish(None);
                let _ = answer.send(made);
            }
            Ask::Mend { key, skip, answer } => {
                let mended = self.mend(&key, skip).await;
                self.publish(None);
                let _ = answer.send(mended);
            }
            Ask::Look(answer) => {
                // What fails now is looked up in a moment.
                if let Ok(record) = self.ledger.read().await {
                    let _ = self.see_to_kept(record.kept).await;
                }
                self.publish(None);
                let _ = answer.send(());
            }
            Ask::Drop { build, answer } => {
                let dropped = self.drop_past(&build).await;
                if dropped.is_ok() {
                    self.kept.retain(|kept| kept.collection != build);
                }
                self.publish(None);
                let _ = answer.send(dropped);
            }
        }
        self.looking.again();
        self.publish(None);
    }

    /// One page of the live build and one of the warm build; whether there was one, or `None`
    /// if another projector runs this projection or the store is another log's.
    async fn step(&mut self) -> Result<Option<bool>, RunError> {
        if self.keeps_off().await? || !self.leads().await? {
            return Ok(None);
        }
        if self.run.is_none() && self.frozen.is_none() {
            self.find_live().await?;
        }
        self.tick().await?;
        let mut moved = match &mut self.run {
            Some(run) => run.step().await,
            None => Ok(false),
        };
        match &moved {
            // The history, the build or the end of it is gone.
            Err(
                RunError::Log(LogError::AheadOfLog { .. }) | RunError::Store(ReadModelError::NoBuild { .. }),
            ) => {
                self.look_again();
            }
            Err(RunError::Document(error)) => {
                let error = error.clone();
                self.freeze_unreadable(&error).await?;
                moved = Ok(false);
            }
            _ => {}
        }
        if let Ok(moved) = &mut moved {
            *moved |= self.step_warm().await;
        }
        moved.map(Some)
    }

    /// One page of the warm build; whether there was one. The live build does not wait for its troubles.
    async fn step_warm(&mut self) -> bool {
        let Some(warm) = &mut self.warm else { return false };
        let error = match warm.step().await {
            Ok(warmed) => return warmed,
            Err(error) => error,
        };
        let collection = warm.collection.clone();
        match error {
            // It is opened again from its checkpoint.
            RunError::Store(ReadModelError::SetBack { .. }) => self.warm = None,
            error if error.may_pass() => tracing::debug!(collection, %error, "the build before stays behind"),
            error => self.cool(&collection, &error),
        }
        false
    }

    pub(super) fn leave_live(&mut self) {
        if let Some(run) = self.run.take() {
            self.events_before += run.events;
        }
    }

    /// Has the next step find out anew which build is live: nothing in memory is sure.
    pub(super) fn look_again(&mut self) {
        self.leave_live();
        self.looking.again();
        (self.frozen, self.warm, self.warming) = (None, None, None);
    }

    /// Takes another build for the live one; answers the one before.
    pub(super) fn go_live(&mut self, run: Run) -> Option<Run> {
        (self.frozen, self.warming, self.cold) = (None, None, None);
        let before = self.run.replace(run);
        self.events_before += before.as_ref().map_or(0, |before| before.events);
        before
    }

    /// Keeps the build before up as well, if it is to be and can be.
    pub(super) async fn warm_up(&mut self, kept: &[Kept], builds: &[Build]) {
        let Some(build) = self.to_warm(kept, builds).cloned() else { return };
        let opened =
            Run::open(&self.shared, self.projection, build.collection.clone(), build.checkpoint).await;
        self.warmed(&build.collection, opened);
    }

    /// The same beside the steps, where it was to be and is not: what was in the way may have passed.
    pub(super) async fn warm_again(&mut self) -> Result<(), RunError> {
        if self.run.is_none() || self.warm.is_some() {
            return Ok(());
        }
        match (self.last_warm(&self.kept), Beside::take(&mut self.warming)) {
            (Some(kept), Some(opened)) => {
                let collection = kept.collection.clone();
                self.warmed(&collection, opened);
            }
            (Some(_), None) if self.warming.is_none() => {
                let builds = self.shared.store.builds().await?;
                if let Some(build) = self.to_warm(&self.kept, &builds).cloned() {
                    let (shared, projection) = (self.shared.clone(), self.projection);
                    self.warming = Some(Beside::begin(async move {
                        Run::open(&shared, projection, build.collection, build.checkpoint).await
                    }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The last build that is to be kept up, if it can be.
    fn last_warm<'a>(&self, kept: &'a [Kept]) -> Option<&'a Kept> {
        let now = self.shared.clock.now();
        let warm = kept.iter().rev().find(|kept| kept.warm_until.is_some_and(|until| until > now));
        let live = self.run.as_ref().map(|run| &run.collection);
        warm.filter(|kept| Some(&kept.collection) != self.cold.as_ref() && Some(&kept.collection) != live)
    }

    fn to_warm<'a>(&self, kept: &[Kept], builds: &'a [Build]) -> Option<&'a Build> {
        let kept = self.last_warm(kept)?;
        builds.iter().find(|build| build.collection == kept.collection && self.fits(build))
    }

    fn warmed(&mut self, collection: &str, opened: Result<Run, RunError>) {
        match opened {
            Ok(run) if run.collection == collection => self.warm = Some(run),
            Ok(_) => {}
            Err(error) if error.may_pass() => {
                tracing::debug!(collection, %error, "the build before is kept up later");
            }
            Err(error) => self.cool(collection, &error),
        }
    }

    fn cool(&mut self, collection: &str, error: &RunError) {
        tracing::warn!(collection, %error, "the build before is kept up no more");
        self.warm = None;
        self.cold = Some(collection.to_owned());
    }

    /// How it stood when that was last said.
    pub(super) fn health(&self) -> Health {
        self.status.borrow().health.clone()
    }

    /// Says something else of how it stands.
    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    /// Has nobody who waits for a position take it for reached that the live build does not show any more.
    pub(super) fn show_no_more_than(&self, position: Option<Position>) {
        self.update(|status| status.position = status.position.min(position));
    }

    /// Says how it stands; `health` if it is not what the builds say themselves.
    pub(super) fn publish(&mut self, health: Option<Health>) {
        let (log_head, now) = (self.shared.log.head(), self.shared.clock.now());
        let position = match (&self.run, &self.frozen) {
            (Some(run), _) => run.position,
            (None, Some(frozen)) => frozen.position,
            (None, None) => None,
        };
        let known = self.run.is_some() || self.frozen.is_some();
        let folded_at = self.run.as_ref().and_then(|run| run.folded_at);
        self.status.send_modify(|status| {
            // Looked at in here: who follows the head sees either this or finds it said already.
            let head = *log_head.borrow();
            let by_itself = match &self.frozen {
                Some(frozen) => Health::Frozen { reason: frozen.reason() },
                None if known && position >= head => Health::Live,
                None => Health::CatchingUp,
            };
            status.head = head;
            status.health = health.unwrap_or(by_itself);
            status.kept.clone_from(&self.kept);
            if let Some(frozen) = &self.frozen {
                status.collection.clone_from(&frozen.collection);
                status.history = frozen.history;
                status.position = frozen.position;
                status.parked.clone_from(&frozen.parked);
            }
            if let Some(run) = &self.run {
                status.collection.clone_from(&run.collection);
                status.history = History::Present;
                status.epoch = run.epoch;
                status.position = run.position;
                status.parked.clone_from(&run.parked);
                status.events = self.events_before + run.events;
            }
            status.stands_at(head, folded_at, now);
        });
    }
}
