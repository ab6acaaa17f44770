//! Reading a file from its start to its end in large pieces. The file may grow or be cut behind
//! its last batch meanwhile.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::log::embedded::bytes::{to_u64, to_usize};
use crate::log::embedded::format::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader};
use crate::log::embedded::storage::{StoredFile, read_up_to};

/// Bytes read at a time.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// A part of a file in memory.
pub(super) struct Window {
    file: Arc<dyn StoredFile>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(file: Arc<dyn StoredFile>) -> Self {
        Self { file, start: 0, bytes: Vec::new() }
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

    fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        match read_up_to(&*self.file, offset, len) {
            // It was cut to its batches between the look at its size and the read.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => read_up_to(&*self.file, offset, len),
            read => read,
        }
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
