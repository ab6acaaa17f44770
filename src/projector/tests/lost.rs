//! Stores that another log uses, histories that were cut, and what jobs leave behind.

use super::builds::{REBUILD, job_in, started};
use super::odd::{Fate, Odd};
use super::*;

const OTHER: Epoch = Epoch::first(EPOCH.log() + 1);

async fn stands(projector: &Projector, projection: &str, so: impl Fn(&Status) -> bool) -> Status {
    let mut status = projector.watch(projection).unwrap();
    let Ok(there) = tokio::time::timeout(LONG, status.wait_for(|status| so(status))).await else {
        panic!("{:?}", projector.watch(projection).unwrap().borrow());
    };
    there.unwrap().clone()
}

/// Whether a call is about a second build, the ones before being first ones.
fn is_second(of: &str) -> bool {
    of.ends_with("@2")
}

#[tokio::test]
async fn a_store_of_another_log_is_left_alone_unless_it_is_to_be_taken_over() {
    let folder = Place::new();
    let (log, store, first) = started(&folder, 2).await;
    first.stop().await;
    let before = dump(store.as_ref()).await;
    let other = ScriptedLog::new(OTHER);
    let position = other.write(STORY.lines().nth(1).unwrap());
    let second = Projector::start(other.clone(), store.clone(), Options { holder: "9".into(), ..options(2) });
    for projection in dramatis_projections::all() {
        let status = stands(&second, projection.name(), |status| status.refuses().is_some()).await;
        let refused = status.refuses().unwrap();
        assert!(refused.contains("take_over = \"0000000000000007\""), "{refused}");
        let refused = second.order(projection.name(), REBUILD).await;
        assert!(matches!(refused, Err(AdminError::Foreign { .. })), "{refused:?}");
    }
    // Whose it is takes it up again as if nothing had been.
    let first = Projector::start(log.clone(), store.clone(), options(2));
    let more = log.write(r#"den bob MessagePosted {"kind":"text","text":"undisturbed"}"#);
    reached(&first, more).await;
    assert_eq!(
        second.status().iter().filter(|status| status.health.as_str() == "foreign").count(),
        dramatis_projections::all().len()
    );
    first.stop().await;
    second.stop().await;
    let after = dump(store.as_ref()).await;
    assert!(after.contains("undisturbed") && after.lines().count() > before.lines().count(), "{after}");

    // Nor is anything of it shown while it is taken over.
    let held = Arc::new(AtomicBool::new(true));
    let holds = held.clone();
    let slow = Odd::over(store.clone(), move |call, of| {
        let waits = call == "write" && is_second(of) && holds.load(Ordering::SeqCst);
        if waits { Fate::failed() } else { Fate::Answered }
    });
    super::copies::run_out(store.as_ref(), "alone").await;
    let taking = Options { holder: "9".into(), take_over: Some(EPOCH.log()), ..options(2) };
    let second = Projector::start(other, slow, taking);
    let status = stands(&second, "rooms", |status| matches!(status.health, Health::Frozen { .. })).await;
    assert_eq!(status.history, History::OfAnotherLog(EPOCH));
    assert!(status.refuses().is_some());
    held.store(false, Ordering::SeqCst);
    reached(&second, position).await;
    stands(&second, "rooms", |status| status.refuses().is_none()).await;
    second.stop().await;
    assert_eq!(dump(store.as_ref()).await.lines().count(), 1);
}

#[tokio::test]
async fn nothing_is_kept_of_a_history_that_is_lost() {
    let folder = Place::new();
    let (log, store, first) = started(&folder, 2).await;
    let position = log.head.borrow().unwrap();
    first.order("rooms", REBUILD).await.unwrap();
    job_in(&first, "rooms", JobState::Done).await;
    let job = first.order("rooms", Order { purpose: Purpose::AsOf { position }, ..REBUILD }).await.unwrap();
    let kept = |status: &Status| status.kept.iter().any(|kept| kept.collection == job.collection);
    stands(&first, "rooms", |status| kept(status) && status.kept.len() == 2).await;
    first.stop().await;

    let held = Arc::new(AtomicBool::new(true));
    let holds = held.clone();
    let slow = Odd::over(store.clone(), move |call, of| {
        let waits = call == "write" && of == "rooms@4" && holds.load(Ordering::SeqCst);
        if waits { Fate::failed() } else { Fate::Answered }
    });
    let cut = ScriptedLog::new(EPOCH.raised());
    let position = cut.write(STORY.lines().nth(1).unwrap());
    let second = Projector::start(cut, slow, options(2));
    let status = stands(&second, "rooms", |status| matches!(status.health, Health::Frozen { .. })).await;
    assert_eq!((status.history, status.refuses()), (History::Earlier, None));
    let verify = Order { purpose: Purpose::Verify, ..REBUILD };
    let refused = second.order("rooms", verify).await;
    assert!(matches!(refused, Err(AdminError::OtherHistory { .. })), "{refused:?}");
    stands(&second, "rooms", |status| status.kept.is_empty()).await;
    let builds = store.builds().await.unwrap().into_iter();
    let builds: Vec<_> = builds.map(|build| build.collection).filter(|of| of.starts_with("rooms@")).collect();
    assert!(!builds.contains(&"rooms@1".to_owned()) && !builds.contains(&job.collection), "{builds:?}");

    // A successor that is cancelled stays so, and that is said.
    second.wish("rooms", Wish::Cancel).await.unwrap();
    let told = |status: &Status| matches!(&status.health, Health::Frozen { reason } if reason.contains("rebuild rooms` builds"));
    stands(&second, "rooms", told).await;
    let refused = second.order("rooms", verify).await;
    assert!(matches!(refused, Err(AdminError::OtherHistory { .. })), "{refused:?}");
    held.store(false, Ordering::SeqCst);
    second.order("rooms", REBUILD).await.unwrap();
    second.wait_for("rooms", position, LONG).await.unwrap();
    second.stop().await;
}

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

#[tokio::test]
async fn a_build_that_is_ahead_of_the_log_is_not_gone_back_to() {
    let folder = Place::new();
    let (log, store, first) = started(&folder, 2).await;
    first.order("rooms", REBUILD).await.unwrap();
    job_in(&first, "rooms", JobState::Done).await;
    stands(&first, "rooms", |status| status.kept.len() == 1).await;
    first.stop().await;
    // The same epoch, and the last events are gone, as when an older copy of the disk was put back.
    let (held, short) = (Arc::new(AtomicBool::new(true)), ScriptedLog::new(EPOCH));
    let holds = held.clone();
    let slow = Odd::over(store.clone(), move |call, of| {
        let waits = (call, of) == ("write", "rooms@3") && holds.load(Ordering::SeqCst);
        if waits { Fate::failed() } else { Fate::Answered }
    });
    let position = short.write(STORY.lines().nth(1).unwrap());
    let second = Projector::start(short, slow, options(2));
    let status = stands(&second, "rooms", |status| matches!(status.health, Health::Frozen { .. })).await;
    let Health::Frozen { reason } = &status.health else { panic!("{status:?}") };
    let got_to = log.head.borrow().unwrap().to_string();
    assert!(reason.contains(&format!("got to {got_to}")) && reason.contains("acknowledged"), "{reason}");
    assert_eq!(status.history, History::Earlier);
    stands(&second, "rooms", |status| status.kept.is_empty()).await;
    second.wish("rooms", Wish::Cancel).await.unwrap();
    let back = second.roll_back("rooms").await;
    assert!(matches!(back, Err(AdminError::NothingKept { .. })), "{back:?}");
    assert!(store.builds().await.unwrap().iter().all(|build| build.collection != "rooms@1"));
    held.store(false, Ordering::SeqCst);
    second.order("rooms", REBUILD).await.unwrap();
    second.wait_for("rooms", position, LONG).await.unwrap();
    second.stop().await;
}

/// A record of a build may outlast its documents: what comes next alone would be served as all.
#[tokio::test]
async fn what_was_taken_away_behind_the_stores_back_is_built_anew() {
    let folder = Place::new();
    let (log, store, projector) = started(&folder, 2).await;
    let (whole, messages) = (dump(store.as_ref()).await, store.count("timeline@1").await.unwrap());
    // While nothing is appended, and while no projector runs.
    folder.take_away("timeline@1").await;
    let back = async |projector: &Projector| {
        let began = std::time::Instant::now();
        loop {
            let live = store.alias("timeline").await.unwrap().unwrap();
            // While it is away there is no such build.
            if store.count(&live).await == Ok(messages) {
                break;
            }
            assert!(began.elapsed() < LONG, "{:?}", projector.watch("timeline").unwrap().borrow());
            tokio::task::yield_now().await;
        }
        reached(projector, log.head.borrow().unwrap()).await;
        assert_eq!(dump(store.as_ref()).await, whole);
    };
    back(&projector).await;
    projector.stop().await;
    let live = store.alias("timeline").await.unwrap().unwrap();
    folder.take_away(&live).await;
    assert!(!store.is_whole(&live).await.unwrap());
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    back(&projector).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_log_that_lost_events_and_went_on_is_not_mixed_with_what_it_lost() {
    let folder = Place::new();
    let (_, store, first) = started(&folder, 2).await;
    first.order("rooms", REBUILD).await.unwrap();
    job_in(&first, "rooms", JobState::Done).await;
    stands(&first, "rooms", |status| status.kept.len() == 1).await;
    first.stop().await;
    // As long as before by now, with other events.
    let went_on = ScriptedLog::new(EPOCH);
    let mut position = went_on.write(STORY.lines().nth(1).unwrap());
    for _ in 0..9 {
        position = went_on.write(r#"lobby alice MessagePosted {"kind":"text","text":"said since"}"#);
    }
    for _ in 0..2 {
        let second = Projector::start(went_on.clone(), store.clone(), options(2));
        for projection in dramatis_projections::all() {
            let is_whole =
                |status: &Status| status.position == Some(position) && status.health == Health::Live;
            stands(&second, projection.name(), is_whole).await;
        }
        let back = second.roll_back("rooms").await;
        assert!(matches!(back, Err(AdminError::NothingKept { .. })), "{back:?}");
        second.stop().await;
        let fresh = Place::new();
        let anew = super::store(&fresh);
        let whole = Projector::start(went_on.clone(), anew.clone(), options(50));
        reached(&whole, position).await;
        whole.stop().await;
        assert_eq!(dump(store.as_ref()).await, dump(anew.as_ref()).await);
    }
}

#[tokio::test]
async fn what_a_log_lost_is_known_although_it_is_as_long_again_before_the_store_answers() {
    let folder = Place::new();
    let (log, store, first) = started(&folder, 2).await;
    first.stop().await;
    // It goes on, and is gone before it notes anything.
    let gone = Arc::new(AtomicBool::new(false));
    let is_gone = gone.clone();
    let answers = |is_away: Arc<AtomicBool>| {
        move |_: &str, _: &str| if is_away.load(Ordering::SeqCst) { Fate::failed() } else { Fate::Answered }
    };
    let first = Projector::start(log.clone(), Odd::over(store.clone(), answers(is_gone)), options(2));
    reached(&first, log.write(r#"den bob MessagePosted {"kind":"text","text":"lost"}"#)).await;
    let saved = async {
        let position = *log.head.borrow();
        while store.builds().await.unwrap().iter().any(|build| build.checkpoint.position < position) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, saved).await.unwrap();
    gone.store(true, Ordering::SeqCst);
    first.stop().await;
    let put_back = ScriptedLog::new(EPOCH);
    put_back.write(STORY);
    let second =
        Projector::start(put_back.clone(), Odd::over(store.clone(), answers(gone.clone())), options(2));
    let position = put_back.write(r#"den bob MessagePosted {"kind":"text","text":"new"}"#);
    gone.store(false, Ordering::SeqCst);
    for projection in dramatis_projections::all() {
        let is_whole = |status: &Status| status.position == Some(position) && status.health == Health::Live;
        stands(&second, projection.name(), is_whole).await;
    }
    second.stop().await;
    let shown = dump(store.as_ref()).await;
    assert!(shown.contains("new") && !shown.contains("lost"), "{shown}");
}
