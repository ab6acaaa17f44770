//! What becomes of documents that a store acknowledged and lost, and of what passes.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;

use mongodb::bson::{Document as Bson, doc};

use super::builds::{REBUILD, job_in};
use super::odd::{Fate, Odd};
use super::troubles::{held, one_waits};
use super::*;
use crate::read_models::ReadModelError;

/// The way to a server, which can be cut: who comes again gets through.
struct Way {
    address: String,
    streams: Arc<StdMutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, streams) = (listener.local_addr().unwrap().to_string(), Arc::default());
        let all: Arc<StdMutex<Vec<TcpStream>>> = Arc::clone(&streams);
        std::thread::spawn(move || {
            for coming in listener.incoming() {
                let (coming, going) = (coming.unwrap(), TcpStream::connect(&server).unwrap());
                for (from, to) in [(&coming, &going), (&going, &coming)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
                all.lock().unwrap().extend([coming, going]);
            }
        });
        Self { address, streams }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// As with an older copy of its data that is put back while the process goes on.
#[tokio::test(start_paused = true)]
async fn what_an_older_state_lacks_is_not_built_upon() {
    let place = Place::new();
    let (log, forgets) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
    let forgotten = forgets.clone();
    let store = Odd::over(place.store(), move |call, _| {
        if call == "write" && forgotten.load(Ordering::SeqCst) { Fate::Forgotten } else { Fate::Answered }
    });
    let shared = shared(&log, &store, 100);
    let rooms = dramatis_projections::named("rooms").unwrap();
    let mut run = run::Run::create(&shared, rooms, "rooms@1".into()).await.unwrap();
    log.write(STORY);
    run.step().await.unwrap();
    run.save().await.unwrap();
    let older = bodies(store.as_ref(), "rooms@1").await;
    forgets.store(true, Ordering::SeqCst);
    log.write(MORE);
    run.step().await.unwrap();
    run.save().await.unwrap();
    forgets.store(false, Ordering::SeqCst);
    log.write(MORE);
    let stepped = run.step().await;
    assert!(matches!(stepped, Err(run::RunError::Store(ReadModelError::SetBack { .. }))), "{stepped:?}");
    let known = store.builds().await.unwrap().remove(0);
    let mut run = run::Run::open(&shared, rooms, "rooms@1".into(), known.checkpoint).await.unwrap();
    assert_eq!(bodies(store.as_ref(), "rooms@1").await, older);
    run.step().await.unwrap();
    assert_eq!(
        store.get("rooms@1", "room-main.lobby").await.unwrap().map(|lobby| lobby.position),
        *log.head.borrow()
    );
}

/// What is written for a parked key is past the checkpoint too, though nothing comes after it.
#[tokio::test(start_paused = true)]
async fn what_was_folded_again_is_saved_as_well() {
    let place = Place::new();
    let (log, saves) = (ScriptedLog::new(EPOCH), Arc::new(AtomicUsize::new(0)));
    let counted = saves.clone();
    let store = Odd::over(place.store(), move |call, _| {
        counted.fetch_add(usize::from(call == "checkpoint"), Ordering::SeqCst);
        Fate::Answered
    });
    let shared = shared(&log, &store, 100);
    let rooms = dramatis_projections::named("rooms").unwrap();
    let mut run = run::Run::create(&shared, rooms, "rooms@1".into()).await.unwrap();
    log.write(STORY);
    run.step().await.unwrap();
    run.save().await.unwrap();
    let before = saves.load(Ordering::SeqCst);
    run.reload().await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!run.step().await.unwrap());
    run.saved().await.unwrap();
    assert_eq!(saves.load(Ordering::SeqCst), before + 1);
}

async fn bodies(store: &dyn ReadModels, build: &str) -> Vec<(String, String)> {
    let found = store.scan(build, None, 100).await.unwrap();
    found.into_iter().map(|document| (document.key, document.body)).collect()
}

/// What a batch is folded from is loaded, or known from before: neither is to be built upon. Time stands
/// still, so that no checkpoint comes in between.
#[tokio::test(start_paused = true)]
async fn what_a_server_lost_is_not_built_upon() {
    let place = Place::new();
    let Some(server) = place.server() else { return };
    let way = Way::to(server.to_owned());
    let store = place.store_at(&format!("mongodb://{}/?directConnection=true", way.address));
    for (build, documents_max) in [("rooms@1", 2), ("rooms@2", 100)] {
        let log = ScriptedLog::new(EPOCH);
        let mut shared = shared(&log, &store, 1);
        shared.options.documents_max = documents_max;
        let rooms = dramatis_projections::named("rooms").unwrap();
        let mut run = run::Run::create(&shared, rooms, build.into()).await.unwrap();
        log.write(STORY);
        for room in ["attic", "cellar"] {
            log.write(&format!(r#"{room} bob RoomOpened {{"title":"{room}","owner":"bob"}}"#));
        }
        while run.step().await.unwrap() {}
        run.save().await.unwrap();
        let journal = all(&place, build);
        for room in ["lobby", "den", "attic", "cellar"] {
            log.write(&format!(r#"{room} bob MessagePosted {{"kind":"text","text":"lost"}}"#));
        }
        while run.step().await.unwrap() {}
        assert_ne!(all(&place, build), journal);
        // It dies, and is there again with what its journal held.
        place.with(|database| {
            let documents = database.collection::<Bson>(build);
            let journal = &journal;
            async move {
                documents.delete_many(doc! {}).await.unwrap();
                documents.insert_many(journal).await.unwrap();
            }
        });
        way.cut();
        log.write(r#"lobby bob MessagePosted {"kind":"text","text":"since"}"#);
        let set_back = async {
            loop {
                match run.step().await {
                    Err(run::RunError::Store(ReadModelError::SetBack { .. })) => break,
                    // The way there is looked for.
                    Err(run::RunError::Store(ReadModelError::Failure { .. })) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        set_back.await;
        assert_eq!(all(&place, build), journal, "nothing is written on what is lost");
        let builds = store.builds().await.unwrap();
        let known = builds.iter().find(|known| known.collection == build).unwrap();
        let mut run = run::Run::open(&shared, rooms, build.into(), known.checkpoint).await.unwrap();
        while run.step().await.unwrap() {}
        let mut whole = run::Run::create(&shared, rooms, "rooms@3".into()).await.unwrap();
        while whole.step().await.unwrap() {}
        assert_eq!(bodies(store.as_ref(), build).await, bodies(store.as_ref(), "rooms@3").await);
        store.drop_build("rooms@3").await.unwrap();
    }
}

/// What the server has of a build.
fn all(place: &Place, build: &str) -> Vec<Bson> {
    use futures_util::TryStreamExt as _;
    place.with(|database| {
        let documents = database.collection::<Bson>(build);
        async move {
            documents.find(doc! {}).sort(doc! {"_id": 1}).await.unwrap().try_collect().await.unwrap()
        }
    })
}

fn timeline(log: &Arc<ScriptedLog>, store: &Arc<dyn ReadModels>) -> Projector {
    let timeline = dramatis_projections::named("timeline").unwrap();
    Projector::start_some(&[timeline], log.clone(), store.clone(), options(2))
}

const MORE: &str = r#"lobby alice MessagePosted {"kind":"text","text":"more"}"#;

fn lost_to(collection: &str) -> ReadModelError {
    ReadModelError::SetBack { collection: collection.to_owned(), acknowledged: Position::from_engine(10) }
}

#[tokio::test]
async fn who_waits_for_what_may_be_lost_waits_until_it_is_written_again() {
    let place = Place::new();
    let (log, loses) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
    let (next, is_checkpoint) = (loses.clone(), AtomicBool::new(false));
    let store = Odd::over(place.store(), move |call, of| {
        is_checkpoint.fetch_or(call == "checkpoint", Ordering::SeqCst);
        match call {
            // No checkpoint is ever kept.
            "write" if is_checkpoint.swap(false, Ordering::SeqCst) => Fate::Forgotten,
            "write" if next.swap(false, Ordering::SeqCst) => Fate::Refused(lost_to(of)),
            _ => Fate::Answered,
        }
    });
    let (store, open, mut waiting) = held(store, "dead_letters");
    let position = log.write(STORY);
    let projector = timeline(&log, &store);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    open.send_replace(false);
    loses.store(true, Ordering::SeqCst);
    let later = log.write(MORE);
    // From here on the store lets queries read again.
    one_waits(&mut waiting).await;
    let status = projector.status_of("timeline").unwrap();
    assert!(status.position < Some(position), "{status:?}");
    open.send_replace(true);
    projector.wait_for("timeline", later, LONG).await.unwrap();
    projector.stop().await;
}

#[tokio::test]
async fn a_warm_build_outlasts_what_passes() {
    let place = Place::new();
    let (log, troubles) = (ScriptedLog::new(EPOCH), Arc::new(StdMutex::new(Vec::new())));
    let all: Arc<StdMutex<Vec<(&str, ReadModelError)>>> = troubles.clone();
    let store = Odd::over(place.store(), move |call, of| {
        let mut all = all.lock().unwrap();
        match all.last() {
            Some((next, _)) if (*next, of) == (call, "timeline@1") => Fate::Refused(all.pop().unwrap().1),
            _ => Fate::Answered,
        }
    });
    let position = log.write(STORY);
    let projector = timeline(&log, &store);
    projector.wait_for("timeline", position, LONG).await.unwrap();
    projector.order("timeline", REBUILD).await.unwrap();
    job_in(&projector, "timeline", JobState::Done).await;
    let failed = || ReadModelError::Failure { reason: "the cable was pulled".into() };
    // The last one comes first.
    for next in [
        vec![("write", failed())],
        vec![("write", lost_to("timeline@1"))],
        vec![("index_build", failed()), ("write", lost_to("timeline@1"))],
    ] {
        *troubles.lock().unwrap() = next;
        let position = log.write(MORE);
        projector.wait_for("timeline", position, LONG).await.unwrap();
        let both = async {
            while store.count("timeline@1").await != store.count("timeline@2").await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, both).await.expect("it is kept up");
        assert!(troubles.lock().unwrap().is_empty());
    }
    // What does not pass ends it.
    *troubles.lock().unwrap() = vec![("write", ReadModelError::NoBuild { collection: "timeline@1".into() })];
    for _ in 0..2 {
        let position = log.write(MORE);
        projector.wait_for("timeline", position, LONG).await.unwrap();
    }
    assert_ne!(store.count("timeline@1").await, store.count("timeline@2").await);
    projector.stop().await;
}
