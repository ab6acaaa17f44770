//! The one checksum of all files: CRC-32C, by the processor's own instructions where it has them.

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of these bytes.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The checksum of bytes that come in pieces.
pub(super) struct Crc32c(Digest);

impl Crc32c {
    pub(super) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    pub(super) fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    pub(super) fn sum(&self) -> u32 {
        // A checksum of 32 bits in 64.
        u32::try_from(self.0.finalize()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_one_however_the_bytes_come() {
        // The check value of CRC-32/ISCSI in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        for cut in [0, 1, 60, 255, 256, 257, 4_999, 5_000] {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(Crc32c::new().add(left).add(right).sum(), crc32c(&bytes), "cut at {cut}");
        }
    }
}
