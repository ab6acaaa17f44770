//! What holds notices up, and what they do not hold up.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dramatis_events::room::MemberInvited;
use dramatis_events::{Envelope, EventId, Revision};

use super::*;
use crate::actors::entity::Surroundings;
use crate::actors::registry::EntityOptions;
use crate::clock::SystemClock;
use crate::domain::user::UserLimits;
use crate::log::memory::MemoryLog;
use crate::log::{Append, AppendError, Expected};
use crate::snapshots::NoSnapshots;
use crate::telemetry::metrics::Metrics;

/// A log that takes nothing for bob while he is away.
struct Log {
    log: Arc<MemoryLog>,
    bob_is_away: Arc<AtomicBool>,
}

fn of(user: &str) -> StreamId {
    StreamId::parse(&format!("user-main.{user}")).unwrap()
}

impl Log {
    fn new(bob_is_away: bool) -> Arc<Self> {
        let bob_is_away = Arc::new(AtomicBool::new(bob_is_away));
        let is_away = bob_is_away.clone();
        let log = MemoryLog::new(Arc::new(SystemClock)).failing(move |append| {
            let fails = append.stream == of("bob") && is_away.load(Ordering::SeqCst);
            fails.then(|| (false, AppendError::Unavailable { reason: "bob is away".to_owned() }))
        });
        Arc::new(Self { log: Arc::new(log), bob_is_away })
    }

    /// Records an invitation in the form of this version.
    async fn invites(&self, user: &str, version: u16) -> Position {
        let room = StreamId::parse("room-main.den").unwrap();
        let next = self.log.stream_head(&room).await.unwrap().map_or(Revision::FIRST, Revision::next);
        let member = MemberId::parse(user).unwrap();
        let event = RoomEvent::MemberInvited(MemberInvited { member, title: "Den".to_owned() });
        let envelope = Envelope {
            id: EventId::at(&room, next),
            name: event.event_name(),
            version,
            occurred_at: None,
            author: MemberId::parse("alice").unwrap(),
            command: None,
            correlation_id: None,
            causation_id: None,
            subject: None,
            data: Bytes::from(format!(r#"{{"member":"{user}","title":"Den"}}"#)),
        };
        let append = Append { stream: room, expected: Expected::Any, envelopes: vec![envelope] };
        self.log.append(append).await.unwrap().last().unwrap().position
    }

    /// Waits until this one was told something.
    async fn told(&self, user: &str) {
        let mut head = self.log.head();
        while self.log.stream_head(&of(user)).await.unwrap().is_none() {
            head.changed().await.unwrap();
        }
    }
}

/// A reactor at work: why it cannot read on, and what ends it.
struct Works {
    trouble: watch::Receiver<Option<String>>,
    ending: watch::Sender<bool>,
    ended: actix_rt::task::JoinHandle<()>,
    checkpoint: Checkpoint,
    log: Arc<Log>,
    _folder: tempfile::TempDir,
}

impl Works {
    fn on(log: &Arc<Log>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("invitations.json");
        let around = Surroundings {
            log: log.log.clone(),
            snapshots: Arc::new(NoSnapshots),
            snapshot_every_events: 0,
            limits: UserLimits::default(),
            metrics: Metrics::default().entity(),
        };
        let options = EntityOptions { pending_max: 16, idle_timeout: Duration::from_mins(1) };
        let users = Registry::new(around, options, Vec::new());
        let invitations = Invitations::new(log.log.clone(), users, Checkpoint::at(file.clone())).unwrap();
        let (trouble, (ending, ended)) = (invitations.trouble(), watch::channel(false));
        let ended = actix_rt::spawn(invitations.run(ended));
        Self { trouble, ending, ended, checkpoint: Checkpoint::at(file), log: log.clone(), _folder: folder }
    }

    /// Ends it; up to where it says that all is told.
    async fn end(self) -> Option<Position> {
        self.ending.send_replace(true);
        self.ended.await.unwrap();
        self.checkpoint.load(self.log.log.epoch())
    }
}

#[actix::test]
async fn an_event_that_is_not_understood_is_never_passed_over() {
    let log = Log::new(false);
    let known = log.invites("bob", 1).await;
    let mut works = Works::on(&log);
    log.told("bob").await;
    log.invites("carol", 1).await;
    let newer = log.invites("dave", 99).await;
    log.invites("erin", 1).await;
    let trouble = works.trouble.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(trouble.contains("revision 2 of room-main.den") && trouble.contains("version 99"), "{trouble}");
    log.told("carol").await;
    assert_eq!(log.log.stream_head(&of("erin")).await.unwrap(), None);
    let done = works.end().await.unwrap();
    assert!((known..newer).contains(&done), "{done:?}");
}

#[actix::test]
async fn a_stream_that_takes_nothing_holds_up_no_other() {
    let log = Log::new(true);
    let works = Works::on(&log);
    log.invites("bob", 1).await;
    log.invites("carol", 1).await;
    log.told("carol").await;
    log.invites("dave", 1).await;
    log.told("dave").await;
    assert_eq!(works.end().await, None, "what bob was not told is not done");
    let works = Works::on(&log);
    log.bob_is_away.store(false, Ordering::SeqCst);
    log.told("bob").await;
    works.end().await;
}
