//! What would be too much for one operation.

use super::*;

/// A delete without bound would be taken for a server that is gone.
#[tokio::test]
async fn many_tombstones_are_purged_some_at_a_time() {
    let Some(lent) = Lent::new().await else { return };
    let store = &lent.store;
    store.create(contract::new_build("stones@1")).await.unwrap();
    let keys: Vec<_> = (0..2_500).map(|number| format!("k{number}")).collect();
    let writes: Vec<_> = keys.iter().map(|key| (key.as_str(), 3, None)).collect();
    store.write("stones@1", contract::batch(&writes, 5).into()).await.unwrap();
    let left = async || lent.database.collection::<Bson>("stones@1").count_documents(doc! {}).await.unwrap();
    let inner = store.store.clone();
    let once = async move { inner.delete_some("stones@1", &doc! {"latest.deleted": true}).await.unwrap() };
    assert_eq!((store.handle.spawn(once).await.unwrap(), left().await), (1_000, 1_500));
    assert_eq!(store.purge_tombstones("stones@1", Position::from_engine(9)).await.unwrap(), 1_500);
    assert_eq!(left().await, 0);
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
    park(vec![letter(3, 2), letter(4, 8), letter(2_499, 8)]).await;
    let all: Vec<_> = (0..2_500).map(|number| letter(number, 5)).collect();
    park(all.clone()).await;
    park(all).await;
    let mut found = store.dead_letters("parked@1").await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = (0..2_500).map(|number| letter(number, if [4, 2_499].contains(&number) { 8 } else { 5 }));
    assert!(found.into_iter().eq(expected));
    lent.end().await;
}
