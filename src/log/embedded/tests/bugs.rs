//! Bugs seeded into the engine, to show that the histories find them.

use std::cell::Cell;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::embedded) enum Bug {
    /// Appends are published and answered without waiting for a sync.
    AckBeforeSync,
    /// A record whose checksum is wrong is read all the same.
    SkipChecksum,
    /// Recovery cuts the last byte before the tail too.
    CutOneByteMore,
    /// Recovery leaves the first byte of the tail.
    CutOneByteLess,
}

thread_local! {
    static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Seeds a bug into what this thread does from now on, or none.
pub(super) fn seed(bug: Option<Bug>) {
    SEEDED.set(bug);
}

/// Whether this bug is there.
pub(in crate::log::embedded) fn has(bug: Bug) -> bool {
    SEEDED.get() == Some(bug)
}
