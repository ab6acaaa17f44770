//! Following the log: catch up, then live, without a gap between the two.

use std::sync::Arc;

use dramatis_events::Position;
use tokio::sync::watch;

use super::{EventLog, Filter, LogError, Page, ReadLimit};

/// A reader that pulls pages and waits at the end for more. Who does not pull is not pushed.
pub struct Tail {
    log: Arc<dyn EventLog>,
    head: watch::Receiver<Option<Position>>,
    after: Option<Position>,
    filter: Filter,
}

impl Tail {
    /// Follows the log past `after`, or from its start.
    pub fn new(log: Arc<dyn EventLog>, after: Option<Position>, filter: Filter) -> Self {
        let head = log.head();
        Self { log, head, after, filter }
    }

    /// The next page; waits until the log has grown. A page may hold no event when the filter
    /// passed none: its `scanned` still moves a checkpoint. `None` once the log is closed.
    pub async fn next(&mut self, limit: ReadLimit) -> Result<Option<Page>, LogError> {
        loop {
            let head = *self.head.borrow_and_update();
            // A page may have reached further than the head then told; only the log knows whether
            // the cursor is past its end.
            if head != self.after {
                let page = self.log.read_all(self.after, self.filter.clone(), limit).await?;
                if page.scanned > self.after {
                    self.after = page.scanned;
                    return Ok(Some(page));
                }
            }
            if self.head.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}
