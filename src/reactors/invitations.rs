//! Tells people of their invitations: what a room records of them is noted in the streams of
//! those it concerns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dramatis_events::room::RoomEvent;
use dramatis_events::user::InvitationOutcome;
use dramatis_events::{
    Category, CommandId, EntityId, Event, EventName, IdError, MemberId, Position, Recorded, StreamId,
};
use tokio::sync::{oneshot, watch};

use super::Checkpoint;
use crate::actors::answer::{Answer, ReplyTo};
use crate::actors::entity::{Cause, Pending, Request};
use crate::actors::registry::Registry;
use crate::domain::user::{EndInvitation, ReceiveInvitation, User, UserCommand};
use crate::log::{EventLog, Filter, LogError, ReadLimit, Tail};

/// The events it reacts to.
const EVENTS: &[&str] = &["MemberInvited", "InvitationAccepted", "InvitationDeclined", "InvitationWithdrawn"];
/// In whose name notices are written.
const AUTHOR: &str = "system:invitations";
/// Events read at a time.
const PAGE: ReadLimit = ReadLimit::events(256);
/// The checkpoint is written this often at the most.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// After a failure it tries again after this long, then after twice as long, and so on.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest of these waits.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub struct Invitations {
    log: Arc<dyn EventLog>,
    users: Registry<User>,
    checkpoint: Checkpoint,
    author: MemberId,
    filter: Filter,
}

impl Invitations {
    /// A reactor that issues its commands to these users.
    pub fn new(
        log: Arc<dyn EventLog>,
        users: Registry<User>,
        checkpoint: Checkpoint,
    ) -> Result<Self, IdError> {
        let names = EVENTS.iter().map(|name| EventName::parse(name)).collect::<Result<_, _>>()?;
        let category = Some(Category::parse(RoomEvent::CATEGORY)?);
        let filter = Filter { category, names, ..Filter::default() };
        Ok(Self { log, users, checkpoint, author: MemberId::parse(AUTHOR)?, filter })
    }

    /// Reacts until `ending` turns true or the log is closed.
    pub async fn run(self, mut ending: watch::Receiver<bool>) {
        let mut done = self.checkpoint.load(self.log.epoch());
        let work = async {
            let mut saved = Instant::now();
            let mut tail = self.tail(done);
            loop {
                match tail.next(PAGE).await {
                    Ok(Some(page)) => {
                        self.react(&page.events).await;
                        done = page.scanned;
                        if saved.elapsed() >= SAVE_EVERY {
                            self.save(done);
                            saved = Instant::now();
                        }
                    }
                    Ok(None) => return,
                    Err(LogError::AheadOfLog { .. }) => tail = self.tail(None),
                    Err(error) => {
                        tracing::error!(%error, "invitations cannot be read from the log; this is tried again");
                        actix_rt::time::sleep(RETRY_MAX).await;
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
        self.save(done);
    }

    fn tail(&self, after: Option<Position>) -> Tail {
        Tail::new(self.log.clone(), after, self.filter.clone())
    }

    fn save(&self, done: Option<Position>) {
        let Some(position) = done else { return };
        if let Err(error) = self.checkpoint.save(self.log.epoch(), position) {
            tracing::warn!(%error, "how far invitations are told cannot be noted; they are gone through again");
        }
    }

    /// Notes these events, in their order, until that is done: a notice that is tried again has
    /// the same command id.
    async fn react(&self, events: &[Arc<Recorded>]) {
        let mut wait = RETRY_FIRST;
        while !self.try_all(events).await {
            actix_rt::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Whether all of them are settled.
    async fn try_all(&self, events: &[Arc<Recorded>]) -> bool {
        let (mut answers, mut all_settled) = (Vec::new(), true);
        for event in events {
            let Some((stream, request)) = self.notice(event) else { continue };
            let (caller, answer) = oneshot::channel::<Answer>();
            let mut pending = vec![Pending { request, reply: ReplyTo::Caller(caller) }];
            while let Err(refused) = self.users.submit(&stream, pending) {
                // What waits there may be its own.
                if answers.is_empty() {
                    return false;
                }
                all_settled &= settled(std::mem::take(&mut answers)).await;
                pending = refused;
            }
            answers.push(answer);
        }
        settled(answers).await && all_settled
    }

    /// What is noted because of an event, and in whose stream.
    fn notice(&self, recorded: &Recorded) -> Option<(StreamId, Request<User>)> {
        let event = RoomEvent::from_envelope(&recorded.envelope)
            .inspect_err(|error| tracing::error!(%error, "an invitation is not understood and not told"))
            .ok()?;
        let room = EntityId::parse(recorded.stream.id()).ok()?;
        let ended = |room, outcome| UserCommand::from(EndInvitation { room, outcome });
        let (member, command) = match event {
            RoomEvent::MemberInvited(invited) => {
                let by = recorded.envelope.author.clone();
                (invited.member, ReceiveInvitation { room, title: invited.title, by }.into())
            }
            RoomEvent::InvitationAccepted(it) => (it.member, ended(room, InvitationOutcome::Accepted)),
            RoomEvent::InvitationDeclined(it) => (it.member, ended(room, InvitationOutcome::Declined)),
            RoomEvent::InvitationWithdrawn(it) => (it.member, ended(room, InvitationOutcome::Withdrawn)),
            _ => return None,
        };
        // A persona has no stream of its own.
        let stream = StreamId::user(&member.user()?);
        let id = CommandId::parse(&format!("because:{}", recorded.envelope.id)).ok()?;
        let request = Request {
            id,
            hash: command.content_hash(&stream),
            author: self.author.clone(),
            occurred_at: None,
            expected: None,
            cause: Some(Cause::of(&recorded.envelope)),
            command,
        };
        Some((stream, request))
    }
}

/// Whether all of these say that nothing is left to be done.
async fn settled(answers: Vec<oneshot::Receiver<Answer>>) -> bool {
    let mut all_settled = true;
    for answer in answers {
        all_settled &= match answer.await.map(|answer| answer.outcome) {
            Ok(Ok(_)) => true,
            Ok(Err(refused)) if refused.code.may_retry() => false,
            Ok(Err(refused)) => {
                tracing::debug!(?refused, "a notice of an invitation is not taken");
                true
            }
            Err(_) => false,
        };
    }
    all_settled
}
