//! A peer: `redb`, a copy-on-write B-tree in one file.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Peer, record};
use crate::payload::Batch;

const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
const BY_STREAM: TableDefinition<&[u8], u64> = TableDefinition::new("by_stream");
const BY_COMMAND: TableDefinition<&[u8], u64> = TableDefinition::new("by_command");

/// See [`super`].
pub(super) struct Redb(Database);

impl Redb {
    /// An empty store in a file of the directory.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self(Database::create(dir.join("peer.redb"))?))
    }
}

impl Peer for Redb {
    fn append(&self, position: u64, batch: &Batch) -> anyhow::Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut events = transaction.open_table(EVENTS)?;
            let mut by_stream = transaction.open_table(BY_STREAM)?;
            let mut by_command = transaction.open_table(BY_COMMAND)?;
            let mut bytes = Vec::new();
            for (event, index) in batch.envelopes.iter().zip(0..) {
                let (position, revision) = (position + index, batch.revision + index);
                bytes.clear();
                record::encode(&mut bytes, &batch.stream, revision, event)?;
                events.insert(position, bytes.as_slice())?;
                bytes.clear();
                record::stream_key(&mut bytes, &batch.stream, revision);
                by_stream.insert(bytes.as_slice(), position)?;
                bytes.clear();
                record::command_key(&mut bytes, &batch.stream, event);
                by_command.insert(bytes.as_slice(), position)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn scan(&self) -> anyhow::Result<usize> {
        let events = self.0.begin_read()?.open_table(EVENTS)?;
        let mut seen = 0;
        for entry in events.iter()? {
            let (_, event) = entry?;
            std::hint::black_box(record::decode(event.value())?);
            seen += 1;
        }
        Ok(seen)
    }
}
