//! Which build is live: the one that the alias names, found at the start and looked at again as others
//! may move it, or take away what it is kept in.

use super::record::Record;
use super::run::{Run, RunError, next_collection};
use super::worker::Worker;
use crate::read_models::Build;

impl Worker {
    /// Finds the build that the alias names. If it is of this history and this code it goes on;
    /// if not, queries get it as it stands until its successor is ready; if there is none, the
    /// first build goes live at once.
    pub(super) async fn find_live(&mut self) -> Result<(), RunError> {
        let found = self.look_up_live().await;
        match found {
            Ok(()) => self.found(),
            // Half found, it would not be looked for again.
            Err(_) => self.look_again(),
        }
        found
    }

    /// Wakes the builder, which looks at what is published.
    pub(super) fn found(&mut self) {
        self.publish(None);
        self.wake.send_modify(|wakes| *wakes += 1);
    }

    async fn look_up_live(&mut self) -> Result<(), RunError> {
        let (store, name) = (self.shared.store.clone(), self.projection.name());
        let builds = store.builds().await?;
        let record = self.ledger.read().await?;
        let alias = store.alias(name).await?;
        let record = self.clean(record, &builds, alias.as_ref()).await?;
        let live = builds.iter().find(|build| alias.as_ref() == Some(&build.collection));
        match (self.unless_gone(live).await?, alias.clone()) {
            (Some(build), _) if self.fits(build) => {
                // Before the store lets go on what it lost: who waits for that is to wait until it is there again.
                self.show_no_more_than(build.checkpoint.position);
                let run =
                    Run::open(&self.shared, self.projection, build.collection.clone(), build.checkpoint);
                self.run = Some(run.await?);
                self.finish_switch(&build.collection).await?;
            }
            (Some(build), _) => self.freeze_other(build).await?,
            (None, alias) => self.first_build(alias).await?,
        }
        self.warm_up(&record.kept, &builds).await;
        self.retry_newer().await;
        Ok(())
    }

    /// Somebody may have taken away what a build is kept in and left its record: it would be filled from
    /// where it stands, without what came before.
    async fn unless_gone<'a>(&self, live: Option<&'a Build>) -> Result<Option<&'a Build>, RunError> {
        let (store, Some(build)) = (&self.shared.store, live) else { return Ok(None) };
        if store.is_whole(&build.collection).await? {
            return Ok(live);
        }
        let (projection, collection) = (self.projection.name(), &build.collection);
        tracing::error!(projection, collection, "what the live build was kept in is gone: it is built anew");
        store.drop_build(collection).await?;
        Ok(None)
    }

    pub(super) fn fits(&self, build: &Build) -> bool {
        build.version == self.projection.version() && self.same_history(build)
    }

    pub(super) fn same_history(&self, build: &Build) -> bool {
        let (epoch, head) = (self.shared.log.epoch(), *self.shared.log.head().borrow());
        build.checkpoint.epoch == epoch && build.checkpoint.position <= head && self.is_ours(build)
    }

    /// Whether a build is of no events that this log has not.
    fn is_ours(&self, build: &Build) -> bool {
        !self.strangers.contains(&build.collection) && !self.lost.contains(&build.collection)
    }

    async fn first_build(&mut self, alias: Option<String>) -> Result<(), RunError> {
        let (store, name) = (self.shared.store.clone(), self.projection.name());
        let collection = next_collection(&self.shared, name).await?;
        let run = Run::create(&self.shared, self.projection, collection).await?;
        self.show_no_more_than(None);
        if !store.swap_alias(name, alias, &run.collection).await? {
            store.drop_build(&run.collection).await?;
            return Err(RunError::AliasMoved { projection: name, collection: run.collection });
        }
        self.run = Some(run);
        Ok(())
    }

    /// The process may have ended after a switch and before its record.
    async fn finish_switch(&mut self, live: &str) -> Result<(), RunError> {
        let (now, version) = (self.shared.clock.now(), self.projection.version());
        let finish = |record: &mut Record| {
            record.switched_to(live, now);
            // What is live is not held back.
            record.held_version = record.held_version.filter(|held| *held != version);
            record.held_epoch = None;
            record.kept.retain(|kept| kept.collection != live);
            Ok::<_, RunError>(())
        };
        self.ledger.update(finish).await
    }

    /// Queries go by the alias. A switch whose outcome nobody knew, or one of a process that has gone, may
    /// have moved it since; or what it names is gone.
    pub(super) async fn follow(
        &mut self,
        known: Option<String>,
        alias: Option<String>,
    ) -> Result<(), RunError> {
        if alias != known {
            let projection = self.projection.name();
            tracing::warn!(projection, ?known, ?alias, "another build is live by now");
        }
        self.look_again();
        self.find_live().await
    }
}
