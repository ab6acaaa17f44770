//! Two copies of one log with one store.

use super::builds::started;
use super::odd::{Fate, Odd};
use super::*;

fn holder(name: &str) -> Options {
    Options { holder: name.into(), ..options(2) }
}

/// Has the leases of a projector that has gone run out.
pub(super) async fn run_out(store: &dyn ReadModels, holder: &str) {
    for projection in dramatis_projections::all() {
        store.release(&format!("projection/{}", projection.name()), holder).await.unwrap();
    }
}

/// A log that goes on from the same story in a way of its own.
fn copy(text: &str) -> (Arc<ScriptedLog>, Position) {
    let log = ScriptedLog::new(EPOCH);
    log.write(STORY);
    let posted = format!(r#"{text} bob MessagePosted {{"kind":"text","text":"of {text}"}}"#);
    (log.clone(), log.write(&posted))
}

async fn stands(projector: &Projector, so: impl Fn(&Status) -> bool) {
    for projection in dramatis_projections::all() {
        let mut status = projector.watch(projection.name()).unwrap();
        let there = tokio::time::timeout(LONG, status.wait_for(|status| so(status))).await;
        assert!(there.is_ok(), "{:?}", projector.status());
    }
}

#[tokio::test]
async fn each_builds_its_own_once_it_keeps_the_store() {
    let folder = Place::new();
    let store = store(&folder);
    let ((one, of_one), (other, of_other)) = (copy("den"), copy("lobby"));
    let first = Projector::start(one.clone(), store.clone(), holder("first"));
    reached(&first, of_one).await;
    let second = Projector::start(other.clone(), store.clone(), holder("second"));
    let kept_off = |status: &Status| {
        status.health == Health::Standby { holder: "first".into() } && status.refuses().is_some()
    };
    stands(&second, kept_off).await;
    let refused = second.order("rooms", builds::REBUILD).await;
    assert!(matches!(refused, Err(AdminError::Elsewhere { .. })), "{refused:?}");
    assert_eq!(
        first.status().iter().filter(|status| status.refuses().is_none()).count(),
        dramatis_projections::all().len()
    );
    first.stop().await;
    run_out(store.as_ref(), "first").await;
    shows_its_own(second, store.as_ref(), &other, of_other).await;
    run_out(store.as_ref(), "second").await;
    let first = Projector::start(one.clone(), store.clone(), holder("first"));
    shows_its_own(first, store.as_ref(), &one, of_one).await;
}

/// That it comes to show, with nothing of the copy, what its own log makes.
async fn shows_its_own(
    projector: Projector,
    store: &dyn ReadModels,
    log: &Arc<ScriptedLog>,
    position: Position,
) {
    let own = |status: &Status| status.history == History::Present && status.refuses().is_none();
    stands(&projector, |status| status.position == Some(position) && own(status)).await;
    projector.stop().await;
    let fresh = Place::new();
    let anew = super::store(&fresh);
    let whole = Projector::start(log.clone(), anew.clone(), options(50));
    reached(&whole, position).await;
    whole.stop().await;
    assert_eq!(dump(anew.as_ref()).await, dump(store).await);
}

#[tokio::test]
async fn one_that_went_no_other_way_goes_on_with_what_is_there() {
    let folder = Place::new();
    let (log, store, first) = started(&folder, 2).await;
    first.stop().await;
    run_out(store.as_ref(), "alone").await;
    let position = log.write(r#"den bob MessagePosted {"kind":"text","text":"later"}"#);
    let second = Projector::start(log.clone(), store.clone(), holder("moved"));
    reached(&second, position).await;
    assert!(second.status().iter().all(|status| status.collection.ends_with("@1")), "{:?}", second.status());
    second.stop().await;
}

#[tokio::test]
async fn a_rebuild_of_a_copy_is_not_gone_on_with() {
    let folder = Place::new();
    let store = store(&folder);
    let ((one, of_one), (other, of_other)) = (copy("den"), copy("lobby"));
    let first = Projector::start(one, store.clone(), holder("first"));
    reached(&first, of_one).await;
    first.order("timeline", Order { events_per_s_max: Some(1), ..builds::REBUILD }).await.unwrap();
    let mut job = first.watch_job("timeline").unwrap();
    job.wait_for(|job| job.as_ref().is_some_and(|job| job.position.is_some())).await.unwrap();
    first.wish("timeline", Wish::Pause).await.unwrap();
    first.stop().await;
    run_out(store.as_ref(), "first").await;
    let second = Projector::start(other, store.clone(), holder("second"));
    stands(&second, |status| status.position == Some(of_other) && status.refuses().is_none()).await;
    let shown = dump(store.as_ref()).await;
    assert!(shown.contains("of lobby") && !shown.contains("of den"), "{shown}");
    second.stop().await;
}

#[tokio::test]
async fn nothing_is_trusted_of_another_one_that_crashed() {
    let folder = Place::new();
    let store = store(&folder);
    let (one, other) = (ScriptedLog::new(EPOCH), ScriptedLog::new(EPOCH));
    let (common, _) = (one.write(STORY), other.write(STORY));
    let first = Projector::start(one.clone(), store.clone(), holder("first"));
    reached(&first, common).await;
    first.stop().await;
    // It notes what both have, goes on, and is gone before it notes anything else.
    let gone = Arc::new(AtomicBool::new(false));
    let is_gone = gone.clone();
    let cut_off = Odd::over(store.clone(), move |_, _| {
        if is_gone.load(Ordering::SeqCst) { Fate::failed() } else { Fate::Answered }
    });
    let first = Projector::start(one.clone(), cut_off, holder("first"));
    let of_one = one.write(r#"den bob MessagePosted {"kind":"text","text":"of one"}"#);
    reached(&first, of_one).await;
    gone.store(true, Ordering::SeqCst);
    first.stop().await;
    run_out(store.as_ref(), "first").await;
    let of_other = other.write(r#"den bob MessagePosted {"kind":"text","text":"of another"}"#);
    let second = Projector::start(other.clone(), store.clone(), holder("second"));
    shows_its_own(second, store.as_ref(), &other, of_other).await;
}
