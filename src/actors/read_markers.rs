//! How far people have read, on its way into their own streams: what their devices say is
//! gathered for a while, by user and room, and recorded as one event a room.
//!
//! It waits here until it is recorded, so that who asks how far somebody has read is told of all that
//! was said. What waits is lost in a crash: a few seconds of reading, which the client says again
//! with the next message that it shows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dramatis_events::{CommandId, ContentHash, EntityId, MemberId, Revision, StreamId, UserId};
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

use super::answer::{Answer, Refused, ReplyTo};
use super::entity::{Pending, Request};
use super::registry::Registry;
use super::shrink::shrink;
use crate::domain::user::{MoveReadMarker, User, UserCommand};

/// Users whose markers are recorded at a time when the process ends.
const USERS_AT_ONCE: usize = 256;

/// See the module.
#[derive(Clone)]
pub struct ReadMarkers(Arc<Shared>);

struct Shared {
    users: Registry<User>,
    every: Duration,
    rooms_max: usize,
    waiting: Mutex<HashMap<UserId, HashMap<EntityId, Revision>>>,
}

impl ReadMarkers {
    /// Gathers for this long; for so many rooms of a user at the most, others are let go.
    pub fn new(users: Registry<User>, every: Duration, rooms_max: usize) -> Self {
        Self(Arc::new(Shared { users, every, rooms_max, waiting: Mutex::default() }))
    }

    /// A device of this user has shown the room up to here.
    pub fn note(&self, user: UserId, room: EntityId, revision: Revision) {
        let mut waiting = self.lock();
        let is_first = !waiting.contains_key(&user);
        let rooms = waiting.entry(user.clone()).or_default();
        if let Some(read) = rooms.get_mut(&room) {
            *read = revision.max(*read);
        } else if rooms.len() < self.0.rooms_max {
            rooms.insert(room, revision);
        }
        drop(waiting);
        if is_first {
            let markers = self.clone();
            actix_rt::spawn(async move { markers.record(&user).await });
        }
    }

    /// How far the user has read, as far as that waits to be recorded.
    pub fn waiting(&self, user: &UserId) -> HashMap<EntityId, Revision> {
        self.lock().get(user).cloned().unwrap_or_default()
    }

    /// Records all that waits; for the end of the process.
    pub async fn flush_all(&self) {
        let waiting: Vec<_> = self.lock().iter().map(|(user, rooms)| (user.clone(), rooms.clone())).collect();
        let flushing = waiting.iter().map(|(user, rooms)| self.flush(user, rooms));
        futures_util::stream::iter(flushing)
            .for_each_concurrent(USERS_AT_ONCE, async |one| drop(one.await))
            .await;
    }

    /// Records what waits of a user, time after time until nothing does.
    async fn record(&self, user: &UserId) {
        loop {
            actix_rt::time::sleep(self.0.every).await;
            let rooms = self.lock().get(user).cloned().unwrap_or_default();
            let done = self.flush(user, &rooms).await;
            if !self.let_go(user, &done) {
                return;
            }
        }
    }

    /// Lets go of what is recorded; whether more has come meanwhile.
    fn let_go(&self, user: &UserId, recorded: &HashMap<EntityId, Revision>) -> bool {
        let mut waiting = self.lock();
        let Some(rooms) = waiting.get_mut(user) else { return false };
        rooms.retain(|room, revision| recorded.get(room).is_none_or(|recorded| recorded < revision));
        let has_more = !rooms.is_empty();
        if !has_more {
            waiting.remove(user);
            shrink(&mut waiting);
        }
        has_more
    }

    /// Hands these markers to the user's entity, which knows what is news, as many at a time as it takes;
    /// those that it has settled. What it refuses for good is let go.
    async fn flush(&self, user: &UserId, rooms: &HashMap<EntityId, Revision>) -> HashMap<EntityId, Revision> {
        let (stream, author) = (StreamId::user(user), MemberId::from(user.clone()));
        let (mut pending, mut answers) = (Vec::with_capacity(rooms.len()), Vec::with_capacity(rooms.len()));
        for (room, revision) in rooms {
            let Some(id) = command_id(room, *revision) else { continue };
            let command = UserCommand::from(MoveReadMarker { room: room.clone(), revision: *revision });
            let hash = command.content_hash(&stream);
            let author = author.clone();
            let request =
                Request { id, hash, author, occurred_at: None, expected: None, cause: None, command };
            let (caller, answer) = oneshot::channel::<Answer>();
            pending.push(Pending { request, reply: ReplyTo::Caller(caller) });
            answers.push((room.clone(), *revision, answer));
        }
        let (mut answers, mut done) = (answers.into_iter(), HashMap::new());
        while !pending.is_empty() {
            let count = pending.len();
            pending = self.0.users.submit(&stream, pending).err().unwrap_or_default();
            let taken = count.saturating_sub(pending.len());
            if taken == 0 {
                tracing::debug!(%user, "read markers wait for longer: too much waits at the user's stream");
                break;
            }
            for (room, revision, answer) in answers.by_ref().take(taken) {
                let outcome = answer.await.map(|answer| answer.outcome);
                let is_to_retry = |refused: &Refused| refused.code.may_retry();
                if outcome.is_ok_and(|outcome| !outcome.err().as_ref().is_some_and(is_to_retry)) {
                    done.insert(room, revision);
                }
            }
        }
        done
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<UserId, HashMap<EntityId, Revision>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same reading is the same command, whichever process says it.
fn command_id(room: &EntityId, revision: Revision) -> Option<CommandId> {
    let hash = ContentHash::of(&[room.as_str().as_bytes(), &revision.get().to_le_bytes()]);
    CommandId::parse(&format!("seen:{}", String::from(hash))).ok()
}
