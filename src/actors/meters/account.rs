//! What one user, or one address, shares over all connections. There is one for each user who is
//! there: what says nothing holds no more than counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::Meter;
use crate::actors::places::Count;
use crate::config::RateConfig;

/// Whatever comes is taken.
pub(super) const UNLIMITED: RateConfig = RateConfig { commands_per_s: 0, bytes_per_s: 0 };

/// A meter that takes up memory once something is metered.
pub(super) struct Pace {
    rate: RateConfig,
    burst_s: u32,
    /// Whether somebody has said hello.
    greeted: AtomicBool,
    meter: OnceLock<Box<Meter>>,
}

impl Pace {
    /// Nothing is used up: `burst_s` seconds' worth of each rate is left.
    pub(super) fn new(rate: RateConfig, burst_s: u32) -> Self {
        Self { rate, burst_s, greeted: AtomicBool::new(false), meter: OnceLock::new() }
    }

    /// Takes one message of so many bytes; else says when it would be taken.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Duration> {
        self.meter().map_or(Ok(()), |meter| meter.take(bytes))
    }

    fn meter(&self) -> Option<&Meter> {
        let make = || Box::new(Meter::new(self.rate, self.burst_s));
        (self.rate != UNLIMITED).then(|| &**self.meter.get_or_init(make))
    }
}

/// See the module.
pub struct Account {
    pace: Pace,
    /// Connections open at a time.
    connections: Count,
    /// Rooms followed at a time, by all connections together.
    rooms: Count,
    /// Requests answered at a time.
    requests: Count,
    /// Searches made at a time.
    searches: Count,
    /// Connections of HTTP open at a time, whoever they are of.
    http: Count,
}

/// What an account may hold at a time; 0 is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) connections: usize,
    pub(super) rooms: usize,
    pub(super) requests: usize,
    pub(super) searches: usize,
    pub(super) http: usize,
}

impl Account {
    /// Nothing is held yet.
    pub(super) fn new(pace: Pace, held: Held) -> Self {
        Self {
            pace,
            connections: Count::to(held.connections),
            rooms: Count::to(held.rooms),
            requests: Count::to(held.requests),
            searches: Count::to(held.searches),
            http: Count::to(held.http),
        }
    }

    /// Pays for one message or request of so many bytes; else says when it would be taken.
    pub fn take(&self, bytes: usize) -> Result<(), Duration> {
        self.pace.take(bytes)
    }

    /// Pays for a hello of so many bytes; else says when it would be taken. The first one is free: most
    /// users connect once and say nothing for long, and a meter for each would be dear.
    pub fn take_hello(&self, bytes: usize) -> Result<(), Duration> {
        if self.pace.greeted.swap(true, Ordering::Relaxed) { self.take(bytes) } else { Ok(()) }
    }

    /// Pays for so many bytes more of a request that was paid for, which did not say how long it is.
    pub fn take_more(&self, bytes: usize) -> Result<(), Duration> {
        self.pace.meter().map_or(Ok(()), |meter| meter.take_more(bytes))
    }

    /// Takes one of the connections that there may be; `None` if there are as many.
    pub fn connect(self: &Arc<Self>) -> Option<Seat> {
        self.connections.add().then(|| Seat { account: self.clone(), rooms: 0 })
    }

    /// Takes one of the requests that may be answered at a time; `None` if as many are.
    pub fn answer(self: &Arc<Self>) -> Option<Permit> {
        self.permit(|account| &account.requests)
    }

    /// Takes one of the searches that may be made at a time; `None` if as many are.
    pub fn search(self: &Arc<Self>) -> Option<Permit> {
        self.permit(|account| &account.searches)
    }

    /// Takes one of the connections of HTTP that may be open at a time; `None` if as many are.
    pub fn connect_http(self: &Arc<Self>) -> Option<Permit> {
        self.permit(|account| &account.http)
    }

    fn permit(self: &Arc<Self>, of: fn(&Self) -> &Count) -> Option<Permit> {
        of(self).add().then(|| Permit { account: self.clone(), of })
    }
}

/// One of what an account may have at a time; given back when dropped.
pub struct Permit {
    account: Arc<Account>,
    of: fn(&Account) -> &Count,
}

impl Drop for Permit {
    fn drop(&mut self) {
        (self.of)(&self.account).remove(1);
    }
}

/// One connection of an account and the rooms that it follows; given back when dropped.
pub struct Seat {
    account: Arc<Account>,
    rooms: u32,
}

/// A seat that can be handed over: a session that comes back has that of its earlier connection,
/// which may be a while in noticing that it is gone.
#[derive(Clone, Default)]
pub struct SessionSeat(Arc<Mutex<Option<Seat>>>);

impl SessionSeat {
    /// Sits down; whoever sat there gives its place back.
    pub fn fill(&self, seat: Seat) {
        *self.lock() = Some(seat);
    }

    /// Takes the seat for another connection. Who had it has no place any more and takes no room.
    pub fn hand_over(&self) -> Option<Seat> {
        self.lock().take()
    }

    /// Takes as many rooms of those that may be followed as are needed to have so many; how many of
    /// them there are.
    pub fn take_rooms(&self, wanted: usize) -> usize {
        self.lock().as_mut().map_or(0, |seat| seat.take_rooms(wanted))
    }

    /// Takes one of the rooms that may be followed.
    pub fn take_room(&self) -> bool {
        self.lock().as_mut().is_some_and(Seat::take_room)
    }

    /// Gives rooms back, but for so many.
    pub fn keep_rooms(&self, kept: usize) {
        if let Some(seat) = self.lock().as_mut() {
            seat.keep_rooms(kept);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Takes as many rooms of those that may be followed as are needed to have so many; how many of
    /// them there are.
    fn take_rooms(&mut self, wanted: usize) -> usize {
        let held = usize::try_from(self.rooms).unwrap_or(usize::MAX).min(wanted);
        held + (held..wanted).take_while(|_| self.take_room()).count()
    }

    /// Takes one of the rooms that may be followed.
    fn take_room(&mut self) -> bool {
        let taken = self.account.rooms.add();
        self.rooms = self.rooms.saturating_add(u32::from(taken));
        taken
    }

    /// Gives rooms back, but for so many.
    fn keep_rooms(&mut self, kept: usize) {
        let kept = u32::try_from(kept).unwrap_or(u32::MAX).min(self.rooms);
        self.account.rooms.remove(self.rooms.saturating_sub(kept));
        self.rooms = kept;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.account.rooms.remove(self.rooms);
        self.account.connections.remove(1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_takes_is_given_back_with_it() {
        let pace = Pace::new(RateConfig { commands_per_s: 0, bytes_per_s: 0 }, 10);
        let held = Held { connections: 2, rooms: 5, ..Held::default() };
        let account = Arc::new(Account::new(pace, held));
        let (mut one, mut two) = (account.connect().unwrap(), account.connect().unwrap());
        assert!(account.connect().is_none());
        assert_eq!((one.take_rooms(4), two.take_rooms(4)), (4, 1));
        assert!(!one.take_room());
        one.keep_rooms(2);
        assert_eq!((two.take_rooms(9), one.take_room()), (3, false), "the one it had among them");
        drop(two);
        assert!(one.take_room() && account.connect().is_some());
    }

    #[test]
    fn a_seat_that_is_handed_over_is_counted_once() {
        let pace = Pace::new(RateConfig { commands_per_s: 0, bytes_per_s: 0 }, 10);
        let held = Held { connections: 1, rooms: 3, ..Held::default() };
        let account = Arc::new(Account::new(pace, held));
        let (earlier, later) = (SessionSeat::default(), SessionSeat::default());
        earlier.fill(account.connect().unwrap());
        assert_eq!(earlier.take_rooms(3), 3);
        later.fill(earlier.hand_over().unwrap());
        assert!(earlier.hand_over().is_none() && !earlier.take_room());
        earlier.keep_rooms(0);
        assert_eq!((earlier.take_rooms(1), later.take_rooms(2), later.take_rooms(4)), (0, 2, 3));
        drop(earlier);
        assert!(account.connect().is_none(), "it is taken still");
        later.keep_rooms(1);
        assert_eq!(later.take_rooms(3), 3);
        drop(later);
        assert!(account.connect().is_some());
    }

    #[test]
    fn requests_and_searches_are_counted_apart_and_given_back() {
        let held = Held { requests: 2, searches: 1, ..Held::default() };
        let account = Arc::new(Account::new(Pace::new(UNLIMITED, 1), held));
        let (one, _two) = (account.answer().unwrap(), account.answer().unwrap());
        let search = account.search().unwrap();
        assert!(account.answer().is_none() && account.search().is_none());
        drop(one);
        assert!(account.search().is_none() && account.answer().is_some());
        drop(search);
        assert!(account.search().is_some());
    }

    #[test]
    fn the_first_hello_of_a_user_costs_no_memory_and_the_others_are_paid_for() {
        let pace = Pace::new(RateConfig { commands_per_s: 1, bytes_per_s: 0 }, 2);
        let account = Account::new(pace, Held::default());
        assert!(account.take_hello(100).is_ok() && account.pace.meter.get().is_none());
        assert!(account.take_hello(100).is_ok() && account.take_hello(100).is_ok());
        assert!(account.take_hello(100).is_err());
    }

    /// Every user who is there has one, whether or not they ever say a word.
    #[test]
    fn an_account_of_who_says_nothing_is_small() {
        let size = size_of::<Account>();
        assert!(size <= 72, "{size} bytes");
    }
}
