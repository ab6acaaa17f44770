//! A store that cannot keep every read model, and indexes that came since a build was made.

use super::builds::REBUILD;
use super::odd::{Fate, Odd};
use super::*;
use crate::read_models::ReadModelError;

/// A store without full-text search.
fn without(place: &Place) -> Arc<dyn ReadModels> {
    Odd::over(place.store(), |call, of| {
        let reason = "it has no words".to_owned();
        match (call, of.split_once('@')) {
            ("create", Some(("search", _))) => {
                Fate::Refused(ReadModelError::Unsupported { what: "full-text search", reason })
            }
            _ => Fate::Answered,
        }
    })
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
    let projector = Projector::start(log.clone(), place.store(), options(2));
    reached(&projector, position).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_build_is_given_the_indexes_of_this_release_when_it_is_gone_on_with() {
    let place = Place::new();
    let (log, indexed) = (ScriptedLog::new(EPOCH), Arc::new(StdMutex::new(Vec::new())));
    let seen = indexed.clone();
    let store = Odd::over(place.store(), move |call, of| {
        if call == "index_build" {
            seen.lock().unwrap().push(of.to_owned());
        }
        Fate::Answered
    });
    let position = log.write(STORY);
    for expected in [vec![], vec!["rooms@1".to_owned()]] {
        let rooms = dramatis_projections::named("rooms").unwrap();
        let clock = Arc::new(SystemClock);
        let here = Handles::here();
        let projector = Projector::start_these(&[rooms], log.clone(), store.clone(), clock, options(9), here);
        projector.wait_for("rooms", position, LONG).await.unwrap();
        projector.stop().await;
        assert_eq!(*indexed.lock().unwrap(), expected);
    }
}
