//! The pace of a projection that keeps up: it lets events gather for a moment, so that a busy log
//! costs a few larger batches and not one for each of its own; nobody waits longer for that who
//! asks for a position.

use std::time::Duration;

use dramatis_events::Position;
use tokio::sync::watch;
use tokio::time::Instant;

/// The time from one batch to the next, at the least, while nobody waits.
const GATHER_MIN: Duration = Duration::from_millis(10);
/// The longest of these, where the store takes long: what was appended is visible so much later,
/// at the most.
const GATHER_MAX: Duration = Duration::from_millis(40);
/// A batch that took so long is followed by the next one after this many times as much: larger
/// batches write a document less often.
const GATHER_TIMES: u32 = 5;

pub(super) struct Gathering {
    /// When the last batch was begun.
    begun: Option<Instant>,
    /// The time from then to the next one.
    wait: Duration,
    /// The last position that somebody waits or waited for.
    wanted: watch::Receiver<Option<Position>>,
}

impl Gathering {
    pub(super) fn new(wanted: watch::Receiver<Option<Position>>) -> Self {
        Self { begun: None, wait: GATHER_MIN, wanted }
    }

    /// A batch begins.
    pub(super) fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// It is written.
    pub(super) fn end(&mut self) {
        let took = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        self.wait = (took * GATHER_TIMES).clamp(GATHER_MIN, GATHER_MAX);
    }

    /// Waits until the next batch is due for a projection that stands at this position.
    pub(super) async fn gather(&mut self, position: Option<Position>, stop: &mut watch::Receiver<bool>) {
        let Some(begun) = self.begun else { return };
        tokio::select! {
            () = tokio::time::sleep_until(begun + self.wait) => {}
            _ = self.wanted.wait_for(|wanted| *wanted > position) => {}
            _ = stop.changed() => {}
        }
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
        let mut gathering = Gathering::new(wanted);
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
    async fn a_store_that_takes_long_gets_larger_batches() {
        let (_wants, wanted) = watch::channel(None);
        let (_stop, mut stopped) = watch::channel(false);
        let mut gathering = Gathering::new(wanted);
        for (took_ms, next_ms) in [(1, 10), (3, 15), (7, 35), (20, 40), (100, 100), (1, 10)] {
            let start = Instant::now();
            gathering.begin();
            tokio::time::advance(Duration::from_millis(took_ms)).await;
            gathering.end();
            gathering.gather(None, &mut stopped).await;
            assert_eq!(start.elapsed(), Duration::from_millis(next_ms), "after {took_ms} ms");
        }
    }
}
