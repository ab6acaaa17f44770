//! From one segment to the next: the full one is handed on, and where there can be no next one that is
//! tried again, by whoever appends and after a while, for nobody may.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Writer;
use crate::log::embedded::end::NotRolled;
use crate::log::embedded::index::MemoryIndex;
use crate::log::embedded::segment::{Closed, Index};
use crate::log::embedded::shared::Trouble;

/// How soon it is tried again; simulated disks are asked by appends alone.
const AGAIN_AFTER: Duration = if cfg!(test) { Duration::from_hours(1) } else { Duration::from_secs(1) };

/// Why the next segment is not begun.
pub(super) enum NotBegun {
    /// All is as it was, and it is tried again.
    Later(String),
    /// What is on the disk is not known.
    Never(io::Error),
}

impl Writer {
    /// Closes the open segment and begins the next; nothing is on its way.
    pub(super) fn begin_next(&mut self) -> Result<(), NotBegun> {
        match self.roll() {
            Ok(()) => {
                self.roll_at = None;
                self.shared.note(Trouble::Rolling, None);
                Ok(())
            }
            Err(NotRolled::Untouched(error)) => {
                let reason = format!("the log's next segment cannot be made: it is tried again: {error}");
                self.shared.note(Trouble::Rolling, Some(reason.clone()));
                self.roll_at = Instant::now().checked_add(AGAIN_AFTER);
                Err(NotBegun::Later(reason))
            }
            Err(NotRolled::Unknown(error)) => Err(NotBegun::Never(error)),
        }
    }

    /// Tries it again without an append: whoever sees that something is wrong may send none.
    pub(super) fn begin_late(&mut self) {
        self.roll_at = None;
        if self.poisoned.is_some() {
            return;
        }
        if !self.in_flight.is_empty() {
            self.roll_at = Instant::now().checked_add(AGAIN_AFTER);
        } else if let Err(NotBegun::Never(error)) = self.begin_next() {
            self.give_up(&error);
        }
    }

    /// Closes the open segment and begins the next.
    fn roll(&mut self) -> Result<(), NotRolled> {
        let first_recorded_at = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            state.open.index.first_recorded_at.unwrap_or(0)
        };
        let (facts, mut open) = self.end.roll(first_recorded_at)?;
        let closed = {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            open.index = MemoryIndex::like(&state.open.index);
            let index = Index::Memory(std::mem::replace(&mut state.open, open).index);
            let closed = Arc::new(Closed { storage: self.end.storage.clone(), facts, index });
            Arc::make_mut(&mut state.closed).push(closed.clone());
            closed
        };
        self.closer.take(closed);
        Ok(())
    }
}
