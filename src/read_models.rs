//! The port to the documents that projections keep, and what all engines share.
//!
//! **Order and guard.** Every write carries the position of the event that last changed the
//! document; an engine applies it only over a lower position, so a batch may come again,
//! overlap another or come late. Deleting leaves a tombstone with its position, hidden from
//! every query. **Checkpoint.** It never runs ahead of the documents of its batch and never
//! steps back, unless an older state is restored; an engine may make both durable at once.
//! **Durability.** A crash may lose the last batches, whole: the checkpoint then says so, and the log
//! brings them back.
//! **Unknown outcomes.** After [`ReadModelError::Failure`] a write may have been applied; the
//! same write made again has the same effect as once.

use std::sync::Arc;
use std::time::Duration;

use dramatis_events::{Epoch, Position};
use dramatis_projections::{DeadLetter, Field, Index, Stored, TextField, Write};
use futures_util::future::BoxFuture;

pub mod mongodb;
mod names;
pub mod queries;
pub mod sqlite;
pub mod text;

#[cfg(test)]
pub(crate) mod contract;

/// What an engine answers.
pub type Answer<T> = BoxFuture<'static, Result<T, ReadModelError>>;

/// A store of documents, one collection a build.
pub trait ReadModels: Send + Sync + 'static {
    /// Creates the collection of a build with its indexes; does nothing if it is there.
    fn create(&self, build: NewBuild) -> Answer<()>;

    /// Makes the indexes that a build lacks, and those anew whose fields are others now. What
    /// [`ReadModels::search`] looks into stays as it is: that takes another version of the fold. Whoever asks
    /// goes on from the checkpoint: no crash takes away what is there past it, and what was found to be lost is
    /// written again from there.
    fn index_build(&self, build: NewBuild) -> Answer<()>;

    /// All builds, in the order of their collections' names.
    fn builds(&self) -> Answer<Vec<Build>>;

    /// Whether what the documents of a build are kept in is there, as it was made: it may have been taken
    /// away behind the store's back. The documents themselves are not counted.
    fn is_whole(&self, collection: &str) -> Answer<bool>;

    /// Drops a build with its documents, dead letters and checkpoint; does nothing if it is not there. What it was
    /// kept in may take space for a while yet.
    fn drop_build(&self, collection: &str) -> Answer<()>;

    /// The documents with these keys, tombstones among them, in any order; fails where some past the
    /// checkpoint may be lost.
    fn load(&self, collection: &str, keys: Vec<String>) -> Answer<Vec<Stored>>;

    /// Writes documents guarded by their positions, dead letters, and then the checkpoint. A key has one dead
    /// letter: a later one takes the place of an earlier one, and not the other way. With
    /// [`ReadModelError::SetBack`] nothing is written that was folded from what is lost, and nothing will be
    /// until a run goes on from the checkpoint.
    fn write(&self, collection: &str, batch: Arc<Batch>) -> Answer<()>;

    /// The dead letters of a build, in log order.
    fn dead_letters(&self, collection: &str) -> Answer<Vec<DeadLetter>>;

    /// Removes the dead letter of a key, if it is of this position; tells whether it was there.
    /// The documents that were held up by it must have been written before.
    fn remove_dead_letter(&self, collection: &str, key: &str, position: Position) -> Answer<bool>;

    /// Removes for good what was deleted by events up to `up_to`, and never past the build's
    /// checkpoint; tells how many tombstones it were. The caller knows that no batch made from
    /// events up to there is still on its way: it would bring a document back.
    fn purge_tombstones(&self, collection: &str, up_to: Position) -> Answer<u64>;

    /// One document; `None` if it does not exist or was deleted.
    fn get(&self, collection: &str, key: &str) -> Answer<Option<Document>>;

    /// Documents that match, in the query's order. They may be fewer than asked for, though more match: they end
    /// no sooner than by the document with which they are past [`FIND_BYTES_MAX`], and never by the first.
    fn find(&self, collection: &str, query: Query) -> Answer<Vec<Document>>;

    /// Documents whose text fields hold what is asked, the best first.
    fn search(&self, collection: &str, search: Search) -> Answer<Vec<Document>>;

    /// Documents past a key, in key order: page by page the canonical dump of the build. A page may end
    /// before it holds `limit` of them, by the one with which they come to [`SCAN_BYTES_MAX`]: the end is
    /// where a page is empty.
    fn scan(&self, collection: &str, after: Option<String>, limit: usize) -> Answer<Vec<Document>>;

    /// How many documents there are.
    fn count(&self, collection: &str) -> Answer<u64>;

    /// The collection of a projection's live build.
    fn alias(&self, projection: &str) -> Answer<Option<String>>;

    /// The same for queries. It may be what it was a moment ago if another process changed it since, which
    /// keeps the build before up or drops it: then it is to be asked by [`ReadModels::alias`].
    fn live(&self, projection: &str) -> Answer<Option<String>> {
        self.alias(projection)
    }

    /// A note: a small text kept under a name, such as how far a rebuild is.
    fn note(&self, name: &str) -> Answer<Option<String>>;

    /// Keeps another text under a name (`None` for none), if what is kept is what `expected`
    /// says; tells whether it did. A crash may lose it as it may lose the last batches.
    fn swap_note(&self, name: &str, expected: Option<String>, note: Option<String>) -> Answer<bool>;

    /// Names another live build, if the alias stands where `expected` says; tells whether it did.
    fn swap_alias(&self, projection: &str, expected: Option<String>, collection: &str) -> Answer<bool>;

    /// Takes a lease for this long by the store's clock, or keeps it for as long from now, if
    /// nobody else holds it; tells who does. It only saves work: two who both believe they hold
    /// it still write the same documents under the same guards.
    fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Answer<Lease>;

    /// Gives a lease back; does nothing if somebody else holds it.
    fn release(&self, name: &str, holder: &str) -> Answer<()>;

    /// How the store answers at present.
    fn health(&self) -> StoreHealth;
}

/// How a store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// How long its answer took when it was last asked; `None` where there is nobody to ask.
    pub latency: Option<Duration>,
    /// Why it does not answer; `None` while it does.
    pub trouble: Option<String>,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The holder.
    pub holder: String,
    /// Raised whenever another holder takes it, or the same one after giving it back.
    pub token: u64,
    /// How long it holds yet unless it is renewed, to the millisecond.
    pub left: Duration,
}

/// A build to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBuild {
    /// Its collection: the projection's name, `@` and a number, such as `rooms@2`.
    pub collection: String,
    /// The projection's name.
    pub projection: String,
    /// The version of its fold.
    pub version: u32,
    /// The epoch of the log it is built from.
    pub epoch: Epoch,
    /// What to index.
    pub indexes: &'static [Index],
    /// What [`ReadModels::search`] looks into.
    pub text: &'static [TextField],
}

/// A build and how far it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Its collection.
    pub collection: String,
    /// The projection's name.
    pub projection: String,
    /// The version of the fold that made it.
    pub version: u32,
    /// How far it got.
    pub checkpoint: Checkpoint,
}

/// Up to where a build is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The last position looked at; `None` before the first.
    pub position: Option<Position>,
}

/// What one step of a projection writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The touched documents.
    pub writes: Vec<Write>,
    /// The keys parked.
    pub parked: Vec<DeadLetter>,
    /// Up to where the build is done once these are written.
    pub checkpoint: Checkpoint,
    /// Up to where the store has acknowledged to have it. One that stands before that was set back:
    /// what the batch was folded from is not there any more.
    pub after: Option<Position>,
}

/// A document as a query finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its key.
    pub key: String,
    /// The event that last changed it.
    pub position: Position,
    /// Canonical JSON.
    pub body: String,
}

/// Which documents, in which order. An engine answers at most [`FIND_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only keys that begin so.
    pub key_prefix: Option<String>,
    /// Only documents whose fields equal these values.
    pub equal: Vec<(Field, Value)>,
    /// The field to sort by, the key settling ties; `None` sorts by key alone.
    pub sort: Option<Field>,
    /// Which way.
    pub direction: Direction,
    /// Only documents past this place in the query's order.
    pub after: Option<Place>,
    /// How many at the most.
    pub limit: usize,
}

/// Which documents to search for, in which order. Paged by `skip`: scores change with every
/// document, so there is no place to go on from. Where a key prefix is asked for, they do not depend on documents
/// beside it: who may not read those learns nothing about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// What must occur, each part in any text field: see [`text::phrases`].
    pub text: String,
    /// Only keys that begin so.
    pub key_prefix: Option<String>,
    /// Only documents whose fields equal these values.
    pub equal: Vec<(Field, Value)>,
    /// The field to sort by, the key settling ties; `None` is the best match first, with the
    /// largest key settling ties.
    pub sort: Option<(Field, Direction)>,
    /// How many of the first to leave out, at most [`SEARCH_SKIP_MAX`].
    pub skip: usize,
    /// How many at the most; at most [`FIND_MAX`].
    pub limit: usize,
}

/// The most documents that a search leaves out: what is further down nobody pages to.
pub const SEARCH_SKIP_MAX: usize = 10_000;

/// A page of a scan ends by the document with which it comes to about so many bytes.
pub const SCAN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of documents at which an answer to a query may end. It is no less than a page holds, and an answer ends past
/// it: there is one document more than the page shows, which tells that there is another page.
pub const FIND_BYTES_MAX: usize = queries::pages::PAGE_BYTES_MAX;

/// The most documents that one query answers.
pub const FIND_MAX: usize = 1_000;

/// A way to sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A place in a query's order: the sort field's value, if it sorts by one, and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The value of the field the query sorts by.
    pub value: Option<Value>,
    /// The key.
    pub key: String,
}

/// The value of an indexed field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// An integer.
    Integer(i64),
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadModelError {
    /// The collection does not exist.
    #[error("no build {collection:?}: it was dropped or never created; ask for the alias again")]
    NoBuild {
        /// The collection asked.
        collection: String,
    },
    /// The build belongs to another history.
    #[error("build {collection:?} is of epoch {stored}, the batch of epoch {got}: start a new build")]
    OtherEpoch {
        /// The collection.
        collection: String,
        /// The build's epoch.
        stored: Epoch,
        /// The batch's epoch.
        got: Epoch,
    },
    /// The store lost what it had acknowledged, or an older state of it was restored.
    #[error(
        "build {collection:?} may stand before position {acknowledged}, which it had got to: the store was gone \
         for a moment, or an older state of it was restored; going on from what is there"
    )]
    SetBack {
        /// The collection.
        collection: String,
        /// Up to where the store had acknowledged to have it.
        acknowledged: Position,
    },
    /// The stored bytes are not what was written, or not ours.
    #[error(
        "{place} is damaged or not a read-model store of this release: {reason}; delete it (a file with its -wal and -shm files), it is rebuilt from the log at the next start"
    )]
    Damaged {
        /// The file or database.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// What this server of the engine cannot do at all, however often it is asked.
    #[error("this read-model store cannot do {what}: {reason}")]
    Unsupported {
        /// What it is, such as `full-text search`.
        what: &'static str,
        /// In the server's words.
        reason: String,
    },
    /// A name, number or question that the store cannot take.
    #[error("{what} does not fit: expected {expected}, got {got:?}")]
    Unfit {
        /// What it is.
        what: &'static str,
        /// What fits.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The store did not answer; a write may have been applied.
    #[error("the read-model store failed: {reason}")]
    Failure {
        /// What broke.
        reason: String,
    },
}
