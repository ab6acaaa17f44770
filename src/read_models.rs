//! The port to the documents that projections keep, and what all engines share.
//!
//! **Order and guard.** Every write carries the position of the event that last changed the
//! document; an engine applies it only over a lower position, so a batch may come again,
//! overlap another or come late. Deleting leaves a tombstone with its position, hidden from
//! every query. **Checkpoint.** It never runs ahead of the documents of its batch and never
//! steps back; an engine may make both durable at once. **Durability.** A crash may lose the
//! last batches, whole: the checkpoint then says so, and the log brings them back.
//! **Unknown outcomes.** After [`ReadModelError::Failure`] a write may have been applied; the
//! same write made again has the same effect as once.

use dramatis_events::{Epoch, Position};
use dramatis_projections::{DeadLetter, Field, Index, Stored, Write};
use futures_util::future::BoxFuture;

pub mod queries;
pub mod sqlite;

#[cfg(test)]
pub(crate) mod contract;

/// What an engine answers.
pub type Answer<T> = BoxFuture<'static, Result<T, ReadModelError>>;

/// A store of documents, one collection a build.
pub trait ReadModels: Send + Sync + 'static {
    /// Creates the collection of a build with its indexes; does nothing if it is there.
    fn create(&self, build: NewBuild) -> Answer<()>;

    /// All builds, in the order of their collections' names.
    fn builds(&self) -> Answer<Vec<Build>>;

    /// Drops a build with its documents, dead letters and checkpoint; does nothing if it is not there.
    fn drop_build(&self, collection: &str) -> Answer<()>;

    /// The documents with these keys, tombstones among them, in any order.
    fn load(&self, collection: &str, keys: Vec<String>) -> Answer<Vec<Stored>>;

    /// Writes documents guarded by their positions, dead letters, and then the checkpoint.
    fn write(&self, collection: &str, batch: Batch) -> Answer<()>;

    /// The dead letters of a build, in log order.
    fn dead_letters(&self, collection: &str) -> Answer<Vec<DeadLetter>>;

    /// One document; `None` if it does not exist or was deleted.
    fn get(&self, collection: &str, key: &str) -> Answer<Option<Document>>;

    /// Documents that match, in the query's order.
    fn find(&self, collection: &str, query: Query) -> Answer<Vec<Document>>;

    /// Documents past a key, in key order: page by page the canonical dump of the build.
    fn scan(&self, collection: &str, after: Option<String>, limit: usize) -> Answer<Vec<Document>>;

    /// How many documents there are.
    fn count(&self, collection: &str) -> Answer<u64>;

    /// The collection of a projection's live build.
    fn alias(&self, projection: &str) -> Answer<Option<String>>;

    /// A note: a small text kept under a name, such as how far a rebuild is.
    fn note(&self, name: &str) -> Answer<Option<String>>;

    /// Keeps another text under a name (`None` for none), if what is kept is what `expected`
    /// says; tells whether it did. A crash may lose it as it may lose the last batches.
    fn swap_note(&self, name: &str, expected: Option<String>, note: Option<String>) -> Answer<bool>;

    /// Names another live build, if the alias stands where `expected` says; tells whether it did.
    fn swap_alias(&self, projection: &str, expected: Option<String>, collection: &str) -> Answer<bool>;
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
    /// The stored bytes are not what was written, or not ours.
    #[error(
        "{place} is damaged or not a read-model store of this release: {reason}; delete it with its -wal and -shm files, it is rebuilt from the log at the next start"
    )]
    Damaged {
        /// The file or database.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A name or number that the store cannot hold.
    #[error("{what} cannot be stored: expected {expected}, got {got:?}")]
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
