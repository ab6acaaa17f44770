//! What a projector and its admins tidy: dead letters and tombstones.

use dramatis_events::Position;
use dramatis_projections::DeadLetter;

use super::{ReadModels, batch, new_build};

pub(super) async fn run(store: &dyn ReadModels) {
    dead_letters(store).await;
    tombstones(store).await;
    assert_eq!(store.health().trouble, None);
}

async fn dead_letters(store: &dyn ReadModels) {
    store.create(new_build("parked@1")).await.unwrap();
    let position = Position::from_engine(3);
    let letter = |key: &str| DeadLetter {
        key: key.to_owned(),
        position,
        event: "Happened".to_owned(),
        error: "it cannot have".to_owned(),
    };
    let mut parking = batch(&[], 5);
    parking.parked = vec![letter("a"), letter("b")];
    store.write("parked@1", parking.into()).await.unwrap();
    let remove = async |key: &str, position| {
        store.remove_dead_letter("parked@1", key, Position::from_engine(position)).await.unwrap()
    };
    assert!(!remove("a", 4).await, "another event parked it");
    assert!(remove("a", 3).await);
    assert!(!remove("a", 3).await, "it is gone");
    assert_eq!(store.dead_letters("parked@1").await.unwrap(), [letter("b")]);
}

async fn tombstones(store: &dyn ReadModels) {
    store.create(new_build("stones@1")).await.unwrap();
    let purge = async |up_to| store.purge_tombstones("stones@1", Position::from_engine(up_to)).await.unwrap();
    assert_eq!(purge(9).await, 0);
    let writes = [("a", 1, None), ("b", 2, Some("1")), ("c", 3, None), ("d", 5, None), ("e", 9, None)];
    store.write("stones@1", batch(&writes, 7).into()).await.unwrap();
    assert_eq!(purge(3).await, 2);
    assert_eq!(purge(9).await, 1, "the checkpoint is at 7");
    let keys = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
    let mut left: Vec<_> = store.load("stones@1", keys).await.unwrap().into_iter().map(|s| s.key).collect();
    left.sort();
    assert_eq!(left, ["b", "e"]);
}
