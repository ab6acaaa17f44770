//! Where the events of one segment are, in memory: for the open segment, and for a closed one
//! until its index file is written.

use std::collections::HashMap;

use dramatis_events::{EventName, StreamId};
use foldhash::fast::RandomState;

use super::bytes::{to_u32, to_u64, to_usize};

/// The events of one stream in one segment.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) stream: StreamId,
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
    /// Where the list begins in an index file; which run it is in memory.
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
    pub(super) runs: Vec<Run>,
    slots: HashMap<StreamId, u32, RandomState>,
    /// By command key: the last event of the command's first outcome.
    pub(super) commands: HashMap<[u8; 16], u32, RandomState>,
    /// From which index on events are staged: added while they are on their way to the disk, and
    /// not to be found before they are durable.
    staged_from: Option<u32>,
    /// Where the last staged batch begins.
    batch_from: u32,
    /// Commands whose outcome goes on in a staged batch, and where it ends before that. Only
    /// whoever records a command twice has any.
    extended: Vec<([u8; 16], u32)>,
    /// The names of its events, each once.
    pub(super) names: Vec<EventName>,
    /// The categories of its streams, each once.
    pub(super) categories: Vec<String>,
    /// When its first event was recorded.
    pub(super) first_recorded_at: Option<i64>,
}

/// Events of one stream that follow each other in the log.
pub(super) struct Following<'a> {
    pub(super) stream: &'a StreamId,
    pub(super) first_revision: u64,
    pub(super) recorded_at: i64,
    pub(super) names: &'a [EventName],
}

impl MemoryIndex {
    /// An empty index with room for as much as another one holds.
    pub(super) fn like(other: &Self) -> Self {
        Self {
            offsets: Vec::with_capacity(other.offsets.len()),
            runs: Vec::with_capacity(other.runs.len()),
            slots: HashMap::with_capacity_and_hasher(other.slots.len(), RandomState::default()),
            commands: HashMap::with_capacity_and_hasher(other.commands.len(), RandomState::default()),
            ..Self::default()
        }
    }

    /// The events that can be found.
    pub(super) fn count(&self) -> u32 {
        self.staged_from.unwrap_or_else(|| to_u32(self.offsets.len()))
    }

    /// Begins a batch that cannot be found until it is revealed.
    pub(super) fn stage(&mut self) {
        self.batch_from = to_u32(self.offsets.len());
        self.staged_from.get_or_insert(self.batch_from);
    }

    /// The events before this index can be found now.
    pub(super) fn reveal(&mut self, until: u32) {
        self.staged_from = (to_usize(u64::from(until)) < self.offsets.len()).then_some(until);
        self.extended.retain(|(_, before)| self.staged_from.is_some() && *before + 1 >= until);
    }

    /// The last event of a command's first outcome.
    pub(super) fn command(&self, key: [u8; 16]) -> Option<u32> {
        let last = *self.commands.get(&key)?;
        if last < self.count() {
            return Some(last);
        }
        let found = |(extended, before): &&([u8; 16], u32)| *extended == key && *before < self.count();
        self.extended.iter().rfind(found).map(|(_, before)| *before)
    }

    pub(super) fn knows_name(&self, name: &[u8]) -> bool {
        self.names.iter().any(|known| known.as_str().as_bytes() == name)
    }

    /// Adds the next events, each by its offset and command; refuses them if their revisions do
    /// not follow on.
    pub(super) fn push(
        &mut self,
        events: &Following<'_>,
        places: impl Iterator<Item = (u32, Option<[u8; 16]>)>,
    ) -> Result<(), &'static str> {
        self.first_recorded_at.get_or_insert(events.recorded_at);
        for name in events.names {
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
        let slot = self.slot(events.stream, events.first_revision);
        let Some(run) = self.runs.get_mut(slot) else { return Err("a run is missing") };
        if run.next_revision() != events.first_revision {
            return Err("a revision does not follow the one before it");
        }
        for (offset, command) in places {
            let at = to_u32(self.offsets.len());
            self.offsets.push(offset);
            run.at.push(at);
            if let Some(key) = command {
                let last = self.commands.entry(key).or_insert(at);
                if last.checked_add(1) == Some(at) {
                    if self.staged_from.is_some() && self.batch_from == at {
                        self.extended.push((key, *last));
                    }
                    *last = at;
                }
            }
        }
        Ok(())
    }

    /// The run of a stream; a new one begins at the revision.
    fn slot(&mut self, stream: &StreamId, first_revision: u64) -> usize {
        if let Some(slot) = self.slots.get(stream) {
            return to_usize(u64::from(*slot));
        }
        let slot = self.runs.len();
        self.slots.insert(stream.clone(), to_u32(slot));
        self.runs.push(Run { stream: stream.clone(), first_revision, at: Vec::new() });
        if !self.categories.iter().any(|known| known == stream.category()) {
            self.categories.push(stream.category().to_owned());
        }
        slot
    }

    pub(super) fn span(&self, stream: &StreamId) -> Option<RunSpan> {
        let slot = *self.slots.get(stream)?;
        let run = self.runs.get(to_usize(u64::from(slot)))?;
        let found = match (self.staged_from, run.at.last()) {
            (Some(staged), Some(last)) if *last >= staged => run.at.partition_point(|at| *at < staged),
            _ => run.at.len(),
        };
        let span = RunSpan { first_revision: run.first_revision, count: to_u32(found), list: slot };
        (found > 0).then_some(span)
    }

    /// The indices of `count` events of a run, from the `skip`-th on.
    pub(super) fn list(&self, span: RunSpan, skip: u64, count: usize) -> &[u32] {
        let at = self.runs.get(to_usize(u64::from(span.list))).map_or(&[][..], |run| &run.at);
        let at = at.get(..to_usize(u64::from(span.count))).unwrap_or(at);
        let from = to_usize(skip).min(at.len());
        let to = from.saturating_add(count).min(at.len());
        at.get(from..to).unwrap_or_default()
    }

    /// The offsets of `count` events from the index `from` on.
    pub(super) fn offsets(&self, from: u32, count: usize) -> &[u32] {
        let end = to_usize(u64::from(self.count()));
        let from = to_usize(u64::from(from)).min(end);
        let to = from.saturating_add(count).min(end);
        self.offsets.get(from..to).unwrap_or_default()
    }
}
