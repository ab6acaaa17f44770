//! A peer: `SierraDB`, an event store of segment files with indexes by stream and by event id.
//!
//! It orders streams and partitions, not the whole of its events; so it has less to do than the
//! others. Its index by event id stands for that by command. Streams are spread over its buckets,
//! each of which has a writer. Compression, on by default, makes it slower here and is off.

use std::path::Path;

use dramatis_events::{ContentHash, StreamId};
use sierradb::IterDirection;
use sierradb::database::{Database, DatabaseBuilder, ExpectedVersion, NewEvent, Transaction};
use sierradb::id::{uuid_to_partition_hash, uuid_v7_with_partition_hash};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::{Peer, record};
use crate::payload::Batch;

/// Transactions that are read at a time.
const SCAN_TRANSACTIONS: usize = 50;

/// See [`super`].
pub(super) struct Sierra {
    runtime: Runtime,
    database: Database,
}

impl Sierra {
    /// An empty store in a folder of the directory.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let database = {
            let _entered = runtime.enter();
            DatabaseBuilder::new().compression(false).open(dir.join("peer.sierradb"))?
        };
        Ok(Self { runtime, database })
    }

    /// The partition of a stream; neighbours by number are in buckets of their own.
    fn partition(&self, stream: &StreamId) -> u16 {
        let sum = stream.as_str().bytes().fold(0_u16, |sum, byte| sum.wrapping_add(byte.into()));
        sum % self.database.total_buckets()
    }
}

impl Peer for Sierra {
    /// One composes its batch while the other's is synced.
    fn writers(&self) -> usize {
        2
    }

    fn append(&self, _: u64, batch: &Batch) -> anyhow::Result<()> {
        let stream = sierradb::StreamId::new(batch.stream.as_str())?;
        let key = Uuid::from_bytes(ContentHash::of(&[batch.stream.as_str().as_bytes()]).to_bytes());
        let hash = uuid_to_partition_hash(key);
        let events = batch.envelopes.iter().zip(batch.revision..).map(|(event, revision)| {
            let mut payload = Vec::new();
            record::encode(&mut payload, &batch.stream, revision, event)?;
            Ok(NewEvent {
                event_id: uuid_v7_with_partition_hash(hash),
                stream_id: stream.clone(),
                stream_version: revision
                    .checked_sub(1)
                    .map_or(ExpectedVersion::Empty, ExpectedVersion::Exact),
                event_name: event.name.as_str().to_owned(),
                timestamp: 0,
                metadata: Vec::new(),
                payload,
            })
        });
        let events = events.collect::<anyhow::Result<_>>()?;
        let transaction = Transaction::new(key, self.partition(&batch.stream), events)?;
        self.runtime.block_on(self.database.append_events(transaction))?;
        Ok(())
    }

    fn scan(&self) -> anyhow::Result<usize> {
        self.runtime.block_on(async {
            let mut seen = 0;
            for partition in 0..self.database.total_buckets() {
                let mut events = self.database.read_partition(partition, 0, IterDirection::Forward).await?;
                while let Some(transactions) = events.next_batch(SCAN_TRANSACTIONS).await? {
                    for event in transactions.into_iter().flatten() {
                        std::hint::black_box(record::decode(&event.payload)?);
                        seen += 1;
                    }
                }
            }
            Ok(seen)
        })
    }
}

impl Drop for Sierra {
    fn drop(&mut self) {
        self.runtime.block_on(self.database.shutdown());
    }
}
