//! One batch: the appends that share a sync, from their check to their answer.

use std::ops::Range;

use dramatis_events::UnixMillis;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::bytes::{to_u32, to_usize};
use super::draft::Draft;
use super::end::Sealed;
use super::format::BATCH_HEADER_BYTES;
use super::index::{Following, MemoryIndex};
use super::record;
use crate::log::AppendError;

/// Drafts from this size on are not copied into a batch that is empty.
const WHOLE_BYTES: usize = 64 * 1024;

/// An append on its way, and the place it takes in the queue.
pub(super) struct Request {
    pub(super) draft: Draft,
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) place: OwnedSemaphorePermit,
}

/// Where an append's events stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) position: u64,
    pub(super) revision: u64,
    pub(super) recorded_at: UnixMillis,
}

/// The outcome, and the draft: who asked lets go of its memory.
pub(super) type Answer = (Result<Placed, AppendError>, Draft);

impl Request {
    /// Nothing of it is recorded.
    pub(super) fn refuse(self, reason: &str) {
        let Self { draft, answer, .. } = self;
        let _ = answer.send((Err(AppendError::Unavailable { reason: reason.to_owned() }), draft));
    }
}

/// An append of the batch, until it is answered.
pub(super) struct Waiting {
    pub(super) request: Request,
    /// Where its events go, or why they go nowhere.
    pub(super) placed: Result<Placed, AppendError>,
    /// Its events in the batch.
    pub(super) range: Range<usize>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) sealed: Sealed,
    /// Where each record begins in its bytes.
    pub(super) offsets: Vec<u32>,
    pub(super) waiting: Vec<Waiting>,
    /// Whether the index has its events.
    pub(super) indexed: bool,
}

impl Batch {
    /// An empty one, with room for about so many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut room = Vec::with_capacity(bytes);
        room.resize(BATCH_HEADER_BYTES, 0);
        Self { sealed: Sealed { bytes: room, ..Sealed::default() }, ..Self::default() }
    }

    /// Adds a draft's events at their places. The bytes of a large draft that comes first become
    /// the batch's own.
    pub(super) fn push(&mut self, draft: &mut Draft, placed: Placed) {
        let recorded_at = placed.recorded_at.get();
        self.sealed.recorded_at = recorded_at;
        let end = to_u32(draft.bytes.len());
        let start = if self.offsets.is_empty() && draft.bytes.len() >= WHOLE_BYTES {
            self.sealed.bytes = std::mem::take(&mut draft.bytes);
            0
        } else {
            let records = draft.bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
            self.sealed.bytes.extend_from_slice(records);
            self.sealed.bytes.len() - draft.bytes.len()
        };
        let mut ends = draft.parts.iter().skip(1).map(|part| part.at).chain([end]);
        for (nth, part) in (0_u64..).zip(&draft.parts) {
            let (from, to) = (to_usize(u64::from(part.at)), to_usize(u64::from(ends.next().unwrap_or(0))));
            self.offsets.push(to_u32(start + from));
            if let Some(record) = self.sealed.bytes.get_mut(start + from..start + to) {
                record::place(record, placed.position + nth, placed.revision + nth, recorded_at);
            }
        }
        self.sealed.count = to_u32(self.offsets.len());
    }

    /// Adds its events to the index of the segment they go to.
    pub(super) fn index(&self, index: &mut MemoryIndex) -> Result<(), &'static str> {
        let start = to_u32(to_usize(self.sealed.at));
        for waiting in &self.waiting {
            let Ok(placed) = &waiting.placed else { continue };
            let draft = &waiting.request.draft;
            let events = Following {
                stream: &draft.stream,
                first_revision: placed.revision,
                recorded_at: placed.recorded_at.get(),
                names: &draft.names,
            };
            let offsets = self.offsets.get(waiting.range.clone()).unwrap_or_default();
            let each = offsets.iter().zip(&draft.parts);
            index.push(&events, each.map(|(offset, part)| (start + offset, part.command)))?;
        }
        Ok(())
    }

    /// It may or may not be recorded. A conflict may have been with an event of this very batch,
    /// so it is not told as one.
    pub(super) fn fail(&mut self, reason: &str) {
        self.tell(|placed| match placed {
            Ok(_) => AppendError::Failure { reason: reason.to_owned() },
            Err(AppendError::Conflict { .. }) => AppendError::Unavailable { reason: reason.to_owned() },
            Err(error) => error.clone(),
        });
    }

    /// Nothing of it is recorded.
    pub(super) fn refuse(&mut self, reason: &str) {
        self.tell(|placed| match placed {
            Ok(_) | Err(AppendError::Conflict { .. }) => {
                AppendError::Unavailable { reason: reason.to_owned() }
            }
            Err(error) => error.clone(),
        });
    }

    fn tell(&mut self, error: impl Fn(&Result<Placed, AppendError>) -> AppendError) {
        for Waiting { placed, .. } in &mut self.waiting {
            *placed = Err(error(placed));
        }
    }

    /// Tells everyone who waits.
    pub(super) fn answer(self) {
        for Waiting { request: Request { draft, answer, place }, placed, .. } in self.waiting {
            drop(place);
            let _ = answer.send((placed, draft));
        }
    }
}
