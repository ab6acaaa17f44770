//! Which copy of a log the builds in a store are of. Copies made by hand have one epoch and may go
//! different ways, as does a log after an older state of it was put back. So who keeps a projection
//! notes an event of its log now and then, and whoever takes over looks for that event in its own. What was
//! written after that is known of only to who wrote it: after a crash of another one nothing is trusted.

use dramatis_events::{Epoch, EventId, Position, UnixMillis};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::record::{JobState, Ledger, Record};
use super::run::RunError;
use super::worker::Worker;
use crate::log::{Filter, ReadLimit};
use crate::read_models::Build;

/// Who keeps a projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keeper {
    /// Its name in leases.
    holder: String,
    /// An event that it has folded, among the last.
    at: Option<Mark>,
    /// Whether it ended in order: then it has folded nothing after that one.
    #[serde(default)]
    ended: bool,
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
        let are_ours = match &record.keeper {
            None => true,
            // It has noted nothing yet.
            Some(Keeper { at: None, .. }) => !is_other,
            // What is of another epoch is known by that.
            Some(Keeper { at: Some(mark), .. }) if mark.epoch != self.shared.log.epoch() => true,
            Some(Keeper { at: Some(mark), ended, .. }) => {
                (*ended || !is_other) && event_at(&self.shared, mark.position).await?.as_ref() == Some(mark)
            }
        };
        // A log that an older state was put back of goes on, and may be as long as before by now.
        let got_further = |build: &Build| {
            let is_own = !is_other && self.token == 0 && build.checkpoint.epoch == self.shared.log.epoch();
            is_own && build.checkpoint.position > self.began_at
        };
        let builds = self.shared.store.builds().await?.into_iter();
        let builds = builds.filter(|build| build.projection == name && build.checkpoint.position.is_some());
        let begun = builds.filter(|build| !are_ours || got_further(build));
        let begun: Vec<_> = begun.map(|build| build.collection).collect();
        if let (Some(before), false) = (&record.keeper, begun.is_empty()) {
            tracing::error!(
                projection = name,
                keeper = before.holder,
                "its builds are, or may be, of events that this log has not: it is built anew"
            );
        }
        let take = |record: &mut Record| {
            let at = record.keeper.take().and_then(|keeper| keeper.at).filter(|_| are_ours);
            record.keeper = Some(Keeper { holder: holder.to_string(), at, ended: false });
            if !begun.is_empty() {
                record.disown(&begun, is_other, now);
            }
            Ok::<_, RunError>((record.strangers.clone(), record.lost.clone()))
        };
        (self.strangers, self.lost) = self.ledger.update(take).await?;
        self.marked = None;
        Ok(())
    }

    /// Notes that it has folded all that it will.
    pub(super) async fn end_keeping(&mut self) -> Result<(), RunError> {
        let Some(position) = self.run.as_ref().map_or(self.marked, |run| run.position) else { return Ok(()) };
        note_event(&self.shared, &self.ledger, position, true).await.map(drop)
    }
}

/// Notes the event that a live build has got to; tells whether there is one in this log.
pub(super) async fn note_event(
    shared: &Shared,
    ledger: &Ledger,
    position: Position,
    ended: bool,
) -> Result<bool, RunError> {
    let Some(mark) = event_at(shared, position).await? else { return Ok(false) };
    let note = |record: &mut Record| {
        let holder = &*shared.holder;
        // A store that was emptied has no keeper.
        if record.keeper.as_ref().is_none_or(|keeper| keeper.holder == holder) {
            record.keeper = Some(Keeper { holder: holder.to_owned(), at: Some(mark.clone()), ended });
        }
        Ok::<_, RunError>(())
    };
    ledger.update(note).await?;
    Ok(true)
}

async fn event_at(shared: &Shared, position: Position) -> Result<Option<Mark>, RunError> {
    let log = &shared.log;
    if Some(position) > *log.head().borrow() {
        return Ok(None);
    }
    let before = position.to_engine().checked_sub(1).map(Position::from_engine);
    let page = log.read_all(before, Filter::default(), ReadLimit::events(1)).await?;
    let found = page.events.into_iter().find(|event| event.position == position);
    Ok(found.map(|found| Mark {
        epoch: log.epoch(),
        position,
        event: found.envelope.id,
        recorded_at: found.recorded_at,
    }))
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
