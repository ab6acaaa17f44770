//! A live build that cannot be gone on with: queries get it as it stands, and its successor is built.

use dramatis_events::Position;
use dramatis_projections::FoldError;

use super::record::{Job, Purpose};
use super::run::{RunError, next_collection};
use super::worker::Worker;
use crate::read_models::Build;

pub(super) struct Frozen {
    pub(super) collection: String,
    /// Where it stands, if it is of this history.
    pub(super) position: Option<Position>,
    pub(super) same_history: bool,
    pub(super) reason: String,
}

impl Worker {
    /// Freezes a build of another version of the fold or of another history.
    pub(super) async fn freeze_other(&mut self, build: &Build) -> Result<(), RunError> {
        let same_history = self.same_history(build);
        let why = if same_history {
            let version = self.projection.version();
            format!("it is of version {} of the fold and this release has version {version}", build.version)
        } else {
            let epoch = self.shared.log.epoch();
            format!("it is of the history {} and the log is {epoch}", build.checkpoint.epoch)
        };
        let position = build.checkpoint.position.filter(|_| same_history);
        self.freeze(build.collection.clone(), position, same_history, &why).await
    }

    /// Freezes the live build where it is, before an event that changes a document that cannot be read.
    pub(super) async fn freeze_unreadable(&mut self, error: &FoldError) -> Result<(), RunError> {
        let Some(run) = &self.run else { return Ok(()) };
        let (collection, position) = (run.collection.clone(), run.position);
        self.freeze(collection, position, true, &error.to_string()).await?;
        self.leave_live();
        self.found();
        Ok(())
    }

    /// Has queries get the build as it stands, and a successor built, loudly.
    async fn freeze(
        &mut self,
        collection: String,
        position: Option<Position>,
        same_history: bool,
        why: &str,
    ) -> Result<(), RunError> {
        let (name, version) = (self.projection.name(), self.projection.version());
        let (epoch, accept) = (self.shared.log.epoch(), self.shared.options.accept_new_versions);
        let successor = next_collection(&self.shared, name).await?;
        let mut job = Job::new(successor, Purpose::Rebuild, version, epoch, self.shared.clock.now());
        // Of another history nothing can be compared.
        job.accept = accept || !same_history;
        let ordered = self.ledger.update(|record| {
            let fits = record.active().is_some_and(|job| job.version == version && job.epoch == epoch);
            let held = same_history && record.held_version == Some(version);
            if !fits && !held {
                record.job = Some(job.clone());
            }
            Ok::<_, RunError>(fits || !held)
        });
        let next = match (ordered.await?, job.accept) {
            (true, true) => "its successor is being built and then switched to".to_owned(),
            (true, false) => format!(
                "its successor is being built; if it differs it waits for `dramatis projections accept {name}`"
            ),
            (false, _) => format!("`dramatis projections rebuild {name}` builds its successor"),
        };
        let reason = format!(
            "queries get build {collection} as it stands, without what happened after it: {why}; {next}"
        );
        tracing::error!(projection = name, reason, "the live build is frozen");
        self.frozen = Some(Frozen { collection, position, same_history, reason });
        Ok(())
    }
}
