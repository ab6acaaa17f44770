//! Which session is on which connection: the same session coming back replaces its first one.
//!
//! What counts is when connections arrived, not when their hellos are handled: those of a
//! client that was cut off and came back may be handled in either order, on two threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use actix::WeakRecipient;
use actix::prelude::Message;
use dramatis_events::{CommandId, MemberId};

use super::meters::{Seat, SessionSeat};
use super::shrink::shrink;

/// Tells a session that it came back on another connection.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Replaced;

type Key = (MemberId, CommandId);

/// A connection's place in the order in which they arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(u64);

/// The connection that a session is on, by a handle that costs a connection next to nothing, and
/// what it takes up of what its user may have.
type Entered = (Arrival, WeakRecipient<Replaced>, SessionSeat);

/// What came of entering a session.
pub enum Entry {
    /// It has the place, and this of an earlier connection, which was told that it is replaced.
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
        connection: WeakRecipient<Replaced>,
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
        if let Some(replaced) = replaced.upgrade() {
            replaced.do_send(Replaced);
        }
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
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use actix::prelude::*;
    use tokio::sync::mpsc;

    use super::*;

    struct Connection(&'static str, mpsc::UnboundedSender<&'static str>);

    impl Actor for Connection {
        type Context = Context<Self>;
    }

    impl Handler<Replaced> for Connection {
        type Result = ();

        fn handle(&mut self, _: Replaced, _: &mut Self::Context) {
            self.1.send(self.0).unwrap();
        }
    }

    #[test]
    fn the_connection_that_arrived_later_stays_whichever_speaks_first() {
        System::new().block_on(async {
            for later_speaks_first in [false, true] {
                let directory = Directory::default();
                let (user, session) = (MemberId::parse("alice").unwrap(), CommandId::parse("tab").unwrap());
                let (told, mut replaced) = mpsc::unbounded_channel();
                let mut arrived = ["earlier", "later"]
                    .map(|name| (directory.arrive(), Connection(name, told.clone()).start()));
                let [earlier, later] = [arrived[0].0, arrived[1].0];
                if later_speaks_first {
                    arrived.reverse();
                }
                for (arrival, connection) in &arrived {
                    let (connection, seat) = (connection.downgrade().recipient(), SessionSeat::default());
                    let entry = directory.enter(&user, &session, *arrival, connection, seat);
                    let is_late = matches!(entry, Entry::TooLate);
                    assert_eq!(is_late, later_speaks_first && *arrival == earlier);
                }
                if !later_speaks_first {
                    assert_eq!(replaced.recv().await, Some("earlier"));
                }
                directory.leave(&user, &session, earlier);
                assert!(directory.lock().values().all(|(arrival, ..)| *arrival == later));
                assert_eq!(directory.lock().len(), 1, "the earlier one has its place no longer");
                directory.leave(&user, &session, later);
                assert!(directory.lock().is_empty());
            }
        });
    }
}
