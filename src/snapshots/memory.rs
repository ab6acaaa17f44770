//! Snapshots in memory: for tests. They keep the contract of the port, and nothing over a restart.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dramatis_events::StreamId;
use futures_util::future::BoxFuture;

use super::{Key, Snapshot, Snapshots};

/// A store that is gone with its process.
#[derive(Debug, Default)]
pub struct MemorySnapshots(Mutex<HashMap<StreamId, (Key, Snapshot)>>);

impl Snapshots for MemorySnapshots {
    fn load(&self, key: &Key) -> BoxFuture<'static, Option<Snapshot>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(&key.stream).filter(|(known, _)| known == key);
        Box::pin(std::future::ready(found.map(|(_, snapshot)| snapshot.clone())))
    }

    fn save(&self, key: &Key, snapshot: Snapshot) -> BoxFuture<'static, bool> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(key.stream.clone(), (key.clone(), snapshot));
        Box::pin(std::future::ready(true))
    }
}

#[cfg(test)]
mod tests {
    use super::MemorySnapshots;
    use crate::snapshots::contract;

    #[tokio::test]
    async fn the_contract_holds() {
        contract::run(&MemorySnapshots::default()).await;
    }
}
