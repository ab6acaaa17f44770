//! What jobs leave behind.

use super::builds::{REBUILD, job_in};
use super::odd::{Fate, Odd};
use super::*;

#[tokio::test]
async fn a_cancelled_build_is_dropped_although_another_is_ordered_at_once() {
    let folder = Place::new();
    let log = ScriptedLog::new(EPOCH);
    let (held, position) = (Arc::new(AtomicBool::new(true)), log.write(STORY));
    let holds = held.clone();
    let store = Odd::over(folder.store(), move |call, of| {
        let waits = of == "rooms@2" && matches!(call, "drop_build" | "write") && holds.load(Ordering::SeqCst);
        if waits { Fate::failed() } else { Fate::Answered }
    });
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    projector.order("rooms", REBUILD).await.unwrap();
    let names = async || -> Vec<String> {
        let builds = store.builds().await.unwrap().into_iter().map(|build| build.collection);
        builds.filter(|collection| collection.starts_with("rooms@")).collect()
    };
    let made = async {
        while names().await.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, made).await.unwrap();
    projector.wish("rooms", Wish::Cancel).await.unwrap();
    projector.order("rooms", REBUILD).await.unwrap();
    held.store(false, Ordering::SeqCst);
    job_in(&projector, "rooms", JobState::Done).await;
    let left = async {
        while names().await != ["rooms@1", "rooms@3"] {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LONG, left).await.is_ok(), "{:?}", names().await);
    projector.stop().await;
}
