//! A store that cannot keep every read model, and indexes that came since a build was made.

use dramatis_projections::{DeadLetter, Stored};

use super::builds::REBUILD;
use super::*;
use crate::read_models::{
    Batch, Build, Document, Lease, NewBuild, Query, ReadModelError, Search, StoreHealth,
};

/// A store without full-text search. It remembers which builds it was to index.
struct Without {
    store: Arc<dyn ReadModels>,
    indexed: StdMutex<Vec<String>>,
}

type Answer<T> = BoxFuture<'static, Result<T, ReadModelError>>;

macro_rules! as_the_store_does {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> Answer<$answer> { self.store.$name($($argument),*) })*
    };
}

impl ReadModels for Without {
    fn create(&self, build: NewBuild) -> Answer<()> {
        if build.text.is_empty() {
            return self.store.create(build);
        }
        let reason = "it has no words".to_owned();
        Box::pin(async { Err(ReadModelError::Unsupported { what: "full-text search", reason }) })
    }

    fn index_build(&self, build: NewBuild) -> Answer<()> {
        self.indexed.lock().unwrap().push(build.collection.clone());
        self.store.index_build(build)
    }

    fn health(&self) -> StoreHealth {
        self.store.health()
    }

    as_the_store_does! {
        builds() -> Vec<Build>;
        drop_build(collection: &str) -> ();
        load(collection: &str, keys: Vec<String>) -> Vec<Stored>;
        write(collection: &str, batch: Arc<Batch>) -> ();
        dead_letters(collection: &str) -> Vec<DeadLetter>;
        remove_dead_letter(collection: &str, key: &str, position: Position) -> bool;
        purge_tombstones(collection: &str, up_to: Position) -> u64;
        get(collection: &str, key: &str) -> Option<Document>;
        find(collection: &str, query: Query) -> Vec<Document>;
        search(collection: &str, search: Search) -> Vec<Document>;
        scan(collection: &str, after: Option<String>, limit: usize) -> Vec<Document>;
        count(collection: &str) -> u64;
        alias(projection: &str) -> Option<String>;
        note(name: &str) -> Option<String>;
        swap_note(name: &str, expected: Option<String>, note: Option<String>) -> bool;
        swap_alias(projection: &str, expected: Option<String>, collection: &str) -> bool;
        lease(name: &str, holder: &str, ttl: Duration) -> Lease;
        release(name: &str, holder: &str) -> ();
    }
}

fn without(place: &Place) -> Arc<Without> {
    Arc::new(Without { store: place.store(), indexed: StdMutex::default() })
}

#[tokio::test]
async fn what_a_store_cannot_keep_is_said_and_the_others_go_on() {
    let place = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), without(&place));
    let position = log.write(STORY);
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    let mut status = projector.watch("search").unwrap();
    let cannot = |status: &Status| status.unsupported().is_some();
    let said = tokio::time::timeout(LONG, status.wait_for(cannot)).await.unwrap().unwrap().clone();
    assert_eq!(said.unsupported(), Some("this read-model store cannot do full-text search: it has no words"));
    assert_eq!((said.lag_events(), said.collection.as_str()), (0, ""));
    for projection in dramatis_projections::all().iter().filter(|other| other.name() != "search") {
        projector.wait_for(projection.name(), position, LONG).await.unwrap();
    }
    // Nothing is left behind, and admins are told at once.
    assert!(store.builds().await.unwrap().iter().all(|build| build.projection != "search"));
    let error = projector.order("search", REBUILD).await.unwrap_err();
    assert!(error.to_string().starts_with("search is not kept: "), "{error}");
    projector.stop().await;
    // A store that can is found out at the next start.
    if on_mongodb() {
        return;
    }
    let projector = Projector::start(log.clone(), store.store.clone(), options(2));
    reached(&projector, position).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_build_is_given_the_indexes_of_this_release_when_it_is_gone_on_with() {
    let place = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), without(&place));
    let position = log.write(STORY);
    for expected in [vec![], vec!["rooms@1".to_owned()]] {
        let rooms = dramatis_projections::named("rooms").unwrap();
        let clock = Arc::new(SystemClock);
        let here = Handles::here();
        let projector = Projector::start_these(&[rooms], log.clone(), store.clone(), clock, options(9), here);
        projector.wait_for("rooms", position, LONG).await.unwrap();
        projector.stop().await;
        assert_eq!(*store.indexed.lock().unwrap(), expected);
    }
}
