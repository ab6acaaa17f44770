//! What builds were lately known to be, so that not every batch has to ask.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Store;
use super::builds::Standing;
use super::errors::Trouble;

/// How long that is taken for true. A build that another process drops or makes anew is noticed so
/// much later at the most, or by its checkpoint, which no batch moves past that.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// Builds by their collections: those that were written to lately.
#[derive(Default)]
pub(super) struct Lately(Mutex<HashMap<String, (Instant, Standing)>>);

impl Lately {
    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, Standing)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The build of a collection, as it was a moment ago.
    pub(super) async fn standing_lately(&self, collection: &str) -> Result<Standing, Trouble> {
        let fresh = |since: &Instant| since.elapsed() < KNOWN_FOR;
        let known = self.lately.known().get(collection).filter(|(since, _)| fresh(since)).cloned();
        if let Some((_, standing)) = known {
            return Ok(standing);
        }
        let asked = Instant::now();
        let standing = self.standing(collection).await?;
        let mut known = self.lately.known();
        known.retain(|_, (since, _)| fresh(since));
        known.insert(collection.to_owned(), (asked, standing.clone()));
        Ok(standing)
    }

    /// Has the next batch ask again.
    pub(super) fn forget_standing(&self, collection: &str) {
        self.lately.known().remove(collection);
    }
}
