//! The machine's own limit for reading: records of a length, a CRC32C and bytes, in one file.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::{Peer, record};
use crate::payload::Batch;

/// Bytes that are read at a time; no record is longer.
const READ_BYTES: usize = 1024 * 1024;

/// A file of records.
#[derive(Debug)]
pub(super) struct PlainFile(PathBuf);

impl PlainFile {
    /// An empty file in the directory.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("peer.records");
        File::create_new(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self(path))
    }
}

impl Peer for PlainFile {
    fn append(&self, _: u64, batch: &Batch) -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::options().append(true).open(&self.0)?);
        let mut bytes = Vec::new();
        for (event, index) in batch.envelopes.iter().zip(0..) {
            bytes.clear();
            record::encode(&mut bytes, &batch.stream, batch.revision + index, event)?;
            file.write_all(&u32::try_from(bytes.len())?.to_le_bytes())?;
            file.write_all(&crc_fast::crc32_iscsi(&bytes).to_le_bytes())?;
            file.write_all(&bytes)?;
        }
        Ok(file.into_inner()?.sync_data()?)
    }

    fn scan(&self) -> anyhow::Result<usize> {
        let mut file = File::open(&self.0)?;
        let mut buffer = vec![0; READ_BYTES];
        let (mut held, mut seen) = (0, 0);
        loop {
            let room = buffer.get_mut(held..).unwrap_or_default();
            let read = file.read(room)?;
            if read == 0 {
                ensure!(held == 0, "expected whole records, got {held} bytes of one at the end");
                return Ok(seen);
            }
            held += read;
            let mut rest = buffer.get(..held).unwrap_or_default();
            while let Some((bytes, after)) = next(rest)? {
                std::hint::black_box(bytes);
                rest = after;
                seen += 1;
            }
            let left = rest.len();
            buffer.copy_within(held - left..held, 0);
            held = left;
        }
    }
}

/// The bytes of the first record, checked, and what comes after it; `None` if it is not whole.
fn next(records: &[u8]) -> anyhow::Result<Option<(&[u8], &[u8])>> {
    let Some((length, rest)) = records.split_first_chunk() else { return Ok(None) };
    let Some((checksum, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let length = usize::try_from(u32::from_le_bytes(*length))?;
    let Some((bytes, after)) = rest.split_at_checked(length) else { return Ok(None) };
    ensure!(
        crc_fast::crc32_iscsi(bytes) == u32::from_le_bytes(*checksum),
        "a record of the plain file is damaged"
    );
    Ok(Some((bytes, after)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_whole_or_not_at_all() {
        let mut records = [4_u32.to_le_bytes(), crc_fast::crc32_iscsi(b"data").to_le_bytes()].concat();
        records.extend_from_slice(b"dat");
        assert_eq!(next(&records).unwrap(), None);
        records.extend_from_slice(b"a+");
        assert_eq!(next(&records).unwrap(), Some((b"data".as_slice(), b"+".as_slice())));
        records.splice(8..9, [b'D']);
        next(&records).unwrap_err();
    }
}
