//! The contract on a real server, and what is the server's own beside it. `.ci/run` starts one;
//! `DRAMATIS_TEST_MONGODB_URI` names one that is there.

use dramatis_projections::TextField;
use mongodb::Client;
use mongodb::bson::{Document as Bson, doc};
use std::io::Write as _;

use super::*;
use crate::read_models::contract;
use crate::read_models::queries::of_live;

mod bounds;

const TEXT: &[TextField] = &[TextField { name: "title", weight: 1 }];

/// A store in a database of its own, dropped at the end.
struct Lent {
    store: MongoReadModels,
    database: mongodb::Database,
}

impl Lent {
    async fn new() -> Option<Self> {
        let Ok(uri) = std::env::var("DRAMATIS_TEST_MONGODB_URI") else {
            said("SKIPPED: the contract on MongoDB; DRAMATIS_TEST_MONGODB_URI names no server");
            return None;
        };
        let name = format!("dramatis_test_{}", uuid::Uuid::new_v4().simple());
        let database = Client::with_uri_str(&uri).await.unwrap().database(&name);
        let store = MongoReadModels::open(options(&uri, &name)).unwrap();
        Some(Self { store, database })
    }

    async fn end(self) {
        drop(self.store);
        self.database.drop().await.unwrap();
    }
}

pub(super) fn options(uri: &str, database: &str) -> Options {
    Options {
        uri: MongoUri::parse(uri).unwrap(),
        database: database.to_owned(),
        pool_min: 0,
        pool_max: 10,
        connect_timeout: Duration::from_secs(5),
        operation_timeout: Duration::from_secs(20),
        retries_max: 1,
        health_interval: Duration::from_mins(1),
    }
}

/// Whether it is not known to be another server of the protocol.
async fn is_mongodb(database: &mongodb::Database) -> bool {
    let info = database.run_command(doc! {"buildInfo": 1}).await.unwrap();
    !info.keys().any(|key| key.starts_with("ferretdb"))
}

fn said(what: &str) {
    writeln!(std::io::stderr(), "{what}").unwrap();
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let Some(lent) = Lent::new().await else { return };
    contract::run(&lent.store).await;
    assert!(lent.store.health().latency.is_some());
    lent.end().await;
}

#[tokio::test]
async fn it_searches_as_the_contract_says() {
    let Some(lent) = Lent::new().await else { return };
    let build = NewBuild { text: TEXT, ..contract::new_build("probe@1") };
    match lent.store.create(build).await {
        Ok(()) => contract::run_search(&lent.store).await,
        Err(error) => said(&format!("NOT COVERED: full-text search, which this server lacks: {error}")),
    }
    lent.end().await;
}

#[tokio::test]
async fn what_its_server_ends_in_time_is_not_taken_for_a_server_that_is_gone() {
    let Some(lent) = Lent::new().await else { return };
    if !is_mongodb(&lent.database).await {
        return said("NOT COVERED: operations that are ended in time, which need an expression that is slow");
    }
    let store = &lent.store;
    store.create(contract::new_build("slow@1")).await.unwrap();
    let keys: Vec<_> = (0..200).map(|number| format!("k{number}")).collect();
    let writes: Vec<_> = (1..).zip(&keys).map(|(at, key)| (key.as_str(), at, Some("{}"))).collect();
    store.write("slow@1", contract::batch(&writes, 200).into()).await.unwrap();
    let sum = doc! {"$sum": {"$map": {"input": {"$range": [0, 1_000_000]}, "in": "$$this"}}};
    let mut options = mongodb::options::FindOptions::default();
    options.max_time = Some(Duration::from_millis(100));
    let inner = store.store.clone();
    let found = store.handle.spawn(async move {
        inner.found("slow@1", doc! {"$expr": {"$eq": [sum, 1]}}, options).await.map(|found| found.len())
    });
    let trouble = found.await.unwrap().unwrap_err();
    assert!(trouble.out_of_time(), "{trouble:?}");
    assert_eq!(store.health().trouble, None);
    lent.end().await;
}

#[tokio::test]
async fn a_count_that_is_slow_is_not_taken_for_a_server_that_is_gone() {
    let Some(lent) = Lent::new().await else { return };
    if !is_mongodb(&lent.database).await {
        return said("NOT COVERED: counts that are ended in time, which need a view that is slow");
    }
    lent.store.create(contract::new_build("slow@1")).await.unwrap();
    let keys: Vec<_> = (0..200).map(|number| format!("k{number}")).collect();
    let writes: Vec<_> = (1..).zip(&keys).map(|(at, key)| (key.as_str(), at, Some("{}"))).collect();
    lent.store.write("slow@1", contract::batch(&writes, 200).into()).await.unwrap();
    assert_eq!(lent.store.count("slow@1").await.unwrap(), 200);
    let sum = doc! {"$sum": {"$map": {"input": {"$range": [0, 1_000_000]}, "in": {"$add": ["$$this", "$latest.position"]}}}};
    let pipeline = [doc! {"$match": {"$expr": {"$eq": [sum, 1]}}}];
    lent.database
        .run_command(doc! {"create": "slow@2", "viewOn": "slow@1", "pipeline": &pipeline[..]})
        .await
        .unwrap();
    let uri = std::env::var("DRAMATIS_TEST_MONGODB_URI").unwrap();
    let hasty = Options { operation_timeout: Duration::from_secs(20), ..options(&uri, lent.database.name()) };
    let store = MongoReadModels::open(hasty).unwrap();
    // Connected by now, whatever else that server has to do.
    while store.count("slow@1").await.is_err() {}
    let error = store.count("slow@2").await.unwrap_err();
    assert!(error.to_string().contains("counting took longer than 10000 ms"), "{error}");
    assert_eq!(store.health().trouble, None);
    drop(store);
    lent.end().await;
}

#[tokio::test]
async fn a_duplicate_on_another_unique_index_is_an_error() {
    let Some(lent) = Lent::new().await else { return };
    let store = &lent.store;
    store.create(contract::new_build("unique@1")).await.unwrap();
    let index = doc! {"name": "one of a kind", "key": {"latest.body.kind": 1}, "unique": true};
    lent.database.run_command(doc! {"createIndexes": "unique@1", "indexes": [index]}).await.unwrap();
    let (cat, dog) = (r#"{"kind":"cat","size":1}"#, r#"{"kind":"dog","size":1}"#);
    store.write("unique@1", contract::batch(&[("a", 5, Some(cat))], 5).into()).await.unwrap();
    let both = contract::batch(&[("a", 4, Some(dog)), ("b", 6, Some(cat)), ("c", 7, Some(dog))], 7);
    let error = store.write("unique@1", both.into()).await.unwrap_err();
    assert!(error.to_string().contains("11000"), "{error}");
    assert_eq!(store.get("unique@1", "a").await.unwrap().unwrap().body, cat, "the late write is no error");
    assert_eq!(store.builds().await.unwrap()[0].checkpoint, contract::checkpoint(5), "it waits");
    let past_it = store.get("unique@1", "c").await.unwrap().is_some();
    // What the real server is known for is not left to chance; others are said to differ.
    if is_mongodb(&lent.database).await {
        assert!(past_it, "an unordered write goes on past an error");
        assert_eq!(store.get("unique@1", "b").await.unwrap(), None, "the refused write is not there");
    } else if !past_it {
        said("NOT COVERED: unordered writes past an error, at which this server stops");
    }
    lent.end().await;
}

#[tokio::test]
async fn indexes_are_made_anew_when_they_change() {
    use dramatis_projections::{Field, FieldKind, Index};
    const WEIGHT: Field = Field { name: "weight", kind: FieldKind::Integer };
    const CHANGED: &[Index] = &[Index { name: "size", fields: &[WEIGHT] }];
    const RENAMED: &[Index] = &[Index { name: "heft", fields: &[WEIGHT] }];

    let Some(lent) = Lent::new().await else { return };
    let build = contract::new_build("things@1");
    lent.store.create(build.clone()).await.unwrap();
    for (name, indexes) in [("size", CHANGED), ("size", CHANGED), ("heft", RENAMED)] {
        lent.store.index_build(NewBuild { indexes, ..build.clone() }).await.unwrap();
        let there = lent.database.run_command(doc! {"listIndexes": "things@1"}).await.unwrap();
        let there = there.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
        let found =
            there.iter().find(|index| index.as_document().unwrap().get_str("name").ok() == Some(name));
        let key = found.unwrap().as_document().unwrap().get_document("key").unwrap();
        assert_eq!(key.keys().collect::<Vec<_>>(), ["latest.body.weight", "_id"]);
    }
    lent.end().await;
}

/// As its profiler does, or a view that somebody made and dropped.
#[tokio::test]
async fn what_a_server_keeps_of_its_own_in_a_database_is_in_nobodys_way() {
    let Some(lent) = Lent::new().await else { return };
    // Its store has come to know it before.
    let name = format!("{}_viewed", lent.database.name());
    let uri = std::env::var("DRAMATIS_TEST_MONGODB_URI").unwrap();
    let database = Client::with_uri_str(&uri).await.unwrap().database(&name);
    if !is_mongodb(&database).await {
        return lent.end().await;
    }
    database.run_command(doc! {"create": "view", "viewOn": "nothing", "pipeline": []}).await.unwrap();
    database.run_command(doc! {"drop": "view"}).await.unwrap();
    assert_eq!(database.list_collection_names().await.unwrap(), ["system.views"]);
    let store = MongoReadModels::open(options(&uri, &name)).unwrap();
    assert_eq!(store.builds().await, Ok(Vec::new()));
    drop(store);
    database.drop().await.unwrap();
    lent.end().await;
}

#[tokio::test]
async fn admins_can_ask_for_typed_fields() {
    let Some(lent) = Lent::new().await else { return };
    let store = &lent.store;
    store.create(contract::new_build("typed@1")).await.unwrap();
    let body = r#"{"kind":"cat","size":9007199254740992,"paws":{"left.$1":[1,null,true]}}"#;
    store.write("typed@1", contract::batch(&[("a", 1, Some(body)), ("b", 2, None)], 2).into()).await.unwrap();
    let documents = lent.database.collection::<Bson>("typed@1");
    let query = doc! {"latest.body.size": {"$gt": 5_000_000_000_i64}, "latest.body.paws.left%2E$1": 1};
    let found = documents.find_one(query).await.unwrap().unwrap();
    assert_eq!(found.get_str("_id").unwrap(), "a");
    assert_eq!(store.get("typed@1", "a").await.unwrap().unwrap().body, body);
    lent.end().await;
}

#[tokio::test]
async fn what_a_cut_off_drop_or_write_left_is_gone_from_a_new_build() {
    let Some(lent) = Lent::new().await else { return };
    let store = &lent.store;
    assert_eq!(store.builds().await.unwrap(), []);
    lent.database
        .collection::<Bson>("left@1")
        .insert_one(doc! {"_id": "old", "latest": {"position": 1_i64, "body": 1}})
        .await
        .unwrap();
    store.create(contract::new_build("left@1")).await.unwrap();
    assert_eq!(store.count("left@1").await.unwrap(), 0);
    store.write("left@1", contract::batch(&[("a", 1, Some("1"))], 1).into()).await.unwrap();
    let builds = lent.database.collection::<Bson>("meta.builds");
    builds.update_one(doc! {"_id": "left@1"}, doc! {"$set": {"dropping": true}}).await.unwrap();
    let gone = store.write("left@1", contract::batch(&[("a", 2, Some("1"))], 2).into()).await.unwrap_err();
    assert!(matches!(gone, ReadModelError::NoBuild { .. }), "{gone}");
    assert_eq!(store.builds().await.unwrap().len(), 1, "it is still there to be dropped");
    store.create(contract::new_build("left@1")).await.unwrap();
    assert_eq!(store.count("left@1").await.unwrap(), 0);
    lent.end().await;
}

#[tokio::test]
async fn without_a_server_calls_fail_at_once_and_say_so() {
    let store = MongoReadModels::open(options("mongodb://anna:s3cret@127.0.0.1:9/", "none")).unwrap();
    store.store.gate.close("nobody listens");
    let error = store.builds().await.unwrap_err();
    assert!(matches!(&error, ReadModelError::Failure { reason } if !reason.contains("s3cret")), "{error}");
    assert!(store.health().trouble.is_some());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_refuse() {
    let options =
        Options { operation_timeout: Duration::from_secs(1), ..options("mongodb://127.0.0.1:9/", "none") };
    let store = MongoReadModels::open(options).unwrap();
    let error = store.builds().await.unwrap_err().to_string();
    assert!(error.contains("refused") && !error.contains("labels"), "{error}");
}

#[tokio::test]
async fn a_database_of_another_application_or_release_is_left_alone() {
    let Some(lent) = Lent::new().await else { return };
    lent.store.create(contract::new_build("things@1")).await.unwrap();
    let uri = std::env::var("DRAMATIS_TEST_MONGODB_URI").unwrap();
    let refused = async |name: &str| {
        let store = MongoReadModels::open(options(&uri, name)).unwrap();
        store.builds().await.unwrap_err().to_string()
    };
    let formats = lent.database.collection::<Bson>("meta.format");
    formats.update_one(doc! {}, doc! {"$set": {"format": 99}}).await.unwrap();
    let newer = refused(lent.database.name()).await;
    assert!(newer.contains("of format 99"), "{newer}");
    formats.drop().await.unwrap();
    let foreign = refused(lent.database.name()).await;
    assert!(foreign.contains("not ours"), "{foreign}");
    assert!(lent.database.list_collection_names().await.unwrap().contains(&"things@1".to_owned()));
    lent.end().await;
}

#[tokio::test]
async fn a_database_that_was_emptied_is_ours_again_with_its_first_build() {
    let Some(lent) = Lent::new().await else { return };
    lent.store.create(contract::new_build("things@1")).await.unwrap();
    lent.database.drop().await.unwrap();
    lent.store.create(contract::new_build("things@1")).await.unwrap();
    let uri = std::env::var("DRAMATIS_TEST_MONGODB_URI").unwrap();
    let next = MongoReadModels::open(options(&uri, lent.database.name())).unwrap();
    assert_eq!(next.builds().await.unwrap().len(), 1);
    lent.end().await;
}

#[tokio::test]
async fn what_was_begun_and_never_made_is_gone_with_the_next_build() {
    let Some(lent) = Lent::new().await else { return };
    let store = &lent.store;
    store.create(contract::new_build("probe@1")).await.unwrap();
    let builds = lent.database.collection::<Bson>("meta.builds");
    let mut begun = builds.find_one(doc! {"_id": "probe@1"}).await.unwrap().unwrap();
    for left in ["probe@2", "probe@3"] {
        begun.insert("_id", left);
        begun.insert("making", true);
        builds.insert_one(&begun).await.unwrap();
        lent.database.create_collection(left).await.unwrap();
    }
    let known = async || {
        let builds = store.builds().await.unwrap();
        builds.into_iter().map(|build| build.collection).collect::<Vec<_>>()
    };
    assert_eq!(known().await, ["probe@1"]);
    let early = store.write("probe@2", contract::batch(&[], 1).into()).await;
    assert!(matches!(early, Err(ReadModelError::NoBuild { .. })), "{early:?}");
    store.create(contract::new_build("probe@2")).await.unwrap();
    assert_eq!(known().await, ["probe@1", "probe@2"]);
    let there = lent.database.list_collection_names().await.unwrap();
    assert!(!there.contains(&"probe@3".to_owned()), "{there:?}");
    assert_eq!(builds.count_documents(doc! {}).await.unwrap(), 2);
    lent.end().await;
}

/// A server that died between two batches may have lost the first and kept what the second stands on.
#[tokio::test]
async fn nothing_is_written_on_documents_that_may_be_lost() {
    let Some(lent) = Lent::new().await else { return };
    lent.store.create(contract::new_build("probe@1")).await.unwrap();
    let (store, documents) = (&lent.store, lent.database.collection::<Bson>("probe@1"));
    let written = async |at, position, after| store.write("probe@1", of_a(at, position, after).into()).await;
    let stands = async || store.builds().await.unwrap()[0].checkpoint.position.map(Position::to_engine);
    let there = async || {
        let found = documents.find_one(doc! {"_id": "a"}).await.unwrap().unwrap();
        found.get_document("latest").unwrap().get_i64("position").unwrap()
    };
    let going_on = async || store.index_build(contract::new_build("probe@1")).await.unwrap();
    written(1, None, None).await.unwrap();
    assert!(store.get("probe@1", "a").await.unwrap().is_some());
    store.store.breaks.add();
    for _ in 0..2 {
        let refused = store.get("probe@1", "a").await.unwrap_err().to_string();
        assert!(refused.contains("written again"), "{refused}");
        set_back(store.load("probe@1", vec!["a".to_owned()]).await);
        set_back(written(2, None, None).await);
        set_back(written(2, Some(2), None).await);
        set_back(store.remove_dead_letter("probe@1", "a", Position::from_engine(1)).await);
    }
    assert_eq!((there().await, stands().await), (1, None), "it may stand on what is lost");
    going_on().await;
    assert!(store.get("probe@1", "a").await.unwrap().is_some());
    written(5, Some(5), None).await.unwrap();
    store.store.breaks.add();
    written(6, None, Some(5)).await.expect("all before is in the journal");
    store.store.breaks.add();
    set_back(written(7, Some(7), Some(5)).await);
    assert_eq!((there().await, stands().await), (6, Some(5)));
    lent.end().await;
}

fn set_back<T: std::fmt::Debug>(answer: Result<T, ReadModelError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, ReadModelError::SetBack { .. }), "{error}");
}

/// A batch of one document.
fn of_a(at: u64, position: Option<u64>, after: Option<u64>) -> Batch {
    let [position, after] = [position, after].map(|at| at.map(Position::from_engine));
    let mut batch = contract::batch(&[("a", at, Some("1"))], at);
    (batch.checkpoint.position, batch.after) = (position, after);
    batch
}

/// What waits for a server that died would be done by the one that is there then.
#[tokio::test]
async fn nothing_is_sent_any_more_once_a_connection_broke() {
    let Some(lent) = Lent::new().await else { return };
    lent.store.create(contract::new_build("probe@1")).await.unwrap();
    let store = lent.store.store.clone();
    for position in [None, Some(1)] {
        let batch = Arc::new(of_a(1, position, None));
        let begun = store.begin_batch("probe@1", &batch).unwrap();
        store.breaks.add();
        let inner = store.clone();
        let write = async move { inner.write("probe@1", batch, begun).await.map_err(ReadModelError::from) };
        set_back(lent.store.handle.spawn(write).await.unwrap());
        lent.store.index_build(contract::new_build("probe@1")).await.unwrap();
        assert_eq!(lent.store.count("probe@1").await.unwrap(), 0);
        assert_eq!(lent.store.builds().await.unwrap()[0].checkpoint.position, None);
    }
    lent.end().await;
}

/// A run skips what is there past its checkpoint: with a write that is in the journal all before it is.
#[tokio::test]
async fn what_a_run_goes_on_with_is_in_the_journal_first() {
    let Some(lent) = Lent::new().await else { return };
    lent.store.create(contract::new_build("probe@1")).await.unwrap();
    lent.store.write("probe@1", of_a(1, None, None).into()).await.unwrap();
    let builds = lent.database.collection::<Bson>("meta.builds");
    let before = builds.find_one(doc! {"_id": "probe@1"}).await.unwrap();
    lent.store.index_build(contract::new_build("probe@1")).await.unwrap();
    assert_ne!(builds.find_one(doc! {"_id": "probe@1"}).await.unwrap(), before);
    lent.end().await;
}

/// As with an older copy of its data that is put back while this process goes on.
#[tokio::test]
async fn nothing_is_written_past_a_checkpoint_that_an_older_state_has_not() {
    let Some(lent) = Lent::new().await else { return };
    let (store, builds) = (&lent.store, lent.database.collection::<Bson>("meta.builds"));
    store.create(contract::new_build("probe@1")).await.unwrap();
    store.write("probe@1", of_a(5, Some(5), None).into()).await.unwrap();
    let older = doc! {"$set": {"position": 3_i64}};
    builds.update_one(doc! {"_id": "probe@1"}, older).await.unwrap();
    store.store.breaks.add();
    let batch = || Arc::new(of_a(9, None, Some(5)));
    set_back(store.write("probe@1", batch()).await);
    set_back(store.write("probe@1", batch()).await);
    let refused = store.get("probe@1", "a").await.unwrap_err().to_string();
    assert!(refused.contains("written again"), "{refused}");
    store.index_build(contract::new_build("probe@1")).await.unwrap();
    assert_eq!(store.get("probe@1", "a").await.unwrap().unwrap().position, Position::from_engine(5));
    lent.end().await;
}

/// The server makes a collection for whoever writes into one that is gone.
#[tokio::test]
async fn a_collection_that_a_write_made_is_not_whole() {
    let Some(lent) = Lent::new().await else { return };
    lent.store.create(contract::new_build("probe@1")).await.unwrap();
    assert!(lent.store.is_whole("probe@1").await.unwrap());
    lent.database.collection::<Bson>("probe@1").drop().await.unwrap();
    assert!(!lent.store.is_whole("probe@1").await.unwrap());
    let mut batch = contract::batch(&[("a", 1, Some("1"))], 1);
    batch.writes[0].is_new = true;
    lent.store.write("probe@1", batch.into()).await.unwrap();
    assert!(lent.store.get("probe@1", "a").await.unwrap().is_some());
    assert!(!lent.store.is_whole("probe@1").await.unwrap());
    lent.end().await;
}

/// The live build is asked for only now and then.
#[tokio::test]
async fn queries_find_the_live_build_that_another_process_named() {
    let Some(lent) = Lent::new().await else { return };
    let (first, second) = ("probe@1".to_owned(), "probe@2".to_owned());
    for (build, body) in [(&first, "1"), (&second, "2")] {
        lent.store.create(contract::new_build(build)).await.unwrap();
        lent.store.write(build, contract::batch(&[("a", 1, Some(body))], 1).into()).await.unwrap();
    }
    lent.store.swap_alias("probe", None, &first).await.unwrap();
    let shown = async || {
        let found = of_live(&lent.store, "probe", |build| lent.store.get(build, "a")).await.unwrap();
        found.flatten().map(|document| document.body)
    };
    assert_eq!(shown().await.as_deref(), Some("1"));
    let uri = std::env::var("DRAMATIS_TEST_MONGODB_URI").unwrap();
    let other = MongoReadModels::open(options(&uri, lent.database.name())).unwrap();
    assert!(other.swap_alias("probe", Some(first.clone()), &second).await.unwrap());
    other.drop_build(&first).await.unwrap();
    assert_eq!(shown().await.as_deref(), Some("2"));
    drop(other);
    lent.end().await;
}

/// Documents are written on while a checkpoint is: one that covers those before does not cover them.
#[tokio::test]
async fn a_checkpoint_does_not_stand_for_what_was_begun_beside_it() {
    let Some(lent) = Lent::new().await else { return };
    let store = &lent.store.store;
    let documents = || store.begin_batch("probe@1", &of_a(1, None, None));
    let checkpoint = contract::batch(&[], 1);
    documents().unwrap();
    let begun = store.begin_batch("probe@1", &checkpoint).unwrap();
    documents().unwrap();
    store.end_unsaved_of("probe@1", begun);
    store.breaks.add();
    assert!(
        store.unless_lost("probe@1", None).is_err(),
        "the second of the documents is past the checkpoint"
    );
    assert!(documents().is_err());
    store.forget_standing("probe@1");
    documents().unwrap();
    let before = store.unsaved("probe@1");
    let begun = store.begin_batch("probe@1", &checkpoint).unwrap();
    store.end_unsaved_of("probe@1", begun);
    store.breaks.add();
    assert!(store.unless_lost("probe@1", None).is_ok(), "nothing is past the checkpoint");
    assert!(store.unless_lost("probe@1", before).is_err(), "it was when this was asked for");
    lent.end().await;
}
