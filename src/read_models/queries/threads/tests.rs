//! Threads of which much is not in the timeline, or large.

use super::*;
use crate::read_models::contract::{batch, new_build};
use crate::read_models::sqlite::SqliteReadModels;

const ROOT: Revision = Revision::new(1);

/// A thread of so many replies, and the messages among them that the timeline has.
async fn store(folder: &tempfile::TempDir, replies: u64, messages: &[(u64, &str)]) -> SqliteReadModels {
    let (store, room) = (SqliteReadModels::open(folder.path().join("read.db")).unwrap(), room());
    for (projection, collection) in [(Replies::NAME, "replies@1"), (Timeline::NAME, "timeline@1")] {
        store.create(new_build(collection)).await.unwrap();
        assert!(store.swap_alias(projection, None, collection).await.unwrap());
    }
    let replies = (2..2 + replies).map(|revision| {
        let body = format!(
            r#"{{"tenant":"main","room":"den","root":1,"revision":{revision},"reply_to":1,"by":"bob","posted_at":1}}"#
        );
        (Replies::key(&room, ROOT, Revision::new(revision)), body)
    });
    let messages = messages
        .iter()
        .map(|(revision, body)| (Timeline::key(&room, Revision::new(*revision)), (*body).to_owned()));
    for (collection, documents) in
        [("replies@1", replies.collect::<Vec<_>>()), ("timeline@1", messages.collect())]
    {
        let writes: Vec<_> =
            documents.iter().map(|(key, body)| (key.as_str(), 1, Some(body.as_str()))).collect();
        store.write(collection, batch(&writes, 1).into()).await.unwrap();
    }
    store
}

fn room() -> StreamId {
    StreamId::room(&"den".parse().unwrap())
}

#[tokio::test]
async fn a_page_without_a_message_says_where_to_go_on() {
    let (folder, many) = (tempfile::tempdir().unwrap(), u64::try_from(PAGES_MAX).unwrap() * 3);
    let store = store(&folder, many, &[(1 + many, "1")]).await;
    let (mut after, mut shown, mut pages) = (None, Vec::new(), 0);
    loop {
        let Said { items, next } = messages(&store, &room(), ROOT, after, 1).await.unwrap();
        shown.extend(items);
        pages += 1;
        assert!(next.is_none() || next > after, "{next:?} after {after:?}");
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((shown.len(), pages), (1, 3), "the last reply alone has a message");
}

#[tokio::test]
async fn of_large_messages_a_page_reads_a_slice_and_not_the_thread() {
    let folder = tempfile::tempdir().unwrap();
    let large = format!("{:?}", "x".repeat(PAGE_BYTES_MAX * 2 / 3));
    let there: Vec<_> = (1..40).map(|revision| (revision, large.as_str())).collect();
    let store = store(&folder, 38, &there).await;
    // Whatever reads this one is told that it is damaged.
    let damaged = Timeline::key(&room(), Revision::new(30));
    let beside = rusqlite::Connection::open(folder.path().join("read.db")).unwrap();
    let damage = "UPDATE \"documents timeline@1\" SET position = -1 WHERE key = ?";
    assert_eq!(beside.execute(damage, [damaged]).unwrap(), 1);
    for shown in 1..=13 {
        let after = (shown > 1).then(|| Revision::new(shown - 1));
        let Said { items, next } = messages(&store, &room(), ROOT, after, 100).await.unwrap();
        assert_eq!((items.len(), next), (1, Some(Revision::new(shown))), "a page holds one of them");
    }
    messages(&store, &room(), ROOT, Some(Revision::new(20)), 100).await.unwrap_err();
}
