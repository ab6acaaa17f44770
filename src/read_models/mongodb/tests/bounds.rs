//! What would be too much for one operation.

use super::*;

/// As with a release that has another index, on a build that has long been there.
#[tokio::test]
async fn an_index_that_takes_long_is_made_beside_the_steps() {
    use dramatis_projections::{Field, FieldKind, Index};
    const PARTS: Field = Field { name: "parts", kind: FieldKind::Integer };
    const PARTED: &[Index] = &[Index { name: "parts", fields: &[PARTS] }];

    let Some(lent) = Lent::new().await else { return };
    let build = contract::new_build("things@1");
    lent.store.create(build.clone()).await.unwrap();
    // A key of the index for each of so many parts.
    let parts: Vec<_> = (0..3_000).collect();
    let documents = (0..1_000).map(|key| {
        let body = doc! {"parts": parts.iter().map(|part| part * 1_000 + key).collect::<Vec<i32>>()};
        doc! {"_id": format!("k{key}"), "latest": {"position": 1_i64, "body": body}}
    });
    lent.database.collection::<Bson>("things@1").insert_many(documents).await.unwrap();
    let uri = std::env::var("DRAMATIS_TEST_MONGODB_URI").unwrap();
    let hasty = Options { operation_timeout: Duration::from_secs(1), ..options(&uri, lent.database.name()) };
    let store = MongoReadModels::open(hasty).unwrap();
    while store.builds().await.is_err() {}
    store.index_build(NewBuild { indexes: PARTED, ..build }).await.unwrap();
    let is_there = async || {
        let there = lent.database.run_command(doc! {"listIndexes": "things@1"}).await.unwrap();
        let there = there.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
        // One that is being made is shown with its build.
        let made = |index: &Bson| index.get_str("name").ok() == Some("parts") && index.get("spec").is_none();
        there.iter().any(|index| made(index.as_document().unwrap()))
    };
    while !is_there().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(store);
    lent.end().await;
}

/// A delete without bound would be taken for a server that is gone.
#[tokio::test]
async fn many_tombstones_are_purged_some_at_a_time() {
    let Some(lent) = Lent::new().await else { return };
    let store = &lent.store;
    store.create(contract::new_build("stones@1")).await.unwrap();
    let keys: Vec<_> = (0..2_500).map(|number| format!("k{number}")).collect();
    let writes: Vec<_> = keys.iter().map(|key| (key.as_str(), 3, None)).collect();
    store.write("stones@1", contract::batch(&writes, 5).into()).await.unwrap();
    let stones =
        async || lent.database.collection::<Bson>("stones@1").count_documents(doc! {}).await.unwrap();
    let inner = store.store.clone();
    let once = async move { inner.delete_some("stones@1", &doc! {"latest.deleted": true}).await.unwrap() };
    assert_eq!((store.handle.spawn(once).await.unwrap(), stones().await), (1_000, 1_500));
    assert_eq!(store.purge_tombstones("stones@1", Position::from_engine(9)).await.unwrap(), 1_500);
    assert_eq!(stones().await, 0);
    lent.end().await;
}

/// More than one command keeps, some of which are parked already: earlier, or from a later event on.
#[tokio::test]
async fn many_keys_are_parked_and_each_where_it_was_last() {
    let Some(lent) = Lent::new().await else { return };
    let store = &lent.store;
    store.create(contract::new_build("parked@1")).await.unwrap();
    let letter = |number: u64, position: u64| DeadLetter {
        key: format!("k{number:04}"),
        position: Position::from_engine(position),
        event: "Happened".to_owned(),
        error: "it cannot have".to_owned(),
    };
    let park = async |letters: Vec<DeadLetter>| {
        let parked = Batch { parked: letters, ..contract::batch(&[], 9) };
        store.write("parked@1", parked.into()).await.unwrap();
    };
    park(vec![letter(3, 2), letter(4, 8), letter(249, 8)]).await;
    let all: Vec<_> = (0..250).map(|number| letter(number, 5)).collect();
    park(all.clone()).await;
    park(all).await;
    let mut found = store.dead_letters("parked@1").await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = (0..250).map(|number| letter(number, if [4, 249].contains(&number) { 8 } else { 5 }));
    assert!(found.into_iter().eq(expected));
    lent.end().await;
}
