//! The file `chain`: one line for each closed segment with the BLAKE3 hash of its bytes, and a
//! line wherever history was cut, replaced or moved on purpose. Each line ends with a link, the
//! hash of the link before it and the line itself, so that no line can be changed, dropped or
//! put in between unnoticed by whoever kept a later link.
//!
//! ```text
//! segment <first position, 20 digits> <bytes> <blake3 of them> <link>
//! anchor <what happened> <epoch> <first position of the segment that is open after it, 20 digits> <link>
//! ```
//!
//! A segment's last line counts; an anchor for a `repair` or `restore` voids the lines of its
//! own segment and of all that came after, one for `accepted` those that are then written anew. Segments are closed in order, so the lines of a whole chain
//! name every closed segment; a crash may leave out the last ones, which are then added when
//! the log is opened.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use blake3::{Hash, Hasher};
use dramatis_events::Epoch;

use super::storage::{Storage, StoredFile, read_up_to};

const FILE: &str = "chain";
/// The longest file that is looked at; a line has less than 200 bytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Bytes hashed at a time.
const CHUNK_BYTES: u64 = 256 * 1024;

/// What a segment's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) hash: Hash,
}

/// The chain as read.
#[derive(Debug)]
pub(super) struct Chain {
    text: String,
    link: Hash,
    segments: BTreeMap<u64, Sum>,
}

/// Where in the file a chain is broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) offset: u64,
    pub(super) reason: &'static str,
}

/// What reading the file came to.
pub(super) type Reading = io::Result<Result<Chain, Broken>>;

impl Default for Chain {
    fn default() -> Self {
        Self { text: String::new(), link: Hash::from_bytes([0; 32]), segments: BTreeMap::new() }
    }
}

impl Chain {
    /// Reads the file; a missing one is an empty chain.
    pub(super) fn read(storage: &dyn Storage) -> Reading {
        if !storage.list()?.iter().any(|name| name == FILE) {
            return Ok(Ok(Self::default()));
        }
        let bytes = read_up_to(&*storage.open(FILE)?, 0, BYTES_MAX)?;
        Ok(Self::parse(&bytes))
    }

    /// Reads the text and checks every link.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Broken> {
        let mut chain = Self::default();
        let at = |reason, chain: &Self| Broken {
            offset: u64::try_from(chain.text.len()).unwrap_or(u64::MAX),
            reason,
        };
        let text = std::str::from_utf8(bytes).map_err(|_| at("it is not text", &chain))?;
        for line in text.split_inclusive('\n') {
            let (said, link) = line
                .strip_suffix('\n')
                .and_then(|line| line.rsplit_once(' '))
                .ok_or_else(|| at("a line is cut short", &chain))?;
            if Hash::from_hex(link).ok() != Some(next(&chain.link, said)) {
                return Err(at("a line does not follow from the one before it", &chain));
            }
            chain.take(said).ok_or_else(|| at("a line is none of the known ones", &chain))?;
            chain.add(said);
        }
        Ok(chain)
    }

    fn take(&mut self, said: &str) -> Option<()> {
        let mut words = said.split(' ');
        match words.next()? {
            "segment" => {
                let first = words.next()?.parse().ok()?;
                let bytes = words.next()?.parse().ok()?;
                self.segments.insert(first, Sum { bytes, hash: Hash::from_hex(words.next()?).ok()? });
            }
            "anchor" => {
                let (_, _, position) = (words.next()?, words.next()?, words.next()?);
                if matches!(said.split(' ').nth(1), Some("repair" | "restore" | "accepted")) {
                    self.segments.split_off(&position.parse().ok()?);
                }
            }
            _ => return None,
        }
        words.next().is_none().then_some(())
    }

    fn add(&mut self, said: &str) {
        self.link = next(&self.link, said);
        // Writing into a string does not fail.
        let _ = writeln!(self.text, "{said} {}", self.link.to_hex());
    }

    /// What the chain says of the segment that begins at this position.
    pub(super) fn sum(&self, first: u64) -> Option<Sum> {
        self.segments.get(&first).copied()
    }

    /// The position of the last segment that is named.
    pub(super) fn last(&self) -> Option<u64> {
        self.segments.last_key_value().map(|(first, _)| *first)
    }

    /// The positions of all segments that are named.
    pub(super) fn firsts(&self) -> impl Iterator<Item = u64> {
        self.segments.keys().copied()
    }

    /// The last link: who keeps it can prove later that nothing before it was changed.
    pub(super) fn link(&self) -> Hash {
        self.link
    }

    /// The file's text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds a closed segment.
    pub(super) fn add_segment(&mut self, first: u64, sum: Sum) {
        self.segments.insert(first, sum);
        self.add(&format!("segment {first:020} {} {}", sum.bytes, sum.hash.to_hex()));
    }

    /// Notes that history was cut or replaced (`repair`, `restore`): the segment that begins at
    /// this position is open now.
    pub(super) fn add_anchor(&mut self, what: &str, epoch: Epoch, open_first: u64) {
        let said = format!("anchor {what} {epoch} {open_first:020}");
        // It is of our own making, so it is one of the known ones.
        let _ = self.take(&said);
        self.add(&said);
    }

    /// Puts the file in place.
    pub(super) fn write(&self, storage: &dyn Storage) -> io::Result<()> {
        storage.replace(FILE, self.text.as_bytes())
    }
}

fn next(link: &Hash, said: &str) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(link.as_bytes()).update(said.as_bytes());
    hasher.finalize()
}

/// Hashes the first `bytes` of a file.
pub(super) fn sum(file: &dyn StoredFile, bytes: u64) -> io::Result<Sum> {
    let (mut hasher, mut at) = (Hasher::new(), 0);
    let mut chunk = Vec::new();
    while at < bytes {
        let len = CHUNK_BYTES.min(bytes - at);
        chunk.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        file.read_exact_at(&mut chunk, at)?;
        hasher.update(&chunk);
        at += len;
        // Whoever is woken on this core meanwhile need not wait for the end of a time slice.
        std::thread::yield_now();
    }
    Ok(Sum { bytes, hash: hasher.finalize() })
}
