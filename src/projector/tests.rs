//! The projector over a log that a test writes by hand and a store in a temporary folder.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};

use dramatis_events::room::RoomEvent;
use dramatis_events::{
    Envelope, Epoch, Event, EventId, EventName, MemberId, Recorded, Revision, StreamId, UnixMillis,
};
use futures_util::future::BoxFuture;

use super::*;
use crate::log::{Append, AppendError, CommandOutcome, CommandRef, Filter, Header, LogError, Page};
use crate::read_models::queries;
use place::{Place, on_mongodb};

/// The projection of rooms with another fold.
macro_rules! rooms_folded {
    ($(#[$doc:meta])* $name:ident, $version:expr, $fold:expr) => {
        $(#[$doc])*
        struct $name;

        impl dramatis_projections::Projection for $name {
            const NAME: &'static str = Rooms::NAME;
            const VERSION: u32 = $version;
            const KEY: &'static [dramatis_projections::KeyPart] = Rooms::KEY;
            const EVENTS: &'static [&'static str] = Rooms::EVENTS;
            const INDEXES: &'static [dramatis_projections::Index] = Rooms::INDEXES;
            type Event = RoomEvent;
            type Document = dramatis_projections::Room;

            fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
                Rooms::keys(recorded, event, keys);
            }

            fn fold(
                document: &mut Option<Self::Document>,
                recorded: &Recorded,
                event: &RoomEvent,
            ) -> Result<(), dramatis_projections::FoldError> {
                $fold(document, recorded, event)
            }
        }
    };
}

mod builds;
mod copies;
mod crashes;
mod histories;
mod letters;
mod lost;
mod odd;
mod pasts;
mod place;
mod proofs;
mod troubles;
mod unsupported;
mod unwritable;
mod versions;

/// A log in memory that a test writes by hand, whatever a decider would say.
struct ScriptedLog {
    events: StdMutex<Vec<Arc<Recorded>>>,
    head: watch::Sender<Option<Position>>,
    epoch: Epoch,
    broken: AtomicBool,
}

impl ScriptedLog {
    fn new(epoch: Epoch) -> Arc<Self> {
        let (head, _) = watch::channel(None);
        Arc::new(Self { events: StdMutex::default(), head, epoch, broken: AtomicBool::new(false) })
    }

    /// Records `room by Name {json}` lines; the positions go up in threes from 10.
    fn write(&self, lines: &str) -> Position {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            self.push(words[0], words[1], EventName::parse(words[2]).unwrap(), words[3]);
        }
        self.head.borrow().unwrap()
    }

    fn push(&self, room: &str, by: &str, name: EventName, data: &str) {
        let mut events = self.events.lock().unwrap();
        let stream = StreamId::parse(&format!("room-main.{room}")).unwrap();
        let revision = u64::try_from(events.iter().filter(|event| event.stream == stream).count()).unwrap();
        let number = u64::try_from(events.len()).unwrap();
        let position = Position::from_engine(10 + number * 3);
        let revision = Revision::new(revision);
        let envelope = Envelope {
            id: EventId::at(&stream, revision),
            name,
            version: 1,
            occurred_at: None,
            author: MemberId::parse(by).unwrap(),
            command: None,
            correlation_id: None,
            causation_id: None,
            subject: None,
            data: data.to_owned().into(),
        };
        let recorded_at = UnixMillis::new(1_000 + i64::try_from(number).unwrap());
        events.push(Arc::new(Recorded { stream, revision, position, recorded_at, envelope }));
        drop(events);
        self.head.send_replace(Some(position));
    }

    fn all(&self) -> Vec<Arc<Recorded>> {
        self.events.lock().unwrap().clone()
    }
}

impl EventLog for ScriptedLog {
    fn append(&self, _: Append) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, AppendError>> {
        unimplemented!("a projector never appends")
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        from: Revision,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>> {
        let mut events = self.all();
        events.retain(|event| event.stream == *stream && event.revision >= from);
        events.truncate(limit.events);
        Box::pin(async move { Ok(events) })
    }

    fn read_stream_backwards(
        &self,
        _: &StreamId,
        _: Option<Revision>,
        _: ReadLimit,
    ) -> BoxFuture<'static, Result<Vec<Arc<Recorded>>, LogError>> {
        unimplemented!("a projector reads the whole log")
    }

    fn read_all(
        &self,
        after: Option<Position>,
        filter: Filter,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Page, LogError>> {
        let mut page = Page { events: Vec::new(), scanned: after };
        for event in self.all().into_iter().filter(|event| Some(event.position) > after) {
            if page.events.len() == limit.events {
                break;
            }
            page.scanned = Some(event.position);
            if filter.passes(&Header::of(&event)) {
                page.events.push(event);
            }
        }
        let broken = self.broken.load(Ordering::SeqCst);
        Box::pin(async move {
            if broken {
                Err(LogError::Failure { file: None, reason: "the plug is out".into() })
            } else {
                Ok(page)
            }
        })
    }

    fn stream_head(&self, stream: &StreamId) -> BoxFuture<'static, Result<Option<Revision>, LogError>> {
        let last = self.all().into_iter().rfind(|event| event.stream == *stream);
        Box::pin(async move { Ok(last.map(|event| event.revision)) })
    }

    fn find_command(&self, _: CommandRef) -> BoxFuture<'static, Result<Option<CommandOutcome>, LogError>> {
        unimplemented!("a projector reads the whole log")
    }

    fn head(&self) -> watch::Receiver<Option<Position>> {
        self.head.subscribe()
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn poisoned(&self) -> Option<String> {
        None
    }
}

const LONG: Duration = Duration::from_mins(5);
const EPOCH: Epoch = Epoch::first(7);

const STORY: &str = r#"
    lobby alice RoomOpened {"title":"Lobby","owner":"alice"}
    lobby alice MemberJoined {"member":"alice","display_name":"Alice"}
    lobby alice MessagePosted {"kind":"text","text":"hello"}
    lobby alice MessagePosted {"kind":"text","text":"anyone?"}
    den bob RoomOpened {"title":"Den","owner":"bob"}
    lobby bob MemberJoined {"member":"bob","display_name":"Bob"}
    lobby bob ReactionAdded {"target":2,"emoji":"x"}
    lobby alice MessageEdited {"target":3,"text":"anyone there?"}
    lobby bob MemberLeft {"member":"bob"}
"#;

fn store(place: &Place) -> Arc<dyn ReadModels> {
    place.store()
}

fn options(events: usize) -> Options {
    let backoff = Duration::from_millis(1);
    let page = ReadLimit::events(events);
    Options {
        page,
        rebuild_page: page,
        documents_max: 2,
        rebuild_documents_max: 3,
        backoff_min: backoff,
        backoff_max: backoff,
        seed: 3,
        ..Options::default()
    }
}

/// What a run needs, without a projector.
fn shared(log: &Arc<ScriptedLog>, store: &Arc<dyn ReadModels>, page: usize) -> Shared {
    let (_, stop) = watch::channel(false);
    let (log, store, clock, holder) = (log.clone(), store.clone(), Arc::new(SystemClock), "me".into());
    let (handles, turns) = (Handles::here(), Turns::new());
    Shared { log, store, clock, options: options(page), holder, stop, handles, turns }
}

async fn reached(projector: &Projector, position: Position) {
    for projection in dramatis_projections::all() {
        projector.wait_for(projection.name(), position, LONG).await.unwrap();
    }
}

/// Every document of every live build, one a line.
async fn dump(store: &dyn ReadModels) -> String {
    let mut lines = String::new();
    for projection in dramatis_projections::all() {
        let live = store.alias(projection.name()).await.unwrap().unwrap();
        let mut after = None;
        while let Some(document) = store.scan(&live, after, 1).await.unwrap().pop() {
            lines.extend([projection.name(), " ", &document.key, " ", &document.body, "\n"]);
            after = Some(document.key);
        }
    }
    lines
}

#[tokio::test]
async fn it_follows_the_log_and_answers_queries() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let projector = Projector::start(log.clone(), store.clone(), options(2));
    let position = log.write(r#"den bob MessagePosted {"kind":"text","text":"live"}"#);
    reached(&projector, position).await;

    let lobby = StreamId::parse("room-main.lobby").unwrap();
    let titles = |listing: &queries::Listing| -> Vec<String> {
        let title = |item: &serde_json::value::RawValue| {
            let json: serde_json::Value = serde_json::from_str(item.get()).unwrap();
            json["title"].as_str().or(json["text"].as_str()).unwrap().to_owned()
        };
        listing.items.iter().map(|item| title(item)).collect()
    };
    let first = queries::rooms(store.as_ref(), "main", queries::RoomOrder::Activity, None, 1).await.unwrap();
    assert_eq!(titles(&first), ["Den"]);
    let second =
        queries::rooms(store.as_ref(), "main", queries::RoomOrder::Activity, first.next, 9).await.unwrap();
    assert_eq!((titles(&second), second.next), (vec!["Lobby".to_owned()], None));
    let by_title = queries::rooms(store.as_ref(), "main", queries::RoomOrder::Title, None, 9).await.unwrap();
    assert_eq!(titles(&by_title), ["Den", "Lobby"]);
    let newest = queries::timeline(store.as_ref(), &lobby, None, 9).await.unwrap();
    assert_eq!(titles(&newest), ["anyone there?", "hello"]);
    let older = queries::timeline(store.as_ref(), &lobby, Some(Revision::new(3)), 9).await.unwrap();
    assert_eq!(titles(&older), ["hello"]);
    assert_eq!(queries::members(store.as_ref(), &lobby, None, 9).await.unwrap().items.len(), 1);
    assert!(queries::room(store.as_ref(), &lobby).await.unwrap().is_some());
    projector.stop().await;
    assert!(projector.status().iter().all(|status| status.health == Health::Stopped));
}

#[tokio::test]
async fn a_deleted_store_comes_back_byte_for_byte() {
    let log = ScriptedLog::new(EPOCH);
    let position = log.write(STORY);
    let mut dumps = Vec::new();
    for page in [1, 100] {
        let folder = Place::new();
        let store = store(&folder);
        let projector = Projector::start(log.clone(), store.clone(), options(page));
        reached(&projector, position).await;
        projector.stop().await;
        dumps.push(dump(store.as_ref()).await);
    }
    assert!(dumps[0].lines().count() >= dramatis_projections::all().len(), "{}", dumps[0]);
    assert_eq!(dumps[0], dumps[1]);
}

#[tokio::test]
async fn a_run_stops_at_its_target_within_a_page() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    let shared = shared(&log, &store, 100);
    let timeline = dramatis_projections::named("timeline").unwrap();
    let mut run = run::Run::create(&shared, timeline, "timeline@1".into()).await.unwrap();
    let first_message = Some(log.all()[2].position);
    run.run_to(first_message).await.unwrap();
    assert_eq!((run.position, store.count("timeline@1").await.unwrap()), (first_message, 1));
    while run.step().await.unwrap() {}
    assert_eq!((run.position, store.count("timeline@1").await.unwrap()), (*log.head.borrow(), 2));
}

#[tokio::test]
async fn another_epoch_starts_over() {
    let folder = Place::new();
    let store = store(&folder);
    for (epoch, lines) in [(EPOCH, STORY), (EPOCH.raised(), STORY.lines().nth(1).unwrap())] {
        let log = ScriptedLog::new(epoch);
        let position = log.write(lines);
        let projector = Projector::start(log, store.clone(), options(3));
        reached(&projector, position).await;
        projector.stop().await;
    }
    // The end of the last job may come after its switch: a start later all is tidy.
    let log = ScriptedLog::new(EPOCH.raised());
    let position = log.write(STORY.lines().nth(1).unwrap());
    let projector = Projector::start(log, store.clone(), options(3));
    reached(&projector, position).await;
    projector.stop().await;
    let dump = dump(store.as_ref()).await;
    assert_eq!(dump.lines().count(), 1, "only the room of the second history: {dump}");
    assert_eq!(store.builds().await.unwrap().len(), dramatis_projections::all().len());
}

#[tokio::test]
async fn a_poison_event_parks_its_key_and_no_other() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.write(STORY);
    log.write(
        r#"lobby eve MessageEdited {"target":99,"text":"of nothing"}
           den bob MessagePosted {"text":"no kind"}
           den bob MessagePosted {"kind":"text","text":"lost with its stream"}
           lobby alice MessagePosted {"kind":"text","text":"still here"}"#,
    );
    for _ in 0..2 {
        // The second start finds the dead letters of the first.
        let projector = Projector::start(log.clone(), store.clone(), options(2));
        let position = log.write(r#"den bob MessagePosted {"kind":"text","text":"later"}"#);
        reached(&projector, position).await;
        let letters = projector.dead_letters("timeline").await.unwrap();
        let keys: Vec<_> = letters.iter().map(|letter| letter.key.as_str()).collect();
        assert_eq!(keys, ["room-main.lobby/00000000000000000099", "room-main.den"]);
        assert_eq!(projector.watch("timeline").unwrap().borrow().parked.len(), 2);
        projector.stop().await;
    }
    let dump = dump(store.as_ref()).await;
    assert!(dump.contains("still here") && !dump.contains("later"), "{dump}");
}

#[tokio::test]
async fn a_log_that_fails_is_asked_again() {
    let folder = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
    log.broken.store(true, Ordering::SeqCst);
    let position = log.write(STORY);
    let projector = Projector::start(log.clone(), store, options(3));
    let mut status = projector.watch("rooms").unwrap();
    let failing = |status: &Status| matches!(status.health, Health::Retrying { failures: 2.., .. });
    status.wait_for(failing).await.unwrap();
    log.broken.store(false, Ordering::SeqCst);
    reached(&projector, position).await;
    projector.stop().await;
}
