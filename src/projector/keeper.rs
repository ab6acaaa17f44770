//! Which copy of a log the builds in a store are of. Copies made by hand have one epoch and may go
//! different ways, as does a log after an older state of it was put back. So who keeps a projection
//! notes an event of its log now and then, and whoever takes over looks for that event in its own.

use dramatis_events::{Epoch, EventId, Position, UnixMillis};
use serde::{Deserialize, Serialize};

use super::record::{JobState, Record};
use super::run::RunError;
use super::worker::Worker;
use crate::log::{Filter, ReadLimit};

/// Who keeps a projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keeper {
    /// Its name in leases.
    holder: String,
    /// An event that it has folded, among the last.
    at: Option<Mark>,
}

/// An event, as one copy of a log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    epoch: Epoch,
    position: Position,
    event: EventId,
    recorded_at: UnixMillis,
}

impl Worker {
    /// Takes over from whoever kept the projection before, as a restart does from itself. Builds of events
    /// that this log has not are known as that from then on.
    pub(super) async fn become_keeper(&mut self) -> Result<(), RunError> {
        let record = self.ledger.read().await?;
        let (now, holder, name) = (self.shared.clock.now(), &self.shared.holder, self.projection.name());
        let is_other = record.keeper.as_ref().is_some_and(|keeper| *keeper.holder != **holder);
        let are_ours = match record.keeper.as_ref().map(|keeper| &keeper.at) {
            Some(Some(mark)) => self.has(mark).await?,
            // It has noted nothing yet.
            Some(None) => !is_other,
            None => true,
        };
        let mut begun = Vec::new();
        if !are_ours {
            let builds = self.shared.store.builds().await?.into_iter();
            let builds =
                builds.filter(|build| build.projection == name && build.checkpoint.position.is_some());
            begun.extend(builds.map(|build| build.collection));
        }
        if let (Some(before), false) = (&record.keeper, begun.is_empty()) {
            tracing::error!(
                projection = name,
                keeper = before.holder,
                "its builds are of events that this log has not: it is built anew"
            );
        }
        let take = |record: &mut Record| {
            let at = record.keeper.take().and_then(|keeper| keeper.at).filter(|_| are_ours);
            record.keeper = Some(Keeper { holder: holder.to_string(), at });
            if !begun.is_empty() {
                record.disown(&begun, is_other, now);
            }
            Ok::<_, RunError>((record.strangers.clone(), record.lost.clone()))
        };
        (self.strangers, self.lost) = self.ledger.update(take).await?;
        self.marked = None;
        Ok(())
    }

    /// Notes the event that the live build has got to, if there is another one.
    pub(super) async fn mark(&mut self) -> Result<(), RunError> {
        let position = self.run.as_ref().and_then(|run| run.position);
        let Some(position) = position.filter(|position| self.marked != Some(*position)) else {
            return Ok(());
        };
        let Some(mark) = self.event_at(position).await? else { return Ok(()) };
        let note = |record: &mut Record| {
            if let Some(keeper) = record.keeper.as_mut().filter(|k| *k.holder == *self.shared.holder) {
                keeper.at = Some(mark.clone());
            }
            Ok::<_, RunError>(())
        };
        self.ledger.update(note).await?;
        self.marked = Some(position);
        Ok(())
    }

    /// Whether this log has the event. What is of another epoch is known by that already.
    async fn has(&self, mark: &Mark) -> Result<bool, RunError> {
        Ok(mark.epoch != self.shared.log.epoch()
            || self.event_at(mark.position).await?.as_ref() == Some(mark))
    }

    async fn event_at(&self, position: Position) -> Result<Option<Mark>, RunError> {
        if Some(position) > *self.shared.log.head().borrow() {
            return Ok(None);
        }
        let (log, before) =
            (&self.shared.log, position.to_engine().checked_sub(1).map(Position::from_engine));
        let page = log.read_all(before, Filter::default(), ReadLimit::events(1)).await?;
        let found = page.events.into_iter().find(|event| event.position == position);
        Ok(found.map(|found| Mark {
            epoch: log.epoch(),
            position,
            event: found.envelope.id,
            recorded_at: found.recorded_at,
        }))
    }
}

impl Record {
    /// Has these builds be none of this log's, and forgets what was decided about them.
    fn disown(&mut self, builds: &[String], of_another_copy: bool, now: UnixMillis) {
        if let Some(job) = self.job.as_mut().filter(|job| job.state.is_active()) {
            job.error = Some("it is of events that this log has not".to_owned());
            job.end(JobState::Failed, now);
        }
        (self.skipped, self.skipped_in) = (Vec::new(), None);
        (self.held_version, self.held_epoch) = (None, None);
        let apart = if of_another_copy { &mut self.strangers } else { &mut self.lost };
        apart.extend_from_slice(builds);
        self.lost.retain(|build| !self.strangers.contains(build));
    }
}
