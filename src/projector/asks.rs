//! What the task of the live build is asked to do between two pages: so that nothing moves
//! while it is done.

use dramatis_events::UnixMillis;
use dramatis_projections::DeadLetter;
use tokio::sync::oneshot;

use super::compare::{Difference, look_again, parked_apart};
use super::frozen::Frozen;
use super::record::{Completion, JobState, Kept, Record};
use super::run::{Run, RunError};
use super::sitting::left;
use super::worker::Worker;
use super::{AdminError, History, RolledBack};
use crate::read_models::ReadModelError;

/// The most builds that stay beside the live one; the oldest is dropped for another.
const KEPT_MAX: usize = 4;

/// What is asked.
pub(super) enum Ask {
    /// To compare the rest and to switch.
    Switch(Box<Switch>),
    /// To make the build before live again.
    RollBack(oneshot::Sender<Result<RolledBack, AdminError>>),
    /// To fold a parked key again, without the event that parked it if it is to be skipped.
    Mend { key: String, skip: bool, answer: oneshot::Sender<Result<Mended, AdminError>> },
    /// To tell of what is kept, which was changed.
    Look(oneshot::Sender<()>),
    /// To drop a build as of a position before its time.
    Drop { build: String, answer: oneshot::Sender<Result<Kept, AdminError>> },
}

/// What came of trying a parked key again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// Events folded that had waited.
    pub events: u64,
    /// Why it is parked still, if it is.
    pub parked: Option<String>,
}

/// A build that is ready to take the live one's place.
pub(super) struct Switch {
    pub(super) run: Run,
    /// Keys that moved too fast to be compared before.
    pub(super) suspects: Vec<String>,
    /// What was parked in the live build when this one was brought to have the same parked.
    pub(super) parked: Vec<DeadLetter>,
    /// Whether to switch although documents differ.
    pub(super) accept: bool,
    /// Whether only to compare.
    pub(super) verify: bool,
    pub(super) completion: Completion,
    pub(super) answer: oneshot::Sender<Result<Compared, RunError>>,
}

/// What came of a switch.
pub(super) enum Compared {
    /// Nothing differed, or it was accepted; unless it was only to be compared, the new build
    /// is live.
    Same,
    /// These differ; nothing was switched.
    Differs(Difference),
}

impl Ask {
    /// Says that nothing is done here.
    pub(super) fn refuse(self, error: AdminError) {
        match self {
            Self::Switch(switch) => {
                let reason = error.to_string();
                let _ = switch.answer.send(Err(ReadModelError::Failure { reason }.into()));
            }
            Self::RollBack(answer) => drop(answer.send(Err(error))),
            Self::Mend { answer, .. } => drop(answer.send(Err(error))),
            Self::Look(answer) => drop(answer),
            Self::Drop { answer, .. } => drop(answer.send(Err(error))),
        }
    }

    /// Says that the live build has its own troubles.
    pub(super) fn fail(self, error: RunError) {
        match self {
            Self::Switch(switch) => drop(switch.answer.send(Err(error))),
            Self::RollBack(answer) => drop(answer.send(Err(error.into()))),
            Self::Mend { answer, .. } => drop(answer.send(Err(error.into()))),
            Self::Look(answer) => drop(answer),
            Self::Drop { answer, .. } => drop(answer.send(Err(error.into()))),
        }
    }
}

impl Worker {
    pub(super) async fn switch(&mut self, switch: Switch) {
        let Switch { mut run, suspects, parked, accept, verify, completion, answer } = switch;
        let compared = match &self.run {
            // It has frozen since: how it is compared then the builder finds out.
            None if verify => {
                let reason = format!("{} cannot be compared now", run.collection);
                Err(ReadModelError::Failure { reason }.into())
            }
            _ => self.compare(&mut run, suspects, &parked, accept).await,
        };
        let made = match compared {
            Ok(Compared::Same) if !verify => self.make_live(run, completion).await.map(|()| Compared::Same),
            compared => compared,
        };
        // Whoever hears that it is done finds it so.
        self.publish(None);
        // Nobody waiting is fine: what was done stays done.
        let _ = answer.send(made);
    }

    /// Brings both builds to the same position and compares what moved before.
    async fn compare(
        &mut self,
        run: &mut Run,
        suspects: Vec<String>,
        parked: &[DeadLetter],
        accept: bool,
    ) -> Result<Compared, RunError> {
        let head = *self.shared.log.head().borrow();
        let Some(live) = &mut self.run else {
            run.run_to(head).await?;
            return Ok(Compared::Same);
        };
        live.run_to(head).await?;
        run.run_to(head).await?;
        let pair = (live.collection.as_str(), run.collection.as_str());
        if !parked.iter().all(|letter| live.parked.contains(letter)) {
            let reason = format!("a parked key went on meanwhile, which {} is to follow", run.collection);
            return Err(ReadModelError::Failure { reason }.into());
        }
        let store = self.shared.store.as_ref();
        let mut difference = look_again(store, pair, suspects, head).await?.difference;
        difference.park(parked_apart(store, pair, head).await?);
        if difference.is_some() && !accept {
            return Ok(Compared::Differs(difference));
        }
        Ok(Compared::Same)
    }

    /// The one step that readers see: the alias. What is written down before it and after it
    /// only matters to admins and to a restart.
    async fn make_live(&mut self, run: Run, completion: Completion) -> Result<(), RunError> {
        let (store, name) = (self.shared.store.clone(), self.projection.name());
        let (old, comparable) = match (&self.run, &self.frozen) {
            (Some(live), _) => (live.collection.clone(), true),
            (None, Some(Frozen { collection, history, .. })) => {
                (collection.clone(), *history == History::Present)
            }
            (None, None) => return Err(ReadModelError::NoBuild { collection: name.to_owned() }.into()),
        };
        let new = run.collection.clone();
        let kept = comparable.then(|| self.kept(old.clone()));
        let mut wanted = false;
        self.note(&new, |record| {
            let job = record.active_mut(&new).filter(|job| job.state != JobState::Paused);
            wanted = job.is_some();
            if let Some(job) = job {
                (job.completion, job.replaced) = (Some(completion), Some(old.clone()));
                if let Some(kept) = kept.clone() {
                    record.keep(kept);
                }
            }
        })
        .await?;
        if !wanted {
            // An admin was faster. The builder finds out what is wanted instead.
            let reason = format!("{new} was cancelled or paused in the moment of its switch");
            return Err(ReadModelError::Failure { reason }.into());
        }
        self.swap(&old, &new).await?;
        self.warm = self.go_live(run);
        let now = self.shared.clock.now();
        let noted = self.note(&new, |record| {
            record.switched_to(&new, now);
            (record.held_version, record.held_epoch) = (None, None);
        });
        // The switch stands; the next start writes it down if this does not.
        if let Err(error) = noted.await {
            tracing::warn!(projection = name, %error, "the switch was made and not written down");
        }
        if !comparable {
            store.drop_build(&old).await?;
        }
        self.drop_oldest(&new).await
    }

    /// Names another live build. Unless that is known to be done, which one is live is found out anew.
    async fn swap(&mut self, from: &str, to: &str) -> Result<(), RunError> {
        let name = self.projection.name();
        let swapped = self.shared.store.swap_alias(name, Some(from.to_owned()), to).await;
        if matches!(swapped, Ok(true)) {
            return Ok(());
        }
        self.look_again();
        swapped?;
        Err(RunError::AliasMoved { projection: name, collection: to.to_owned() })
    }

    async fn note(&self, new: &str, mut change: impl FnMut(&mut Record)) -> Result<(), RunError> {
        let change = |record: &mut Record| {
            change(record);
            record.kept.retain(|kept| kept.collection != new);
            Ok::<_, RunError>(())
        };
        self.ledger.update(change).await
    }

    fn kept(&self, collection: String) -> Kept {
        let (now, options) = (self.shared.clock.now(), &self.shared.options);
        let later = |wait: std::time::Duration| {
            let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
            UnixMillis::new(now.get().saturating_add(wait))
        };
        let warm_until = self.run.is_some().then(|| later(options.warm));
        Kept { collection, as_of: None, warm_until, drop_at: later(options.retention.max(options.warm)) }
    }

    /// Drops what is too much of what is kept, and knows what is.
    async fn drop_oldest(&mut self, live: &str) -> Result<(), RunError> {
        let surplus = |record: &mut Record| {
            let before = |kept: &Kept| kept.as_of.is_none();
            let mut surplus = record.kept.iter().filter(|kept| before(kept)).count().saturating_sub(KEPT_MAX);
            let dropped = record.kept.extract_if(.., |kept| {
                let dropped = before(kept) && surplus > 0;
                surplus -= usize::from(dropped);
                dropped
            });
            let dropped = dropped.collect::<Vec<_>>();
            Ok::<_, RunError>((dropped, record.kept.clone()))
        };
        let (dropped, kept) = self.ledger.update(surplus).await?;
        self.kept = kept;
        for kept in dropped.iter().filter(|kept| kept.collection != live) {
            self.shared.store.drop_build(&kept.collection).await?;
        }
        Ok(())
    }

    /// Drops a build as of a position. Those that were live before are left alone: they are the way
    /// back, and one of them may be kept up with the log.
    pub(super) async fn drop_past(&mut self, build: &str) -> Result<Kept, AdminError> {
        let name = self.projection.name();
        let record = self.ledger.read().await.map_err(RunError::Store)?;
        let past = |kept: &&Kept| kept.collection == build && kept.as_of.is_some();
        let Some(kept) = record.kept.iter().find(past).cloned() else {
            return Err(AdminError::NotKept { projection: name, build: build.to_owned() });
        };
        // In this order, as a drop that is cut off is made again in its time.
        self.shared.store.drop_build(build).await.map_err(RunError::Store)?;
        let forget = |record: &mut Record| {
            record.kept.retain(|kept| kept.collection != build);
            Ok::<_, RunError>(())
        };
        self.ledger.update(forget).await?;
        Ok(kept)
    }

    /// Makes the build before live again: at once if it is warm, else after it has caught up.
    pub(super) async fn roll_back(&mut self) -> Result<RolledBack, AdminError> {
        let made = self.go_back().await;
        if matches!(made, Err(AdminError::Run(_))) {
            // The warm build may have been on the way.
            self.look_again();
        }
        made
    }

    async fn go_back(&mut self) -> Result<RolledBack, AdminError> {
        let (store, name) = (self.shared.store.clone(), self.projection.name());
        let record = self.ledger.read().await.map_err(RunError::Store)?;
        if let Some(job) = record.active() {
            return Err(AdminError::Busy { projection: name, state: job.state });
        }
        let Some(target) = record.kept.iter().rev().find(|kept| kept.as_of.is_none()) else {
            return Err(AdminError::NothingKept { projection: name });
        };
        let builds = store.builds().await.map_err(RunError::Store)?;
        let build = builds.into_iter().find(|build| build.collection == target.collection);
        let Some(build) = build.filter(|build| self.same_history(build)) else {
            return Err(AdminError::NothingKept { projection: name });
        };
        let (to, at, version) =
            (build.collection.clone(), build.checkpoint.position, self.projection.version());
        let back = if build.version == version { Some(self.rewarmed(build).await?) } else { None };
        let from = match (&self.run, &self.frozen) {
            (Some(run), _) => run.collection.clone(),
            (None, Some(frozen)) => frozen.collection.clone(),
            (None, None) => return Err(AdminError::NothingKept { projection: name }),
        };
        let (kept, held) = (self.kept(from.clone()), back.is_none().then_some(version));
        let keep = |record: &mut Record| {
            record.keep(kept.clone());
            record.held_version = held;
            Ok::<_, RunError>(())
        };
        self.ledger.update(keep).await?;
        if back.is_none() {
            // It stands where it was left: who waits for more is not to be answered with it.
            self.show_no_more_than(at);
        }
        self.swap(&from, &to).await?;
        let noted = self.note(&to, |_| {}).await;
        match back {
            Some(back) if noted.is_ok() => self.warm = self.go_live(back),
            _ => {
                // Of another version, or not written down: it is found as after a restart. If that
                // fails now, it is done before the next step.
                self.look_again();
                let _ = self.find_live().await;
            }
        }
        Ok(RolledBack { from, to })
    }

    /// A build of this version, brought up with the log while the live build goes on.
    async fn rewarmed(&mut self, build: crate::read_models::Build) -> Result<Run, AdminError> {
        self.warming = None;
        let warm = self.warm.take().filter(|warm| warm.collection == build.collection);
        let mut back = match warm {
            Some(warm) => warm,
            None => Run::open(&self.shared, self.projection, build.collection, build.checkpoint).await?,
        };
        let (head, near) = (self.shared.log.head(), self.shared.options.page.events);
        let near = u64::try_from(near).unwrap_or(u64::MAX);
        // A log that grows has always more: the last page is left to the end.
        while back.step().await? && left(back.position, *head.borrow()) > near {
            if *self.shared.stop.borrow() {
                return Err(AdminError::Stopped);
            }
            if !self.leads().await? {
                return Err(self.health().elsewhere(self.projection.name()).unwrap_or(AdminError::Stopped));
            }
            if let Some(live) = &mut self.run {
                live.step().await?;
            }
            self.publish(None);
        }
        // Readers must not go back in time: the live build shows nothing that this one does not.
        let head = *head.borrow();
        back.run_to(head).await?;
        Ok(back)
    }
}
