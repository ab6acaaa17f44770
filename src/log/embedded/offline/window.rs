//! Reading a file from its start to its end in large pieces. The file may grow or be cut behind
//! its last batch meanwhile, and its disk may not give all of it back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::log::embedded::bytes::{to_u64, to_usize};
use crate::log::embedded::format::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader};
use crate::log::embedded::storage::{StoredFile, read_up_to};

/// Bytes read at a time.
const CHUNK_BYTES: u64 = 1024 * 1024;
/// Bytes that a disk fails to read together.
const BLOCK_BYTES: u64 = 4 * 1024;
/// Stands where the disk gave nothing: no checksum takes it for right, nor is it the zeros of an end.
const NOTHING: u8 = 0xff;

/// A part of a file in memory.
pub(super) struct Window {
    file: Arc<dyn StoredFile>,
    start: u64,
    bytes: Vec<u8>,
    /// What the disk said instead, by the offset of the block.
    unread: BTreeMap<u64, String>,
}

impl Window {
    pub(super) fn new(file: Arc<dyn StoredFile>) -> Self {
        Self { file, start: 0, bytes: Vec::new(), unread: BTreeMap::new() }
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    /// Lets go of what was read: the next look is at the file itself.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    /// `len` bytes from `offset`, fewer only at the end of the file.
    pub(super) fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let end = offset.saturating_add(to_u64(len));
        if offset < self.start || end > self.start.saturating_add(to_u64(self.bytes.len())) {
            self.bytes = self.read(offset, to_u64(len).max(CHUNK_BYTES))?;
            self.start = offset;
        }
        let rest = self.bytes.get(to_usize(offset - self.start)..).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }

    /// The blocks that the disk did not give back, by their offsets, and what it said.
    pub(super) fn unread(&self) -> &BTreeMap<u64, String> {
        &self.unread
    }

    fn read(&mut self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        match read_up_to(&*self.file, offset, len) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                self.read_around(offset, len)
            }
            read => read,
        }
    }

    /// Reads block by block what does not read as a whole.
    fn read_around(&mut self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let end = self.file.size()?.min(offset.saturating_add(len));
        let (mut bytes, mut at) = (Vec::new(), offset);
        while at < end {
            let until = (at - at % BLOCK_BYTES + BLOCK_BYTES).min(end);
            let mut block = vec![0; to_usize(until - at)];
            if let Err(error) = self.file.read_exact_at(&mut block, at) {
                self.unread.insert(at - at % BLOCK_BYTES, error.to_string());
                block.fill(NOTHING);
            }
            bytes.extend_from_slice(&block);
            at = until;
        }
        Ok(bytes)
    }

    /// The first byte from `offset` on that is not zero.
    pub(super) fn first_other(&mut self, mut offset: u64) -> io::Result<Option<u64>> {
        loop {
            let chunk = self.get(offset, to_usize(CHUNK_BYTES))?;
            if let Some(skip) = chunk.iter().position(|byte| *byte != 0) {
                return Ok(Some(offset + to_u64(skip)));
            }
            if chunk.is_empty() {
                return Ok(None);
            }
            offset += to_u64(chunk.len());
        }
    }

    /// The first batch header of this log from `offset` on that reads back and is wanted.
    pub(super) fn find(
        &mut self,
        mut offset: u64,
        log: u64,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> io::Result<Option<(u64, BatchHeader)>> {
        loop {
            let chunk = self.get(offset, to_usize(CHUNK_BYTES))?;
            let mut from = 0;
            while let Some(at) = position(chunk, from) {
                let header = chunk.get(at..).map(|bytes| BatchHeader::decode(bytes, log));
                if let Some(Ok((header, _))) = header
                    && wanted(&header)
                {
                    return Ok(Some((offset + to_u64(at), header)));
                }
                from = at + 1;
            }
            // The next look begins where a header may have been cut by the chunk's end.
            match chunk.len().checked_sub(BATCH_HEADER_BYTES) {
                Some(skip) => offset += to_u64(skip + 1),
                None => return Ok(None),
            }
        }
    }
}

fn position(chunk: &[u8], from: usize) -> Option<usize> {
    let rest = chunk.get(from..)?;
    rest.windows(BATCH_MAGIC.len()).position(|window| window == BATCH_MAGIC).map(|skip| from + skip)
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

    /// Three blocks and a half of ones; the second block does not read.
    struct Scratched;

    impl StoredFile for Scratched {
        fn size(&self) -> io::Result<u64> {
            Ok(3 * BLOCK_BYTES + BLOCK_BYTES / 2)
        }
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            if offset < 2 * BLOCK_BYTES && offset + to_u64(buffer.len()) > BLOCK_BYTES {
                return Err(Errno::IO.into());
            }
            buffer.fill(1);
            Ok(())
        }
        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            panic!("nothing is written")
        }
        fn set_size(&self, _: u64) -> io::Result<()> {
            panic!("nothing is cut")
        }
        fn sync(&self) -> io::Result<()> {
            panic!("nothing is synced")
        }
    }

    #[test]
    fn what_the_disk_does_not_give_back_is_named_and_the_rest_is_read() {
        let mut window = Window::new(Arc::new(Scratched));
        let bytes = window.get(100, 1 << 20).unwrap().to_vec();
        let size = to_usize(Scratched.size().unwrap());
        let block = to_usize(BLOCK_BYTES);
        assert_eq!(bytes.len(), size - 100);
        for (at, byte) in (100..).zip(&bytes) {
            assert_eq!(*byte, if (block..2 * block).contains(&at) { NOTHING } else { 1 }, "{at}");
        }
        assert_eq!(window.unread().keys().copied().collect::<Vec<_>>(), [BLOCK_BYTES]);
    }
}
