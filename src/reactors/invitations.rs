//! Tells people of their invitations: what a room records of them is noted in the streams of
//! those it concerns.
//!
//! The order within each stream is kept. One that takes nothing for a while holds up no other, and an
//! event that cannot be read holds up all that follow: it is never passed over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dramatis_events::room::RoomEvent;
use dramatis_events::user::InvitationOutcome;
use dramatis_events::{
    Category, CommandId, EntityId, Event, EventName, IdError, MemberId, Position, Recorded, StreamId,
};
use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep_until;

use super::Checkpoint;
use crate::actors::answer::{Answer, ReplyTo};
use crate::actors::entity::{Cause, Pending, Request};
use crate::actors::registry::Registry;
use crate::domain::user::{EndInvitation, ReceiveInvitation, User, UserCommand};
use crate::log::{EventLog, Filter, LogError, Page, ReadLimit, Tail};

#[cfg(test)]
mod tests;

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
/// With so many notices that wait for streams to take them no more is read.
const WAITING_MAX: usize = 1_024;

/// See the module.
pub struct Invitations {
    log: Arc<dyn EventLog>,
    users: Registry<User>,
    checkpoint: Checkpoint,
    author: MemberId,
    filter: Filter,
    trouble: watch::Sender<Option<String>>,
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
        let (author, trouble) = (MemberId::parse(AUTHOR)?, watch::Sender::new(None));
        Ok(Self { log, users, checkpoint, author, filter, trouble })
    }

    /// Why it cannot read on; `None` while it can.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Reacts until `ending` turns true or the log is closed.
    pub async fn run(self, mut ending: watch::Receiver<bool>) {
        let mut told = Told { read: self.checkpoint.load(self.log.epoch()), waiting: HashMap::new() };
        tokio::select! {
            () = self.work(&mut told) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
        self.save(told.done());
    }

    async fn work(&self, told: &mut Told) {
        let (mut tail, mut reads) = (self.tail(told.read), true);
        let (mut wait, mut tried, mut saved) = (RETRY_FIRST, Instant::now(), Instant::now());
        loop {
            let waiting = told.waiting();
            tokio::select! {
                page = tail.next(PAGE), if reads && waiting < WAITING_MAX => match page {
                    Ok(Some(page)) => {
                        let (begin, trouble) = told.take(page);
                        reads = trouble.is_none();
                        self.trouble.send_replace(trouble);
                        self.note(told, begin).await;
                        if waiting == 0 {
                            (wait, tried) = (RETRY_FIRST, Instant::now());
                        }
                    }
                    Ok(None) => return,
                    Err(LogError::AheadOfLog { .. }) => (tail, told.read) = (self.tail(None), None),
                    Err(error) => {
                        tracing::error!(%error, "invitations cannot be read from the log; this is tried again");
                        self.trouble.send_replace(Some(format!("invitations cannot be read: {error}")));
                        actix_rt::time::sleep(RETRY_MAX).await;
                    }
                },
                () = sleep_until((tried + wait).into()), if waiting > 0 => {
                    self.note(told, told.waiting.keys().cloned().collect()).await;
                    let goes_on = told.waiting() < waiting;
                    wait = if goes_on { RETRY_FIRST } else { (wait * 2).min(RETRY_MAX) };
                    tried = Instant::now();
                }
                else => return std::future::pending().await,
            }
            if saved.elapsed() >= SAVE_EVERY {
                self.save(told.done());
                saved = Instant::now();
            }
        }
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

    /// Notes what waits for these streams, in all of them at once. What is not taken waits on.
    async fn note(&self, told: &mut Told, streams: Vec<StreamId>) {
        let waiting = &told.waiting;
        let noting = streams.into_iter().map(|stream| async move {
            let notices = waiting.get(&stream).map_or(&[][..], Vec::as_slice);
            (self.note_in(&stream, notices).await, stream)
        });
        for (count, stream) in join_all(noting).await {
            told.settled(&stream, count);
        }
    }

    /// How many of these, from the first on, the stream has settled. One that is tried again has the same
    /// command id, and so have those behind it, which go again with it.
    async fn note_in(&self, stream: &StreamId, notices: &[Notice]) -> usize {
        let mut count = 0;
        while let Some(left @ [_, ..]) = notices.get(count..) {
            let (requests, mut answers): (Vec<_>, Vec<_>) =
                left.iter().map(|notice| self.pending(notice, stream)).unzip();
            if let Err(refused) = self.users.submit(stream, requests) {
                // What there is no room for goes once these are answered.
                answers.truncate(left.len() - refused.len());
            }
            if answers.is_empty() {
                break;
            }
            for answer in answers {
                if !is_settled(answer).await {
                    return count;
                }
                count += 1;
            }
        }
        count
    }

    fn pending(&self, notice: &Notice, stream: &StreamId) -> (Pending<User>, oneshot::Receiver<Answer>) {
        let (caller, answer) = oneshot::channel();
        let request = Request {
            id: notice.id.clone(),
            hash: notice.command.content_hash(stream),
            author: self.author.clone(),
            occurred_at: None,
            expected: None,
            cause: Some(notice.cause),
            command: notice.command.clone(),
        };
        (Pending { request, reply: ReplyTo::Caller(caller) }, answer)
    }
}

/// How far it is.
struct Told {
    /// Up to where events were taken in.
    read: Option<Position>,
    /// What is to be noted yet, by stream: in each of them in its order.
    waiting: HashMap<StreamId, Vec<Notice>>,
}

/// Something to note.
struct Notice {
    id: CommandId,
    command: UserCommand,
    cause: Cause,
    /// Up to where events had been taken in before.
    before: Option<Position>,
}

impl Told {
    /// Takes in what a page gives to note. Tells in which streams that can begin at once, and what is
    /// wrong if an event is not understood: then the page does not count as read, and a release that
    /// understands it goes on with that page.
    fn take(&mut self, page: Page) -> (Vec<StreamId>, Option<String>) {
        let (mut fresh, mut trouble) = (HashMap::<_, Vec<_>>::new(), None);
        for event in page.events {
            match notice(&event, self.read) {
                Ok(Some((stream, notice))) => fresh.entry(stream).or_default().push(notice),
                Ok(None) => {}
                Err(why) => {
                    let place = format!("revision {} of {}", event.revision, event.stream);
                    tracing::error!(%place, why, "an event is not understood: invitations from there on are not told");
                    trouble = Some(format!("invitations from {place} on are not told: {why}"));
                    break;
                }
            }
        }
        if trouble.is_none() {
            self.read = page.scanned;
        }
        let begin = fresh.keys().filter(|stream| !self.waiting.contains_key(*stream)).cloned().collect();
        for (stream, notices) in fresh {
            self.waiting.entry(stream).or_default().extend(notices);
        }
        (begin, trouble)
    }

    fn waiting(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    fn settled(&mut self, stream: &StreamId, count: usize) {
        let Some(notices) = self.waiting.get_mut(stream) else { return };
        notices.drain(..count);
        if notices.is_empty() {
            self.waiting.remove(stream);
        }
    }

    /// Up to where all is noted.
    fn done(&self) -> Option<Position> {
        let first = self.waiting.values().filter_map(|notices| notices.first()).map(|notice| notice.before);
        first.min().unwrap_or(self.read)
    }
}

/// What is noted because of an event, and in whose stream; `before` is up to where all was taken in before.
fn notice(because: &Recorded, before: Option<Position>) -> Result<Option<(StreamId, Notice)>, String> {
    let event = RoomEvent::from_envelope(&because.envelope).map_err(|error| error.to_string())?;
    let room = EntityId::parse(because.stream.id()).map_err(|error| error.to_string())?;
    let ended = |room, outcome| UserCommand::from(EndInvitation { room, outcome });
    let (member, command) = match event {
        RoomEvent::MemberInvited(invited) => {
            let by = because.envelope.author.clone();
            (invited.member, ReceiveInvitation { room, title: invited.title, by }.into())
        }
        RoomEvent::InvitationAccepted(it) => (it.member, ended(room, InvitationOutcome::Accepted)),
        RoomEvent::InvitationDeclined(it) => (it.member, ended(room, InvitationOutcome::Declined)),
        RoomEvent::InvitationWithdrawn(it) => (it.member, ended(room, InvitationOutcome::Withdrawn)),
        _ => return Ok(None),
    };
    // A persona has no stream of its own.
    let Some(user) = member.user() else { return Ok(None) };
    let id = format!("because:{}", because.envelope.id);
    let id = CommandId::parse(&id).map_err(|error| error.to_string())?;
    Ok(Some((StreamId::user(&user), Notice { id, command, cause: Cause::of(&because.envelope), before })))
}

/// Whether an answer says that nothing is left to be done.
async fn is_settled(answer: oneshot::Receiver<Answer>) -> bool {
    match answer.await.map(|answer| answer.outcome) {
        Ok(Ok(_)) => true,
        Ok(Err(refused)) if refused.code.may_retry() => false,
        Ok(Err(refused)) => {
            tracing::debug!(?refused, "a notice of an invitation is not taken");
            true
        }
        Err(_) => false,
    }
}
