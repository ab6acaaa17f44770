//! A peer: `fjall`, a log-structured merge tree.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Peer, record};
use crate::payload::Batch;

/// See [`super`].
pub(super) struct Fjall {
    database: Database,
    events: Keyspace,
    by_stream: Keyspace,
    by_command: Keyspace,
}

impl Fjall {
    /// An empty store in a folder of the directory.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::builder(dir.join("peer.fjall")).open()?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        let (events, by_stream) = (keyspace("events")?, keyspace("by_stream")?);
        let by_command = keyspace("by_command")?;
        Ok(Self { database, events, by_stream, by_command })
    }
}

impl Peer for Fjall {
    /// One composes its batch while the other's is synced.
    fn writers(&self) -> usize {
        2
    }

    fn append(&self, position: u64, batch: &Batch) -> anyhow::Result<()> {
        let mut writes = self.database.batch().durability(Some(PersistMode::SyncData));
        let mut bytes = Vec::new();
        for (event, index) in batch.envelopes.iter().zip(0..) {
            let (position, revision) = ((position + index).to_be_bytes(), batch.revision + index);
            bytes.clear();
            record::encode(&mut bytes, &batch.stream, revision, event)?;
            writes.insert(&self.events, position, bytes.as_slice());
            bytes.clear();
            record::stream_key(&mut bytes, &batch.stream, revision);
            writes.insert(&self.by_stream, bytes.as_slice(), position);
            bytes.clear();
            record::command_key(&mut bytes, &batch.stream, event);
            writes.insert(&self.by_command, bytes.as_slice(), position);
        }
        Ok(writes.commit()?)
    }

    fn scan(&self) -> anyhow::Result<usize> {
        let mut seen = 0;
        for entry in self.events.iter() {
            std::hint::black_box(record::decode(&entry.value()?)?);
            seen += 1;
        }
        Ok(seen)
    }
}
