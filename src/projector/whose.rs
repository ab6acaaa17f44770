//! Whose builds a store holds: those of another projector, of another log, of a history that is lost.

use std::sync::Arc;

use dramatis_events::Epoch;
use dramatis_projections::DeadLetter;
use tokio::sync::watch;

use super::record::{JobState, Record};
use super::run::RunError;
use super::status::{History, another_log};
use super::upkeep::TICK;
use super::worker::Worker;
use super::{AdminError, Health};
use crate::read_models::{Build, ReadModelError};

impl Worker {
    /// Leaves a store alone that is another log's, without so much as its lease: that log's projector
    /// may be on its way. Tells whether it is so.
    pub(super) async fn keeps_off(&mut self) -> Result<bool, RunError> {
        if self.run.is_some() || self.frozen.is_some() {
            return Ok(false);
        }
        let (store, name) = (self.shared.store.clone(), self.projection.name());
        let alias = store.alias(name).await?;
        let builds = store.builds().await?;
        let builds = builds.iter().filter(|build| build.projection == name);
        let live = builds.clone().find(|build| alias.as_ref() == Some(&build.collection));
        let epoch = match live {
            Some(live) => self.another_log_of(live),
            // One that has no live build may be on the way to its first.
            None if builds.clone().any(|build| self.another_log_of(build).is_none()) => None,
            None => builds.clone().find_map(|build| self.another_log_of(build)),
        };
        let Some(epoch) = epoch.filter(|epoch| self.shared.options.take_over != Some(epoch.log())) else {
            return Ok(false);
        };
        self.end_renewing().await;
        if self.leads_until.take().is_some() {
            store.release(&self.lease_name(), &self.shared.holder).await?;
        }
        if !matches!(self.health(), Health::Foreign { .. }) {
            let reason = another_log(epoch);
            tracing::error!(projection = name, reason, "it is not kept: the store is another log's");
        }
        self.publish(Some(Health::Foreign { epoch }));
        Ok(true)
    }

    /// The epoch of a build, if it is of another log.
    fn another_log_of(&self, build: &Build) -> Option<Epoch> {
        let (ours, epoch) = (self.shared.log.epoch(), build.checkpoint.epoch);
        (epoch.log() != ours.log()).then_some(epoch)
    }

    /// What a build shows.
    pub(super) fn history_of(&self, build: &Build) -> History {
        match self.another_log_of(build) {
            Some(epoch) => History::OfAnotherLog(epoch),
            None if self.strangers.contains(&build.collection) => History::OfAnotherCopy,
            None if self.same_history(build) => History::Present,
            None => History::Earlier,
        }
    }

    /// Drops, once, what nobody speaks for, and what is kept of a history that is lost: nothing can
    /// be gone back to there.
    pub(super) async fn clean(
        &mut self,
        record: Record,
        builds: &[Build],
        alias: Option<&String>,
    ) -> Result<Record, RunError> {
        if self.cleaned {
            return Ok(record);
        }
        let (epoch, name) = (self.shared.log.epoch(), self.projection.name());
        let builds = builds.iter().filter(|build| build.projection == name);
        let named = |collection: &str| builds.clone().find(|build| build.collection == collection);
        let is_lost = |collection: &str| named(collection).is_some_and(|build| !self.same_history(build));
        let now = self.shared.clock.now();
        let forgotten = self.ledger.update(|record| {
            record.kept.retain(|kept| !is_lost(&kept.collection));
            record.strangers.retain(|stranger| named(stranger).is_some());
            record.lost.retain(|lost| named(lost).is_some());
            // Of another epoch it is known for that anyway.
            if let Some(job) = record.job.as_mut().filter(|job| job.state.is_active() && job.epoch == epoch)
                && is_lost(&job.collection)
            {
                job.error = Some("it has got past the log's end: acknowledged events are gone".to_owned());
                job.end(JobState::Failed, now);
            }
            Ok::<_, RunError>(record.clone())
        });
        let record = forgotten.await?;
        for build in builds {
            if alias != Some(&build.collection) && !record.holds(&build.collection) {
                self.shared.store.drop_build(&build.collection).await?;
            }
        }
        self.cleaned = true;
        Ok(record)
    }

    /// Follows how far the other projector is, for the queries here.
    pub(super) async fn stand_by(&mut self, stop: &mut watch::Receiver<bool>) {
        if matches!(self.health(), Health::Standby { .. })
            && let Ok(Some((build, letters))) = self.looked_up().await
        {
            self.show(build, letters);
        }
        tokio::select! {
            () = tokio::time::sleep((self.shared.options.lease / 10).min(TICK)) => {}
            Some(ask) = self.asks.recv() => {
                ask.refuse(self.health().elsewhere(self.projection.name()).unwrap_or(AdminError::Stopped));
            }
            _ = stop.changed() => {}
        }
    }

    /// Has queries read the live build although it cannot be gone on with, as on a full disk.
    pub(super) async fn show_as_it_is(&self) {
        if self.run.is_none()
            && self.frozen.is_none()
            && let Ok(Some((build, letters))) = self.looked_up().await
        {
            self.show(build, letters);
        }
    }

    fn show(&self, build: Build, letters: Vec<DeadLetter>) {
        let (epoch, history) = (self.shared.log.epoch(), self.history_of(&build));
        self.update(|status| {
            status.history = history;
            status.parked = Arc::new(letters);
            status.position = Some(build.checkpoint)
                .filter(|checkpoint| checkpoint.epoch == epoch)
                .and_then(|checkpoint| checkpoint.position);
            status.collection = build.collection;
        });
    }

    async fn looked_up(&self) -> Result<Option<(Build, Vec<DeadLetter>)>, ReadModelError> {
        let store = &self.shared.store;
        let Some(alias) = store.alias(self.projection.name()).await? else { return Ok(None) };
        let letters = store.dead_letters(&alias).await?;
        let build = store.builds().await?.into_iter().find(|build| build.collection == alias);
        Ok(build.map(|build| (build, letters)))
    }
}
