//! Which session is on which connection: the same session coming back replaces its first one.
//!
//! What counts is when connections arrived, not when their hellos are handled: those of a
//! client that was cut off and came back may be handled in either order, on two threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use dramatis_events::{CommandId, MemberId};

use super::closing::Closer;
use super::meters::{Seat, SessionSeat};
use super::shrink::shrink;
use crate::protocol::CloseCode;

type Key = (MemberId, CommandId);

/// A connection's place in the order in which they arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(u64);

/// The connection that a session is on, by what closes it, and what it takes up of what its user may have.
type Entered = (Arrival, Closer, SessionSeat);

/// What came of entering a session.
pub enum Entry {
    /// It has the place, and this of an earlier connection, which is closed as replaced.
    Taken(Option<Seat>),
    /// A connection that arrived later has it.
    TooLate,
}

/// See the module.
#[derive(Default)]
pub struct Directory {
    arrivals: AtomicU64,
    sessions: Mutex<HashMap<Key, Entered>>,
}

impl Directory {
    /// The next place. To be taken before the client hears that it is connected: what it
    /// connects after that comes later.
    pub fn arrive(&self) -> Arrival {
        Arrival(self.arrivals.fetch_add(1, Ordering::Relaxed))
    }

    /// Enters a session on a connection that will have this seat. Of two connections the later one
    /// has the place.
    pub fn enter(
        &self,
        user: &MemberId,
        session: &CommandId,
        arrival: Arrival,
        connection: Closer,
        seat: SessionSeat,
    ) -> Entry {
        let key = (user.clone(), session.clone());
        let mut sessions = self.lock();
        if sessions.get(&key).is_some_and(|(later, ..)| *later > arrival) {
            return Entry::TooLate;
        }
        let earlier = sessions.insert(key, (arrival, connection, seat));
        drop(sessions);
        let Some((_, replaced, seat)) = earlier else { return Entry::Taken(None) };
        replaced.close(CloseCode::Replaced);
        Entry::Taken(seat.hand_over())
    }

    /// Takes a session out, unless another connection has its place by now.
    pub fn leave(&self, user: &MemberId, session: &CommandId, arrival: Arrival) {
        let key = (user.clone(), session.clone());
        let mut sessions = self.lock();
        if sessions.get(&key).is_some_and(|(known, ..)| *known == arrival) {
            sessions.remove(&key);
            shrink(&mut sessions);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entered>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::actors::closing::Closing;

    #[test]
    fn the_connection_that_arrived_later_stays_whichever_speaks_first() {
        for later_speaks_first in [false, true] {
            let (directory, thread) = (Directory::default(), Arc::new(Closing::default()));
            let (user, session) = (MemberId::parse("alice").unwrap(), CommandId::parse("tab").unwrap());
            let mut arrived =
                [1, 2].map(|connection| (directory.arrive(), Closer::new(thread.clone(), connection)));
            let [earlier, later] = [arrived[0].0, arrived[1].0];
            if later_speaks_first {
                arrived.reverse();
            }
            for (arrival, connection) in arrived {
                let entry = directory.enter(&user, &session, arrival, connection, SessionSeat::default());
                let is_late = matches!(entry, Entry::TooLate);
                assert_eq!(is_late, later_speaks_first && arrival == earlier);
            }
            let closed = if later_speaks_first { vec![] } else { vec![(1, CloseCode::Replaced)] };
            assert_eq!(thread.take(), closed);
            directory.leave(&user, &session, earlier);
            assert!(directory.lock().values().all(|(arrival, ..)| *arrival == later));
            assert_eq!(directory.lock().len(), 1, "the earlier one has its place no longer");
            directory.leave(&user, &session, later);
            assert!(directory.lock().is_empty());
        }
    }
}
