//! What the machine itself can do: plain writes and syncs, without a log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::report::Latencies;

/// Bytes that are zero-filled ahead where a limit asks for it.
const AHEAD_BYTES: usize = 64 * 1024 * 1024;

/// How the file of a limit comes by its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// It grows with every write, so that a sync also records its new length.
    Grown,
    /// Zero-filled and synced before measuring, written from the start again when full.
    Ahead,
}

/// Whether a CRC32C is taken over the bytes before each write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// It is.
    Crc32c,
    /// It is not.
    None,
}

/// Writes `bytes` and syncs (fdatasync), again and again: syncs a second, and how long each took.
pub(crate) fn synced_writes(
    dir: &Path,
    bytes: usize,
    blocks: Blocks,
    checksum: Checksum,
    window: Duration,
) -> anyhow::Result<(f64, Latencies)> {
    let path = dir.join("limit");
    let file =
        OpenOptions::new().create(true).truncate(true).write(true).open(&path).context("the limit's file")?;
    if blocks == Blocks::Ahead {
        fill(&file)?;
    }
    let block = vec![0x5a; bytes];
    let (mut at, mut writes, mut latencies) = (0_usize, 0_u32, Latencies::new()?);
    let started = Instant::now();
    while started.elapsed() < window {
        if blocks == Blocks::Ahead && at + bytes > AHEAD_BYTES {
            at = 0;
        }
        let asked = Instant::now();
        if checksum == Checksum::Crc32c {
            std::hint::black_box(crc_fast::crc32_iscsi(std::hint::black_box(&block)));
        }
        file.write_all_at(&block, u64::try_from(at)?)?;
        file.sync_data()?;
        latencies.record(u64::try_from(asked.elapsed().as_nanos())?);
        at += bytes;
        writes += 1;
    }
    let rate = f64::from(writes) / started.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok((rate, latencies))
}

/// Waits for what was written and removed before: its freed blocks are told to the disk with the
/// file system's next commits, and would slow down whoever is measured next.
pub(crate) fn settle(dir: &Path) -> anyhow::Result<()> {
    for _ in 0..2 {
        let mark = tempfile::NamedTempFile::new_in(dir)?;
        rustix::fs::syncfs(mark.as_file()).context("the file system does not sync")?;
    }
    Ok(())
}

fn fill(file: &File) -> anyhow::Result<()> {
    let zeros = vec![0; 1024 * 1024];
    for mebibyte in 0..AHEAD_BYTES / zeros.len() {
        file.write_all_at(&zeros, u64::try_from(mebibyte * zeros.len())?)?;
    }
    file.sync_all().context("the limit's file does not sync")
}
