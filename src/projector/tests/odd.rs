//! A store that does as another one does, but for what a test has it do otherwise.

use dramatis_projections::{DeadLetter, Stored};

use super::*;
use crate::read_models::{
    Batch, Build, Document, Lease, NewBuild, Query, ReadModelError, Search, StoreHealth,
};

/// What one call comes to.
pub(super) enum Fate {
    /// What the store says.
    Answered,
    /// Nothing is done, and this is said.
    Refused(ReadModelError),
    /// It is done, and the answer is lost.
    Lost,
    /// A write is acknowledged and not done, as by a server that dies then and forgets it.
    Forgotten,
    /// What the store says, once this is true.
    Held(watch::Receiver<bool>),
    /// What the store says, which is asked once this is over: a scan or the load of documents.
    After(BoxFuture<'static, ()>),
    /// A scan begins from the start again, so that a walk never ends.
    Again,
}

impl Fate {
    /// Nothing is done, as the server does not answer.
    pub(super) fn failed() -> Self {
        Self::Refused(lost())
    }
}

/// Says what comes of a call, from its name and what it is first of all about: mostly a collection.
type Decide = dyn Fn(&str, &str) -> Fate + Send + Sync;
type Answer<T> = BoxFuture<'static, Result<T, ReadModelError>>;

pub(super) struct Odd {
    store: Arc<dyn ReadModels>,
    decide: Box<Decide>,
}

impl Odd {
    pub(super) fn over(
        store: Arc<dyn ReadModels>,
        decide: impl Fn(&str, &str) -> Fate + Send + Sync + 'static,
    ) -> Arc<dyn ReadModels> {
        Arc::new(Self { store, decide: Box::new(decide) })
    }

    fn meet<T: Send + 'static>(
        &self,
        fate: Fate,
        ask: impl FnOnce(&dyn ReadModels) -> Answer<T>,
    ) -> Answer<T> {
        match fate {
            Fate::Answered | Fate::Again | Fate::Forgotten => ask(self.store.as_ref()),
            Fate::Refused(error) => Box::pin(async { Err(error) }),
            Fate::After(_) => unimplemented!("only scans and loads wait before they are made"),
            Fate::Held(mut open) => {
                let answer = ask(self.store.as_ref());
                Box::pin(async move {
                    let _ = open.wait_for(|open| *open).await;
                    answer.await
                })
            }
            Fate::Lost => {
                let done = ask(self.store.as_ref());
                Box::pin(async { done.await.and(Err(lost())) })
            }
        }
    }
}

fn lost() -> ReadModelError {
    ReadModelError::Failure { reason: "the cable was pulled".into() }
}

macro_rules! mostly_as_the_store_does {
    ($($name:ident($first:ident: $of:ty $(, $argument:ident: $kind:ty)*) -> $answer:ty;)*) => {
        $(fn $name(&self, $first: $of $(, $argument: $kind)*) -> Answer<$answer> {
            self.meet((self.decide)(stringify!($name), $first), |store| store.$name($first $(, $argument)*))
        })*
    };
}

impl ReadModels for Odd {
    fn create(&self, build: NewBuild) -> Answer<()> {
        self.meet((self.decide)("create", &build.collection), |store| store.create(build))
    }

    fn index_build(&self, build: NewBuild) -> Answer<()> {
        self.meet((self.decide)("index_build", &build.collection), |store| store.index_build(build))
    }

    fn builds(&self) -> Answer<Vec<Build>> {
        self.meet((self.decide)("builds", ""), |store| store.builds())
    }

    fn scan(&self, collection: &str, after: Option<String>, limit: usize) -> Answer<Vec<Document>> {
        let fate = (self.decide)("scan", collection);
        if let Fate::After(over) = fate {
            let (store, collection) = (self.store.clone(), collection.to_owned());
            return Box::pin(async move {
                over.await;
                store.scan(&collection, after, limit).await
            });
        }
        let after = after.filter(|_| !matches!(fate, Fate::Again));
        self.meet(fate, |store| store.scan(collection, after, limit))
    }

    fn load(&self, collection: &str, keys: Vec<String>) -> Answer<Vec<Stored>> {
        let fate = (self.decide)("load", collection);
        if let Fate::After(over) = fate {
            let (store, collection) = (self.store.clone(), collection.to_owned());
            return Box::pin(async move {
                over.await;
                store.load(&collection, keys).await
            });
        }
        self.meet(fate, |store| store.load(collection, keys))
    }

    fn write(&self, collection: &str, batch: Arc<Batch>) -> Answer<()> {
        if batch.checkpoint.position.is_some() {
            // Only told.
            let _ = (self.decide)("checkpoint", collection);
        }
        match (self.decide)("write", collection) {
            Fate::Forgotten => Box::pin(async { Ok(()) }),
            fate => self.meet(fate, |store| store.write(collection, batch)),
        }
    }

    fn health(&self) -> StoreHealth {
        match (self.decide)("health", "") {
            Fate::Refused(error) => StoreHealth { latency: None, trouble: Some(error.to_string()) },
            _ => self.store.health(),
        }
    }

    mostly_as_the_store_does! {
        is_whole(collection: &str) -> bool;
        drop_build(collection: &str) -> ();
        dead_letters(collection: &str) -> Vec<DeadLetter>;
        remove_dead_letter(collection: &str, key: &str, position: Position) -> bool;
        purge_tombstones(collection: &str, up_to: Position) -> u64;
        get(collection: &str, key: &str) -> Option<Document>;
        find(collection: &str, query: Query) -> Vec<Document>;
        search(collection: &str, search: Search) -> Vec<Document>;
        count(collection: &str) -> u64;
        alias(projection: &str) -> Option<String>;
        live(projection: &str) -> Option<String>;
        note(name: &str) -> Option<String>;
        swap_note(name: &str, expected: Option<String>, note: Option<String>) -> bool;
        swap_alias(projection: &str, expected: Option<String>, collection: &str) -> bool;
        lease(name: &str, holder: &str, ttl: Duration) -> Lease;
        release(name: &str, holder: &str) -> ();
    }
}
