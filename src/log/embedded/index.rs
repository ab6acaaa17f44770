//! Where the events of one segment are, in memory: for the open segment, and for a closed one
//! until its index file is written.

use std::collections::HashMap;

use dramatis_events::StreamId;

use super::bytes::{to_u32, to_u64, to_usize};

/// The events of one stream in one segment.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) first_revision: u64,
    /// Indices within the segment, ascending.
    pub(super) at: Vec<u32>,
}

impl Run {
    /// The revision after the last one here.
    pub(super) fn next_revision(&self) -> u64 {
        self.first_revision.saturating_add(to_u64(self.at.len()))
    }
}

/// What of a stream lies in one segment, wherever the list itself is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunSpan {
    pub(super) first_revision: u64,
    pub(super) count: u32,
    /// Where the list begins in an index file; unused in memory.
    pub(super) list: u32,
}

impl RunSpan {
    pub(super) fn next_revision(self) -> u64 {
        self.first_revision.saturating_add(u64::from(self.count))
    }
}

/// The index of one segment.
#[derive(Debug, Default)]
pub(super) struct MemoryIndex {
    /// Where each event's record begins in the segment.
    pub(super) offsets: Vec<u32>,
    pub(super) streams: HashMap<StreamId, Run>,
    /// By command key: the last event of the command's first outcome.
    pub(super) commands: HashMap<[u8; 16], u32>,
}

impl MemoryIndex {
    pub(super) fn count(&self) -> u32 {
        to_u32(self.offsets.len())
    }

    /// Adds the next event; refuses one whose revision does not follow on.
    pub(super) fn push(
        &mut self,
        offset: u32,
        stream: &StreamId,
        revision: u64,
        command: Option<[u8; 16]>,
    ) -> Result<(), &'static str> {
        let at = self.count();
        if let Some(run) = self.streams.get_mut(stream) {
            if run.next_revision() != revision {
                return Err("a revision does not follow the one before it");
            }
            run.at.push(at);
        } else {
            self.streams.insert(stream.clone(), Run { first_revision: revision, at: vec![at] });
        }
        if let Some(key) = command {
            let last = self.commands.entry(key).or_insert(at);
            if last.checked_add(1) == Some(at) {
                *last = at;
            }
        }
        self.offsets.push(offset);
        Ok(())
    }

    pub(super) fn span(&self, stream: &StreamId) -> Option<RunSpan> {
        let run = self.streams.get(stream)?;
        Some(RunSpan { first_revision: run.first_revision, count: to_u32(run.at.len()), list: 0 })
    }

    /// The indices of `count` events of a stream, from the `skip`-th on.
    pub(super) fn list(&self, stream: &StreamId, skip: u64, count: usize) -> Vec<u32> {
        let at = self.streams.get(stream).map_or(&[][..], |run| &run.at);
        let from = to_usize(skip).min(at.len());
        let to = from.saturating_add(count).min(at.len());
        at.get(from..to).unwrap_or_default().to_vec()
    }
}
