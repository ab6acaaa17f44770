//! Builds compared with a live one that is written to meanwhile, in more places than are held at a time.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use dramatis_projections::Digest;

use super::builds::{REBUILD, forge, job_in};
use super::odd::{Fate, Odd};
use super::*;

/// How many keys are held that differ at first sight.
const HELD: usize = 4;
/// Messages that come with every scan of the live build: more than are held.
const WITH_EACH: usize = 6;

/// The last room in key order, so that what comes meanwhile is compared.
const LAST: &str = r#"
    zoo eve RoomOpened {"title":"Zoo","owner":"eve"}
    zoo eve MessagePosted {"kind":"text","text":"one"}
    zoo eve MessagePosted {"kind":"text","text":"two"}
    zoo eve MessagePosted {"kind":"text","text":"three"}
    zoo eve MemberJoined {"member":"eve","display_name":"Eve"}
"#;

fn key(room: &str, revision: u64) -> String {
    format!("room-main.{room}/{revision:020}")
}

fn rebuild(purpose: Purpose, accept: bool) -> Order {
    Order { purpose, accept, ..REBUILD }
}

/// A projector of the timeline that is written to with every scan of the live build, which goes on once the
/// live build has that. By the number of the scan it is told where.
struct Busy {
    log: Arc<ScriptedLog>,
    store: Arc<dyn ReadModels>,
    projector: Projector,
    grows: Arc<AtomicBool>,
    scans: watch::Receiver<u64>,
    /// While it is not, all scans but the first are held up.
    open: watch::Sender<bool>,
}

impl Busy {
    async fn start(
        place: &Place,
        options: Options,
        room: impl Fn(u64) -> String + Send + Sync + 'static,
    ) -> Self {
        let (log, grows) = (ScriptedLog::new(EPOCH), Arc::new(AtomicBool::new(false)));
        let stands = Arc::new(OnceLock::<watch::Receiver<Status>>::new());
        let ((scanned, scans), (open, opened)) = (watch::channel(0), watch::channel(true));
        let (writes, busy, live) = (log.clone(), grows.clone(), stands.clone());
        let store = Odd::over(place.store(), move |call, of| {
            if (call, of) != ("scan", "timeline@1") || !busy.load(Ordering::SeqCst) {
                return Fate::Answered;
            }
            let scan = *scanned.borrow();
            let said =
                format!("{} alice MessagePosted {{\"kind\":\"text\",\"text\":\"more\"}}\n", room(scan));
            let position = writes.write(&said.repeat(WITH_EACH));
            scanned.send_modify(|scans| *scans += 1);
            let (mut live, mut opened) = (live.get().unwrap().clone(), opened.clone());
            Fate::After(Box::pin(async move {
                let _ = live.wait_for(|status| status.position >= Some(position)).await;
                if scan > 0 {
                    let _ = opened.wait_for(|open| *open).await;
                }
            }))
        });
        log.write(STORY);
        let position = log.write(LAST);
        let timeline = dramatis_projections::named("timeline").unwrap();
        let projector = Projector::start_some(&[timeline], log.clone(), store.clone(), options);
        stands.set(projector.watch("timeline").unwrap()).unwrap();
        projector.wait_for("timeline", position, LONG).await.unwrap();
        grows.store(true, Ordering::SeqCst);
        Self { log, store, projector, grows, scans, open }
    }

    /// In rooms before all that is compared by then: what comes meanwhile is met once at the most.
    async fn before_it(place: &Place) -> Self {
        let options = Options { suspects_max: HELD, ..options(100) };
        Self::start(place, options, |scan| format!("r{:03}", 999 - scan.min(900))).await
    }

    /// Waits until the job is in a state, while there is always more.
    async fn comes_to(&self, state: JobState) -> Job {
        let mut scans = self.scans.clone();
        tokio::select! {
            job = job_in(&self.projector, "timeline", state) => job,
            _ = scans.wait_for(|scans| *scans > 500) => panic!("{:?}", self.projector.job("timeline")),
        }
    }

    /// That this is what the log says up to where the build is complete.
    async fn is_proven(&self, job: &Job) {
        let completion = job.completion.unwrap();
        let place = Place::new();
        let fresh = store(&place);
        let timeline = dramatis_projections::named("timeline").unwrap();
        let shared = shared(&self.log, &fresh, 100);
        let mut run = run::Run::create(&shared, timeline, "timeline@1".into()).await.unwrap();
        run.run_to(completion.position).await.unwrap();
        let documents = fresh.scan("timeline@1", None, 1_000).await.unwrap();
        let mut digest = Digest::default();
        for document in &documents {
            digest.add(&document.key, document.body.as_bytes());
        }
        assert_eq!(completion.documents, u64::try_from(documents.len()).unwrap());
        assert_eq!(completion.digest, digest);
    }

    async fn end(self) {
        self.grows.store(false, Ordering::SeqCst);
        let position = self.log.head.borrow().unwrap();
        self.projector.wait_for("timeline", position, LONG).await.unwrap();
        self.projector.stop().await;
    }
}

#[tokio::test]
async fn more_than_is_held_may_come_while_builds_are_compared() {
    for purpose in [Purpose::Verify, Purpose::Rebuild] {
        for accept in [false, true] {
            let place = Place::new();
            let busy = Busy::before_it(&place).await;
            busy.projector.order("timeline", rebuild(purpose, accept)).await.unwrap();
            let job = busy.comes_to(JobState::Done).await;
            assert_eq!((job.difference.as_ref(), job.error.as_ref()), (None, None));
            busy.is_proven(&job).await;
            let switched = busy.store.alias("timeline").await.unwrap().as_deref() == Some("timeline@2");
            assert_eq!(switched, purpose == Purpose::Rebuild);
            busy.end().await;
        }
    }
}

#[tokio::test]
async fn differences_are_found_wherever_they_are_while_more_comes_than_is_held() {
    let place = Place::new();
    let busy = Busy::before_it(&place).await;
    let forged = [key("lobby", 2), key("lobby", 3), key("zoo", 3)];
    let position = busy.log.head.borrow().unwrap();
    for key in &forged {
        forge(busy.store.as_ref(), "timeline@1", key, position).await;
    }
    for (purpose, state) in [(Purpose::Verify, JobState::Done), (Purpose::Rebuild, JobState::Differs)] {
        busy.projector.order("timeline", rebuild(purpose, false)).await.unwrap();
        let job = busy.comes_to(state).await;
        let difference = job.difference.as_ref().unwrap();
        let shown: Vec<_> = difference.shown.iter().map(|shown| shown.key.clone()).collect();
        assert_eq!((difference.documents, shown.as_slice()), (3, forged.as_slice()), "{purpose:?}");
        busy.is_proven(&job).await;
    }
    assert_eq!(busy.store.alias("timeline").await.unwrap().as_deref(), Some("timeline@1"));
    busy.end().await;
}

#[tokio::test]
async fn so_many_differences_as_are_held_stand_for_all() {
    let place = Place::new();
    let busy = Busy::before_it(&place).await;
    let position = busy.log.head.borrow().unwrap();
    for (room, revision) in [("lobby", 2), ("lobby", 3), ("zoo", 1), ("zoo", 2), ("zoo", 3)] {
        forge(busy.store.as_ref(), "timeline@1", &key(room, revision), position).await;
    }
    busy.projector.order("timeline", rebuild(Purpose::Rebuild, true)).await.unwrap();
    let job = busy.comes_to(JobState::Done).await;
    let documents = job.difference.as_ref().unwrap().documents;
    assert!(documents >= u64::try_from(HELD).unwrap(), "{documents}");
    busy.is_proven(&job).await;
    assert_eq!(busy.store.alias("timeline").await.unwrap().as_deref(), Some("timeline@2"));
    busy.end().await;
}

#[tokio::test]
async fn builds_are_compared_anew_after_a_pause_or_a_cancel_in_the_midst() {
    for wish in [Wish::Pause, Wish::Cancel] {
        let place = Place::new();
        let mut busy = Busy::before_it(&place).await;
        busy.open.send_replace(false);
        busy.projector.order("timeline", REBUILD).await.unwrap();
        // More was found by the first scan than is held.
        tokio::time::timeout(LONG, busy.scans.wait_for(|scans| *scans > 1)).await.unwrap().unwrap();
        let state = busy.projector.wish("timeline", wish).await.unwrap().state;
        busy.open.send_replace(true);
        busy.comes_to(state).await;
        assert_eq!(busy.store.alias("timeline").await.unwrap().as_deref(), Some("timeline@1"));
        if wish == Wish::Pause {
            busy.projector.wish("timeline", Wish::Resume).await.unwrap();
        } else {
            busy.projector.order("timeline", REBUILD).await.unwrap();
        }
        let job = busy.comes_to(JobState::Done).await;
        busy.is_proven(&job).await;
        assert_eq!(busy.store.alias("timeline").await.unwrap(), Some(job.collection));
        busy.end().await;
    }
}

/// There may be more after each page, for ever.
#[tokio::test]
async fn comparing_ends_although_the_last_room_grows_with_every_page() {
    let place = Place::new();
    let busy = Busy::start(&place, options(100), |_| "zoo".to_owned()).await;
    busy.projector.order("timeline", REBUILD).await.unwrap();
    let job = busy.comes_to(JobState::Done).await;
    busy.is_proven(&job).await;
    busy.end().await;
}

/// Documents that are changed again whenever they are looked at.
#[tokio::test]
async fn what_never_settles_ends_the_job_and_says_so() {
    let place = Place::new();
    let (log, changes) = (ScriptedLog::new(EPOCH), AtomicU64::new(0));
    let stands = Arc::new(OnceLock::<watch::Receiver<Status>>::new());
    let builder = Arc::new(OnceLock::new());
    let (grows, live) = (log.clone(), stands.clone());
    let store = Odd::over(place.store(), move |call, of| {
        if of != "timeline@1" || !["scan", "load"].contains(&call) {
            return Fate::Answered;
        }
        // Only the builder scans; the live build's task loads as well.
        let task = tokio::task::try_id();
        if call == "scan" {
            let _ = builder.set(task);
        }
        if builder.get() != Some(&task) {
            return Fate::Answered;
        }
        let text = format!("{}th", changes.fetch_add(1, Ordering::SeqCst));
        let edit =
            |revision| format!("zoo eve MessageEdited {{\"target\":{revision},\"text\":\"{text}\"}}\n");
        let position = grows.write(&(1..=5).map(edit).collect::<String>());
        let mut live = live.get().unwrap().clone();
        Fate::After(Box::pin(async move {
            let _ = live.wait_for(|status| status.position >= Some(position)).await;
        }))
    });
    log.write(LAST);
    let more = r#"zoo eve MessagePosted {"kind":"text","text":"more"}"#;
    let position = log.write(&format!("{more}\n{more}"));
    let timeline = dramatis_projections::named("timeline").unwrap();
    let options = Options { suspects_max: HELD, ..options(100) };
    let projector = Projector::start_some(&[timeline], log.clone(), store.clone(), options);
    stands.set(projector.watch("timeline").unwrap()).unwrap();
    projector.wait_for("timeline", position, LONG).await.unwrap();
    let job = projector.order("timeline", REBUILD).await.unwrap();
    let error = job_in(&projector, "timeline", JobState::Failed).await.error.unwrap();
    assert!(error.starts_with("4 of its documents were changed again"), "{error}");
    let gone = async {
        while store.builds().await.unwrap().iter().any(|build| build.collection == job.collection) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
    projector.stop().await;
}

#[tokio::test]
async fn comparing_leaves_live_traffic_its_share() {
    let place = Place::new();
    let (log, said) = (ScriptedLog::new(EPOCH), watch::Sender::new(0_u64));
    // By how many messages were folded before each scan of the live build, and after it.
    let scans = Arc::new(StdMutex::new(Vec::<(u64, u64)>::new()));
    let (noted, counted) = (scans.clone(), said.subscribe());
    let store = Odd::over(place.store(), move |call, of| {
        if (call, of) != ("scan", "timeline@1") {
            return Fate::Answered;
        }
        let (noted, mut counted) = (noted.clone(), counted.clone());
        Fate::After(Box::pin(async move {
            let before = *counted.borrow();
            if let Ok(after) = counted.wait_for(|counted| *counted >= before + 3).await {
                noted.lock().unwrap().push((before, *after));
            }
        }))
    });
    log.write(STORY);
    let position = log.write(LAST);
    let timeline = dramatis_projections::named("timeline").unwrap();
    let options = Options { rebuild_share_percent: 1, ..options(100) };
    let projector = Arc::new(Projector::start_some(&[timeline], log.clone(), store, options));
    projector.wait_for("timeline", position, LONG).await.unwrap();
    projector.order("timeline", REBUILD).await.unwrap();
    while scans.lock().unwrap().len() < 2 {
        let position = log.write(r#"den bob MessagePosted {"kind":"text","text":"live"}"#);
        projector.wait_for("timeline", position, LONG).await.unwrap();
        said.send_modify(|said| *said += 1);
    }
    let scans = scans.lock().unwrap().clone();
    let (worked, left) = (scans[0].1 - scans[0].0, scans[1].0 - scans[0].1);
    assert!(left >= 2 * worked, "{left} messages were folded between two pages, {worked} with the first");
    drop(said);
    projector.stop().await;
}
