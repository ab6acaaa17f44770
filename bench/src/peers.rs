//! The peers: stores that one would take in place of our log, each set up as a durable log with
//! the two indexes that ours keeps, by stream and revision and by command.
//!
//! | peer | layout |
//! |---|---|
//! | `SQLite` | one table and two indexes; WAL, `synchronous = FULL` |
//! | `fjall` | three keyspaces (event by position, position by stream and by command), one atomic batch, fdatasync; LZ4 as by default |
//! | `redb` | three tables of the same shape, one transaction, `Durability::Immediate` |
//! | `SierraDB` | its own segments and indexes, by stream and by event id; fdatasync; built only with the feature `sierradb` |
//!
//! Beside them stands the machine's own limit, a plain file of the same records without an index.

mod fjall;
mod plain_file;
mod record;
mod redb;
#[cfg(feature = "sierradb")]
mod sierradb;
mod sqlite;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::payload::Batch;
use crate::report::Latencies;

/// A store under measurement.
pub(crate) trait Peer: Sync {
    /// How many threads append at a time: as many as bring it further.
    fn writers(&self) -> usize {
        1
    }

    /// Records a batch, durably and in all indexes; its first event gets this position.
    fn append(&self, position: u64, batch: &Batch) -> anyhow::Result<()>;

    /// Reads every event once, in order; how many there were.
    fn scan(&self) -> anyhow::Result<usize>;
}

/// What makes an empty store in a directory.
type Open = fn(&Path) -> anyhow::Result<Box<dyn Peer>>;

/// Peers by what their variants end in.
const PEERS: &[(&str, Open)] = &[
    ("sqlite", |dir| Ok(Box::new(sqlite::Sqlite::open(dir)?))),
    ("fjall", |dir| Ok(Box::new(fjall::Fjall::open(dir)?))),
    ("redb", |dir| Ok(Box::new(redb::Redb::open(dir)?))),
    #[cfg(feature = "sierradb")]
    ("sierradb", |dir| Ok(Box::new(sierradb::Sierra::open(dir)?))),
    ("plain-file", |dir| Ok(Box::new(plain_file::PlainFile::open(dir)?))),
];

/// An empty store of the peer that this variant names by its end.
pub(crate) fn open(variant: &str, dir: &Path) -> anyhow::Result<Box<dyn Peer>> {
    let peer = PEERS.iter().find(|(name, _)| variant.ends_with(name));
    let (_, open) = peer.ok_or_else(|| anyhow::anyhow!("expected a peer's name, got {variant:?}"))?;
    open(dir)
}

/// Appends the lanes' batches for the window, or until the first lane is used up: events a
/// second, and how long each batch took.
pub(crate) fn append_rate(
    peer: &dyn Peer,
    lanes: &[Vec<Batch>],
    window: Duration,
) -> anyhow::Result<(f64, Latencies)> {
    let position = AtomicU64::new(0);
    let (mut latencies, mut events) = (Latencies::new()?, 0);
    let started = Instant::now();
    let append = |lane: &mut dyn Iterator<Item = &Batch>| -> anyhow::Result<(usize, Latencies)> {
        let (mut latencies, mut events) = (Latencies::new()?, 0);
        for batch in lane.take_while(|_| started.elapsed() < window) {
            let asked = Instant::now();
            let count = u64::try_from(batch.envelopes.len())?;
            peer.append(position.fetch_add(count, Ordering::Relaxed), batch)?;
            latencies.record(u64::try_from(asked.elapsed().as_nanos())?);
            events += batch.envelopes.len();
        }
        Ok((events, latencies))
    };
    let ended = std::thread::scope(|scope| {
        let append = &append;
        let writers = lanes.chunks(lanes.len().div_ceil(peer.writers()).max(1));
        let writers: Vec<_> =
            writers.map(|lanes| scope.spawn(move || append(&mut lanes.iter().flatten()))).collect();
        writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let took = started.elapsed();
    for ended in ended {
        let (appended, samples) = ended.map_err(|_| anyhow::anyhow!("a peer's writer panicked"))??;
        events += appended;
        latencies.merge(&samples);
    }
    Ok((f64::from(u32::try_from(events)?) / took.as_secs_f64(), latencies))
}

/// Reads every event once in order: events a second.
pub(crate) fn scan_rate(peer: &dyn Peer, events: usize) -> anyhow::Result<f64> {
    let started = Instant::now();
    let seen = peer.scan()?;
    let took = started.elapsed();
    ensure!(seen == events, "expected {events} events in the peer, got {seen}");
    Ok(f64::from(u32::try_from(seen)?) / took.as_secs_f64())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use super::*;
    use crate::payload::{Payload, lanes};

    #[test]
    fn every_peer_gives_back_as_many_events_as_it_took() {
        let lanes = lanes(&Payload::new(300).unwrap(), 2, 96, 16).unwrap();
        for (name, _) in PEERS {
            let dir = tempfile::tempdir().unwrap();
            let peer = open(&format!("batched-{name}"), dir.path()).unwrap();
            let (rate, latencies) = append_rate(peer.as_ref(), &lanes, Duration::from_hours(1)).unwrap();
            assert!(rate > 0.0, "{name}");
            assert_eq!(latencies.len(), 6, "{name}");
            assert_eq!(peer.scan().unwrap(), 96, "{name}");
        }
    }
}
