//! A changed fold: the build before serves on until its successor is accepted.

use dramatis_projections::{FoldError, Room, Rooms};

use super::builds::{REBUILD, forge, job_in};
use super::troubles::{held, one_waits};
use super::*;

rooms_folded!(
    /// The second version of the fold of rooms.
    Second,
    Rooms::VERSION + 1,
    |document: &mut Option<Room>, recorded: &Recorded, event: &RoomEvent| {
        Rooms::fold(document, recorded, event)?;
        if let Some(room) = document {
            room.message_count *= 10;
        }
        Ok(())
    }
);

rooms_folded!(
    /// The same fold under another version.
    Same,
    Rooms::VERSION + 1,
    Rooms::fold
);

fn start(
    version: &'static dyn DynProjection,
    log: &Arc<ScriptedLog>,
    store: &Arc<dyn ReadModels>,
    options: Options,
) -> Projector {
    Projector::start_these(
        &[version],
        log.clone(),
        store.clone(),
        Arc::new(SystemClock),
        options,
        Handles::here(),
    )
}

async fn first(folder: &Place) -> (Arc<ScriptedLog>, Arc<dyn ReadModels>) {
    let (log, store) = (ScriptedLog::new(EPOCH), store(folder));
    let position = log.write(STORY);
    let projector = start(&Rooms, &log, &store, options(2));
    projector.wait_for("rooms", position, LONG).await.unwrap();
    projector.stop().await;
    (log, store)
}

async fn messages(store: &dyn ReadModels) -> serde_json::Value {
    let alias = store.alias("rooms").await.unwrap().unwrap();
    let body = store.get(&alias, "room-main.lobby").await.unwrap().unwrap().body;
    serde_json::from_str::<serde_json::Value>(&body).unwrap()["message_count"].clone()
}

const ONE_MORE: &str = r#"lobby alice MessagePosted {"kind":"text","text":"more"}"#;

#[tokio::test]
async fn a_changed_fold_shows_its_differences_and_waits() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    // It has moved on since the old build stopped.
    let position = log.write(ONE_MORE);
    let projector = start(&Second, &log, &store, options(2));
    let job = job_in(&projector, "rooms", JobState::Differs).await;
    let difference = job.difference.unwrap();
    assert_eq!(difference.documents, 1, "{difference:?}");
    assert_eq!(difference.shown[0].fields, ["message_count"]);
    let status = projector.status().remove(0);
    let Health::Frozen { reason } = status.health else { panic!("{status:?}") };
    assert!(reason.contains("rooms@1") && reason.contains("accept rooms"), "{reason}");
    assert_eq!(messages(store.as_ref()).await, 2, "queries get the old build as it stands");
    let waited = projector.wait_for("rooms", position, Duration::from_millis(1)).await;
    assert!(matches!(waited, Err(WaitError::TimedOut { .. })), "{waited:?}");

    // A restart changes nothing of that.
    projector.stop().await;
    let projector = start(&Second, &log, &store, options(2));
    assert_eq!(job_in(&projector, "rooms", JobState::Differs).await.collection, job.collection);
    projector.wish("rooms", Wish::Accept).await.unwrap();
    job_in(&projector, "rooms", JobState::Done).await;
    projector.wait_for("rooms", position, LONG).await.unwrap();
    assert_ne!(messages(store.as_ref()).await, 2);

    // The way back is open, and holds: nothing is built anew unasked.
    projector.roll_back("rooms").await.unwrap();
    assert_eq!(messages(store.as_ref()).await, 2);
    projector.stop().await;
    let projector = start(&Second, &log, &store, options(2));
    let mut status = projector.watch("rooms").unwrap();
    let frozen = |status: &Status| matches!(status.health, Health::Frozen { .. });
    tokio::time::timeout(LONG, status.wait_for(frozen)).await.unwrap().unwrap();
    assert_eq!(job_in(&projector, "rooms", JobState::Done).await.collection, job.collection);
    // The first version goes on with its build as if nothing had been.
    projector.stop().await;
    let projector = start(&Rooms, &log, &store, options(2));
    projector.wait_for("rooms", position, LONG).await.unwrap();
    assert_eq!(messages(store.as_ref()).await, 3);
    projector.stop().await;
}

#[tokio::test]
async fn what_is_parked_in_a_frozen_build_is_told_and_stays() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    log.write(r#"den bob MessagePosted {"text":"no kind"}"#);
    let position = log.write(ONE_MORE);
    let projector = start(&Rooms, &log, &store, options(2));
    projector.wait_for("rooms", position, LONG).await.unwrap();
    projector.stop().await;
    let projector = start(&Second, &log, &store, options(2));
    job_in(&projector, "rooms", JobState::Differs).await;
    let told = async || {
        let status = stands(&projector, |status| matches!(status.health, Health::Frozen { .. })).await;
        let letters = projector.dead_letters("rooms").await.unwrap();
        assert_eq!((&*status.parked, letters.len()), (&letters, 1));
        let waits = projector.status().remove(0).waits("room-main.den").map(|letter| letter.position);
        assert!(waits.is_some() && waits < Some(position), "{waits:?}");
        for skip in [false, true] {
            let refused = projector.mend("rooms", "room-main.den", skip).await;
            let Err(error @ AdminError::Frozen { .. }) = refused else { panic!("{refused:?}") };
            assert!(error.to_string().contains("projections"), "it says what to do: {error}");
        }
        let other = projector.mend("rooms", "room-main.lobby", false).await;
        assert!(matches!(other, Err(AdminError::NotParked { .. })), "{other:?}");
    };
    told().await;
    // The same where it is gone back to.
    projector.wish("rooms", Wish::Accept).await.unwrap();
    job_in(&projector, "rooms", JobState::Done).await;
    projector.roll_back("rooms").await.unwrap();
    told().await;
    projector.stop().await;
}

#[tokio::test]
async fn a_changed_fold_is_switched_to_where_that_is_wished() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    let projector = start(&Second, &log, &store, Options { accept_new_versions: true, ..options(2) });
    let job = job_in(&projector, "rooms", JobState::Done).await;
    assert_eq!(job.difference.unwrap().documents, 1, "it is shown all the same");
    assert_ne!(messages(store.as_ref()).await, 2);
    projector.stop().await;
}

#[tokio::test]
async fn a_cancelled_successor_is_built_when_asked() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    let projector = start(&Second, &log, &store, options(2));
    job_in(&projector, "rooms", JobState::Differs).await;
    projector.wish("rooms", Wish::Cancel).await.unwrap();
    job_in(&projector, "rooms", JobState::Cancelled).await;
    projector.stop().await;
    let projector = start(&Second, &log, &store, options(2));
    job_in(&projector, "rooms", JobState::Cancelled).await;
    projector.order("rooms", Order { accept: true, ..REBUILD }).await.unwrap();
    job_in(&projector, "rooms", JobState::Done).await;
    assert_ne!(messages(store.as_ref()).await, 2);
    projector.stop().await;
}

#[tokio::test]
async fn who_waits_is_not_answered_with_a_build_that_was_left_behind() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    let fails = Arc::new(AtomicBool::new(false));
    let next = fails.clone();
    let store = super::odd::Odd::over(store, move |call, _| {
        let refused = call == "swap_alias" && next.swap(false, Ordering::SeqCst);
        if refused { super::odd::Fate::failed() } else { super::odd::Fate::Answered }
    });
    let (store, open, mut waiting) = held(store, "swap_alias");
    let accepting = Options { accept_new_versions: true, ..options(2) };
    let projector = start(&Second, &log, &store, accepting);
    job_in(&projector, "rooms", JobState::Done).await;
    let position = log.write(ONE_MORE);
    projector.wait_for("rooms", position, LONG).await.unwrap();
    fails.store(true, Ordering::SeqCst);
    projector.roll_back("rooms").await.unwrap_err();
    stands(&projector, |status| status.position == Some(position)).await;
    open.send_replace(false);
    let meanwhile = async {
        one_waits(&mut waiting).await;
        let status = projector.status_of("rooms").unwrap();
        open.send_replace(true);
        status
    };
    let (back, meanwhile) = tokio::join!(projector.roll_back("rooms"), meanwhile);
    assert_eq!(back.unwrap().to, "rooms@1");
    assert!(meanwhile.position < Some(position), "queries may read it by then: {meanwhile:?}");
    projector.stop().await;
}

async fn stands(projector: &Projector, so: impl Fn(&Status) -> bool) -> Status {
    let mut status = projector.watch("rooms").unwrap();
    let Ok(there) = tokio::time::timeout(LONG, status.wait_for(|status| so(status))).await else {
        panic!("{:?}", projector.status());
    };
    there.unwrap().clone()
}

/// The job, once it is done.
async fn done(projector: &Projector, ordered: &Job) -> Job {
    let mut progress = projector.watch_job("rooms").unwrap();
    let is_done = |job: &Job| job.collection == ordered.collection && job.state == JobState::Done;
    let there =
        progress.wait_for(|progress| progress.as_ref().is_some_and(|progress| is_done(&progress.job)));
    tokio::time::timeout(LONG, there).await.unwrap().unwrap().as_ref().unwrap().job.clone()
}

fn is_told(status: &Status, what: &str) -> bool {
    matches!(&status.health, Health::Frozen { reason } if reason.contains(what))
}

#[tokio::test]
async fn a_frozen_build_is_verified_where_it_stands() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    let at = *log.head.borrow();
    log.write(ONE_MORE);
    for (version, documents) in [(&Second as &'static dyn DynProjection, Some(1)), (&Same, None)] {
        let held = Options { accept_new_versions: false, ..options(2) };
        let projector = start(version, &log, &store, held);
        stands(&projector, |status| is_told(status, "as it stands")).await;
        let job = projector.job("rooms").unwrap();
        if job.is_none_or(|progress| progress.job.state.is_active()) {
            let _ = projector.wish("rooms", Wish::Cancel).await;
        }
        assert_eq!(store.alias("rooms").await.unwrap().as_deref(), Some("rooms@1"), "nothing was asked for");
        stands(&projector, |status| is_told(status, "rebuild rooms` builds")).await;
        let job = projector.order("rooms", Order { purpose: Purpose::Verify, ..REBUILD }).await.unwrap();
        let job = done(&projector, &job).await;
        assert_eq!((job.completion.unwrap().position, job.compared_frozen), (at, true));
        assert_eq!(job.difference.map(|difference| difference.documents), documents);
        projector.stop().await;
    }
}

#[tokio::test]
async fn what_was_rolled_back_from_is_not_built_again_whatever_else_is_ordered() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    let position = log.head.borrow().unwrap();
    let accepting = Options { accept_new_versions: true, ..options(2) };
    let projector = start(&Second, &log, &store, accepting.clone());
    job_in(&projector, "rooms", JobState::Done).await;
    projector.wait_for("rooms", position, LONG).await.unwrap();
    projector.roll_back("rooms").await.unwrap();
    for purpose in [Purpose::AsOf { position }, Purpose::Verify] {
        let job = projector.order("rooms", Order { purpose, ..REBUILD }).await.unwrap();
        done(&projector, &job).await;
    }
    projector.stop().await;
    let projector = start(&Second, &log, &store, accepting);
    stands(&projector, |status| is_told(status, "rebuild rooms` builds its successor")).await;
    assert_eq!(job_in(&projector, "rooms", JobState::Done).await.purpose, Purpose::Verify);
    assert_eq!(messages(store.as_ref()).await, 2);
    projector.stop().await;
}

#[tokio::test]
async fn a_build_that_freezes_during_another_job_has_its_successor_after_it() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    let projector = start(&Rooms, &log, &store, options(1));
    let slow = Order { purpose: Purpose::Verify, events_per_s_max: Some(1), accept: false };
    let job = projector.order("rooms", slow).await.unwrap();
    forge(store.as_ref(), "rooms@1", "room-main.den", log.head.borrow().unwrap()).await;
    log.write(r#"den bob MessagePosted {"kind":"text","text":"more"}"#);
    let after = format!("once {} is done", job.collection);
    stands(&projector, |status| is_told(status, &after)).await;
    projector.wish("rooms", Wish::Cancel).await.unwrap();
    let successor = job_in(&projector, "rooms", JobState::Differs).await;
    assert_eq!(successor.purpose, Purpose::Rebuild);
    stands(&projector, |status| is_told(status, "accept rooms")).await;
    // Cancelled, it is said to be.
    projector.wish("rooms", Wish::Cancel).await.unwrap();
    stands(&projector, |status| is_told(status, "rebuild rooms` builds its successor")).await;
    projector.stop().await;
}

#[tokio::test]
async fn an_unreadable_document_freezes_its_build_until_a_successor_is_accepted() {
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    forge(store.as_ref(), "rooms@1", "room-main.den", log.head.borrow().unwrap()).await;
    let before = log.write(ONE_MORE);
    let position = log.write(r#"den bob MessagePosted {"kind":"text","text":"more"}"#);
    let projector = start(&Rooms, &log, &store, options(1));
    let job = job_in(&projector, "rooms", JobState::Differs).await;
    let saved = store.builds().await.unwrap().remove(0).checkpoint.position;
    assert_eq!(saved, Some(before), "no crash takes away what nobody writes again");
    let difference = job.difference.unwrap();
    assert_eq!((difference.documents, difference.shown[0].key.as_str()), (1, "room-main.den"));
    let Health::Frozen { reason } = projector.status().remove(0).health else { panic!("it is frozen") };
    assert!(reason.contains("room-main.den") && reason.contains("accept rooms"), "{reason}");
    projector.stop().await;
    // A restart finds the same.
    let projector = start(&Rooms, &log, &store, options(2));
    job_in(&projector, "rooms", JobState::Differs).await;
    projector.wish("rooms", Wish::Accept).await.unwrap();
    job_in(&projector, "rooms", JobState::Done).await;
    projector.wait_for("rooms", position, LONG).await.unwrap();
    let den = store.get("rooms@2", "room-main.den").await.unwrap().unwrap();
    assert_eq!(den.position, position);
    projector.stop().await;
}

rooms_folded!(
    /// A version of the fold that can fold nothing.
    Hopeless,
    Rooms::VERSION + 1,
    |_: &mut Option<Room>, recorded: &Recorded, _: &RoomEvent| {
        Err(FoldError::Document { key: recorded.stream.to_string(), reason: "no hope".into() })
    }
);

#[tokio::test]
async fn a_build_that_parks_without_end_fails() {
    if on_mongodb() {
        // A server takes long for so many, and the limit is not its own.
        return;
    }
    let folder = Place::new();
    let (log, store) = first(&folder).await;
    for number in 0..10_001 {
        log.write(&format!(r#"r{number} bob RoomOpened {{"title":"Den","owner":"bob"}}"#));
    }
    let options = Options { accept_new_versions: true, ..options(5_000) };
    let projector = start(&Hopeless, &log, &store, options);
    let job = job_in(&projector, "rooms", JobState::Failed).await;
    assert!(job.error.unwrap().contains("at most 10000 more"));
    projector.stop().await;
}
