//! A parked key, folded again from the event that parked it.

use dramatis_events::{DecodeError, Epoch, Position};
use dramatis_projections::{DeadLetter, DynProjection, Skipped};

use super::asks::Mended;
use super::record::{Ledger, Record};
use super::run::{Run, RunError, filter, say_parked};
use super::worker::Worker;
use super::{AdminError, Shared};
use crate::log::ReadLimit;
use crate::read_models::{Batch, Checkpoint};

/// The most keys tried again whose names are kept for a build under way.
const MENDED_MAX: usize = 10_000;
/// The most events that admins let pass.
const SKIPPED_MAX: usize = 10_000;

/// Folds what waited, up to where the build is, and takes the key from the dead letters. The
/// documents go first: cut off in between, the key is parked still and may be tried again.
pub(super) async fn mend(
    shared: &Shared,
    projection: &'static dyn DynProjection,
    run: &Run,
    letter: &DeadLetter,
) -> Result<Mended, RunError> {
    let mut others = run.dead_letters().await?;
    others.retain(|other| other.key != letter.key);
    let mut fold = projection.start(shared.options.documents_max);
    fold.park(&others);
    fold.only(&letter.key);
    fold.check_each(true);
    let record = Ledger::new(shared.store.clone(), projection.name()).read().await?;
    if record.skipped_in == Some(run.epoch) {
        fold.skip(record.skipped);
    }
    let mut filter = filter(projection)?;
    if let [stream] = projection.streams_of(&letter.key).as_slice() {
        filter.stream = Some(stream.clone());
    }
    let mut mended = Mended { events: 0, parked: None };
    let mut after = letter.position.to_engine().checked_sub(1).map(Position::from_engine);
    while after < run.position {
        let page = shared.log.read_all(after, filter.clone(), shared.options.page).await?;
        if page.scanned <= after {
            break;
        }
        after = page.scanned;
        let mut events = page.events;
        events.retain(|event| Some(event.position) <= run.position);
        let missing = fold.begin(&events);
        fold.load(shared.store.load(&run.collection, missing).await?)?;
        let folded = fold.finish()?;
        mended.events += folded.events;
        say_parked(&run.collection, &folded.parked);
        let parked = folded.parked.iter().find(|parked| parked.key == letter.key).cloned();
        let checkpoint = Checkpoint { epoch: run.epoch, position: None };
        // If it waits from a later event on now, that takes the old letter's place. Of a stream, keys may
        // be parked that were not known before.
        let batch = Batch { writes: folded.writes, parked: folded.parked, checkpoint, after: run.stored_at };
        shared.store.write(&run.collection, batch.into()).await?;
        if let Some(parked) = parked {
            mended.parked = Some(format!("event {} at {}: {}", parked.event, parked.position, parked.error));
            return Ok(mended);
        }
    }
    shared.store.remove_dead_letter(&run.collection, &letter.key, letter.position).await?;
    Ok(mended)
}

/// Folds a key again, and has the run know what the store holds then: what came of it may be unknown.
async fn again(
    shared: &Shared,
    projection: &'static dyn DynProjection,
    run: &mut Run,
    letter: &DeadLetter,
) -> Result<Mended, RunError> {
    let mended = mend(shared, projection, run, letter).await;
    let known = run.reload().await;
    mended.and_then(|mended| known.map(|()| mended))
}

/// The dead letter of a key. What is known of the run's is put right if it differs.
async fn letter_of(run: &mut Run, key: &str) -> Result<Option<DeadLetter>, RunError> {
    let letters = run.dead_letters().await?;
    if letters != *run.parked {
        run.reload().await?;
    }
    Ok(letters.into_iter().find(|letter| letter.key == key))
}

impl Worker {
    /// Folds a parked key again in the live build, and in the warm one if it is parked there.
    pub(super) async fn mend(&mut self, key: &str, skip: bool) -> Result<Mended, AdminError> {
        let not_parked = || AdminError::NotParked { key: key.to_owned() };
        if let (None, Some(frozen)) = (&self.run, &self.frozen)
            && frozen.parked.iter().any(|letter| letter.key == key)
        {
            let (projection, reason) = (self.projection.name(), frozen.reason());
            return Err(AdminError::Frozen { projection, key: key.to_owned(), reason });
        }
        let live = self.run.as_mut().ok_or_else(not_parked)?;
        let Some(letter) = letter_of(live, key).await? else {
            // Its last try may have come to the live build alone.
            return self.mend_warm(key).await?.ok_or_else(not_parked);
        };
        if skip {
            note_skipped(&self.ledger, self.projection.name(), self.shared.log.epoch(), &letter).await?;
        }
        let live = self.run.as_mut().ok_or_else(not_parked)?;
        let mended = again(&self.shared, self.projection, live, &letter).await;
        if !skip && live.parked.iter().all(|letter| letter.key != key) {
            note_mended(&self.ledger, key).await?;
        }
        let mended = mended?;
        self.mend_warm(key).await?;
        Ok(mended)
    }

    async fn mend_warm(&mut self, key: &str) -> Result<Option<Mended>, RunError> {
        let Some(warm) = &mut self.warm else { return Ok(None) };
        let Some(letter) = letter_of(warm, key).await? else { return Ok(None) };
        again(&self.shared, self.projection, warm, &letter).await.map(Some)
    }

    /// Tries streams again that wait for a newer release, if this is one. What fails is left to admins.
    pub(super) async fn retry_newer(&mut self) {
        let letters = self.run.iter().flat_map(|run| run.parked.iter());
        let waiting: Vec<_> =
            letters.filter(|letter| letter.error.ends_with(DecodeError::UPGRADE)).cloned().collect();
        for letter in waiting {
            let (projection, key) = (self.projection.name(), &letter.key);
            let tried = match self.can_read(&letter).await {
                Ok(false) => continue,
                Ok(true) => self.mend(key, false).await,
                Err(error) => Err(error.into()),
            };
            match tried {
                Ok(mended) => {
                    tracing::info!(
                        projection,
                        key,
                        events = mended.events,
                        parked = mended.parked,
                        "tried a stream again that waited for a newer release"
                    );
                }
                Err(error) => {
                    tracing::warn!(projection, key, %error, "a stream waits still that this release can read");
                }
            }
        }
    }

    async fn can_read(&self, letter: &DeadLetter) -> Result<bool, RunError> {
        let before = letter.position.to_engine().checked_sub(1).map(Position::from_engine);
        let filter = filter(self.projection)?;
        let page = self.shared.log.read_all(before, filter, ReadLimit::events(1)).await?;
        let parked = page.events.first().filter(|event| event.position == letter.position);
        // One that is not among what this projection folds it has no trouble with.
        Ok(parked.is_none_or(|event| self.projection.keys_of(event).is_ok()))
    }
}

/// Notes that an event is to be left out by later builds too.
async fn note_skipped(
    ledger: &Ledger,
    projection: &'static str,
    epoch: Epoch,
    letter: &DeadLetter,
) -> Result<(), AdminError> {
    let skipped = Skipped { key: letter.key.clone(), position: letter.position };
    let add = |record: &mut Record| {
        if record.skipped_in != Some(epoch) {
            record.skipped.clear();
            record.skipped_in = Some(epoch);
        }
        if record.skipped.len() >= SKIPPED_MAX {
            return Err(AdminError::TooManySkipped { projection, max: SKIPPED_MAX });
        }
        if !record.skipped.contains(&skipped) {
            record.skipped.push(skipped.clone());
        }
        Ok(())
    };
    ledger.update(add).await
}

/// Notes that a key went on: a build that is under way has it parked as well, perhaps.
async fn note_mended(ledger: &Ledger, key: &str) -> Result<(), RunError> {
    let note = |record: &mut Record| {
        let active = record.job.as_mut().filter(|job| job.state.is_active());
        if let Some(job) =
            active.filter(|job| job.mended.len() < MENDED_MAX && job.mended.iter().all(|known| known != key))
        {
            job.mended.push(key.to_owned());
        }
        Ok(())
    };
    ledger.update(note).await
}
