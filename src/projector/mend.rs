//! A parked key, folded again from the event that parked it.

use dramatis_events::{DecodeError, Position};
use dramatis_projections::{DeadLetter, DynProjection};

use super::Shared;
use super::asks::Mended;
use super::record::Ledger;
use super::run::{Run, RunError, filter};
use super::worker::Worker;
use crate::log::ReadLimit;
use crate::read_models::{Batch, Checkpoint};

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
        let parked = folded.parked.into_iter().find(|parked| parked.key == letter.key);
        let checkpoint = Checkpoint { epoch: run.epoch, position: None };
        // If it waits from a later event on now, that takes the old letter's place.
        let letters = parked.iter().cloned().collect();
        let batch = Batch { writes: folded.writes, parked: letters, checkpoint, after: None };
        shared.store.write(&run.collection, batch.into()).await?;
        if let Some(parked) = parked {
            mended.parked = Some(format!("event {} at {}: {}", parked.event, parked.position, parked.error));
            return Ok(mended);
        }
    }
    shared.store.remove_dead_letter(&run.collection, &letter.key, letter.position).await?;
    Ok(mended)
}

impl Worker {
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
