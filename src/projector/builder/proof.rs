//! The proof that a build shows what the live one does.

use std::collections::HashSet;

use dramatis_events::Position;
use dramatis_projections::{DeadLetter, Skipped};

use super::super::compare::{Difference, SUSPECTS_MAX, complete, look_again, merge, parked_apart};
use super::super::mend;
use super::super::record::{Completion, JobState};
use super::super::run::{Run, RunError};
use super::super::sitting::Sitting;
use super::{Builder, Flow, History};
use crate::read_models::ReadModelError;

/// How often builds are compared anew if too much moved to hold it.
const MERGES_MAX: usize = 5;
/// How often what moved is looked at before the rest is left to the moment of the switch.
const LOOKS_MAX: usize = 10;
/// So few that moved can be compared in the moment of the switch.
const FEW: usize = 256;

/// What is known of a build that was compared.
pub(super) struct Proof {
    /// Keys that moved too fast.
    pub(super) suspects: Vec<String>,
    /// What was parked in the live build when this one was brought to have the same parked.
    pub(super) parked: Vec<DeadLetter>,
    pub(super) completion: Completion,
}

impl Proof {
    /// Of a build that is not to be compared any more.
    pub(super) const fn of(completion: Completion) -> Self {
        Self { suspects: Vec::new(), parked: Vec::new(), completion }
    }
}

impl Builder {
    /// What the build comes to, without comparing it. `None` if it was halted.
    pub(super) async fn counted(&self, sitting: &mut Sitting) -> Result<Option<Completion>, RunError> {
        self.mend_as_live(&mut sitting.run).await?;
        let (store, run) = (&self.shared.store, &sitting.run);
        Ok(complete(store.as_ref(), &run.collection, run.position, &|| self.is_halted()).await?)
    }

    /// Folds keys again that are parked here and went on in the live build meanwhile: at events
    /// which admins have let pass, or as they were tried again.
    async fn mend_as_live(&self, run: &mut Run) -> Result<(), RunError> {
        let record = self.ledger.read().await?;
        let ours = record.skipped_in == Some(run.epoch);
        let retried = record.active().map(|job| job.mended.clone()).unwrap_or_default();
        // What is parked again at the same event stays so.
        let mut tried = HashSet::new();
        let wanted = |letter: &DeadLetter| {
            let event = Skipped { key: letter.key.clone(), position: letter.position };
            (ours && record.skipped.contains(&event)) || retried.contains(&letter.key)
        };
        // One that waits from a later such event on is taken again.
        while let Some(letter) =
            run.parked.iter().find(|letter| wanted(letter) && !tried.contains(*letter)).cloned()
        {
            mend::mend(&self.shared, self.projection, run, &letter).await?;
            run.reload().await?;
            tried.insert(letter);
        }
        Ok(())
    }

    /// Compares with a live build that stands where this one does. `None` if it was halted.
    pub(super) async fn compare_with_frozen(
        &mut self,
        sitting: &mut Sitting,
        live: &str,
        at: Option<Position>,
    ) -> Result<Option<(Difference, Completion)>, RunError> {
        self.mend_as_live(&mut sitting.run).await?;
        self.enter(sitting, JobState::Proving).await?;
        let (store, run) = (self.shared.store.clone(), &sitting.run);
        let pair = (live, run.collection.as_str());
        let merged = merge(store.as_ref(), pair, run.position, &|| self.is_halted()).await?;
        let Some((suspects, completion)) = merged else { return Ok(None) };
        // What the new build changed after that position cannot be compared.
        let mut difference = look_again(store.as_ref(), pair, suspects, at).await?.difference;
        difference.park(parked_apart(store.as_ref(), pair, at).await?);
        self.enter(sitting, JobState::Building).await?;
        Ok(Some((difference, completion)))
    }

    /// Tells whether a live build that stands still is what the log says up to there, which is all that
    /// it shows.
    pub(super) async fn verify_frozen(
        &mut self,
        mut sitting: Sitting,
        live: &str,
        at: Option<Position>,
        history: History,
    ) -> Result<(), RunError> {
        if history != History::Present {
            let why = "the live build is of another history than the log, so it is not what the log says";
            return self.fail(&sitting.job(), why).await;
        }
        if sitting.run.position > at {
            // It has frozen since this was begun: of what is past that nothing can be compared.
            self.shared.store.drop_build(&sitting.run.collection).await?;
            self.wake.mark_changed();
            return Ok(());
        }
        // Nowhere would be the log's end.
        if at.is_some() && self.read_to(&mut sitting, at).await? == Flow::Halt {
            return self.save(&mut sitting).await;
        }
        let Some((difference, completion)) = self.compare_with_frozen(&mut sitting, live, at).await? else {
            return self.save(&mut sitting).await;
        };
        let found = difference.is_some().then_some(difference);
        self.end(&sitting, JobState::Done, |_, job| {
            (job.completion, job.compared_frozen) = (Some(completion), true);
            job.difference.clone_from(&found);
        })
        .await
    }

    /// Compares with a live build that moves on: what differs at first sight is looked at again
    /// once both have passed it. `None` if it was halted.
    pub(super) async fn prove(
        &mut self,
        sitting: &mut Sitting,
        live: &str,
        difference: &mut Difference,
    ) -> Result<Option<Proof>, RunError> {
        let (store, new) = (self.shared.store.clone(), sitting.run.collection.clone());
        for _ in 0..MERGES_MAX {
            // In this order: what goes on in the live build meanwhile is missing in what is known of it.
            let parked = store.dead_letters(live).await?;
            self.mend_as_live(&mut sitting.run).await?;
            let position = sitting.run.position;
            let merged = merge(store.as_ref(), (live, &new), position, &|| self.is_halted()).await?;
            let Some((mut suspects, completion)) = merged else { return Ok(None) };
            let too_many = suspects.len() > SUSPECTS_MAX;
            *difference = Difference::default();
            for _ in 0..LOOKS_MAX {
                if self.read_to(sitting, None).await? == Flow::Halt || !self.live_past(sitting).await {
                    return Ok(None);
                }
                let position = sitting.run.position;
                let look = look_again(store.as_ref(), (live, &new), suspects, position).await?;
                difference.add(look.difference);
                suspects = look.moved;
                if suspects.len() <= FEW {
                    break;
                }
            }
            // What was not held was not looked at: only a difference that was found counts then.
            if !too_many || difference.documents > 0 {
                if sitting.job.accept || difference.documents > 0 {
                    // It is shown to whoever decides, and where it is switched to all the same.
                    difference.park(parked_apart(store.as_ref(), (live, &new), sitting.run.position).await?);
                }
                return Ok(Some(Proof { suspects, parked, completion }));
            }
        }
        let reason =
            format!("{new} could not be compared: more than {SUSPECTS_MAX} documents moved meanwhile");
        Err(ReadModelError::Failure { reason }.into())
    }

    /// Waits until the live build is where the new one is; tells whether it came to that.
    async fn live_past(&mut self, sitting: &Sitting) -> bool {
        let position = sitting.run.position;
        let mut stop = self.shared.stop.clone();
        tokio::select! {
            reached = async { self.live.wait_for(|status| status.position >= position).await.is_ok() } => reached,
            _ = self.wake.changed() => {
                // Seen here, and to be seen again by the task's own loop.
                self.wake.mark_changed();
                false
            }
            _ = stop.changed() => false,
        }
    }
}
