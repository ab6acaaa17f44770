//! Answers that are lost, calls that fail and work that never ends: what a projector does then.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;

use super::builds::{REBUILD, job_in};
use super::gather::Found;
use super::odd::{Fate, Odd};
use super::*;

/// Waits until a projection stands so.
async fn stands(projector: &Projector, projection: &str, so: impl Fn(&Status) -> bool) {
    let mut status = projector.watch(projection).unwrap();
    let Ok(there) = tokio::time::timeout(LONG, status.wait_for(|status| so(status))).await else {
        panic!("{:?}", projector.watch(projection).unwrap().borrow());
    };
    there.unwrap();
}

fn timeline(log: &Arc<ScriptedLog>, store: &Arc<dyn ReadModels>, page: usize) -> Projector {
    let timeline = dramatis_projections::named("timeline").unwrap();
    Projector::start_some(&[timeline], log.clone(), store.clone(), options(page))
}

async fn rebuilt(projector: &Projector) -> Job {
    projector.order("timeline", REBUILD).await.unwrap();
    job_in(projector, "timeline", JobState::Done).await
}

const MORE: &str = r#"lobby alice MessagePosted {"kind":"text","text":"more"}"#;

#[tokio::test]
async fn a_switch_whose_answer_is_lost_is_found_out() {
    let place = Place::new();
    let (log, loses) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
    let next = loses.clone();
    let store = Odd::over(place.store(), move |call, _| {
        let lost = call == "swap_alias" && next.swap(false, Ordering::SeqCst);
        if lost { Fate::Lost } else { Fate::Answered }
    });
    let position = log.write(STORY);
    let projector = timeline(&log, &store, 2);
    projector.wait_for("timeline", position, LONG).await.unwrap();

    loses.store(true, Ordering::SeqCst);
    let job = rebuilt(&projector).await;
    assert_eq!(store.alias("timeline").await.unwrap(), Some(job.collection.clone()));
    stands(&projector, "timeline", |status| status.collection == job.collection).await;
    let position = log.write(MORE);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    assert_eq!(store.count(&job.collection).await.unwrap(), 3, "what was waited for is in the live build");
    let kept = |expected: &'static str| {
        move |status: &Status| status.kept.iter().map(|kept| kept.collection.as_str()).eq([expected])
    };
    stands(&projector, "timeline", kept("timeline@1")).await;

    // The same on the way back.
    loses.store(true, Ordering::SeqCst);
    assert!(matches!(projector.roll_back("timeline").await, Err(AdminError::Run(_))));
    assert_eq!(store.alias("timeline").await.unwrap().as_deref(), Some("timeline@1"));
    stands(&projector, "timeline", |status| status.collection == "timeline@1").await;
    let position = log.write(MORE);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    assert_eq!(store.count("timeline@1").await.unwrap(), 4);
    stands(&projector, "timeline", kept("timeline@2")).await;
    assert_eq!(projector.roll_back("timeline").await.unwrap().to, "timeline@2");
    projector.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_document_waits_for_nothing_that_is_looked_up_beside_it() {
    let place = Place::new();
    let (log, slow) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
    let ((open, held), (asks, mut asked)) = (watch::channel(false), watch::channel(BTreeSet::new()));
    let is_slow = slow.clone();
    let store = Odd::over(place.store(), move |call, _| {
        // What each begins with: what is under way already goes on to its end, and the next one is held.
        if !is_slow.load(Ordering::SeqCst) || !["alias", "lease"].contains(&call) {
            return Fate::Answered;
        }
        asks.send_if_modified(|asked| asked.insert(call.to_owned()));
        Fate::Held(held.clone())
    });
    let timeline = dramatis_projections::named("timeline").unwrap();
    // Renewed beside the steps when a third of it is over, and no later than when two are.
    let options = Options { lease: Duration::from_secs(15), ..options(2) };
    let position = log.write(STORY);
    let projector = Projector::start_some(&[timeline], log.clone(), store.clone(), options);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    slow.store(true, Ordering::SeqCst);
    let all = asked.wait_for(|asked| asked.contains("alias") && asked.contains("lease"));
    assert!(tokio::time::timeout(LONG, all).await.is_ok(), "both are asked for");
    let position = log.write(MORE);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    drop(open);
    projector.stop().await;
}

#[tokio::test]
async fn a_rollback_ends_although_the_log_grows_with_every_page() {
    let place = Place::new();
    let (log, busy) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
    let (growing, grows) = (log.clone(), busy.clone());
    let store = Odd::over(place.store(), move |call, _| {
        if call == "write" && grows.load(Ordering::SeqCst) {
            growing.write(MORE);
        }
        Fate::Answered
    });
    let position = log.write(STORY);
    let projector = timeline(&log, &store, 100);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    rebuilt(&projector).await;
    busy.store(true, Ordering::SeqCst);
    log.write(MORE);
    let back = tokio::time::timeout(LONG, projector.roll_back("timeline")).await;
    busy.store(false, Ordering::SeqCst);
    assert_eq!(back.expect("it ends").unwrap().to, "timeline@1");
    let position = log.head.borrow().unwrap();
    projector.wait_for("timeline", position, LONG).await.unwrap();
    projector.stop().await;
}

#[tokio::test]
async fn a_start_that_stumbles_finds_the_build_under_way_all_the_same() {
    let place = Place::new();
    let log = ScriptedLog::new(EPOCH);
    let position = log.write(STORY);
    let store = place.store();
    let projector = timeline(&log, &store, 1);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    rebuilt(&projector).await;
    let slow = Order { events_per_s_max: Some(1), ..REBUILD };
    projector.order("timeline", slow).await.unwrap();
    projector.wish("timeline", Wish::Pause).await.unwrap();
    projector.stop().await;
    for stumbles_at in 0..24 {
        let calls = AtomicUsize::new(0);
        let stumbling = Odd::over(store.clone(), move |_, _| {
            let stumbles = calls.fetch_add(1, Ordering::SeqCst) == stumbles_at;
            if stumbles { Fate::failed() } else { Fate::Answered }
        });
        let projector = timeline(&log, &stumbling, 1);
        let job = job_in(&projector, "timeline", JobState::Paused).await;
        assert_eq!(job.collection, "timeline@3", "call {stumbles_at} failed");
        projector.stop().await;
    }
    // The build before may be lost for good.
    let broken = Odd::over(store.clone(), |call, of| {
        if call == "index_build" && of == "timeline@1" { Fate::failed() } else { Fate::Answered }
    });
    let projector = timeline(&log, &broken, 1);
    job_in(&projector, "timeline", JobState::Paused).await;
    stands(&projector, "timeline", |status| status.health == Health::Live).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_proof_that_never_ends_is_cancelled_and_stopped() {
    let place = Place::new();
    let (log, scans) = (ScriptedLog::new(EPOCH), watch::Sender::new(0_u64));
    let scanned = scans.clone();
    let store = Odd::over(place.store(), move |call, _| {
        if call == "scan" {
            scanned.send_modify(|scans| *scans += 1);
        }
        Fate::Again
    });
    let position = log.write(STORY);
    let as_of = Order { purpose: Purpose::AsOf { position }, ..REBUILD };
    for order in [REBUILD, as_of] {
        let projector = timeline(&log, &store, 100);
        projector.wait_for("timeline", position, LONG).await.unwrap();
        for cancelled in [true, false] {
            let job = projector.order("timeline", order).await.unwrap();
            let mut seen = scans.subscribe();
            let from = *seen.borrow();
            let proving = seen.wait_for(|scans| *scans > from + 10);
            tokio::time::timeout(LONG, proving).await.expect("it is compared").unwrap();
            if cancelled {
                projector.wish("timeline", Wish::Cancel).await.unwrap();
                let gone = async {
                    while store.builds().await.unwrap().iter().any(|build| build.collection == job.collection)
                    {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(LONG, gone).await.expect("it is cancelled");
            }
        }
        tokio::time::timeout(LONG, projector.stop()).await.expect("it stops");
        // Nothing of it is lost: the next one goes on, and is told to end.
        let projector = timeline(&log, &store, 100);
        stands(&projector, "timeline", |status| !status.collection.is_empty()).await;
        projector.wish("timeline", Wish::Cancel).await.unwrap();
        projector.stop().await;
    }
}

/// A store whose calls of this name wait while it says so, and how many do.
pub(super) fn held(
    store: Arc<dyn ReadModels>,
    name: &'static str,
) -> (Arc<dyn ReadModels>, watch::Sender<bool>, watch::Receiver<u64>) {
    let (open, opened) = watch::channel(true);
    let (waits, waiting) = watch::channel(0_u64);
    let store = Odd::over(store, move |call, _| {
        if call != name || *opened.borrow() {
            return Fate::Answered;
        }
        waits.send_modify(|waits| *waits += 1);
        Fate::Held(opened.clone())
    });
    (store, open, waiting)
}

pub(super) async fn one_waits(waiting: &mut watch::Receiver<u64>) {
    tokio::time::timeout(LONG, waiting.wait_for(|waits| *waits > 0)).await.expect("it asks").unwrap();
}

#[tokio::test]
async fn what_a_build_read_before_an_admins_word_is_told_no_more() {
    let place = Place::new();
    let log = ScriptedLog::new(EPOCH);
    let (store, open, mut waiting) = held(place.store(), "builds");
    let position = log.write(STORY);
    let projector = timeline(&log, &store, 1);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    projector.order("timeline", Order { events_per_s_max: Some(1), ..REBUILD }).await.unwrap();
    let mut told = projector.watch_job("timeline").unwrap();
    let reads = |job: &Option<JobProgress>| job.as_ref().is_some_and(|job| job.position.is_some());
    tokio::time::timeout(LONG, told.wait_for(reads)).await.unwrap().unwrap();
    open.send_replace(false);
    projector.wish("timeline", Wish::Pause).await.unwrap();
    // It has read that it is paused, and is to look how far it got.
    one_waits(&mut waiting).await;
    projector.wish("timeline", Wish::Resume).await.unwrap();
    assert_eq!(told.borrow_and_update().as_ref().unwrap().job.state, JobState::Building);
    open.send_replace(true);
    tokio::time::timeout(LONG, told.changed()).await.unwrap().unwrap();
    assert_eq!(told.borrow().as_ref().unwrap().job.state, JobState::Building);
    projector.stop().await;
}

#[tokio::test]
async fn how_long_it_is_behind_counts_from_what_it_lacks() {
    let place = Place::new();
    let (log, clock) = (ScriptedLog::new(EPOCH), crate::clock::ManualClock::default());
    let (store, open, mut waiting) = held(place.store(), "lease");
    let position = log.write(STORY);
    clock.set(UnixMillis::new(100_000));
    let timeline = dramatis_projections::named("timeline").unwrap();
    let options = Options { lease: Duration::from_millis(300), ..options(9) };
    let (of_log, time) = (log.clone(), Arc::new(clock.clone()));
    let projector = Projector::start_these(&[timeline], of_log, store, time, options, Handles::here());
    projector.wait_for("timeline", position, LONG).await.unwrap();
    stands(&projector, "timeline", |status| status.behind_since.is_none()).await;
    open.send_replace(false);
    one_waits(&mut waiting).await;
    clock.set(UnixMillis::new(160_000));
    let position = log.write(MORE);
    stands(&projector, "timeline", |status| status.behind_since == Some(UnixMillis::new(160_000))).await;
    clock.set(UnixMillis::new(163_000));
    assert_eq!(projector.status().remove(0).lag_ms, 3_000);
    open.send_replace(true);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    stands(&projector, "timeline", |status| status.behind_since.is_none()).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_question_to_a_build_that_was_switched_from_is_asked_again() {
    let place = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), place.store());
    let position = log.write(STORY);
    let projector = timeline(&log, &store, 9);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    rebuilt(&projector).await;
    projector.stop().await;
    let alias =
        async |from: &str, to: &str| store.swap_alias("timeline", Some(from.into()), to).await.unwrap();
    assert!(alias("timeline@2", "timeline@1").await);
    store.drop_build("timeline@1").await.unwrap();
    // The switch comes between the look at the alias and the question.
    let switched = || store.swap_alias("timeline", Some("timeline@1".into()), "timeline@2");
    let get = |build: &str| store.get(build, "room-main.lobby/00000000000000000002");
    let late = |build: &str| -> crate::read_models::Answer<_> {
        let (switched, got) = (switched(), get(build));
        Box::pin(async { switched.await.and(got.await) })
    };
    let found = queries::of_live(store.as_ref(), "timeline", late).await;
    assert!(found.unwrap().flatten().is_some());
    // Where the alias stays, the build is gone indeed.
    assert!(alias("timeline@2", "timeline@1").await);
    let gone = queries::of_live(store.as_ref(), "timeline", get).await;
    assert!(matches!(gone, Err(crate::read_models::ReadModelError::NoBuild { .. })), "{gone:?}");
}

#[tokio::test]
async fn what_a_store_acknowledged_and_lost_is_written_again() {
    let place = Place::new();
    let (log, forgets) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
    let (next, saved) = (forgets.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = saved.clone();
    let store = Odd::over(place.store(), move |call, _| {
        counted.fetch_add(usize::from(call == "checkpoint"), Ordering::SeqCst);
        if call == "write" && next.load(Ordering::SeqCst) { Fate::Forgotten } else { Fate::Answered }
    });
    log.write(STORY);
    let projector = timeline(&log, &store, 2);
    let mut said = 0;
    for forgotten in [false, true, false] {
        forgets.store(forgotten, Ordering::SeqCst);
        // Until the next checkpoint is written, too.
        let before = saved.load(Ordering::SeqCst);
        while saved.load(Ordering::SeqCst) == before {
            let position = log.write(MORE);
            said += 1;
            projector.wait_for("timeline", position, LONG).await.unwrap();
        }
    }
    // That one is found to stand before what was acknowledged, while others go on.
    let began = std::time::Instant::now();
    while store.count("timeline@1").await.unwrap() != 2 + said {
        assert!(began.elapsed() < LONG, "what was lost is not written again");
        let position = log.write(MORE);
        said += 1;
        projector.wait_for("timeline", position, LONG).await.unwrap();
    }

    // The same while a build is made.
    let lost = AtomicUsize::new(0);
    let forgetful = Odd::over(store.clone(), move |call, of| {
        let forgotten = call == "write" && of == "timeline@2" && lost.fetch_add(1, Ordering::SeqCst) == 1;
        if forgotten { Fate::Forgotten } else { Fate::Answered }
    });
    projector.stop().await;
    let projector = timeline(&log, &forgetful, 1);
    assert_eq!(rebuilt(&projector).await.completion.unwrap().documents, 2 + said);
    projector.stop().await;
}

#[tokio::test(start_paused = true)]
async fn checkpoints_are_written_now_and_then() {
    for (projection, batches) in [("timeline", 50), ("sessions", 0)] {
        let place = Place::new();
        let (log, writes) = (ScriptedLog::new(EPOCH), Arc::new(AtomicUsize::new(0)));
        let counted = writes.clone();
        let store = Odd::over(place.store(), move |call, _| {
            counted.fetch_add(usize::from(call == "write"), Ordering::SeqCst);
            Fate::Answered
        });
        let named = dramatis_projections::named(projection).unwrap();
        let shared = shared(&log, &store, 100);
        let mut run = run::Run::create(&shared, named, "built@1".into()).await.unwrap();
        let saved = async || store.builds().await.unwrap()[0].checkpoint.position;
        for _ in 0..50 {
            let position = log.write(MORE);
            assert!(run.step().await.unwrap());
            assert_eq!(run.position, Some(position), "it is known how far it is");
        }
        assert_eq!((writes.load(Ordering::SeqCst), saved().await), (batches, None), "{projection}");
        // In time, behind what comes next or without it, and when it is to be.
        tokio::time::advance(Duration::from_secs(1)).await;
        log.write(MORE);
        run.step().await.unwrap();
        run.saved().await.unwrap();
        assert_eq!(saved().await, run.position, "{projection}");
        log.write(MORE);
        run.step().await.unwrap();
        run.saved().await.unwrap();
        assert!(saved().await < run.position, "{projection}");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!run.step().await.unwrap());
        run.saved().await.unwrap();
        assert_eq!(saved().await, run.position, "{projection}");
        log.write(MORE);
        run.step().await.unwrap();
        run.save().await.unwrap();
        assert_eq!(saved().await, run.position, "{projection}");
    }
}

#[tokio::test]
async fn documents_that_are_written_again_are_told_from_new_ones() {
    let place = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&place));
    log.write(STORY);
    let shared = shared(&log, &store, 100);
    for (projection, found) in
        [("rooms", Found::Again), ("timeline", Found::New), ("members", Found::Nothing)]
    {
        let named = dramatis_projections::named(projection).unwrap();
        let mut run = run::Run::create(&shared, named, format!("{projection}@1")).await.unwrap();
        run.step().await.unwrap();
        assert_eq!(run.found, Found::New, "{projection}: the first time they are new");
        log.write(MORE);
        run.step().await.unwrap();
        assert_eq!(run.found, found, "{projection}");
    }
}

/// The record is not to say that what queries get was cancelled.
#[tokio::test]
async fn a_build_that_is_cancelled_as_it_is_switched_to_is_live_and_done() {
    let place = Place::new();
    let log = ScriptedLog::new(EPOCH);
    let (store, open, mut waits) = held(place.store(), "swap_alias");
    let position = log.write(STORY);
    let projector = timeline(&log, &store, 2);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    open.send_replace(false);
    let job = projector.order("timeline", REBUILD).await.unwrap();
    tokio::time::timeout(LONG, waits.wait_for(|waits| *waits > 0)).await.unwrap().unwrap();
    assert_eq!(projector.wish("timeline", Wish::Cancel).await.unwrap().state, JobState::Cancelled);
    open.send_replace(true);
    assert_eq!(job_in(&projector, "timeline", JobState::Done).await.collection, job.collection);
    stands(&projector, "timeline", |status| status.collection == job.collection).await;
    let position = log.write(MORE);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    assert_eq!(store.count(&job.collection).await.unwrap(), 3);
    projector.stop().await;
}

/// They are purged a minute after they were first seen, and may be many.
#[tokio::test]
async fn who_waits_for_a_document_does_not_wait_for_tombstones_to_be_purged() {
    let place = Place::new();
    let log = ScriptedLog::new(EPOCH);
    let (store, open, waits) = held(place.store(), "purge_tombstones");
    let position = log.write(STORY);
    let projector = timeline(&log, &store, 2);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    open.send_replace(false);
    let mut minutes = 0;
    while *waits.borrow() == 0 {
        minutes += 1;
        assert!(minutes < 500, "they are purged");
        tokio::time::pause();
        tokio::time::advance(Duration::from_mins(1)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let position = log.write(MORE);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    assert_eq!(*waits.borrow(), 1, "one at a time");
    open.send_replace(true);
    projector.stop().await;
}

/// A batch that waits for the store may have a checkpoint of its own with it.
#[tokio::test(start_paused = true)]
async fn no_checkpoint_is_written_past_a_batch_that_failed() {
    let place = Place::new();
    let (log, down) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
    let is_down = down.clone();
    let store = Odd::over(place.store(), move |_, _| {
        if is_down.load(Ordering::SeqCst) { Fate::failed() } else { Fate::Answered }
    });
    let shared = shared(&log, &store, 100);
    let timeline = dramatis_projections::named("timeline").unwrap();
    let mut run = run::Run::create(&shared, timeline, "built@1".into()).await.unwrap();
    log.write(MORE);
    run.step().await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    let position = log.write(MORE);
    down.store(true, Ordering::SeqCst);
    run.step().await.unwrap_err();
    tokio::time::advance(Duration::from_secs(1)).await;
    down.store(false, Ordering::SeqCst);
    run.step().await.unwrap();
    run.saved().await.unwrap();
    assert_eq!(run.position, Some(position));
    assert_eq!(store.builds().await.unwrap()[0].checkpoint.position, Some(position));
    assert_eq!(store.count("built@1").await.unwrap(), 2);
}

#[tokio::test]
async fn a_store_that_answers_again_is_gone_on_with_at_once() {
    let place = Place::new();
    let (log, down) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(true)));
    let is_down = down.clone();
    let store = Odd::over(place.store(), move |_, _| {
        if is_down.load(Ordering::SeqCst) { Fate::failed() } else { Fate::Answered }
    });
    let position = log.write(STORY);
    let timeline = dramatis_projections::named("timeline").unwrap();
    let (backoff_min, backoff_max) = (Duration::from_hours(1), Duration::from_hours(2));
    let options = Options { backoff_min, backoff_max, ..options(2) };
    let projector = Projector::start_some(&[timeline], log.clone(), store.clone(), options);
    stands(&projector, "timeline", |status| matches!(status.health, Health::Retrying { .. })).await;
    down.store(false, Ordering::SeqCst);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    projector.stop().await;
}
