//! When which connection is looked at for silence. Only those whose time has come are: a
//! thread's idle connections cost nothing between two heartbeats.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::actors::outbox::Outbox;
use crate::config::SocketConfig;
use crate::protocol::CloseCode;

/// How finely times are told apart, milliseconds.
const STEP_MS: u64 = 250;

/// See the module.
pub(super) struct Heartbeats {
    started: Instant,
    /// Steps, and the connections that are looked at in them.
    due: RefCell<BTreeSet<(u64, u64)>>,
}

impl Heartbeats {
    /// How often those whose time has come are to be looked at.
    pub(super) const EVERY: Duration = Duration::from_millis(STEP_MS);

    pub(super) fn new() -> Self {
        Self { started: Instant::now(), due: RefCell::default() }
    }

    /// Looks at a connection at this time, or a step later.
    pub(super) fn look_at(&self, connection: u64, time: Instant) {
        self.due.borrow_mut().insert((self.step(time).saturating_add(1), connection));
    }

    /// Does not look at a connection at this time, as was asked for: else what is far ahead would pile up.
    pub(super) fn forget(&self, connection: u64, time: Instant) {
        self.due.borrow_mut().remove(&(self.step(time).saturating_add(1), connection));
    }

    /// Those whose time has come.
    pub(super) fn take_due(&self, now: Instant) -> Vec<u64> {
        let mut due = self.due.borrow_mut();
        let later = due.split_off(&(self.step(now).saturating_add(1), 0));
        std::mem::replace(&mut *due, later).into_iter().map(|(_, connection)| connection).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.due.borrow().len()
    }

    fn step(&self, time: Instant) -> u64 {
        let passed = time.saturating_duration_since(self.started).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX) / STEP_MS
    }
}

/// What silence calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again at this time.
    Wait(Instant),
    /// Ask whether somebody is there, and look again at this time.
    Ping(Instant),
    /// Nobody is.
    Close(CloseCode),
}

/// What a connection's silence calls for now.
pub(super) fn judge(outbox: &Outbox, limits: &SocketConfig, now: Instant) -> Verdict {
    let heard = outbox.heard_at();
    let heartbeat = Duration::from_millis(limits.heartbeat_ms);
    let ping_at = heard + heartbeat;
    let gone_at = ping_at + Duration::from_millis(limits.heartbeat_grace_ms);
    if !outbox.is_greeted() {
        let until = heard + Duration::from_millis(limits.hello_timeout_ms);
        // Greeted soon after this look, it must not wait longer for its first ping.
        return match now < until {
            true => Verdict::Wait(until.min(now + heartbeat)),
            false if outbox.owes_hello() => Verdict::Close(CloseCode::NoHello),
            false => Verdict::Wait(now + heartbeat),
        };
    }
    if outbox.is_waited_at() {
        return Verdict::Wait(now + heartbeat);
    }
    match outbox.is_pinged() {
        true if now >= gone_at => Verdict::Close(CloseCode::NoHeartbeat),
        true => Verdict::Wait(gone_at),
        false if now >= ping_at => Verdict::Ping(now.max(gone_at)),
        false => Verdict::Wait(ping_at),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::rc::Rc;

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::actors::share::Share;
    use crate::config::Config;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_connection_is_looked_at_once_its_time_has_come_and_no_sooner() {
        let heartbeats = Heartbeats::new();
        let start = heartbeats.started;
        for (connection, after) in [(1, 10), (2, 25), (3, 10)] {
            heartbeats.look_at(connection, start + SECOND * after);
        }
        assert_eq!(heartbeats.take_due(start + SECOND * 10), [0; 0]);
        assert_eq!(heartbeats.take_due(start + SECOND * 11), [1, 3]);
        assert_eq!(heartbeats.take_due(start + SECOND * 20), [0; 0]);
        assert_eq!(heartbeats.take_due(start + SECOND * 100), [2]);
    }

    #[test]
    fn what_is_forgotten_takes_up_nothing() {
        let heartbeats = Heartbeats::new();
        let at = |after: u32| heartbeats.started + SECOND * after;
        for after in 0..10 {
            heartbeats.look_at(1, at(after));
            heartbeats.look_at(2, at(after));
            heartbeats.forget(1, at(after));
        }
        assert_eq!(heartbeats.due.borrow().len(), 10);
        assert_eq!(heartbeats.take_due(at(100)), [2; 10]);
    }

    #[test]
    fn who_is_silent_is_asked_and_then_closed_and_who_answers_is_not() {
        let mut limits = Config::defaults().unwrap().socket;
        (limits.hello_timeout_ms, limits.heartbeat_ms, limits.heartbeat_grace_ms) = (10_000, 25_000, 10_000);
        let outbox = Outbox::new(Rc::new(Share::new(Gauge::default(), Gauge::default(), 1 << 20)), 1_000, 1);
        let opened = outbox.heard_at();
        let judge = |after: u32| judge(&outbox, &limits, opened + SECOND * after);
        let at = |after: u32| opened + SECOND * after;
        assert_eq!(judge(1), Verdict::Wait(at(10)));
        assert_eq!(judge(10), Verdict::Close(CloseCode::NoHello));
        outbox.waits_for_turn(true);
        assert_eq!(judge(10), Verdict::Wait(at(35)), "it was said in time");
        outbox.waits_for_turn(false);
        assert_eq!(judge(10), Verdict::Close(CloseCode::NoHello));
        outbox.greeted();
        assert_eq!(judge(10), Verdict::Wait(at(25)));
        assert_eq!(judge(26), Verdict::Ping(at(35)));
        outbox.ping("ping".into());
        assert_eq!(judge(34), Verdict::Wait(at(35)));
        assert_eq!(judge(35), Verdict::Close(CloseCode::NoHeartbeat));
        outbox.heard(at(30));
        assert_eq!(judge(35), Verdict::Wait(at(55)));
        outbox.waits(true);
        assert_eq!(judge(100), Verdict::Wait(at(125)), "whose request waits here is there");
    }
}
