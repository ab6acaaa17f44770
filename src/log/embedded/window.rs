//! Reading a file from its start to its end in pieces that grow. The file may grow or be cut behind
//! its last batch meanwhile, and its disk may not give all of it back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::bytes::{to_u64, to_usize};
use super::format::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader};
use super::storage::{StoredFile, read_up_to};

/// Bytes read at a time, at the most, unless more are asked for.
const CHUNK_BYTES: u64 = 1024 * 1024;
/// Bytes of the first read: a header is often all that is wanted.
const FIRST_BYTES: u64 = 4 * 1024;
/// Bytes that a disk fails to read together.
const BLOCK_BYTES: u64 = 4 * 1024;
/// Stands where the disk gave nothing: no checksum takes it for right, nor is it the zeros of an end.
const NOTHING: u8 = 0xff;

/// A part of a file in memory.
pub(super) struct Window {
    file: Arc<dyn StoredFile>,
    start: u64,
    bytes: Vec<u8>,
    /// Bytes of the next read.
    ahead: u64,
    /// What the disk said instead, by the offset of the block; `None` where that is an error.
    unread: Option<BTreeMap<u64, String>>,
}

impl Window {
    /// One that fails where the disk does.
    pub(super) fn new(file: Arc<dyn StoredFile>) -> Self {
        Self { file, start: 0, bytes: Vec::new(), ahead: FIRST_BYTES, unread: None }
    }

    /// One that goes around what the disk does not give back, see [`Window::unread`].
    pub(super) fn patient(file: Arc<dyn StoredFile>) -> Self {
        Self { unread: Some(BTreeMap::new()), ..Self::new(file) }
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
            self.bytes = self.read(offset, to_u64(len).max(self.ahead))?;
            self.start = offset;
            self.ahead = (self.ahead * 2).min(CHUNK_BYTES);
        }
        let rest = self.bytes.get(to_usize(offset - self.start)..).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }

    /// The blocks that the disk did not give back, by their offsets, and what it said.
    pub(super) fn unread(&self) -> impl Iterator<Item = (u64, &str)> {
        self.unread.iter().flatten().map(|(at, said)| (*at, said.as_str()))
    }

    fn read(&mut self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        match read_up_to(&*self.file, offset, len) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                match self.unread.as_mut() {
                    Some(unread) => read_around(&*self.file, unread, offset, len),
                    None => Err(error),
                }
            }
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

    /// Whether a batch header of this log stands from `offset` on that proves batch `expected`
    /// acknowledged.
    pub(super) fn proves(&mut self, offset: u64, log: u64, expected: u64) -> io::Result<bool> {
        Ok(self.find(offset, log, |header| header.watermark > expected)?.is_some())
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

/// Reads block by block what does not read as a whole.
fn read_around(
    file: &dyn StoredFile,
    unread: &mut BTreeMap<u64, String>,
    offset: u64,
    len: u64,
) -> io::Result<Vec<u8>> {
    let end = file.size()?.min(offset.saturating_add(len));
    let (mut bytes, mut at) = (Vec::new(), offset);
    while at < end {
        let until = (at - at % BLOCK_BYTES + BLOCK_BYTES).min(end);
        let mut block = vec![0; to_usize(until - at)];
        if let Err(error) = file.read_exact_at(&mut block, at) {
            unread.insert(at - at % BLOCK_BYTES, error.to_string());
            block.fill(NOTHING);
        }
        bytes.extend_from_slice(&block);
        at = until;
    }
    Ok(bytes)
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
    use std::sync::Mutex;

    use super::*;

    /// A file of so many bytes that is only read, by this.
    struct ReadBy<R>(u64, R);

    impl<R: Fn(&mut [u8], u64) -> io::Result<()> + Send + Sync + 'static> StoredFile for ReadBy<R> {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0)
        }
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            (self.1)(buffer, offset)
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
        let size = to_usize(3 * BLOCK_BYTES + BLOCK_BYTES / 2);
        // Ones, of which the second block does not read.
        let scratched = ReadBy(to_u64(size), |buffer: &mut [u8], offset| {
            if offset < 2 * BLOCK_BYTES && offset + to_u64(buffer.len()) > BLOCK_BYTES {
                return Err(Errno::IO.into());
            }
            buffer.fill(1);
            Ok(())
        });
        let mut window = Window::patient(Arc::new(scratched));
        let bytes = window.get(100, 1 << 20).unwrap().to_vec();
        let block = to_usize(BLOCK_BYTES);
        assert_eq!(bytes.len(), size - 100);
        for (at, byte) in (100..).zip(&bytes) {
            assert_eq!(*byte, if (block..2 * block).contains(&at) { NOTHING } else { 1 }, "{at}");
        }
        assert_eq!(window.unread().map(|(at, _)| at).collect::<Vec<_>>(), [BLOCK_BYTES]);
    }

    #[test]
    fn a_large_file_is_read_in_pieces_and_a_header_alone() {
        const SIZE: u64 = 8 * CHUNK_BYTES;
        let noted = Arc::new(Mutex::new(Vec::new()));
        let writes_down = noted.clone();
        let zeros = ReadBy(SIZE, move |buffer: &mut [u8], _| {
            writes_down.lock().unwrap().push(buffer.len());
            Ok(())
        });
        let mut window = Window::new(Arc::new(zeros));
        assert_eq!(window.get(0, 64).unwrap().len(), 64);
        assert_eq!(*noted.lock().unwrap(), [to_usize(FIRST_BYTES)]);
        assert_eq!(window.first_other(64).unwrap(), None);
        let read = noted.lock().unwrap().clone();
        assert_eq!(read.iter().max(), Some(&to_usize(CHUNK_BYTES)));
        assert!(read.iter().sum::<usize>() < to_usize(SIZE + 2 * CHUNK_BYTES), "{read:?}");
    }
}
