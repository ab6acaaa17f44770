//! New sessions, noted in their user's own stream.
//!
//! Whether a session's name is new is for the log to say: its note is a command whose id comes
//! from the name, and a command is known for ever. So coming back is one lookup, starts no
//! entity and records nothing.
//!
//! Nobody waits for a note, so they are made in rounds, some at a time with a rest between: when very many
//! say hello at once, what somebody waits for has the processor, the log and the read models nearly to
//! itself, and the notes of a round share the log's writes.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dramatis_events::{CommandId, ContentHash, MemberId, StreamId, UserId};
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::Stage;
use super::answer::ReplyTo;
use super::entity::{Pending, Request};
use crate::domain::user::{StartSession, UserCommand};
use crate::log::CommandRef;

/// Notes that are made at a time, in the whole process.
pub(super) const ROUND: usize = 32;
/// The rest after a round, in times of what that took: many that are noted already take next to nothing.
const REST_TIMES: u32 = 9;
/// Its bounds.
const REST: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(250);
/// Notes that wait; the next hello of what finds no room says it again.
const WAITING_MAX: usize = 65_536;

/// A session that said hello.
struct Hello {
    person: UserId,
    session: CommandId,
    device: Option<String>,
}

/// See the module.
#[derive(Default)]
pub struct SessionNotes(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    hellos: VecDeque<Hello>,
    /// Whether somebody has them in hand.
    in_hand: bool,
}

impl SessionNotes {
    /// Whether somebody is to take them in hand.
    fn add(&self, hello: Hello) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.hellos.len() < WAITING_MAX {
            waiting.hellos.push_back(hello);
        }
        !std::mem::replace(&mut waiting.in_hand, true)
    }

    /// The next round; none ends whoever has them in hand.
    fn next(&self) -> Vec<Hello> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let round = waiting.hellos.len().min(ROUND);
        let next: Vec<_> = waiting.hellos.drain(..round).collect();
        if next.is_empty() {
            *waiting = Waiting::default();
        }
        next
    }
}

impl Stage {
    /// Notes that this user said hello from this session, if it is a new one. Nobody waits for
    /// it: where it fails, the next hello says it again.
    pub fn note_session(self: &Arc<Self>, user: &MemberId, session: &CommandId, device: Option<String>) {
        let Some(person) = user.user() else { return };
        // Very many may wait, and a hello may be long.
        let device = device.and_then(|name| self.users.limits().device(&name));
        if !self.session_notes.add(Hello { person, session: session.clone(), device }) {
            return;
        }
        let stage = self.clone();
        actix_rt::spawn(async move {
            loop {
                let round = stage.session_notes.next();
                if round.is_empty() {
                    break;
                }
                let began = Instant::now();
                join_all(round.into_iter().map(|hello| stage.note(hello))).await;
                let rest = began.elapsed() * REST_TIMES;
                sleep(rest.clamp(*REST.start(), *REST.end())).await;
            }
        });
    }

    async fn note(&self, Hello { person, session, device }: Hello) {
        let hash = String::from(ContentHash::of(&[session.as_str().as_bytes()]));
        let Ok(id) = CommandId::parse(&format!("session:{hash}")) else { return };
        let (stream, author) = (StreamId::user(&person), MemberId::from(person));
        let asked = CommandRef { stream: stream.clone(), author: author.clone(), id: id.clone() };
        match self.log.find_command(asked).await {
            Ok(None) => {}
            Ok(Some(_)) => return,
            Err(error) => return tracing::warn!(%error, "whether a session is new cannot be told"),
        }
        let command = UserCommand::from(StartSession { session, device });
        let hash = command.content_hash(&stream);
        let request = Request { id, hash, author, occurred_at: None, expected: None, cause: None, command };
        let (caller, answered) = oneshot::channel();
        let pending = Pending { request, reply: ReplyTo::Caller(caller) };
        if self.users.submit(&stream, vec![pending]).is_err() {
            tracing::debug!(%stream, "a new session is not noted: too much waits at the user's stream");
            return;
        }
        // Whatever it is, the next round's turn has come.
        let _ = answered.await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use crate::actors::tests::{limits, stage_over};
    use crate::clock::SystemClock;
    use crate::log::memory::MemoryLog;

    #[test]
    fn of_a_device_that_waits_no_more_is_kept_than_is_recorded() {
        actix::System::new().block_on(async {
            let stage = stage_over(Arc::new(MemoryLog::new(Arc::new(SystemClock))), limits());
            let (alice, session) = (MemberId::parse("alice").unwrap(), CommandId::parse("tab").unwrap());
            for name in ["x".repeat(60_000), " \n".to_owned()] {
                stage.note_session(&alice, &session, Some(name));
            }
            let waiting = stage.session_notes.next();
            let kept = stage.users.limits().device_chars_max;
            assert_eq!(waiting[0].device.as_deref(), Some("x".repeat(kept).as_str()));
            assert_eq!(waiting[1].device, None);
        });
    }
}
