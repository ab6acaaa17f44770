//! What time brings to a projection, and others to its store: another live build, one that is gone, builds to
//! let cool and to drop, tombstones. It is looked up beside the steps.

use std::time::Duration;

use dramatis_events::Position;
use tokio::time::Instant;

use super::beside::Beside;
use super::record::{Kept, Ledger, Record};
use super::run::RunError;
use super::worker::Worker;

/// How often it is looked up.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// Tombstones are purged once they have been below the durable checkpoint for this long: much
/// longer than a batch is on its way.
const TOMBSTONES_FOR: Duration = Duration::from_mins(1);

/// How a store stood a moment ago.
struct Looked {
    /// What was the live build here when the look was begun.
    known: Option<String>,
    alias: Option<String>,
    is_whole: bool,
    record: Record,
}

/// The looks of a projection.
#[derive(Default)]
pub(super) struct Looking {
    begun: Option<Instant>,
    look: Option<Beside<Looked>>,
}

impl Looking {
    /// What is looked up now was changed here: it is looked up anew.
    pub(super) fn again(&mut self) {
        *self = Self::default();
    }

    /// Waits until a look is over, if there is one.
    pub(super) async fn over(&mut self) {
        match &mut self.look {
            Some(look) => look.over().await,
            None => std::future::pending().await,
        }
    }
}

/// Tombstones to be purged, and since when they can be.
pub(super) struct Purge {
    since: Instant,
    collection: String,
    up_to: Position,
    /// How many they were, once that is known.
    under_way: Option<Beside<u64>>,
}

impl Worker {
    /// Begins a look when it is time, and does what one calls for that is over.
    pub(super) async fn tick(&mut self) -> Result<(), RunError> {
        let looking = &self.looking;
        if looking.look.is_none() && looking.begun.is_none_or(|begun| begun.elapsed() >= TICK) {
            self.looking = Looking { begun: Some(Instant::now()), look: Some(Beside::begin(self.look())) };
        }
        match Beside::take(&mut self.looking.look) {
            Some(looked) => self.see_to(looked?).await,
            None => Ok(()),
        }
    }

    fn look(&self) -> impl Future<Output = Result<Looked, RunError>> + Send + 'static {
        let (store, name, known) = (self.shared.store.clone(), self.projection.name(), self.live());
        async move {
            let (alias, is_whole) = match &known {
                Some(known) => (store.alias(name).await?, store.is_whole(known).await?),
                None => (None, true),
            };
            let record = Ledger::new(store, name).read().await?;
            Ok(Looked { known, alias, is_whole, record })
        }
    }

    /// The build that queries get, as far as is known here.
    fn live(&self) -> Option<String> {
        let frozen = self.frozen.as_ref().map(|frozen| &frozen.collection);
        self.run.as_ref().map(|run| &run.collection).or(frozen).cloned()
    }

    async fn see_to(&mut self, looked: Looked) -> Result<(), RunError> {
        let Looked { known, alias, is_whole, record } = looked;
        if known != self.live() {
            return Ok(());
        }
        if known.is_some() && (alias != known || !is_whole) {
            return self.follow(known, alias).await;
        }
        self.see_to_successor(&record).await?;
        self.see_to_kept(record.kept).await?;
        self.warm_again().await?;
        self.purge()
    }

    /// A warm build cools, an old one is dropped.
    pub(super) async fn see_to_kept(&mut self, kept: Vec<Kept>) -> Result<(), RunError> {
        let (now, store) = (self.shared.clock.now(), self.shared.store.clone());
        self.kept = kept;
        let warm = |kept: &Kept| kept.warm_until.is_some_and(|until| until > now);
        if let Some(run) = &self.warm {
            let mut kept = self.kept.iter();
            if !kept.any(|kept| kept.collection == run.collection && warm(kept)) {
                self.warm = None;
            }
        }
        if self.kept.iter().any(|kept| kept.drop_at <= now) {
            let alias = store.alias(self.projection.name()).await?;
            for kept in self.kept.iter().filter(|kept| kept.drop_at <= now) {
                if alias.as_ref() != Some(&kept.collection) {
                    store.drop_build(&kept.collection).await?;
                }
            }
            let cleared = |record: &mut Record| {
                record.kept.retain(|kept| kept.drop_at > now);
                Ok::<_, RunError>(record.kept.clone())
            };
            self.kept = self.ledger.update(cleared).await?;
        }
        Ok(())
    }

    /// Begins to purge when it is time: beside the steps, as they may be many.
    fn purge(&mut self) -> Result<(), RunError> {
        let Some(run) = &self.run else { return Ok(()) };
        if let Some(purge) = &mut self.purge {
            match Beside::take(&mut purge.under_way) {
                None if purge.under_way.is_some() || purge.since.elapsed() < TOMBSTONES_FOR => return Ok(()),
                None if purge.collection == run.collection => {
                    let purged = self.shared.store.purge_tombstones(&purge.collection, purge.up_to);
                    purge.under_way = Some(Beside::begin(async { Ok(purged.await?) }));
                    return Ok(());
                }
                Some(Err(error)) => {
                    self.purge = None;
                    return Err(error);
                }
                None | Some(Ok(_)) => {}
            }
        }
        let (since, collection) = (Instant::now(), run.collection.clone());
        self.purge = run.position.map(|up_to| Purge { since, collection, up_to, under_way: None });
        Ok(())
    }
}
