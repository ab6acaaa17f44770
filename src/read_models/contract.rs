//! What every engine of [`ReadModels`] is held to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use dramatis_events::{Epoch, Position, StreamId};
use dramatis_projections::{DeadLetter, Field, FieldKind, Index, Stored, Write};

use super::{
    Batch, Checkpoint, Direction, FIND_BYTES_MAX, Lease, NewBuild, Place, Query, ReadModelError, ReadModels,
    SCAN_BYTES_MAX, Value, queries,
};

mod leases;
mod search;
mod upkeep;

const KIND: Field = Field { name: "kind", kind: FieldKind::Text };
const SIZE: Field = Field { name: "size", kind: FieldKind::Integer };
const OTHER_INDEXES: &[Index] =
    &[Index { name: "size", fields: &[SIZE] }, Index { name: "kind", fields: &[KIND] }];
const EPOCH: Epoch = Epoch::first(7);

pub(crate) fn new_build(collection: &str) -> NewBuild {
    NewBuild {
        collection: collection.to_owned(),
        projection: collection.split('@').next().unwrap().to_owned(),
        version: 1,
        epoch: EPOCH,
        indexes: &[Index { name: "size", fields: &[KIND, SIZE] }],
        text: &[],
    }
}

pub(crate) fn checkpoint(position: u64) -> Checkpoint {
    Checkpoint { epoch: EPOCH, position: Some(Position::from_engine(position)) }
}

pub(crate) fn batch(writes: &[(&str, u64, Option<&str>)], to: u64) -> Batch {
    let writes = writes.iter().map(|(key, position, body)| Write {
        key: (*key).to_owned(),
        position: Position::from_engine(*position),
        body: body.map(str::to_owned),
        is_new: false,
    });
    Batch { writes: writes.collect(), parked: Vec::new(), checkpoint: checkpoint(to), after: None }
}

/// The same batch from a fold that does not know its documents.
fn new(batch: &Batch) -> Batch {
    let mut batch = batch.clone();
    batch.writes.iter_mut().for_each(|write| write.is_new = true);
    batch
}

pub(crate) async fn run(store: &dyn ReadModels) {
    builds_and_aliases(store).await;
    notes(store).await;
    guards(store).await;
    set_backs(store).await;
    epochs_and_dead_letters(store).await;
    queries(store).await;
    scans(store).await;
    large_pages(store).await;
    upkeep::run(store).await;
    leases::run(store).await;
}

/// For stores that search texts.
pub(crate) async fn run_search(store: &dyn ReadModels) {
    search::run(store).await;
}

async fn builds_and_aliases(store: &dyn ReadModels) {
    assert_eq!(store.alias("things").await.unwrap(), None);
    store.create(new_build("things@1")).await.unwrap();
    store.create(new_build("things@1")).await.unwrap();
    store.create(new_build("things@2")).await.unwrap();
    let builds = store.builds().await.unwrap();
    let names: Vec<_> = builds.iter().map(|build| build.collection.as_str()).collect();
    assert_eq!(names, ["things@1", "things@2"]);
    assert_eq!(builds[0].checkpoint, Checkpoint { epoch: EPOCH, position: None });
    let one = || Some("things@1".to_owned());
    assert!(store.swap_alias("things", None, "things@1").await.unwrap());
    assert!(!store.swap_alias("things", None, "things@2").await.unwrap(), "the alias stands already");
    assert_eq!(store.live("things").await.unwrap(), one());
    assert!(store.swap_alias("things", one(), "things@2").await.unwrap());
    assert_eq!(
        store.live("things").await.unwrap().as_deref(),
        Some("things@2"),
        "what was changed here counts"
    );
    assert!(!store.swap_alias("things", one(), "things@1").await.unwrap(), "the alias stands elsewhere");
    assert_eq!(store.alias("things").await.unwrap().as_deref(), Some("things@2"));
    assert!(store.is_whole("things@1").await.unwrap());
    store.drop_build("things@1").await.unwrap();
    store.drop_build("things@1").await.unwrap();
    assert!(!store.is_whole("things@1").await.unwrap());
    let gone = store.write("things@1", batch(&[], 1).into()).await.unwrap_err();
    assert!(matches!(gone, ReadModelError::NoBuild { .. }), "{gone}");
    for gone in [store.get("things@1", "a").await.err(), store.scan("things@1", None, 1).await.err()] {
        let expected = ReadModelError::NoBuild { collection: "things@1".to_owned() };
        assert_eq!(gone, Some(expected));
    }
    assert!(store.create(new_build("no such form")).await.is_err());
    // Indexes that are there may be asked for again, with other fields too; a build that is gone
    // does not come back by it.
    for indexes in [new_build("things@2").indexes, OTHER_INDEXES, OTHER_INDEXES] {
        store.index_build(NewBuild { indexes, ..new_build("things@2") }).await.unwrap();
    }
    let gone = store.index_build(new_build("things@1")).await.unwrap_err();
    assert!(matches!(gone, ReadModelError::NoBuild { .. }), "{gone}");
}

async fn notes(store: &dyn ReadModels) {
    let text = |text: &str| Some(text.to_owned());
    let swaps = [
        (None, None, true),
        (None, text("a"), true),
        (None, text("b"), false),
        (text("b"), text("c"), false),
        (text("a"), text("a"), true),
        (text("a"), text("b"), true),
        (text("a"), None, false),
        (None, None, false),
        (text("b"), None, true),
    ];
    for (expected, note, done) in swaps {
        let before = store.note("work").await.unwrap();
        assert_eq!(store.swap_note("work", expected, note.clone()).await.unwrap(), done);
        assert_eq!(store.note("work").await.unwrap(), if done { note } else { before });
    }
    assert_eq!(store.note("other").await.unwrap(), None);
}

async fn guards(store: &dyn ReadModels) {
    let (first, second) = (
        batch(&[("a", 1, Some("1")), ("b", 2, Some("1"))], 2),
        batch(&[("a", 3, None), ("b", 4, Some("2")), ("c", 5, Some("1"))], 6),
    );
    store.create(new_build("guards@1")).await.unwrap();
    // The same batches again, late and overlapping, change nothing, whatever is taken for new.
    for batch in [&new(&first), &second, &first, &new(&second), &batch(&[("b", 4, Some("0"))], 4)] {
        store.write("guards@1", batch.clone().into()).await.unwrap();
    }
    let keys = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let mut stored = store.load("guards@1", keys).await.unwrap();
    stored.sort_by(|a, b| a.key.cmp(&b.key));
    let written = second.writes.iter().cloned();
    let written = written.map(|Write { key, position, body, .. }| Stored { key, position, body });
    assert_eq!(stored, written.collect::<Vec<_>>());
    let build = store.builds().await.unwrap().into_iter().find(|build| build.collection == "guards@1");
    assert_eq!(build.unwrap().checkpoint, checkpoint(6), "a checkpoint never steps back");
    assert_eq!(store.get("guards@1", "a").await.unwrap(), None, "a tombstone is no document");
    assert_eq!(store.count("guards@1").await.unwrap(), 2);
    assert_eq!(keys_of(&store.scan("guards@1", None, 9).await.unwrap()), ["b", "c"]);
    assert_eq!(keys_of(&store.scan("guards@1", Some("b".into()), 9).await.unwrap()), ["c"]);
    // Documents that are there, older and newer, and one that is not.
    let mixed = new(&batch(&[("a", 9, Some("3")), ("b", 3, Some("0")), ("d", 8, Some("4"))], 9));
    store.write("guards@1", mixed.into()).await.unwrap();
    for (key, body) in [("a", "3"), ("b", "2"), ("d", "4")] {
        assert_eq!(store.get("guards@1", key).await.unwrap().unwrap().body, body, "{key}");
    }
}

/// A page of large documents is a short one.
async fn scans(store: &dyn ReadModels) {
    store.create(new_build("large@1")).await.unwrap();
    let body = format!("{:?}", "x".repeat(SCAN_BYTES_MAX / 2));
    let large = ["a", "b", "c"].map(|key| (key, 1, Some(&*body)));
    store.write("large@1", batch(&large[..2], 1).into()).await.unwrap();
    store.write("large@1", batch(&large[2..], 1).into()).await.unwrap();
    for (after, limit, wanted) in
        [(None, 9, &["a", "b"][..]), (None, 1, &["a"]), (Some("b"), 9, &["c"]), (Some("c"), 9, &[])]
    {
        let found = store.scan("large@1", after.map(str::to_owned), limit).await.unwrap();
        assert_eq!(keys_of(&found), wanted, "after {after:?}");
    }
    store.drop_build("large@1").await.unwrap();
}

/// Of large documents no more are read than a page needs, and page by page they are all shown.
async fn large_pages(store: &dyn ReadModels) {
    const DOCUMENTS: usize = 24;
    store.create(new_build("members@1")).await.unwrap();
    let body = format!("{:?}", "x".repeat(FIND_BYTES_MAX * 4 / 3));
    let room = StreamId::room(&"den".parse().unwrap());
    let keys: Vec<_> = (10..10 + DOCUMENTS).map(|number| format!("{room}/{number}")).collect();
    for keys in keys.chunks(8) {
        let writes: Vec<_> = keys.iter().map(|key| (key.as_str(), 1, Some(&*body))).collect();
        store.write("members@1", batch(&writes, 1).into()).await.unwrap();
    }
    let key_prefix = Some(format!("{room}/"));
    let (equal, sort, after) = (Vec::new(), None, None);
    let query = Query { key_prefix, equal, sort, direction: Direction::Ascending, after, limit: DOCUMENTS };
    let found = store.find("members@1", query).await.unwrap();
    assert!((2..DOCUMENTS).contains(&found.len()), "{} were read at once", found.len());
    assert_eq!(keys_of(&found), keys[..found.len()]);
    assert!(store.swap_alias("members", None, "members@1").await.unwrap());
    let (mut after, mut shown) = (None, 0);
    loop {
        let page = queries::members(store, &room, after, DOCUMENTS).await.unwrap();
        shown += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(shown, DOCUMENTS);
    store.drop_build("members@1").await.unwrap();
}

/// A store that lost what it had acknowledged tells so, until a run goes on from what is there.
async fn set_backs(store: &dyn ReadModels) {
    store.create(new_build("back@1")).await.unwrap();
    let going_on = async || store.index_build(new_build("back@1")).await.unwrap();
    let after = |after: u64, to: u64| {
        let batch = batch(&[("a", to, Some("1"))], to);
        Batch { after: Some(Position::from_engine(after)), ..batch }
    };
    let of_documents = |after: u64, to: u64| {
        let mut batch = self::batch(&[("a", to, Some("1"))], to);
        (batch.after, batch.checkpoint.position) = (Some(Position::from_engine(after)), None);
        batch
    };
    let set_back = |written: Result<(), ReadModelError>| {
        let error = written.unwrap_err();
        assert!(matches!(error, ReadModelError::SetBack { .. }), "{error}");
    };
    set_back(store.write("back@1", after(3, 5).into()).await);
    going_on().await;
    store.write("back@1", batch(&[], 5).into()).await.unwrap();
    set_back(store.write("back@1", of_documents(6, 7).into()).await);
    set_back(store.write("back@1", after(6, 7).into()).await);
    going_on().await;
    let build = store.builds().await.unwrap().into_iter().find(|build| build.collection == "back@1");
    assert_eq!(build.unwrap().checkpoint, checkpoint(5));
    assert_eq!(
        store.get("back@1", "a").await.unwrap(),
        None,
        "nothing of what was folded from more is there"
    );
    for _ in 0..2 {
        store.write("back@1", after(5, 8).into()).await.unwrap();
    }
    // A batch that comes late goes on from what was there then.
    store.write("back@1", after(5, 7).into()).await.unwrap();
    store.drop_build("back@1").await.unwrap();
}

async fn epochs_and_dead_letters(store: &dyn ReadModels) {
    store.create(new_build("letters@1")).await.unwrap();
    let letter = |key: &str, position| DeadLetter {
        key: key.to_owned(),
        position: Position::from_engine(position),
        event: "Happened".to_owned(),
        error: "it cannot have".to_owned(),
    };
    let mut parking = batch(&[], 5);
    parking.parked = vec![letter("b", 3), letter("a", 4)];
    store.write("letters@1", parking.clone().into()).await.unwrap();
    store.write("letters@1", parking.clone().into()).await.unwrap();
    assert_eq!(store.dead_letters("letters@1").await.unwrap(), parking.parked);
    // A later letter of a key takes the place of an earlier one, and not the other way.
    let mut again = batch(&[], 5);
    again.parked = vec![letter("b", 2), letter("a", 5), letter("c", 5)];
    store.write("letters@1", again.into()).await.unwrap();
    let left = [letter("b", 3), letter("a", 5), letter("c", 5)];
    assert_eq!(store.dead_letters("letters@1").await.unwrap(), left);

    let mut other = batch(&[("x", 9, Some("1"))], 9);
    other.checkpoint.epoch = EPOCH.raised();
    let refused = store.write("letters@1", other.into()).await.unwrap_err();
    assert!(matches!(refused, ReadModelError::OtherEpoch { .. }), "{refused}");
    assert_eq!(store.get("letters@1", "x").await.unwrap(), None, "nothing of it was written");
    store.drop_build("letters@1").await.unwrap();
    store.create(new_build("letters@1")).await.unwrap();
    assert_eq!(store.dead_letters("letters@1").await.unwrap(), []);
}

async fn queries(store: &dyn ReadModels) {
    store.create(new_build("queries@1")).await.unwrap();
    let body = |kind: &str, size: i64| format!(r#"{{"kind":"{kind}","size":{size}}}"#);
    let (cat2, cat9, dog2) = (body("cat", 2), body("cat", 9), body("dog", 2));
    let writes = [
        ("r/1", 1, Some(cat9.as_str())),
        ("r/2", 2, Some(cat2.as_str())),
        ("r/3", 3, Some(cat2.as_str())),
        ("r/4", 4, Some(dog2.as_str())),
        ("r/5", 5, None),
        ("r0", 6, Some(cat2.as_str())),
    ];
    store.write("queries@1", batch(&writes, 6).into()).await.unwrap();
    let all = Query {
        key_prefix: None,
        equal: Vec::new(),
        sort: None,
        direction: Direction::Ascending,
        after: None,
        limit: 10,
    };
    let of_kind = vec![(KIND, Value::Text("cat".into()))];
    let room = Query { key_prefix: Some("r/".into()), ..all.clone() };
    let by_size = Query { equal: of_kind.clone(), sort: Some(SIZE), ..room.clone() };
    let largest = Query { direction: Direction::Descending, ..by_size.clone() };
    let cases: [(Query, &[&str]); 6] = [
        (room.clone(), &["r/1", "r/2", "r/3", "r/4"]),
        (Query { direction: Direction::Descending, ..room.clone() }, &["r/4", "r/3", "r/2", "r/1"]),
        (Query { equal: of_kind.clone(), ..all.clone() }, &["r/1", "r/2", "r/3", "r0"]),
        (Query { equal: vec![(SIZE, Value::Integer(2))], ..room.clone() }, &["r/2", "r/3", "r/4"]),
        (by_size.clone(), &["r/2", "r/3", "r/1"]),
        (largest.clone(), &["r/1", "r/3", "r/2"]),
    ];
    for (query, expected) in cases {
        assert_eq!(keys_of(&store.find("queries@1", query.clone()).await.unwrap()), expected, "{query:?}");
        let mut paged = Vec::new();
        let mut page = Query { limit: 1, ..query.clone() };
        while let Some(found) = store.find("queries@1", page.clone()).await.unwrap().pop() {
            let json: serde_json::Value = serde_json::from_str(&found.body).unwrap();
            let value = page.sort.map(|_| Value::Integer(json["size"].as_i64().unwrap()));
            page.after = Some(Place { value, key: found.key.clone() });
            paged.push(found.key);
        }
        assert_eq!(paged, expected, "page by page: {query:?}");
    }
    let place = Place { value: None, key: "r/1".into() };
    assert!(store.find("queries@1", Query { after: Some(place), ..by_size }).await.is_err());
}

fn keys_of(documents: &[super::Document]) -> Vec<&str> {
    documents.iter().map(|document| document.key.as_str()).collect()
}
