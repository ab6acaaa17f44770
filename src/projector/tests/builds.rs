//! Builds beside the live one: proven, held up, cut off, switched to and back from.

use super::*;
use crate::read_models::{Batch, Checkpoint};

pub(super) const REBUILD: Order = Order { purpose: Purpose::Rebuild, accept: false, events_per_s_max: None };

/// Waits until the last job of a projection is in a state, and answers it.
pub(super) async fn job_in(projector: &Projector, projection: &str, state: JobState) -> Job {
    let mut progress = projector.watch_job(projection).unwrap();
    let there =
        progress.wait_for(|progress| progress.as_ref().is_some_and(|progress| progress.job.state == state));
    let Ok(there) = tokio::time::timeout(LONG, there).await else {
        panic!("{projection} should come to {state:?}: {:?}", projector.job(projection));
    };
    there.unwrap().as_ref().unwrap().job.clone()
}

/// Writes a document that no event made into a live build.
pub(super) async fn forge(store: &dyn ReadModels, collection: &str, key: &str, position: Position) {
    let body = Some(r#"{"forged":true}"#.into());
    let forged = dramatis_projections::Write { key: key.into(), position, body, is_new: false };
    let checkpoint = Checkpoint { epoch: EPOCH, position: None };
    store
        .write(collection, Batch { writes: vec![forged], parked: Vec::new(), checkpoint, after: None }.into())
        .await
        .unwrap();
}

pub(super) async fn started(
    folder: &Place,
    page: usize,
) -> (Arc<ScriptedLog>, Arc<dyn ReadModels>, Projector) {
    let (log, store) = (ScriptedLog::new(EPOCH), store(folder));
    let position = log.write(STORY);
    let projector = Projector::start(log.clone(), store.clone(), options(page));
    reached(&projector, position).await;
    (log, store, projector)
}

#[tokio::test]
async fn a_rebuild_proves_itself_and_switches_and_there_is_a_way_back() {
    let folder = Place::new();
    let (log, store, projector) = started(&folder, 2).await;
    let before = dump(store.as_ref()).await;
    projector.order("timeline", REBUILD).await.unwrap();
    let job = job_in(&projector, "timeline", JobState::Done).await;
    assert_eq!((job.replaced.as_deref(), job.collection.as_str()), (Some("timeline@1"), "timeline@2"));
    let completion = job.completion.unwrap();
    assert_eq!((completion.documents, completion.position), (2, *log.head.borrow()));
    assert_eq!(job.difference, None);
    assert_eq!(dump(store.as_ref()).await, before);
    // Both builds go on with the log, so the way back loses nothing.
    let position = log.write(r#"lobby bob MessagePosted {"kind":"text","text":"after"}"#);
    reached(&projector, position).await;
    let back = projector.roll_back("timeline").await.unwrap();
    assert_eq!((back.from.as_str(), back.to.as_str()), ("timeline@2", "timeline@1"));
    assert_eq!(store.alias("timeline").await.unwrap().as_deref(), Some("timeline@1"));
    assert!(dump(store.as_ref()).await.contains("after"));
    let forth = projector.roll_back("timeline").await.unwrap();
    assert_eq!(forth.to, "timeline@2");
    projector.stop().await;
}

#[tokio::test]
async fn a_rebuild_that_differs_waits_for_an_admin() {
    let folder = Place::new();
    let (log, store, projector) = started(&folder, 2).await;
    let (key, head) = ("room-main.lobby/00000000000000000002", log.head.borrow().unwrap());
    forge(store.as_ref(), "timeline@1", key, head).await;

    projector.order("timeline", Order { purpose: Purpose::Verify, ..REBUILD }).await.unwrap();
    let verified = job_in(&projector, "timeline", JobState::Done).await;
    assert_eq!(verified.difference.unwrap().documents, 1, "the check tells and switches nothing");

    projector.order("timeline", REBUILD).await.unwrap();
    let job = job_in(&projector, "timeline", JobState::Differs).await;
    let difference = job.difference.unwrap();
    let shown: Vec<_> = difference.shown.iter().map(|document| document.key.as_str()).collect();
    assert_eq!((difference.documents, shown.as_slice()), (1, [key].as_slice()));
    assert!(difference.shown[0].fields.contains(&"forged".to_owned()), "{difference:?}");
    // Only what differs is shown.
    assert_eq!(difference.shown[0].live.as_deref(), Some(r#"{"forged":true}"#));
    assert_eq!(
        projector.order("timeline", REBUILD).await.unwrap_err().to_string(),
        "timeline has a build under way (differs): wait for its end, accept it or cancel it"
    );
    let refused = projector.wish("timeline", Wish::Pause).await.unwrap_err().to_string();
    assert!(refused.contains("told to pause") && refused.contains("accept it or cancel it"), "{refused}");
    assert!(dump(store.as_ref()).await.contains("forged"), "the live build stays");
    projector.wish("timeline", Wish::Accept).await.unwrap();
    job_in(&projector, "timeline", JobState::Done).await;
    assert!(!dump(store.as_ref()).await.contains("forged"));
    projector.stop().await;
}

#[tokio::test]
async fn what_never_goes_live_cannot_be_accepted() {
    let place = Place::new();
    let (log, _, projector) = started(&place, 1).await;
    let as_of = Purpose::AsOf { position: log.head.borrow().unwrap() };
    for purpose in [Purpose::Verify, as_of] {
        projector.order("timeline", Order { purpose, events_per_s_max: Some(1), ..REBUILD }).await.unwrap();
        let refused = projector.wish("timeline", Wish::Accept).await;
        assert!(matches!(refused, Err(AdminError::NotToSwitch { .. })), "{refused:?}");
        projector.wish("timeline", Wish::Cancel).await.unwrap();
    }
    projector.stop().await;
}

#[tokio::test]
async fn what_is_held_up_cannot_be_accepted() {
    let place = Place::new();
    let (_log, _, projector) = started(&place, 1).await;
    projector.order("timeline", Order { events_per_s_max: Some(1), ..REBUILD }).await.unwrap();
    projector.wish("timeline", Wish::Pause).await.unwrap();
    let refused = projector.wish("timeline", Wish::Accept).await.unwrap_err().to_string();
    assert!(refused.contains("resume it or cancel it"), "{refused}");
    let job = projector.wish("timeline", Wish::Resume).await.unwrap();
    assert!(!job.accept, "what was refused has no effect");
    projector.stop().await;
}

#[tokio::test]
async fn what_is_accepted_is_compared_again_if_it_has_moved_on() {
    let place = Place::new();
    let (log, store, projector) = started(&place, 2).await;
    let key = |revision: u64| format!("room-main.lobby/{revision:020}");
    forge(store.as_ref(), "timeline@1", &key(2), log.head.borrow().unwrap()).await;
    projector.order("timeline", REBUILD).await.unwrap();
    job_in(&projector, "timeline", JobState::Differs).await;
    let position = log.write(r#"lobby alice MessagePosted {"kind":"text","text":"meanwhile"}"#);
    reached(&projector, position).await;
    forge(store.as_ref(), "timeline@1", &key(3), position).await;
    projector.wish("timeline", Wish::Accept).await.unwrap();
    let job = job_in(&projector, "timeline", JobState::Done).await;
    // The record shows what was switched to, not what was looked at before.
    assert_eq!(job.difference.unwrap().documents, 2);
    assert_eq!(job.completion.unwrap().position, Some(position));
    assert!(!dump(store.as_ref()).await.contains("forged"));
    projector.stop().await;
}

#[tokio::test]
async fn a_rightly_empty_build_is_one() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    for lines in ["", r#"den bob RoomOpened {"title":"Den","owner":"bob"}"#] {
        let position = if lines.is_empty() { None } else { Some(log.write(lines)) };
        if let Some(position) = position {
            reached(&projector, position).await;
        }
        let replaced = store.alias("timeline").await.unwrap();
        let order = projector.order("timeline", REBUILD).await.unwrap();
        let done = |job: &Job| job.collection == order.collection && job.state == JobState::Done;
        let mut progress = projector.watch_job("timeline").unwrap();
        let ended =
            progress.wait_for(|progress| progress.as_ref().is_some_and(|progress| done(&progress.job)));
        let job = tokio::time::timeout(LONG, ended).await.unwrap().unwrap().clone().unwrap().job;
        let completion = job.completion.unwrap();
        assert_eq!((completion.position, completion.documents), (position, 0));
        assert_ne!(store.alias("timeline").await.unwrap(), replaced);
    }
    projector.stop().await;
}

#[tokio::test]
async fn a_build_is_held_up_resumed_over_a_restart_and_cancelled() {
    let folder = Place::new();
    let (log, store, projector) = started(&folder, 1).await;
    // So much, so slowly, that nothing but an admin ends it.
    let said = "lobby alice MessagePosted {\"kind\":\"text\",\"text\":\"more\"}\n";
    log.write(&said.repeat(150));
    let slow = Order { events_per_s_max: Some(1), ..REBUILD };
    projector.order("timeline", slow).await.unwrap();
    let mut progress = projector.watch_job("timeline").unwrap();
    let some = |progress: &Option<JobProgress>| progress.as_ref().is_some_and(|p| p.position.is_some());
    tokio::time::timeout(LONG, progress.wait_for(some)).await.unwrap().unwrap();
    projector.wish("timeline", Wish::Pause).await.unwrap();
    job_in(&projector, "timeline", JobState::Paused).await;
    projector.stop().await;

    let projector = Projector::start(log.clone(), store.clone(), options(1));
    let job = job_in(&projector, "timeline", JobState::Paused).await;
    let events = job.events;
    assert!(events < 150, "{job:?}");
    projector.wish("timeline", Wish::Resume).await.unwrap();
    job_in(&projector, "timeline", JobState::Building).await;
    projector.stop().await;
    // It goes on from where it was, unasked.
    let projector = Projector::start(log.clone(), store.clone(), options(1));
    let job = job_in(&projector, "timeline", JobState::Building).await;
    assert!(job.events >= events, "{job:?}");
    projector.wish("timeline", Wish::Cancel).await.unwrap();
    job_in(&projector, "timeline", JobState::Cancelled).await;
    let gone = async {
        while store.builds().await.unwrap().iter().any(|build| build.collection == job.collection) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
    assert!(projector.wish("timeline", Wish::Resume).await.is_err());
    projector.stop().await;
}

#[tokio::test]
async fn a_build_cut_off_anywhere_ends_right() {
    let folder = Place::new();
    let (log, store, projector) = started(&folder, 1).await;
    projector.stop().await;
    let before = dump(store.as_ref()).await;
    // Every try gets a little further, whatever it was at.
    let mut tries = 0;
    loop {
        let projector = Projector::start(log.clone(), store.clone(), options(1));
        if tries == 0 {
            projector.order("timeline", REBUILD).await.unwrap();
        }
        let mut progress = projector.watch_job("timeline").unwrap();
        for _ in 0..=tries / 2 {
            tokio::time::timeout(LONG, progress.changed()).await.unwrap().unwrap();
            if progress.borrow().as_ref().is_some_and(|progress| !progress.job.state.is_active()) {
                break;
            }
        }
        tries += 1;
        let state = progress.borrow().as_ref().map(|progress| progress.job.state);
        projector.stop().await;
        if state == Some(JobState::Done) {
            break;
        }
        assert!(tries < 200, "it never ends: {state:?}");
    }
    println!("cut off {} times", tries - 1);
    assert_eq!(store.alias("timeline").await.unwrap().as_deref(), Some("timeline@2"));
    assert_eq!(dump(store.as_ref()).await, before);
}

#[tokio::test]
async fn several_are_built_side_by_side_while_the_log_grows() {
    let folder = Place::new();
    let (log, store, projector) = started(&folder, 2).await;
    for projection in dramatis_projections::all() {
        projector.order(projection.name(), REBUILD).await.unwrap();
    }
    for number in 0..200 {
        log.write(&format!(r#"lobby bob MessagePosted {{"kind":"text","text":"m{number}"}}"#));
        tokio::task::yield_now().await;
    }
    for projection in dramatis_projections::all() {
        job_in(&projector, projection.name(), JobState::Done).await;
    }
    reached(&projector, log.head.borrow().unwrap()).await;
    projector.stop().await;
    let built = dump(store.as_ref()).await;
    let folder = Place::new();
    let fresh = super::store(&folder);
    let projector = Projector::start(log.clone(), fresh.clone(), options(50));
    reached(&projector, log.head.borrow().unwrap()).await;
    projector.stop().await;
    assert_eq!(dump(fresh.as_ref()).await, built);
}

#[tokio::test]
async fn one_projector_works_and_the_other_takes_over() {
    let folder = Place::new();
    let (log, store, first) = started(&folder, 2).await;
    let second = Options { holder: "9".into(), ..options(2) };
    let second = Projector::start(log.clone(), store.clone(), second);
    let mut status = second.watch("rooms").unwrap();
    let stands_by = |status: &Status| matches!(&status.health, Health::Standby { .. });
    tokio::time::timeout(LONG, status.wait_for(stands_by)).await.unwrap().unwrap();
    assert!(matches!(second.order("rooms", REBUILD).await, Err(AdminError::Elsewhere { .. })));
    // Who stands by knows how far the other is.
    let position = log.write(r#"den bob MessagePosted {"kind":"text","text":"both"}"#);
    reached(&second, position).await;
    first.stop().await;
    assert!(matches!(status.borrow().health, Health::Standby { .. }), "a restart is to find all as it was");
    super::copies::run_out(store.as_ref(), "alone").await;
    tokio::time::timeout(LONG, status.wait_for(|status| status.health == Health::Live))
        .await
        .unwrap()
        .unwrap();
    let position = log.write(r#"den bob MessagePosted {"kind":"text","text":"alone"}"#);
    reached(&second, position).await;
    second.stop().await;
}

#[tokio::test]
async fn what_another_log_has_there_answers_no_query() {
    let folder = Place::new();
    let (log, store, first) = started(&folder, 2).await;
    let other = ScriptedLog::new(Epoch::first(EPOCH.log() + 1));
    let second = Projector::start(other, store.clone(), Options { holder: "9".into(), ..options(2) });
    let mut status = second.watch("rooms").unwrap();
    let foreign = |status: &Status| status.health.as_str() == "foreign";
    tokio::time::timeout(LONG, status.wait_for(foreign)).await.unwrap().unwrap();
    let refused = status.borrow().refuses().unwrap();
    assert!(refused.contains("another log") && refused.contains(&EPOCH.to_string()), "{refused}");
    assert!(matches!(second.order("rooms", REBUILD).await, Err(AdminError::Foreign { .. })));
    assert_eq!(first.watch("rooms").unwrap().borrow().refuses(), None);
    let position = log.write(r#"den bob MessagePosted {"kind":"text","text":"undisturbed"}"#);
    reached(&first, position).await;
    // The history of the same log before it was cut is shown as it stands.
    let cut = ScriptedLog::new(EPOCH.raised());
    let third = Projector::start(cut, store.clone(), Options { holder: "10".into(), ..options(2) });
    let mut status = third.watch("rooms").unwrap();
    let stands_by = |status: &Status| status.health.as_str() == "standby" && !status.collection.is_empty();
    tokio::time::timeout(LONG, status.wait_for(stands_by)).await.unwrap().unwrap();
    assert_eq!(status.borrow().history, History::Earlier);
    for projector in [third, second, first] {
        projector.stop().await;
    }
}

#[tokio::test]
async fn an_order_that_comes_first_has_a_build_of_its_own() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    let job = projector.order("rooms", REBUILD).await.unwrap();
    assert_eq!(job.collection, "rooms@2");
    assert_eq!(job_in(&projector, "rooms", JobState::Done).await.replaced.as_deref(), Some("rooms@1"));
    projector.stop().await;
}

#[tokio::test]
async fn what_was_kept_is_dropped_in_time() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    let position = log.write(STORY);
    let clock = crate::clock::ManualClock::default();
    let options = Options { warm: Duration::from_mins(1), retention: Duration::from_mins(2), ..options(2) };
    let projector = Projector::start_these(
        dramatis_projections::all(),
        log.clone(),
        store.clone(),
        Arc::new(clock.clone()),
        options,
        Handles::here(),
    );
    reached(&projector, position).await;
    projector.order("rooms", REBUILD).await.unwrap();
    job_in(&projector, "rooms", JobState::Done).await;
    let names = || async {
        let builds = store.builds().await.unwrap().into_iter().map(|build| build.collection);
        builds.filter(|collection| collection.starts_with("rooms@")).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["rooms@1", "rooms@2"]);
    clock.set(UnixMillis::new(120_001));
    let dropped = async {
        while names().await.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, dropped).await.unwrap();
    assert!(matches!(projector.roll_back("rooms").await, Err(AdminError::NothingKept { .. })));
    projector.stop().await;
}

#[tokio::test]
async fn pages_of_a_build_grow_from_the_usual_ones() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    let line = r#"lobby alice MessagePosted {"kind":"text","text":"said"}"#;
    let head = log.write(&[line; 30].join("\n"));
    let shared = Shared {
        options: Options { page: ReadLimit::events(2), rebuild_page: ReadLimit::events(8), ..options(2) },
        ..shared(&log, &store, 2)
    };
    let timeline = dramatis_projections::named("timeline").unwrap();
    for (max, expected) in [(usize::MAX, &[2, 4, 8, 8, 8][..]), (3, &[2, 3, 3, 3, 3]), (1, &[1; 5])] {
        let collection = format!("timeline@{}", max.min(9));
        let mut run = run::Run::create(&shared, timeline, collection).await.unwrap();
        run.overlap(Some(max));
        for (at, page) in expected.iter().enumerate() {
            let before = run.events;
            run.step_to(Some(head)).await.unwrap();
            run.settle().await.unwrap();
            assert_eq!(run.events - before, *page, "page {at} of at most {max}");
        }
    }
}

/// As by an order to switch whose outcome nobody knew, and which the store takes later.
#[tokio::test]
async fn an_alias_that_somebody_else_moved_is_followed() {
    let folder = Place::new();
    let (log, store, projector) = started(&folder, 2).await;
    projector.order("rooms", REBUILD).await.unwrap();
    job_in(&projector, "rooms", JobState::Done).await;
    let names = ["rooms@2", "rooms@1"].map(str::to_owned);
    assert!(store.swap_alias("rooms", Some(names[0].clone()), &names[1]).await.unwrap());
    let mut status = projector.watch("rooms").unwrap();
    let follows = status.wait_for(|status| status.collection == names[1]);
    tokio::time::timeout(LONG, follows).await.unwrap().unwrap();
    let position = log.write(r#"lobby bob MessagePosted {"kind":"text","text":"after"}"#);
    reached(&projector, position).await;
    assert!(dump(store.as_ref()).await.contains("after"));
    projector.stop().await;
}
