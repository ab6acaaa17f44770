//! The embedded log under test: the contract, recovery of real files, crashes of simulated ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::sync::Arc;

use super::*;
use crate::clock::ManualClock;
use crate::log::contract;

pub(super) mod bugs;
mod cold;
mod disk;
mod faults;
mod fuzz;
mod golden;
mod histories;
mod limits;
mod recovery;
mod staged;
pub(super) mod wrapped;

/// Everything rolls, and everything is read from files.
fn tiny() -> Options {
    Options {
        segment_bytes: 4 * 1024,
        append_queue_len_max: 64,
        live_bytes_max: 1,
        // What is closed has moved when the log has ended, on a slow disk too.
        moving_patience: Duration::from_mins(5),
        ..Options::default()
    }
}

fn open(dir: &Path, options: Options) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open(dir, options, Arc::new(ManualClock::default()))
}

fn open_disk(disk: &disk::Disk, options: Options) -> Result<EmbeddedLog, OpenError> {
    open_disk_at(disk, options, &ManualClock::default())
}

#[allow(clippy::needless_pass_by_value, reason = "as `open` takes them")]
fn open_disk_at(disk: &disk::Disk, options: Options, clock: &ManualClock) -> Result<EmbeddedLog, OpenError> {
    let within = |mut work: Work| {
        work.begin();
        Ok(Closer::Within(Box::new(work)))
    };
    EmbeddedLog::open_storage(Arc::new(disk.clone()), Vec::new(), &options, Arc::new(clock.clone()), within)
}

async fn keeps_the_contract(options: Options) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::default());
    let log = EmbeddedLog::open(dir.path(), options, Arc::new(clock.clone())).unwrap();
    contract::run(Arc::new(log), &clock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract() {
    keeps_the_contract(Options::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract_while_everything_rolls() {
    keeps_the_contract(tiny()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract_without_filters() {
    keeps_the_contract(Options {
        segment_bytes: 64 * 1024,
        filter_bytes_max: 0,
        live_bytes_max: 1,
        ..tiny()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_the_contract_with_half_in_memory() {
    // Appends wait for a place all the time.
    let append_queue_len_max = 2;
    let options =
        Options { segment_bytes: 64 * 1024, live_bytes_max: 16 * 1024, append_queue_len_max, ..tiny() };
    keeps_the_contract(options).await;
}
