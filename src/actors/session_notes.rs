//! New sessions, noted in their user's own stream.
//!
//! Whether a session's name is new is for the log to say: its note is a command whose id comes
//! from the name, and a command is known for ever. So coming back is one lookup, starts no
//! entity and records nothing.

use std::sync::Arc;

use dramatis_events::{CommandId, ContentHash, MemberId, StreamId};

use super::Stage;
use super::answer::ReplyTo;
use super::entity::{Pending, Request};
use crate::domain::user::{StartSession, UserCommand};
use crate::log::CommandRef;

impl Stage {
    /// Notes that this user said hello from this session, if it is a new one. Nobody waits for
    /// it: where it fails, the next hello says it again.
    pub fn note_session(self: &Arc<Self>, user: &MemberId, session: &CommandId, device: Option<String>) {
        let Some(person) = user.user() else { return };
        let hash = String::from(ContentHash::of(&[session.as_str().as_bytes()]));
        let Ok(id) = CommandId::parse(&format!("session:{hash}")) else { return };
        let (stage, stream, author) = (self.clone(), StreamId::user(&person), user.clone());
        let command = UserCommand::from(StartSession { session: session.clone(), device });
        actix_rt::spawn(async move {
            let asked = CommandRef { stream: stream.clone(), author: author.clone(), id: id.clone() };
            match stage.log.find_command(asked).await {
                Ok(None) => {}
                Ok(Some(_)) => return,
                Err(error) => return tracing::warn!(%error, "whether a session is new cannot be told"),
            }
            let hash = command.content_hash(&stream);
            let request =
                Request { id, hash, author, occurred_at: None, expected: None, cause: None, command };
            let (caller, _) = tokio::sync::oneshot::channel();
            let pending = Pending { request, reply: ReplyTo::Caller(caller) };
            if stage.users.submit(&stream, vec![pending]).is_err() {
                tracing::debug!(%stream, "a new session is not noted: too much waits at the user's stream");
            }
        });
    }
}
