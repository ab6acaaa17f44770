//! One number for all documents of a build, whatever their order.

use std::fmt;
use std::str::FromStr;

/// The 256-bit modular sum of BLAKE3 over each document's key and canonical JSON.
///
/// Tombstones and positions are left out: two builds that show the same have the same digest.
/// A sum, and not an exclusive or, so that a document counted twice does not vanish.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest([u8; 32]);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest must be 64 hexadecimal digits; got {0:?}")]
pub struct ParseDigestError(String);

impl Digest {
    /// Counts a document in.
    pub fn add(&mut self, key: &str, body: &[u8]) {
        let mut carry = 0_u16;
        for (sum, byte) in self.0.iter_mut().zip(hash(key, body)) {
            let total = u16::from(*sum) + u16::from(byte) + carry;
            let [low, high] = total.to_le_bytes();
            (*sum, carry) = (low, u16::from(high));
        }
    }
}

fn hash(key: &str, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    // The key's length first, so that no key and body run into another pair.
    let length = u64::try_from(key.len()).unwrap_or(u64::MAX);
    hasher.update(&length.to_le_bytes()).update(key.as_bytes()).update(body);
    *hasher.finalize().as_bytes()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDigestError(text.chars().take(80).collect());
        if text.len() != 64 || !text.is_ascii() {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().rev().zip((0..64).step_by(2)) {
            let pair = text.get(at..at + 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
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

    fn of(documents: &[(&str, &str)]) -> Digest {
        let mut digest = Digest::default();
        for (key, body) in documents {
            digest.add(key, body.as_bytes());
        }
        digest
    }

    #[test]
    fn order_does_not_count_and_all_else_does() {
        assert_eq!(of(&[("a", "1"), ("b", "2"), ("c", "3")]), of(&[("c", "3"), ("a", "1"), ("b", "2")]));
        assert_ne!(of(&[("a", "1")]), of(&[("a", "2")]));
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        assert_ne!(of(&[("a", "1"), ("a", "1")]), of(&[]));
    }

    #[test]
    fn the_carry_reaches_the_last_byte() {
        let mut digest = Digest([0xff; 32]);
        digest.add("a", b"1");
        // All ones is minus one: the sum is the hash less one.
        let mut expected = hash("a", b"1");
        for byte in &mut expected {
            let (less, borrowed) = byte.overflowing_sub(1);
            *byte = less;
            if !borrowed {
                break;
            }
        }
        assert_eq!(digest, Digest(expected));
    }

    #[test]
    fn the_text_comes_back() {
        let digest = of(&[("a", "1"), ("b", "2")]);
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("12".parse::<Digest>().is_err());
    }
}
