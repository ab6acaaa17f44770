//! What ended jobs leave in the store is dropped.

use super::Builder;
use crate::projector::run::RunError;

impl Builder {
    /// Drops the builds that are neither live nor made nor kept: a job that was cancelled may have had
    /// another take its place in the record before its build was dropped.
    pub(super) async fn sweep(&self) -> Result<(), RunError> {
        let (store, name) = (&self.shared.store, self.projection.name());
        // In this order: what comes into the record or gets the alias later is not among these.
        let builds = store.builds().await?;
        let alias = store.alias(name).await?;
        let record = self.ledger.read().await?;
        // What is live may be changed meanwhile, which takes one from the alias into the record, and
        // another the other way.
        if alias.is_none() || store.alias(name).await? != alias {
            return Ok(());
        }
        let ours = builds.iter().filter(|build| build.projection == name).map(|build| &build.collection);
        let newest = ours.clone().filter_map(|collection| number(collection)).max();
        let ended = record.job.as_ref().map(|job| &job.collection);
        for collection in ours {
            // A first build is made before it has the alias.
            let may_be_first = number(collection) == newest && ended != Some(collection);
            if alias.as_ref() != Some(collection) && !record.holds(collection) && !may_be_first {
                store.drop_build(collection).await?;
            }
        }
        Ok(())
    }
}

fn number(collection: &str) -> Option<u64> {
    collection.rsplit_once('@').and_then(|(_, number)| number.parse().ok())
}
