//! The pace of a projection that keeps up: it lets events gather for a moment, so that a busy log
//! costs a few larger batches and not one for each of its own, and they take turns, so that many at
//! once do not make each other slow. Nobody waits longer for that who asks for a position.

use std::sync::Arc;
use std::time::Duration;

use dramatis_events::Position;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// The time from one batch to the next, at the least, while nobody waits.
const GATHER_MIN: Duration = Duration::from_millis(25);
/// The longest of these, where the store takes long or there was nothing to write: what was appended
/// is visible so much later, at the most.
const GATHER_MAX: Duration = Duration::from_millis(40);
/// The same where most of a batch were documents that the store had already: those are written again
/// and again, and the fewer the longer events gather. New ones are written once however that is.
const GATHER_MAX_AGAIN: Duration = Duration::from_millis(250);
/// A batch that took so long is followed by the next one after this many times as much.
const GATHER_TIMES: u32 = 5;
/// The same where most were there already.
const GATHER_TIMES_AGAIN: u32 = 25;

/// What a step found to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing of what was appended concerns this projection.
    Nothing,
    /// Documents most of which are new.
    New,
    /// Documents most of which the store had already.
    Again,
}

/// The turns of the projections of a store. Whoever asks for a position waits for the batch that is
/// on its way and for the next one: the fewer others the store has at the time, the shorter are both.
#[derive(Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    /// One projection at a time, of those that nobody waits for.
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

pub(super) struct Gathering {
    /// When the last batch was begun.
    begun: Option<Instant>,
    /// The time from then to the next one.
    wait: Duration,
    /// The last position that somebody waits or waited for.
    wanted: watch::Receiver<Option<Position>>,
    turns: Turns,
    /// Held until the batch is written.
    turn: Option<OwnedSemaphorePermit>,
}

impl Gathering {
    pub(super) fn new(wanted: watch::Receiver<Option<Position>>, turns: Turns) -> Self {
        Self { begun: None, wait: GATHER_MIN, wanted, turns, turn: None }
    }

    /// A batch begins.
    pub(super) fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// It is written, or failed.
    pub(super) fn end(&mut self, found: Found) {
        let took = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        self.wait = match found {
            Found::Nothing => GATHER_MAX,
            Found::New => (took * GATHER_TIMES).clamp(GATHER_MIN, GATHER_MAX),
            Found::Again => (took * GATHER_TIMES_AGAIN).clamp(GATHER_MIN, GATHER_MAX_AGAIN),
        };
        self.turn = None;
    }

    /// Waits until the next batch is due for a projection that stands at this position.
    pub(super) async fn gather(&mut self, position: Option<Position>, stop: &mut watch::Receiver<bool>) {
        let Some(begun) = self.begun else { return };
        let (turns, due_at) = (self.turns.0.clone(), begun + self.wait);
        let due = async {
            tokio::time::sleep_until(due_at).await;
            turns.clone().acquire_owned().await.ok()
        };
        self.turn = tokio::select! {
            turn = due => turn,
            // Others hold back meanwhile if none has begun.
            _ = self.wanted.wait_for(|wanted| *wanted > position) => turns.clone().try_acquire_owned().ok(),
            _ = stop.changed() => None,
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn events_gather_unless_somebody_waits() {
        let (wants, wanted) = watch::channel(None);
        let (_stop, mut stopped) = watch::channel(false);
        let mut gathering = Gathering::new(wanted, Turns::new());
        let start = Instant::now();
        gathering.gather(None, &mut stopped).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "the first batch is due at once");
        gathering.begin();
        gathering.gather(None, &mut stopped).await;
        assert_eq!(start.elapsed(), GATHER_MIN);
        gathering.begin();
        wants.send_replace(Some(Position::from_engine(7)));
        gathering.gather(Some(Position::from_engine(6)), &mut stopped).await;
        assert_eq!(start.elapsed(), GATHER_MIN, "somebody waits for what comes next");
        gathering.gather(Some(Position::from_engine(7)), &mut stopped).await;
        assert_eq!(start.elapsed(), GATHER_MIN * 2, "what was waited for is there");
    }

    #[tokio::test(start_paused = true)]
    async fn one_goes_after_the_other_unless_somebody_waits() {
        let (turns, (_stop, mut stopped)) = (Turns::new(), watch::channel(false));
        let (_nobody, wanted) = watch::channel(None);
        let (wants, also_wanted) = watch::channel(None);
        let (mut one, mut other) =
            (Gathering::new(wanted, turns.clone()), Gathering::new(also_wanted, turns.clone()));
        one.begin();
        one.gather(None, &mut stopped).await;
        other.begin();
        let start = Instant::now();
        {
            let mut held_back = std::pin::pin!(other.gather(None, &mut stopped));
            let long = tokio::time::timeout(GATHER_MAX * 10, held_back.as_mut());
            assert!(long.await.is_err(), "the other one is at its batch");
            wants.send_replace(Some(Position::from_engine(7)));
            held_back.await;
            assert_eq!(start.elapsed(), GATHER_MAX * 10, "somebody waits: at once");
        }
        other.begin();
        other.end(Found::New);
        one.end(Found::New);
        other.gather(Some(Position::from_engine(7)), &mut stopped).await;
        assert_eq!(start.elapsed(), GATHER_MAX * 10 + GATHER_MIN, "the turn was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_long_gets_larger_batches() {
        let (_wants, wanted) = watch::channel(None);
        let (_stop, mut stopped) = watch::channel(false);
        let mut gathering = Gathering::new(wanted, Turns::new());
        let new = [(1, 25), (6, 30), (7, 35), (20, 40), (100, 100), (1, 25)];
        let again = [(0, 25), (2, 50), (7, 175), (20, 250), (300, 300), (1, 25)];
        let new = new.map(|(took, next)| (took, Found::New, next));
        let again = again.map(|(took, next)| (took, Found::Again, next));
        let nothing = [(0, Found::Nothing, 40), (50, Found::Nothing, 50)];
        for (took_ms, found, next_ms) in [&new[..], &again, &nothing].concat() {
            let start = Instant::now();
            gathering.begin();
            tokio::time::advance(Duration::from_millis(took_ms)).await;
            gathering.end(found);
            gathering.gather(None, &mut stopped).await;
            assert_eq!(start.elapsed(), Duration::from_millis(next_ms), "after {took_ms} ms, {found:?}");
        }
    }
}
