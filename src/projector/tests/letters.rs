//! Poison events, and the past of a document.

use dramatis_events::DecodeError;
use dramatis_projections::{DeadLetter, FoldError, Room, Rooms};

use super::odd::{Fate, Odd};
use super::*;
use crate::read_models::{Batch, Checkpoint};

rooms_folded!(
    /// The fold of rooms with a fault: what eve does cannot be folded.
    Faulty,
    Rooms::VERSION,
    |document: &mut Option<Room>, recorded: &Recorded, event: &RoomEvent| {
        if recorded.envelope.author.as_str() == "eve" {
            let (key, reason) = (recorded.stream.to_string(), "the fault".to_owned());
            return Err(FoldError::Document { key, reason });
        }
        Rooms::fold(document, recorded, event)
    }
);

/// Whether the fault of [`Fixable`] is mended.
static FIXED: AtomicBool = AtomicBool::new(false);

rooms_folded!(
    /// The same until it is mended.
    Fixable,
    Rooms::VERSION,
    |document: &mut Option<Room>, recorded: &Recorded, event: &RoomEvent| {
        let fold = if FIXED.load(Ordering::SeqCst) {
            <Rooms as dramatis_projections::Projection>::fold
        } else {
            <Faulty as dramatis_projections::Projection>::fold
        };
        fold(document, recorded, event)
    }
);

fn faulty(log: &Arc<ScriptedLog>, store: &Arc<dyn ReadModels>) -> Projector {
    with_fold(&Faulty, log, store)
}

fn with_fold(
    fold: &'static dyn DynProjection,
    log: &Arc<ScriptedLog>,
    store: &Arc<dyn ReadModels>,
) -> Projector {
    Projector::start_these(
        &[fold],
        log.clone(),
        store.clone(),
        Arc::new(SystemClock),
        options(2),
        Handles::here(),
    )
}

async fn room(store: &dyn ReadModels, key: &str) -> serde_json::Value {
    let alias = store.alias("rooms").await.unwrap().unwrap();
    serde_json::from_str(&store.get(&alias, key).await.unwrap().unwrap().body).unwrap()
}

const EVE: &str = r#"
    lobby eve MessagePosted {"kind":"text","text":"poison"}
    lobby alice MessagePosted {"kind":"text","text":"waits"}
    den bob MessagePosted {"kind":"text","text":"goes on"}
"#;

#[tokio::test]
async fn a_parked_key_goes_on_after_a_fix() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let position = log.write(EVE);
    let projector = faulty(&log, &store);
    projector.wait_for("rooms", position, LONG).await.unwrap();
    assert_eq!(room(store.as_ref(), "room-main.lobby").await["message_count"], 2);
    assert_eq!(room(store.as_ref(), "room-main.den").await["message_count"], 1);
    // Without a fix it stays where it is.
    let mended = projector.mend("rooms", "room-main.lobby", false).await.unwrap();
    assert!(mended.parked.unwrap().contains("the fault"));
    let status = projector.status().remove(0);
    assert!(status.waits("room-main.lobby").is_some() && status.waits("room-main.den").is_none());
    assert_eq!(projector.dead_letters("rooms").await.unwrap().len(), 1);
    projector.stop().await;

    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    assert_eq!(projector.watch("rooms").unwrap().borrow().parked.len(), 1);
    let mended = projector.mend("rooms", "room-main.lobby", false).await.unwrap();
    assert_eq!((mended.events, mended.parked), (2, None));
    assert_eq!(projector.dead_letters("rooms").await.unwrap(), []);
    assert_eq!(projector.status().remove(0).waits("room-main.lobby"), None);
    let position = log.write(r#"lobby alice MessagePosted {"kind":"text","text":"and on"}"#);
    reached(&projector, position).await;
    assert_eq!(room(store.as_ref(), "room-main.lobby").await["message_count"], 5);
    assert_eq!(projector.watch("rooms").unwrap().borrow().parked.len(), 0);
    assert!(matches!(
        projector.mend("rooms", "room-main.lobby", false).await,
        Err(AdminError::NotParked { .. })
    ));
    projector.stop().await;
}

#[tokio::test]
async fn a_skipped_event_is_left_out_by_later_builds_too() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let position = log.write(EVE);
    let projector = faulty(&log, &store);
    projector.wait_for("rooms", position, LONG).await.unwrap();
    let mended = projector.mend("rooms", "room-main.lobby", true).await.unwrap();
    assert_eq!(mended.parked, None);
    let lobby = room(store.as_ref(), "room-main.lobby").await;
    assert_eq!(lobby["message_count"], 3, "all but the poison: {lobby}");
    projector.order("rooms", builds::REBUILD).await.unwrap();
    builds::job_in(&projector, "rooms", JobState::Done).await;
    assert_eq!(room(store.as_ref(), "room-main.lobby").await, lobby);
    let skipped = projector.why("rooms", "room-main.lobby", None, 100).await.unwrap().events;
    assert_eq!(skipped.iter().filter(|cause| cause.skipped).count(), 1);
    projector.stop().await;
}

#[tokio::test]
async fn a_key_goes_on_although_the_last_answer_of_the_store_is_lost() {
    for lost_in in ["rooms@1", "rooms@2"] {
        let place = Place::new();
        let (log, loses) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
        let next = loses.clone();
        let store = Odd::over(place.store(), move |call, of| {
            let lost = (call, of) == ("remove_dead_letter", lost_in) && next.swap(false, Ordering::SeqCst);
            if lost { Fate::Lost } else { Fate::Answered }
        });
        log.write(STORY);
        let position = log.write(EVE);
        let projector = faulty(&log, &store);
        projector.wait_for("rooms", position, LONG).await.unwrap();
        // Both builds have it parked, and the one before is kept up.
        projector.order("rooms", builds::REBUILD).await.unwrap();
        let job = builds::job_in(&projector, "rooms", JobState::Done).await;
        let parked = job.parked.unwrap();
        assert_eq!((parked.keys, parked.shown[0].key.as_str()), (1, "room-main.lobby"));
        loses.store(true, Ordering::SeqCst);
        let mended = projector.mend("rooms", "room-main.lobby", true).await;
        assert!(matches!(mended, Err(AdminError::Run(_))), "{mended:?}");
        assert_eq!(projector.status().remove(0).parked.len(), 0, "it is not parked any more");
        let again = projector.mend("rooms", "room-main.lobby", true).await;
        // In the build before it may be parked still.
        assert!(again.is_ok() == (lost_in == "rooms@2"), "{again:?}");
        let position = log.write(r#"lobby alice MessagePosted {"kind":"text","text":"and on"}"#);
        projector.wait_for("rooms", position, LONG).await.unwrap();
        assert_eq!(room(store.as_ref(), "room-main.lobby").await["message_count"], 4);
        projector.roll_back("rooms").await.unwrap();
        assert_eq!(room(store.as_ref(), "room-main.lobby").await["message_count"], 4, "{lost_in}");
        projector.stop().await;
    }
}

/// A key that is parked and goes on in the live build while a rebuild has it parked, too.
async fn mended_during_a_rebuild(fold: &'static dyn DynProjection, skip: bool, messages: u64) {
    let place = Place::new();
    let (log, held) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(true)));
    let (holds, writes) = (held.clone(), AtomicBool::new(false));
    // The rebuild gets no further than its first page, which parks the key.
    let store = Odd::over(place.store(), move |call, of| {
        let second = (call, of) == ("write", "rooms@2") && writes.swap(true, Ordering::SeqCst);
        if second && holds.load(Ordering::SeqCst) { Fate::failed() } else { Fate::Answered }
    });
    log.write(r#"lobby alice RoomOpened {"title":"Lobby","owner":"alice"}"#);
    let position = log.write(EVE.trim_end().rsplit_once('\n').unwrap().0);
    let projector = with_fold(fold, &log, &store);
    projector.wait_for("rooms", position, LONG).await.unwrap();
    projector.order("rooms", builds::REBUILD).await.unwrap();
    let parked = async {
        while store.dead_letters("rooms@2").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, parked).await.unwrap();
    FIXED.store(true, Ordering::SeqCst);
    assert_eq!(projector.mend("rooms", "room-main.lobby", skip).await.unwrap().parked, None);
    held.store(false, Ordering::SeqCst);
    let job = builds::job_in(&projector, "rooms", JobState::Done).await;
    assert_eq!((job.difference, job.collection.as_str()), (None, "rooms@2"));
    assert_eq!(projector.dead_letters("rooms").await.unwrap(), []);
    assert_eq!(room(store.as_ref(), "room-main.lobby").await["message_count"], messages);
    projector.stop().await;
}

#[tokio::test]
async fn an_event_skipped_during_a_rebuild_is_left_out_of_it() {
    mended_during_a_rebuild(&Faulty, true, 1).await;
}

#[tokio::test]
async fn a_key_that_goes_on_during_a_rebuild_goes_on_in_it() {
    mended_during_a_rebuild(&Fixable, false, 2).await;
}

#[tokio::test]
async fn a_key_that_is_parked_again_waits_from_the_later_event_on() {
    let place = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&place));
    log.write(STORY);
    let first = log.write(r#"lobby eve MessagePosted {"kind":"text","text":"poison"}"#);
    log.write(r#"lobby alice MessagePosted {"kind":"text","text":"waits"}"#);
    let second = log.write(r#"lobby eve MessagePosted {"kind":"text","text":"more poison"}"#);
    let position = log.write(r#"lobby alice MessagePosted {"kind":"text","text":"waits too"}"#);
    let projector = faulty(&log, &store);
    projector.wait_for("rooms", position, LONG).await.unwrap();
    let parked = |projector: &Projector| {
        let status = projector.status().remove(0);
        status.parked.iter().map(|letter| letter.position).collect::<Vec<_>>()
    };
    assert_eq!(parked(&projector), [first]);
    let mended = projector.mend("rooms", "room-main.lobby", true).await.unwrap();
    assert!(mended.parked.unwrap().contains(&second.to_string()));
    assert_eq!(parked(&projector), [second]);
    let letters = projector.dead_letters("rooms").await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.position).collect::<Vec<_>>(), [second]);
    assert_eq!(room(store.as_ref(), "room-main.lobby").await["message_count"], 3);
    // The second skip names the second event.
    let mended = projector.mend("rooms", "room-main.lobby", true).await.unwrap();
    assert_eq!(mended.parked, None);
    assert_eq!(room(store.as_ref(), "room-main.lobby").await["message_count"], 4);
    projector.stop().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_goes_on_without_the_event() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let position = log.write(
        r#"den bob MessagePosted {"text":"no kind"}
           den bob MessagePosted {"kind":"text","text":"later"}
           den bob MessagePosted {"kind":"text","text":"last"}"#,
    );
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    assert!(!dump(store.as_ref()).await.contains(r#""text":"last""#));
    let mended = projector.mend("timeline", "room-main.den", true).await.unwrap();
    assert_eq!((mended.events, mended.parked), (2, None));
    let dump = dump(store.as_ref()).await;
    assert!(dump.contains(r#""text":"later""#) && dump.contains(r#""text":"last""#), "{dump}");
    projector.stop().await;
}

#[tokio::test]
async fn an_event_that_a_newer_release_recorded_is_refused_by_all() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let position = log.write(
        r#"den bob MessagePinned {"target":1}
           den bob MessagePosted {"kind":"text","text":"waits"}
           lobby alice MessagePosted {"kind":"text","text":"goes on"}"#,
    );
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    for projection in dramatis_projections::all().iter().filter(|projection| projection.category() == "room")
    {
        let letters = projector.dead_letters(projection.name()).await.unwrap();
        let keys: Vec<_> = letters.iter().map(|letter| letter.key.as_str()).collect();
        assert_eq!(keys, ["room-main.den"], "{}", projection.name());
        assert!(letters[0].error.contains("newer release"), "{}", letters[0].error);
    }
    let shown = dump(store.as_ref()).await;
    assert!(shown.contains(r#""text":"goes on""#) && !shown.contains(r#""text":"waits""#), "{shown}");
    projector.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_newer_release_goes_on_with_it() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    let before = log.write(STORY);
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, before).await;
    projector.stop().await;
    // As an older release leaves them that knows neither this event nor what comes in another hall.
    let position = log.write(
        r#"den bob MessagePosted {"kind":"text","text":"of a newer release"}
           den bob MessagePosted {"kind":"text","text":"after it"}
           hall bob MessagePinned {"target":1}
           hall bob MessagePosted {"kind":"text","text":"waits on"}"#,
    );
    let unknown = |name: &str| DecodeError::UnknownName { category: "room", name: name.into() }.to_string();
    let next = |events: u64| Position::from_engine(before.to_engine() + 3 * events);
    for projection in ["timeline", "rooms"] {
        let letters = [("den", 1, "MessagePosted"), ("hall", 3, "MessagePinned")];
        let parked = letters.map(|(room, events, event)| DeadLetter {
            key: format!("room-main.{room}"),
            position: next(events),
            event: event.into(),
            error: unknown(event),
        });
        let checkpoint = Checkpoint { epoch: EPOCH, position: Some(position) };
        let batch = Batch { writes: Vec::new(), parked: parked.into(), checkpoint, after: Some(before) };
        store.write(&format!("{projection}@1"), batch.into()).await.unwrap();
    }
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    let keys = async |projection: &str| {
        let letters = projector.dead_letters(projection).await.unwrap();
        letters.into_iter().map(|letter| letter.key).collect::<Vec<_>>()
    };
    assert_eq!(keys("timeline").await, ["room-main.hall"], "what this release cannot read waits on");
    let shown = dump(store.as_ref()).await;
    assert!(shown.contains("of a newer release") && shown.contains("after it"), "{shown}");
    assert!(!shown.contains("waits on"), "{shown}");
    projector.stop().await;
}

#[tokio::test]
async fn documents_are_shown_as_they_were_and_why() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    let position = log.write(STORY);
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    // After every event, a document folded alone is what a pure fold of all gives.
    for event in log.all() {
        let as_of = AsOf::Position(event.position);
        let before: Vec<_> = log.all().into_iter().filter(|other| other.position <= event.position).collect();
        for projection in dramatis_projections::all() {
            let mut fold = projection.start(usize::MAX);
            fold.begin(&before);
            for write in fold.finish().unwrap().writes {
                let past = projector.past(projection.name(), &write.key, as_of).await.unwrap();
                assert_eq!((past.body, past.position), (write.body, Some(write.position)));
            }
        }
        let by_time = AsOf::Time(event.recorded_at);
        assert_eq!(projector.position_at(by_time).await.unwrap(), position_before_next(&log, &event));
    }
    let key = "room-main.lobby/00000000000000000003";
    let Causes { events, next } = projector.why("timeline", key, None, 9).await.unwrap();
    let names: Vec<_> = events.iter().map(|cause| cause.recorded.envelope.name.to_string()).collect();
    assert_eq!((&*names, next), (&["MessagePosted", "MessageEdited"].map(str::to_owned)[..], None));
    let none = projector.why("timeline", "nonsense", None, 9).await;
    assert!(matches!(none, Err(AdminError::WholeLog { .. })));
    // Page by page they are the same, wherever a page begins.
    let all = projector.why("rooms", "room-main.lobby", None, 100).await.unwrap().events;
    let positions: Vec<_> = all.iter().map(|cause| cause.recorded.position).collect();
    for after in (0..60).map(Position::from_engine) {
        let Causes { events, next } =
            projector.why("rooms", "room-main.lobby", Some(after), 2).await.unwrap();
        let page: Vec<_> = events.iter().map(|cause| cause.recorded.position).collect();
        let past: Vec<_> = positions.iter().copied().filter(|position| *position > after).collect();
        assert_eq!((&*page, next.is_some()), (&past[..past.len().min(2)], past.len() > 2), "after {after}");
        assert_eq!(next, page.last().copied().filter(|_| next.is_some()));
    }

    // The whole read model as of a position is a build of its own.
    let then = log.all()[3].position;
    projector
        .order("timeline", Order { purpose: Purpose::AsOf { position: then }, ..builds::REBUILD })
        .await
        .unwrap();
    let job = builds::job_in(&projector, "timeline", JobState::Done).await;
    assert_eq!(job.completion.unwrap().documents, 2);
    assert_eq!(store.count(&job.collection).await.unwrap(), 2);
    assert_eq!(store.alias("timeline").await.unwrap().as_deref(), Some("timeline@1"));
    // Only so many are kept, and those until their time is over.
    let order = Order { purpose: Purpose::AsOf { position: then }, ..builds::REBUILD };
    for number in 3..=5 {
        projector.order("timeline", order).await.unwrap();
        let job = builds::job_in(&projector, "timeline", JobState::Done).await;
        assert_eq!(job.collection, format!("timeline@{number}"));
        let kept = projector.status_of("timeline").unwrap().kept;
        assert!(kept.iter().any(|kept| kept.collection == job.collection), "{kept:?}");
    }
    let refused = projector.order("timeline", order).await.unwrap_err();
    assert!(matches!(refused, AdminError::TooManyKept { max: 4, .. }), "{refused}");
    assert!(projector.order("timeline", builds::REBUILD).await.is_ok());
    projector.stop().await;
}

/// The last position before the next event: positions of a scripted log go up in threes.
fn position_before_next(log: &ScriptedLog, event: &Recorded) -> Position {
    let next = log.all().into_iter().find(|other| other.position > event.position);
    next.map_or(event.position, |next| Position::from_engine(next.position.to_engine() - 1))
}

/// A stream with an event that nobody can read, then one that contradicts its document, then others.
const UNREADABLE: &str = r#"
    den bob MessagePosted {"text":"no kind"}
    den bob MessageEdited {"target":99,"text":"of nothing"}
    den bob MessageEdited {"target":99,"text":"of nothing again"}
    den bob MessagePosted {"kind":"text","text":"last"}
"#;
const OF_NOTHING: &str = "room-main.den/00000000000000000099";

async fn keys_parked(projector: &Projector) -> Vec<(String, Position)> {
    let letters = projector.dead_letters("timeline").await.unwrap();
    letters.into_iter().map(|letter| (letter.key, letter.position)).collect()
}

#[tokio::test]
async fn what_is_parked_while_a_stream_is_tried_again_is_kept() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let position = log.write(UNREADABLE);
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    let mended = projector.mend("timeline", "room-main.den", true).await.unwrap();
    assert_eq!(mended.parked, None);
    let of_nothing = vec![(OF_NOTHING.to_owned(), log.all()[10].position)];
    assert_eq!(keys_parked(&projector).await, of_nothing);
    // A build from the start has the same parked.
    projector.order("timeline", builds::REBUILD).await.unwrap();
    let job = builds::job_in(&projector, "timeline", JobState::Done).await;
    assert_eq!(job.difference, None);
    assert_eq!(keys_parked(&projector).await, of_nothing);
    projector.stop().await;
}

#[tokio::test]
async fn what_a_build_has_not_parked_that_it_should_have_is_found_out() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let position = log.write(
        r#"den bob MessageEdited {"target":99,"text":"of nothing"}
           den bob MessagePosted {"kind":"text","text":"last"}"#,
    );
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    let of_nothing = log.all()[9].position;
    assert!(store.remove_dead_letter("timeline@1", OF_NOTHING, of_nothing).await.unwrap());
    let verify = Order { purpose: Purpose::Verify, ..builds::REBUILD };
    projector.order("timeline", verify).await.unwrap();
    builds::job_in(&projector, "timeline", JobState::Done).await;
    let apart = ParkedApart { key: OF_NOTHING.to_owned(), live: None, new: Some(of_nothing) };
    let difference = projector.job("timeline").unwrap().unwrap().job.difference.unwrap();
    assert_eq!((difference.documents, difference.parked, &difference.parked_shown), (0, 1, &vec![apart]));
    // A rebuild shows it and waits, and mends it once that is accepted.
    projector.order("timeline", builds::REBUILD).await.unwrap();
    assert_eq!(builds::job_in(&projector, "timeline", JobState::Differs).await.difference, Some(difference));
    projector.wish("timeline", Wish::Cancel).await.unwrap();
    builds::job_in(&projector, "timeline", JobState::Cancelled).await;
    // So it does where documents differ as well, which is found before.
    builds::forge(store.as_ref(), "timeline@1", "room-main.den/forged", position).await;
    projector.order("timeline", builds::REBUILD).await.unwrap();
    let difference = builds::job_in(&projector, "timeline", JobState::Differs).await.difference.unwrap();
    assert_eq!((difference.documents, difference.parked), (1, 1));
    projector.wish("timeline", Wish::Accept).await.unwrap();
    builds::job_in(&projector, "timeline", JobState::Done).await;
    assert_eq!(keys_parked(&projector).await, [(OF_NOTHING.to_owned(), of_nothing)]);
    projector.stop().await;
}

#[tokio::test]
async fn a_document_as_it_was_says_that_its_stream_cannot_be_read_on() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let position = log.write(
        r#"den bob MessagePosted {"kind":"text","text":"first"}
           den bob MessagePosted {"text":"no kind"}
           den bob MessageEdited {"target":1,"text":"not seen"}"#,
    );
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    reached(&projector, position).await;
    let key = "room-main.den/00000000000000000001";
    let live = store.get("timeline@1", key).await.unwrap().unwrap().body;
    assert!(live.contains("first"), "{live}");
    let past = async || projector.past("timeline", key, AsOf::Position(position)).await.unwrap();
    let shown = past().await;
    assert_eq!(shown.body.as_deref(), Some(live.as_str()), "as the live build shows it");
    let letter = shown.parked.unwrap();
    assert_eq!((letter.key.as_str(), letter.position), ("room-main.den", log.all()[10].position));
    // Skipped, it holds up nothing here either.
    projector.mend("timeline", "room-main.den", true).await.unwrap();
    let shown = past().await;
    assert!(shown.parked.is_none() && shown.body.as_ref().unwrap().contains("not seen"), "{shown:?}");
    projector.stop().await;
}
