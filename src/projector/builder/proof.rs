//! The proof that a build shows what the live one does.

use std::collections::HashSet;

use dramatis_events::Position;
use dramatis_projections::{DeadLetter, Skipped};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::compare::{Count, Difference, Merge, SecondLook, look_again, parked_apart};
use super::super::mend;
use super::super::record::{Completion, JobState};
use super::super::run::{Run, RunError};
use super::super::sitting::Sitting;
use super::{Builder, Flow, History};
use crate::read_models::FIND_MAX;

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
    pub(super) async fn counted(&mut self, sitting: &mut Sitting) -> Result<Option<Completion>, RunError> {
        self.mend_as_live(&mut sitting.run).await?;
        self.count(&sitting.run.collection, sitting.run.position).await
    }

    /// Counts a build that rests at a position. `None` if it was halted.
    async fn count(
        &mut self,
        collection: &str,
        position: Option<Position>,
    ) -> Result<Option<Completion>, RunError> {
        let (store, mut head) = (self.shared.store.clone(), self.shared.log.head());
        let mut count = Count::new(store.as_ref(), collection, position);
        loop {
            if self.is_halted() {
                return Ok(None);
            }
            let started = Instant::now();
            if !count.page().await? {
                return Ok(Some(count.completion));
            }
            self.give_way(started.elapsed(), has_grown(&mut head)).await;
        }
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
        let (store, new) = (self.shared.store.clone(), sitting.run.collection.clone());
        let (pair, position) = ((live, new.as_str()), sitting.run.position);
        let mut merge = Merge::begin(store.as_ref(), pair, position).await?;
        let (mut difference, mut more) = (Difference::default(), true);
        while more && !self.is_enough(&difference) {
            let mut suspects = Vec::new();
            match self.merge_on(&mut merge, &mut suspects).await? {
                Some(goes_on) => more = goes_on,
                None => return Ok(None),
            }
            // What the new build changed after that position cannot be compared.
            let Some(look) = self.look(pair, &suspects, at).await? else { return Ok(None) };
            difference.add(look.difference);
        }
        let Some(completion) = self.completed(&merge, &new, position).await? else { return Ok(None) };
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
    /// once both have passed it, and as often as so much of it is held as may be. `None` if it was halted, or
    /// failed.
    pub(super) async fn prove(
        &mut self,
        sitting: &mut Sitting,
        live: &str,
        difference: &mut Difference,
    ) -> Result<Option<Proof>, RunError> {
        let (store, new) = (self.shared.store.clone(), sitting.run.collection.clone());
        // In this order: what goes on in the live build meanwhile is missing in what is known of it.
        let parked = store.dead_letters(live).await?;
        self.mend_as_live(&mut sitting.run).await?;
        *difference = Difference::default();
        let mut merge = Merge::begin(store.as_ref(), (live, &new), sitting.run.position).await?;
        let mut suspects = Vec::new();
        loop {
            let Some(more) = self.merge_on(&mut merge, &mut suspects).await? else { return Ok(None) };
            match self.settle(sitting, live, suspects, difference).await? {
                Some(moved) => suspects = moved,
                None => return Ok(None),
            }
            if !more || self.is_enough(difference) {
                break;
            }
            if suspects.len() > self.room_max() {
                return self.never_settles(sitting, suspects.len()).await.map(|()| None);
            }
            merge.go_on();
        }
        // What was read on with while it was compared is counted where it rests now.
        let position = sitting.run.position;
        let Some(completion) = self.completed(&merge, &new, position).await? else { return Ok(None) };
        if sitting.job.accept || difference.documents > 0 {
            // It is shown to whoever decides, and where it is switched to all the same.
            difference.park(parked_apart(store.as_ref(), (live, &new), position).await?);
        }
        Ok(Some(Proof { suspects, parked, completion }))
    }

    /// Compares until as many keys are suspected as are held, or to the end; tells whether there is more.
    /// `None` if it was halted.
    async fn merge_on(
        &mut self,
        merge: &mut Merge<'_>,
        suspects: &mut Vec<String>,
    ) -> Result<Option<bool>, RunError> {
        let (max, mut head) = (self.shared.options.suspects_max.max(1), self.shared.log.head());
        while suspects.len() < max {
            if self.is_halted() {
                return Ok(None);
            }
            let started = Instant::now();
            if !merge.page(suspects, max).await? {
                return Ok(Some(false));
            }
            self.give_way(started.elapsed(), has_grown(&mut head) && merge.meets_old()).await;
        }
        Ok(Some(true))
    }

    /// Looks at suspects again, each time after both builds have read on, until few of them are left that
    /// move on; answers these. `None` if it was halted.
    async fn settle(
        &mut self,
        sitting: &mut Sitting,
        live: &str,
        mut suspects: Vec<String>,
        difference: &mut Difference,
    ) -> Result<Option<Vec<String>>, RunError> {
        for _ in 0..LOOKS_MAX {
            if self.read_to(sitting, None).await? == Flow::Halt || !self.live_past(sitting).await {
                return Ok(None);
            }
            let (new, position) = (sitting.run.collection.clone(), sitting.run.position);
            let Some(look) = self.look((live, &new), &suspects, position).await? else { return Ok(None) };
            difference.add(look.difference);
            suspects = look.moved;
            if suspects.len() <= FEW.min(self.room_max()) {
                break;
            }
        }
        Ok(Some(suspects))
    }

    /// Looks at suspects again, up to a position that both builds have passed. `None` if it was halted.
    async fn look(
        &mut self,
        pair: (&str, &str),
        suspects: &[String],
        position: Option<Position>,
    ) -> Result<Option<SecondLook>, RunError> {
        let (store, mut head) = (self.shared.store.clone(), self.shared.log.head());
        let mut all = SecondLook::default();
        for some in suspects.chunks(FIND_MAX) {
            if self.is_halted() {
                return Ok(None);
            }
            let started = Instant::now();
            let look = look_again(store.as_ref(), pair, some.to_vec(), position).await?;
            all.difference.add(look.difference);
            all.moved.extend(look.moved);
            self.give_way(started.elapsed(), has_grown(&mut head)).await;
        }
        Ok(Some(all))
    }

    /// What a build comes to that rests at a position: by what it was compared with, if it rested all the
    /// while, or else it is counted. `None` if it was halted.
    async fn completed(
        &mut self,
        merge: &Merge<'_>,
        collection: &str,
        position: Option<Position>,
    ) -> Result<Option<Completion>, RunError> {
        match merge.completion() {
            Some(completion) => Ok(Some(completion)),
            None => self.count(collection, position).await,
        }
    }

    /// Whether so much differs that the count stands for everything.
    fn is_enough(&self, difference: &Difference) -> bool {
        let max = u64::try_from(self.shared.options.suspects_max.max(1)).unwrap_or(u64::MAX);
        difference.documents >= max
    }

    /// How many suspects may be left over where others are to be held beside them.
    fn room_max(&self) -> usize {
        self.shared.options.suspects_max / 2
    }

    async fn never_settles(&mut self, sitting: &Sitting, left: usize) -> Result<(), RunError> {
        let why = format!(
            "{left} of its documents were changed again whenever they were compared, {LOOKS_MAX} times, and at \
             most {} may be left so: order it again when less is written",
            self.room_max()
        );
        self.fail(&sitting.job(), &why).await
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

/// Whether there is live traffic: whether the log has grown since that was asked last.
fn has_grown(head: &mut watch::Receiver<Option<Position>>) -> bool {
    let grown = head.has_changed().unwrap_or(false);
    head.borrow_and_update();
    grown
}
