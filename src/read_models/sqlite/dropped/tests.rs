//! Dropping builds of very many documents.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use dramatis_projections::TextField;

use super::*;
use crate::read_models::sqlite::{SqliteReadModels, open_reader};
use crate::read_models::{Direction, NewBuild, Query, ReadModelError, ReadModels, Search, contract};

const DOCUMENTS: u64 = 30_000;
const TEXT: &[TextField] = &[TextField { name: "title", weight: 1 }];

fn texts() -> NewBuild {
    NewBuild { text: TEXT, ..contract::new_build("texts@1") }
}

fn cats() -> Search {
    let (text, key_prefix, equal) = ("cat".to_owned(), None, Vec::new());
    Search { text, key_prefix, equal, sort: None, skip: 0, limit: 9 }
}

/// A store with a build of very many documents, and a small one.
async fn filled(file: &Path) -> SqliteReadModels {
    let store = SqliteReadModels::open(file).unwrap();
    store.create(texts()).await.unwrap();
    store.create(contract::new_build("rooms@1")).await.unwrap();
    let body = |at: u64| format!(r#"{{"kind":"text","size":{at},"title":"cat number{at} of many"}}"#);
    let documents: Vec<_> = (1..=DOCUMENTS).map(|at| (format!("k{at}"), at, body(at))).collect();
    for documents in documents.chunks(5_000) {
        let writes = documents.iter().map(|(key, at, body)| (key.as_str(), *at, Some(body.as_str())));
        store.write("texts@1", contract::batch(&writes.collect::<Vec<_>>(), DOCUMENTS).into()).await.unwrap();
    }
    store
        .write("texts@1", contract::batch(&[("k7", DOCUMENTS + 1, None)], DOCUMENTS + 1).into())
        .await
        .unwrap();
    store
}

/// How many rows of dropped builds there are yet.
fn left(connection: &Connection) -> i64 {
    let tables = tables(connection).unwrap().into_iter().filter(|(name, kind)| {
        kind == "table" || ["_data", "_idx", "_docsize"].iter().any(|end| name.ends_with(end))
    });
    let count = |(name, _)| {
        connection
            .query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    tables.map(count).sum()
}

/// Until nothing of dropped builds is in the file, which is well then.
async fn gone(file: &Path) {
    let reader = open_reader(file).unwrap();
    let emptied = async {
        while !tables(&reader).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), emptied).await.expect("it is emptied within a minute");
    let check: String = reader.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn a_large_build_is_dropped_little_by_little_between_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("read.db");
    let store = filled(&file).await;
    let (go, goes) = mpsc::channel::<()>();
    let holds = store.writer.run(move |_| {
        goes.recv().unwrap();
        Ok(())
    });
    // All of these wait behind it, so that nothing is left to chance.
    let dropped = store.drop_build("texts@1");
    let mut answers = Vec::new();
    for at in 1..=60 {
        let batch = contract::batch(&[("a", at, Some("{}"))], at);
        answers.push((
            store.write("rooms@1", batch.into()),
            store.writer.run(|connection| Ok(left(connection))),
        ));
    }
    go.send(()).unwrap();
    holds.await.unwrap();
    dropped.await.unwrap();
    let mut seen = Vec::new();
    for (written, left) in answers {
        written.await.unwrap();
        seen.push(left.await.unwrap());
    }
    assert!(seen[0] >= DOCUMENTS.cast_signed() * 2, "documents and words are there yet: {seen:?}");
    let slices = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(slices, 7, "one for every 16 of 121 jobs: {seen:?}");
    let steps = seen.windows(2).map(|pair| usize::try_from(pair[0] - pair[1]).unwrap());
    assert!(steps.max() <= Some(SLICE_ROWS_MAX), "{seen:?}");
    gone(&file).await;
    assert_eq!(store.builds().await.unwrap().len(), 1);
}

/// Leaves the large build as a process does that ends while it is dropped.
async fn cut_off(file: &Path) {
    drop(filled(file).await);
    let mut connection = Connection::open(file).unwrap();
    set_aside(&mut connection, "texts@1").unwrap();
    for _ in 0..40 {
        assert!(slice(&mut connection).unwrap());
    }
    assert!(left(&connection) > 0);
}

#[tokio::test]
async fn a_drop_that_was_cut_off_goes_on_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("read.db");
    cut_off(&file).await;
    let _store = SqliteReadModels::open(&file).unwrap();
    gone(&file).await;
}

#[tokio::test]
async fn what_is_half_emptied_is_no_build_and_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("read.db");
    cut_off(&file).await;
    let store = SqliteReadModels::open(&file).unwrap();
    let (go, goes) = mpsc::channel::<()>();
    let holds = store.writer.run(move |_| {
        goes.recv().unwrap();
        Ok(())
    });
    let builds: Vec<_> = store.builds().await.unwrap().into_iter().map(|build| build.collection).collect();
    assert_eq!(builds, ["rooms@1"]);
    assert!(!store.is_whole("texts@1").await.unwrap());
    let (key_prefix, equal, sort, after) = (None, Vec::new(), None, None);
    let query = Query { key_prefix, equal, sort, direction: Direction::Ascending, after, limit: 9 };
    let answers = [
        store.find("texts@1", query).await.err(),
        store.scan("texts@1", None, 9).await.err(),
        store.search("texts@1", cats()).await.err(),
        store.load("texts@1", vec!["k9".to_owned()]).await.err(),
        store.count("texts@1").await.err(),
    ];
    for answer in answers {
        assert_eq!(answer, Some(ReadModelError::NoBuild { collection: "texts@1".to_owned() }));
    }
    // One of its name may be made while it goes, and dropped while that is.
    let made = store.create(texts());
    let write = contract::batch(&[("a", 1, Some(r#"{"title":"cat"}"#)), ("b", 2, None)], 2);
    let written = store.write("texts@1", write.clone().into());
    let dropped = store.drop_build("texts@1");
    let made_again = store.create(texts());
    let written_again = store.write("texts@1", write.into());
    go.send(()).unwrap();
    for done in [holds, made, written, dropped, made_again, written_again] {
        done.await.unwrap();
    }
    gone(&file).await;
    assert_eq!(store.search("texts@1", cats()).await.unwrap().len(), 1);
    let purged = store.purge_tombstones("texts@1", contract::checkpoint(2).position.unwrap()).await.unwrap();
    assert_eq!(purged, 1);
    let reader = open_reader(&file).unwrap();
    let indexes = "SELECT count(*) FROM sqlite_master WHERE tbl_name = 'documents texts@1' AND type = 'index' AND sql IS NOT NULL";
    assert_eq!(reader.query_row(indexes, [], |row| row.get::<_, i64>(0)).unwrap(), 2, "its own indexes");
}
