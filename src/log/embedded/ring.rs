//! The newest batches in memory, so that readers at the head never touch the disk.
//!
//! They are kept as the bytes that were written; the first reader of a batch decodes it, later
//! ones share what it made.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use dramatis_events::Recorded;

use super::bytes::{Fields, to_u64, to_usize};
use super::record::{Raw, take_body};

/// What an event weighs besides its stored bytes, once it is decoded, about.
const OVERHEAD_BYTES: usize = 800;

/// One batch in memory.
pub(super) struct Block {
    first: u64,
    bytes: Vec<u8>,
    offsets: Vec<u32>,
    decoded: OnceLock<Result<Vec<Arc<Recorded>>, &'static str>>,
}

impl Block {
    /// A batch's bytes, the position of its first event, and where each record begins.
    pub(super) fn new(first: u64, bytes: Vec<u8>, offsets: Vec<u32>) -> Self {
        Self { first, bytes, offsets, decoded: OnceLock::new() }
    }

    fn end(&self) -> u64 {
        self.first + to_u64(self.offsets.len())
    }

    fn weight(&self) -> usize {
        self.bytes.len() + self.offsets.len() * OVERHEAD_BYTES
    }

    /// The events from a position on.
    pub(super) fn events(&self, from: u64) -> Result<&[Arc<Recorded>], &'static str> {
        let events = self.decoded.get_or_init(|| self.decode()).as_ref().map_err(|reason| *reason)?;
        Ok(events.get(to_usize(from.saturating_sub(self.first))..).unwrap_or_default())
    }

    fn decode(&self) -> Result<Vec<Arc<Recorded>>, &'static str> {
        let mut events: Vec<Arc<Recorded>> = Vec::with_capacity(self.offsets.len());
        for offset in &self.offsets {
            let record = self.bytes.get(to_usize(u64::from(*offset))..).unwrap_or_default();
            let raw = Raw::read(take_body(&mut Fields(record))?)?;
            let event = raw.decode_beside(events.last().map(Arc::as_ref))?;
            events.push(Arc::new(event));
        }
        Ok(events)
    }
}

/// One event in memory.
pub(super) struct Live {
    block: Arc<Block>,
    position: u64,
}

impl Live {
    pub(super) fn event(&self) -> Result<Arc<Recorded>, &'static str> {
        self.block.events(self.position)?.first().cloned().ok_or("a batch in memory lacks an event")
    }
}

/// Contiguous batches up to the head, bounded by weight; the oldest make room.
pub(super) struct Ring {
    blocks: VecDeque<Arc<Block>>,
    next: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    pub(super) fn new(next: u64, bytes_max: usize) -> Self {
        Self { blocks: VecDeque::new(), next, bytes: 0, bytes_max }
    }

    /// Takes the next batch; gives back what made room for it.
    pub(super) fn push(&mut self, block: Block) -> Vec<Arc<Block>> {
        self.bytes += block.weight();
        self.next = block.end();
        self.blocks.push_back(Arc::new(block));
        self.keep(self.bytes_max)
    }

    /// Keeps the newest batches, so many bytes at the most; gives back the others.
    pub(super) fn keep(&mut self, bytes_max: usize) -> Vec<Arc<Block>> {
        let mut gone = Vec::new();
        while self.bytes > bytes_max {
            let Some(oldest) = self.blocks.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.weight());
            gone.push(oldest);
        }
        gone
    }

    /// The batches that hold the events from a position on, so many at least if there are;
    /// `None` if older ones are wanted.
    pub(super) fn from(&self, position: u64, events: u64) -> Option<Vec<Arc<Block>>> {
        let first = self.blocks.front().map_or(self.next, |block| block.first);
        if position < first || position > self.next {
            return None;
        }
        let until = position.saturating_add(events);
        let skip = self.blocks.partition_point(|block| block.end() <= position);
        Some(self.blocks.range(skip..).take_while(|block| block.first < until).cloned().collect())
    }

    pub(super) fn get(&self, position: u64) -> Option<Live> {
        let block = self.blocks.get(self.blocks.partition_point(|block| block.end() <= position))?;
        (position >= block.first).then(|| Live { block: block.clone(), position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three events, in bytes that nobody decodes.
    fn block(first: u64) -> Block {
        Block::new(first, vec![0; 100], vec![0, 30, 60])
    }

    #[test]
    fn the_newest_batches_stay_and_lead_up_to_the_head() {
        let weight = block(1).weight();
        let mut ring = Ring::new(1, 3 * weight);
        for first in [1, 4, 7] {
            assert!(ring.push(block(first)).is_empty());
        }
        assert_eq!(ring.push(block(10)).len(), 1);
        assert_eq!(
            (ring.from(3, 1).is_none(), ring.from(4, 100).map(|blocks| blocks.len())),
            (true, Some(3))
        );
        assert_eq!(ring.keep(weight).len(), 2);
        assert_eq!(
            (ring.from(9, 1).is_none(), ring.from(12, 100).map(|blocks| blocks.len())),
            (true, Some(1))
        );
        assert_eq!(ring.keep(0).len(), 1);
        assert_eq!(
            (ring.from(12, 1).is_none(), ring.from(13, 1).map(|blocks| blocks.len())),
            (true, Some(0))
        );
        assert!(ring.push(block(13)).is_empty());
        assert_eq!(ring.from(13, 1).map(|blocks| blocks.len()), Some(1));
    }
}
