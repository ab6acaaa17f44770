//! The task that keeps one projection's live build up with the log.

use dramatis_projections::DynProjection;
use tokio::sync::{mpsc, watch};

use super::backoff::Backoff;
use super::rebuild::Switch;
use super::run::{Run, RunError};
use super::{Health, Shared, Status};
use crate::log::LogError;
use crate::read_models::ReadModelError;

pub(super) struct Worker {
    projection: &'static dyn DynProjection,
    shared: Shared,
    status: watch::Sender<Status>,
    switches: mpsc::Receiver<Switch>,
    backoff: Backoff,
    run: Option<Run>,
    /// Folded by builds that were live before.
    events_before: u64,
    cleaned: bool,
}

impl Worker {
    pub(super) fn new(
        projection: &'static dyn DynProjection,
        shared: Shared,
        status: watch::Sender<Status>,
        switches: mpsc::Receiver<Switch>,
    ) -> Self {
        let backoff = Backoff::new(&shared.options, projection.name());
        Self { projection, shared, status, switches, backoff, run: None, events_before: 0, cleaned: false }
    }

    /// Works until it is stopped or the log is closed.
    pub(super) async fn work(mut self) {
        let (mut head, mut stop) = (self.shared.log.head(), self.shared.stop.clone());
        while !*stop.borrow_and_update() {
            head.borrow_and_update();
            let moved = match self.step().await {
                Ok(moved) => moved,
                Err(error) => {
                    self.wait_after(error, &mut stop).await;
                    continue;
                }
            };
            self.backoff.reset();
            self.publish(if moved { Health::CatchingUp } else { Health::Live });
            if moved {
                // A store that answers at once must not keep others from the thread.
                tokio::task::yield_now().await;
                if let Ok(switch) = self.switches.try_recv() {
                    self.switch(switch).await;
                }
                continue;
            }
            tokio::select! {
                changed = head.changed() => if changed.is_err() { break },
                Some(switch) = self.switches.recv() => self.switch(switch).await,
                _ = stop.changed() => {}
            }
        }
        self.publish(Health::Stopped);
    }

    async fn step(&mut self) -> Result<bool, RunError> {
        if self.run.is_none() {
            self.run = Some(self.find_live().await?);
        }
        let Some(run) = &mut self.run else { return Ok(false) };
        let stepped = run.step().await;
        if let Err(
            RunError::Log(LogError::AheadOfLog { .. }) | RunError::Store(ReadModelError::NoBuild { .. }),
        ) = &stepped
        {
            // The history or the build is gone: look again which one is live.
            self.events_before += run.events;
            self.run = None;
        }
        stepped
    }

    /// The build that the alias names, if it is of this history and this code; or a new one.
    async fn find_live(&mut self) -> Result<Run, RunError> {
        let (store, name) = (&self.shared.store, self.projection.name());
        let alias = store.alias(name).await?;
        let builds = store.builds().await?;
        if !self.cleaned {
            // Left by a rebuild that was cut off.
            for build in builds.iter().filter(|build| build.projection == name) {
                if alias.as_ref() != Some(&build.collection) {
                    store.drop_build(&build.collection).await?;
                }
            }
            self.cleaned = true;
        }
        let live = builds.into_iter().find(|build| alias.as_ref() == Some(&build.collection));
        let (epoch, head) = (self.shared.log.epoch(), *self.shared.log.head().borrow());
        if let Some(build) = live {
            let known = build.checkpoint;
            if build.version == self.projection.version() && known.epoch == epoch && known.position <= head {
                return Run::open(&self.shared, self.projection, build.collection, known).await;
            }
            tracing::warn!(
                projection = name, collection = build.collection,
                stored_version = build.version, version = self.projection.version(),
                stored_epoch = %known.epoch, %epoch, stored_position = ?known.position, ?head,
                "the live build is of another version or history: building anew from the log's start"
            );
        }
        let run = Run::create(&self.shared, self.projection).await?;
        if !store.swap_alias(name, alias.clone(), &run.collection).await? {
            store.drop_build(&run.collection).await?;
            return Err(RunError::AliasMoved { projection: name, collection: run.collection });
        }
        if let Some(old) = alias {
            store.drop_build(&old).await?;
        }
        Ok(run)
    }

    async fn wait_after(&mut self, error: RunError, stop: &mut watch::Receiver<bool>) {
        let wait = self.backoff.fail();
        let failures = self.backoff.failures();
        tracing::warn!(projection = self.projection.name(), %error, failures, ?wait, "a step failed, trying again");
        self.publish(Health::Retrying { error: error.to_string(), failures });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => {}
        }
        // A rebuild that waits here is told rather than held up.
        if let Ok(switch) = self.switches.try_recv() {
            switch.refuse(error);
        }
    }

    async fn switch(&mut self, switch: Switch) {
        if let Some(old) = self.run.take() {
            let before = old.events;
            let (live, switched) = switch.make(&self.shared, self.projection, old).await;
            if switched {
                self.events_before += before;
            }
            self.run = Some(live);
        }
    }

    fn publish(&self, health: Health) {
        let head = *self.shared.log.head().borrow();
        self.status.send_modify(|status| {
            status.head = head;
            status.health = health;
            if let Some(run) = &self.run {
                status.collection.clone_from(&run.collection);
                status.epoch = run.epoch;
                status.position = run.position;
                status.parked = run.parked;
                status.events = self.events_before + run.events;
            }
        });
    }
}
