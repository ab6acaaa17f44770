//! The contract on a file, and what a file is beside that.

use std::io::Read as _;

use super::*;
use crate::read_models::contract;

#[tokio::test]
async fn it_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteReadModels::open(folder.path().join("read.db")).unwrap();
    contract::run(&store).await;
    contract::run_search(&store).await;
}

#[tokio::test]
async fn a_store_comes_back_after_it_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read.db");
    let store = SqliteReadModels::open(&path).unwrap();
    store.create(contract::new_build("rooms@1")).await.unwrap();
    store.write("rooms@1", contract::batch(&[("a", 3, Some("{}"))], 7).into()).await.unwrap();
    drop(store);
    let store = SqliteReadModels::open(&path).unwrap();
    assert_eq!(store.count("rooms@1").await.unwrap(), 1);
    assert_eq!(store.builds().await.unwrap()[0].checkpoint, contract::checkpoint(7));
}

#[tokio::test]
async fn the_write_ahead_log_is_begun_anew_however_much_is_written() {
    /// What its head says of how often it was begun: <https://sqlite.org/fileformat2.html#walformat>.
    fn begun(log: &std::path::Path) -> u32 {
        let mut head = [0; 16];
        std::fs::File::open(log).unwrap().read_exact(&mut head).unwrap();
        u32::from_be_bytes(*head.last_chunk().unwrap())
    }
    const PAGE_BYTES: u64 = 4_096;
    let folder = tempfile::tempdir().unwrap();
    let (path, log) = (folder.path().join("read.db"), folder.path().join("read.db-wal"));
    let store = SqliteReadModels::open(&path).unwrap();
    store.create(contract::new_build("rooms@1")).await.unwrap();
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    let (first, mut at) = (begun(&log), 0);
    while begun(&log) == first {
        at += 1;
        let key = at.to_string();
        store.write("rooms@1", contract::batch(&[(&key, at, Some(&body))], at).into()).await.unwrap();
        let pages = std::fs::metadata(&log).unwrap().len() / PAGE_BYTES;
        assert!(pages < u64::from(mover::PAGES_MAX) * 2, "{pages} pages wait to be moved");
    }
    let pages = std::fs::metadata(&log).unwrap().len() / PAGE_BYTES;
    assert!(pages >= u64::from(mover::MOVED_PAGES), "moved after {pages} pages");
    assert!(
        std::fs::metadata(&path).unwrap().len() >= (at - 1) * 100_000,
        "all but the last are in the file"
    );
}

#[tokio::test]
async fn a_long_search_holds_up_other_searches_alone_and_few_of_them() {
    const TEXT: &[dramatis_projections::TextField] =
        &[dramatis_projections::TextField { name: "title", weight: 1 }];
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteReadModels::open(folder.path().join("read.db")).unwrap();
    store.create(NewBuild { text: TEXT, ..contract::new_build("texts@1") }).await.unwrap();
    let search = || {
        let (text, key_prefix, equal) = ("cat".to_owned(), None, Vec::new());
        store.search("texts@1", Search { text, key_prefix, equal, sort: None, skip: 0, limit: 9 })
    };
    // Whichever thread makes searches has one that does not end.
    let (begun, long) = (tokio::sync::oneshot::channel::<()>(), std::sync::mpsc::channel::<()>());
    let (begins, ends) = (begun.0, long.1);
    let longest = store.searcher.run(move |_| {
        begins.send(()).unwrap();
        ends.recv().unwrap();
        Ok(())
    });
    begun.1.await.unwrap();
    let first = search();
    for at in 0..10_u64 {
        store
            .write("texts@1", contract::batch(&[("a", at, Some(r#"{"title":"cat"}"#))], at).into())
            .await
            .unwrap();
        assert_eq!(store.load("texts@1", vec!["a".into()]).await.unwrap().len(), 1);
        assert_eq!(store.scan("texts@1", None, 9).await.unwrap().len(), 1);
    }
    let mut others: Vec<_> = (2..SEARCHES_MAX).map(|_| search()).collect();
    let ran = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let runs = ran.clone();
    others.push(store.searcher.ask(move |_| {
        runs.store(true, Ordering::SeqCst);
        Ok(Vec::new())
    }));
    let refused = search().await.unwrap_err();
    assert!(refused.to_string().contains("64 such requests wait already"), "{refused}");
    // Nobody waits for these any more.
    drop(others);
    long.0.send(()).unwrap();
    longest.await.unwrap();
    assert_eq!(first.await.unwrap().len(), 1);
    assert_eq!(search().await.unwrap().len(), 1);
    assert!(!ran.load(Ordering::SeqCst), "what nobody waits for is not run");
}

#[tokio::test]
async fn counting_holds_up_nothing_but_counts() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteReadModels::open(folder.path().join("read.db")).unwrap();
    store.create(contract::new_build("rooms@1")).await.unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let counting = store.counter.run(move |_| {
        released.recv().unwrap();
        Ok(())
    });
    let count = tokio::spawn(store.count("rooms@1"));
    for at in 0..20_u64 {
        store.write("rooms@1", contract::batch(&[("a", at, Some("{}"))], at).into()).await.unwrap();
        assert_eq!(store.load("rooms@1", vec!["a".into()]).await.unwrap().len(), 1);
    }
    assert!(!count.is_finished(), "it waits where the others do");
    release.send(()).unwrap();
    counting.await.unwrap();
    assert_eq!(count.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_count_that_takes_long_is_given_up_and_the_next_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteReadModels::open(folder.path().join("read.db")).unwrap();
    store.create(contract::new_build("rooms@1")).await.unwrap();
    let keys: Vec<_> = (0..20_000).map(|number| format!("k{number}")).collect();
    let writes: Vec<_> = (1..).zip(&keys).map(|(at, key)| (key.as_str(), at, Some("{}"))).collect();
    store.write("rooms@1", contract::batch(&writes, 20_000).into()).await.unwrap();
    let table = schema::table("rooms@1").unwrap();
    let counted =
        store.counter.run(move |connection| count::count(connection, "read.db", &table, Duration::ZERO));
    let error = counted.await.unwrap_err();
    assert!(error.to_string().contains("counting took longer than 0 ms"), "{error}");
    assert_eq!(store.count("rooms@1").await.unwrap(), 20_000);
}

#[tokio::test]
async fn lists_of_rooms_walk_an_index() {
    use crate::read_models::{Direction, Place, Value};
    use dramatis_projections::{Projection, Rooms};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read.db");
    let store = SqliteReadModels::open(&path).unwrap();
    store.create(NewBuild { indexes: Rooms::INDEXES, ..contract::new_build("rooms@1") }).await.unwrap();
    for index in Rooms::INDEXES {
        let [tenant, sort] = index.fields else { panic!("{index:?}") };
        let query = Query {
            key_prefix: None,
            equal: vec![(*tenant, Value::Text("main".into()))],
            sort: Some(*sort),
            direction: Direction::Descending,
            after: Some(Place { value: Some(Value::Integer(5)), key: "k".into() }),
            limit: 10,
        };
        let (sql, values) = schema::select("rooms@1", &query).unwrap();
        let reader = open_reader(&path).unwrap();
        let mut plan = reader.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = plan.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
        let steps = steps.map(Result::unwrap).collect::<Vec<_>>().join("; ");
        assert!(steps.contains(&format!("USING INDEX {} rooms@1", index.name)), "{steps}");
        assert!(!steps.contains("TEMP B-TREE"), "{steps}");
    }
}

#[tokio::test]
async fn indexes_are_made_once_and_anew_when_they_change() {
    use dramatis_projections::{Field, FieldKind, Index};
    const WEIGHT: Field = Field { name: "weight", kind: FieldKind::Integer };
    const CHANGED: &[Index] = &[Index { name: "size", fields: &[WEIGHT] }];

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read.db");
    let store = SqliteReadModels::open(&path).unwrap();
    store.create(contract::new_build("things@1")).await.unwrap();
    let reader = open_reader(&path).unwrap();
    let schema = || -> (i64, String) {
        let version = reader.pragma_query_value(None, "schema_version", |row| row.get(0)).unwrap();
        let sql = "SELECT group_concat(sql) FROM sqlite_master WHERE type = 'index' AND name LIKE 'size%'";
        (version, reader.query_row(sql, (), |row| row.get(0)).unwrap())
    };
    let first = schema();
    store.index_build(contract::new_build("things@1")).await.unwrap();
    assert_eq!(schema(), first, "nothing is made twice");
    store.index_build(NewBuild { indexes: CHANGED, ..contract::new_build("things@1") }).await.unwrap();
    assert!(schema().1.contains("weight") && !schema().1.contains("kind"), "{:?}", schema());
}

#[test]
fn damaged_and_foreign_files_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, "no database ".repeat(1_000)).unwrap();
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE cats (name TEXT)").unwrap();
    for path in [garbage, foreign] {
        let Err(error) = SqliteReadModels::open(&path) else { panic!("{} was opened", path.display()) };
        assert!(matches!(error, ReadModelError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("delete it"), "{error}");
    }
}
