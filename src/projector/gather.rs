//! The pace of a projection that keeps up: it lets events gather for a moment, so that a busy log
//! costs a few larger batches and not one for each of its own; nobody waits longer for that who
//! asks for a position.

use std::time::Duration;

use dramatis_events::Position;
use tokio::sync::watch;
use tokio::time::Instant;

/// The time from one batch to the next, at the least, while nobody waits. What was appended is
/// visible so much later at the most.
const GATHER: Duration = Duration::from_millis(10);

pub(super) struct Gathering {
    /// When the last batch was begun.
    begun: Option<Instant>,
    /// The last position that somebody waits or waited for.
    wanted: watch::Receiver<Option<Position>>,
}

impl Gathering {
    pub(super) fn new(wanted: watch::Receiver<Option<Position>>) -> Self {
        Self { begun: None, wanted }
    }

    /// A batch begins.
    pub(super) fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// Waits until the next batch is due for a projection that stands at this position.
    pub(super) async fn gather(&mut self, position: Option<Position>, stop: &mut watch::Receiver<bool>) {
        let Some(begun) = self.begun else { return };
        tokio::select! {
            () = tokio::time::sleep_until(begun + GATHER) => {}
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
        assert_eq!(start.elapsed(), GATHER);
        gathering.begin();
        wants.send_replace(Some(Position::from_engine(7)));
        gathering.gather(Some(Position::from_engine(6)), &mut stopped).await;
        assert_eq!(start.elapsed(), GATHER, "somebody waits for what comes next");
        gathering.gather(Some(Position::from_engine(7)), &mut stopped).await;
        assert_eq!(start.elapsed(), GATHER * 2, "what was waited for is there");
    }
}
