//! The read side: pure folds from events to documents.
//!
//! Adding a read model is one file here and one line in [`all`]. The crate promises that the
//! same events give the same documents, byte for byte, however they are cut into batches and
//! however often a batch comes again. It never does I/O, reads a clock or knows a database.

mod activity;
mod canonical;
mod digest;
mod key;
mod members;
mod projection;
mod read_markers;
mod replies;
mod rooms;
mod search;
mod sessions;
mod statistics;
mod threads;
mod timeline;
mod working_set;

pub use activity::{Activity, MemberActivity};
pub use digest::Digest;
pub use key::KeyPart;
pub use members::{Member, Members};
pub use projection::{DynProjection, Field, FieldKind, FoldError, Index, Projection, TextField};
pub use read_markers::{ReadMarker, ReadMarkers};
pub use replies::{Replies, Reply};
pub use rooms::{LastMessage, Room, Rooms};
pub use search::{Found, Search};
pub use sessions::{Sessions, UserSession};
pub use statistics::{AUTHORS_MAX, Hour, Statistics};
pub use threads::{REPLIERS_MAX, Thread, Threads};
pub use timeline::{Message, Redaction, Timeline};
pub use working_set::{DeadLetter, Fold, Folded, Skipped, Stored, WorkingSet, Write};

/// Every projection there is.
pub fn all() -> &'static [&'static dyn DynProjection] {
    &[
        &Rooms,
        &Timeline,
        &Members,
        &Threads,
        &Replies,
        &Activity,
        &Statistics,
        &Search,
        &Sessions,
        &ReadMarkers,
    ]
}

/// The projection of this name.
pub fn named(name: &str) -> Option<&'static dyn DynProjection> {
    all().iter().copied().find(|projection| projection.name() == name)
}

/// Holds the example of the crate's README to the code.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
