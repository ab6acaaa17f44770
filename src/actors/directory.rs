//! Which session is on which connection: the same session coming back replaces its first one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use actix::prelude::{Message, Recipient};
use dramatis_events::{CommandId, MemberId};

/// Tells a session that it came back on another connection.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Replaced;

type Key = (MemberId, CommandId);

/// See the module.
#[derive(Default)]
pub struct Directory(Mutex<HashMap<Key, Recipient<Replaced>>>);

impl Directory {
    /// Enters a session; the one that stood there is told and its place is taken.
    pub fn enter(&self, user: &MemberId, session: &CommandId, connection: Recipient<Replaced>) {
        let key = (user.clone(), session.clone());
        let before = self.lock().insert(key, connection);
        if let Some(before) = before {
            before.do_send(Replaced);
        }
    }

    /// Takes a session out, unless another connection has its place by now.
    pub fn leave(&self, user: &MemberId, session: &CommandId, connection: &Recipient<Replaced>) {
        let key = (user.clone(), session.clone());
        let mut sessions = self.lock();
        if sessions.get(&key).is_some_and(|known| known == connection) {
            sessions.remove(&key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Recipient<Replaced>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
