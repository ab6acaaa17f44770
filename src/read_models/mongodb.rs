//! Read models in `MongoDB`: the engine for production, through the official driver.
//!
//! A document is `{_id: key, latest: {position, body}}`; deleted, `{_id: key, latest: {position,
//! deleted: true}}`; what is searched has its words beside the body. Builds with their checkpoints,
//! aliases, dead letters and leases are in collections named `meta.…`. No transaction is used
//! anywhere, so a standalone server does as well as a replica set: a write is guarded by position,
//! so that it may be made twice, and documents are written before dead letters and those before the
//! checkpoint, each acknowledged by a majority.
//!
//! The driver runs on a thread of its own: a store that is slow never holds up a room. While the
//! server does not answer, calls fail at once and one prober asks on.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dramatis_events::Position;
use dramatis_projections::{DeadLetter, Stored};
use mongodb::Database;
use tokio::runtime::{Handle, Runtime};

use super::{Answer, Batch, Build, Document, Lease, NewBuild, Query, ReadModelError, ReadModels, Search};
use super::{StoreHealth, names};
use breaks::Breaks;
use errors::Trouble;
use gate::Gate;
use lately::Lately;
use named::{ALIASES, NOTES};
pub use uri::MongoUri;

mod body;
mod breaks;
mod builds;
mod connect;
mod errors;
mod gate;
mod lately;
mod letters;
mod named;
mod read;
mod uri;
mod write;

/// How the server is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it is. What it says goes over the fields below.
    pub uri: MongoUri,
    /// The database, for this store alone.
    pub database: String,
    /// Connections kept open.
    pub pool_min: u32,
    /// Connections at the most; what wants more waits.
    pub pool_max: u32,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long one operation may take, with finding a server.
    pub operation_timeout: Duration,
    /// How often an operation is tried again at once after its connection broke or its server
    /// stepped down.
    pub retries_max: u32,
    /// How often the server is asked whether it is there, while it is.
    pub health_interval: Duration,
}

/// The store. Dropping it closes its connections.
pub struct MongoReadModels {
    store: Arc<Store>,
    handle: Handle,
    runtime: Option<Runtime>,
}

/// What all operations share.
struct Store {
    options: Options,
    /// Set once the server has answered for the first time.
    database: OnceLock<Database>,
    gate: Gate,
    lately: Lately,
    breaks: Arc<Breaks>,
    /// Whether the server cannot change many documents with a statement.
    refuses_together: AtomicBool,
}

impl MongoReadModels {
    /// Begins to reach for the server, which need not be there yet.
    pub fn open(options: Options) -> Result<Self, ReadModelError> {
        let failed = |error: std::io::Error| ReadModelError::Failure { reason: error.to_string() };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("read-models").enable_all();
        let runtime = builder.build().map_err(failed)?;
        let store = Arc::new(Store {
            options,
            database: OnceLock::new(),
            gate: Gate::new(),
            lately: Lately::default(),
            breaks: Arc::new(Breaks::new()),
            refuses_together: AtomicBool::new(false),
        });
        runtime.spawn(connect::watch(store.clone()));
        Ok(Self { store, handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Runs a job on the driver's thread. It runs even if nobody waits for its answer any more.
    fn run<T, F>(&self, job: impl FnOnce(Arc<Store>) -> F) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let task = self.handle.spawn(job(self.store.clone()));
        let closed = || ReadModelError::Failure { reason: "the store was closed".into() };
        Box::pin(async move { task.await.map_or_else(|_| Err(closed()), |done| done.map_err(Into::into)) })
    }

    /// The same for a job on one collection.
    fn on<T, F>(
        &self,
        collection: &str,
        job: impl FnOnce(Arc<Store>, String) -> F + Send + 'static,
    ) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let collection = collection.to_owned();
        self.run(move |store| async move {
            names::collection(&collection)?;
            job(store, collection).await
        })
    }
}

impl Drop for MongoReadModels {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Operations on their way are cut off: made again they have the effect of one.
            runtime.shutdown_background();
        }
    }
}

impl ReadModels for MongoReadModels {
    fn create(&self, build: NewBuild) -> Answer<()> {
        self.run(|store| async move { store.create(&build).await })
    }

    fn index_build(&self, build: NewBuild) -> Answer<()> {
        self.run(|store| async move { store.index_build(&build).await })
    }

    fn builds(&self) -> Answer<Vec<Build>> {
        self.run(|store| async move { store.builds().await })
    }

    fn is_whole(&self, collection: &str) -> Answer<bool> {
        self.on(collection, |store, collection| async move { store.is_whole(&collection).await })
    }

    fn drop_build(&self, collection: &str) -> Answer<()> {
        self.on(collection, |store, collection| async move { store.drop_build(&collection).await })
    }

    fn load(&self, collection: &str, keys: Vec<String>) -> Answer<Vec<Stored>> {
        self.on(collection, |store, collection| async move { store.load(&collection, keys).await })
    }

    fn write(&self, collection: &str, batch: Arc<Batch>) -> Answer<()> {
        let begun = self.store.begin_batch(collection, &batch);
        self.on(collection, |store, collection| async move { store.write(&collection, batch, begun?).await })
    }

    fn dead_letters(&self, collection: &str) -> Answer<Vec<DeadLetter>> {
        self.on(collection, |store, collection| async move { store.dead_letters(&collection).await })
    }

    fn remove_dead_letter(&self, collection: &str, key: &str, position: Position) -> Answer<bool> {
        let key = key.to_owned();
        let begun = self.store.begun(collection);
        self.on(collection, move |store, collection| async move {
            store.unless_set_back(&collection, None)?;
            // The documents that were held up by it are past the checkpoint, perhaps.
            let removed = store.remove_dead_letter(&collection, &key, position);
            store.while_kept(&collection, begun, removed).await
        })
    }

    fn purge_tombstones(&self, collection: &str, up_to: Position) -> Answer<u64> {
        self.on(collection, move |store, collection| async move { store.purge(&collection, up_to).await })
    }

    fn get(&self, collection: &str, key: &str) -> Answer<Option<Document>> {
        let key = key.to_owned();
        self.on(collection, |store, collection| async move { store.get(&collection, key).await })
    }

    fn find(&self, collection: &str, query: Query) -> Answer<Vec<Document>> {
        self.on(collection, |store, collection| async move { store.find(&collection, &query).await })
    }

    fn search(&self, collection: &str, search: Search) -> Answer<Vec<Document>> {
        self.on(collection, |store, collection| async move { store.search(&collection, &search).await })
    }

    fn scan(&self, collection: &str, after: Option<String>, limit: usize) -> Answer<Vec<Document>> {
        self.on(
            collection,
            move |store, collection| async move { store.scan(&collection, after, limit).await },
        )
    }

    fn count(&self, collection: &str) -> Answer<u64> {
        self.on(collection, |store, collection| async move { store.count(&collection).await })
    }

    fn alias(&self, projection: &str) -> Answer<Option<String>> {
        let projection = projection.to_owned();
        self.run(|store| async move { store.named(ALIASES, &projection, "collection").await })
    }

    fn live(&self, projection: &str) -> Answer<Option<String>> {
        let projection = projection.to_owned();
        self.run(|store| async move { store.live_lately(&projection).await })
    }

    fn note(&self, name: &str) -> Answer<Option<String>> {
        let name = name.to_owned();
        self.run(|store| async move { store.named(NOTES, &name, "note").await })
    }

    fn swap_note(&self, name: &str, expected: Option<String>, note: Option<String>) -> Answer<bool> {
        let name = name.to_owned();
        self.run(|store| async move { store.swap(NOTES, &name, "note", expected, note).await })
    }

    fn swap_alias(&self, projection: &str, expected: Option<String>, collection: &str) -> Answer<bool> {
        let projection = projection.to_owned();
        self.on(collection, |store, collection| async move {
            store.lately.changes_live(&projection);
            let swapped = store.swap(ALIASES, &projection, "collection", expected, Some(collection)).await;
            // Whoever asked meanwhile may have got either.
            store.lately.changes_live(&projection);
            swapped
        })
    }

    fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Answer<Lease> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.run(move |store| async move { store.lease(&name, &holder, ttl).await })
    }

    fn release(&self, name: &str, holder: &str) -> Answer<()> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.run(|store| async move { store.release(&name, &holder).await })
    }

    fn health(&self) -> StoreHealth {
        self.store.gate.health()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests;
