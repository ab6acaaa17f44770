//! Which commands are on their way, and which must go again. Pure: time arrives as a number.
//!
//! The server handles one socket's commands to one room in order. When it turns one away for
//! now, the room stands still: what was sent after it is awaited, everything of the room that
//! got a no goes again from that command on, in order, and only then does the room go on. What goes
//! to it at once is half as much each time, down to one by one: the room may have no place for more.
//! A room begins with one command, and has more at once as long as it takes all: what is sent behind a
//! command that is turned away may be taken before that goes again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::plan::Command;

/// How many commands of one room may be unanswered.
const ROOM_IN_FLIGHT_MAX: usize = 2_048;
/// The first wait before a room is tried again, milliseconds; it doubles each time.
const RETRY_BASE_MS: u64 = 50;
/// The longest wait, milliseconds.
const RETRY_CAP_MS: u64 = 5_000;
/// Tries of a room, without one success between them, before the import gives up.
pub(super) const TRIES_MAX: u32 = 30;
/// By how much a room is widened each time that it took all it might have at once, until it is first
/// turned away.
const WIDEN_TIMES: usize = 4;
/// From then on twice as much may go to it at once after so many positive answers in a row.
const WIDEN_AFTER: usize = 1_024;

struct Room {
    in_flight: usize,
    /// How many commands may be unanswered at present.
    in_flight_max: usize,
    /// Positive answers since that was changed.
    taken: usize,
    /// Whether it was ever turned away.
    knows_its_bound: bool,
    again: BTreeMap<u64, Command>,
    /// Since when nothing new may be sent, and when to try again.
    retry_at_ms: Option<u64>,
    tries: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            in_flight: 0,
            in_flight_max: 1,
            taken: 0,
            knows_its_bound: false,
            again: BTreeMap::new(),
            retry_at_ms: None,
            tries: 0,
        }
    }
}

impl Room {
    fn accepted(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.tries = 0;
        self.taken += 1;
        let (after, times) =
            if self.knows_its_bound { (WIDEN_AFTER, 2) } else { (self.in_flight_max, WIDEN_TIMES) };
        if self.taken >= after {
            self.in_flight_max = self.in_flight_max.saturating_mul(times).min(ROOM_IN_FLIGHT_MAX);
            self.taken = 0;
        }
    }

    /// Of what was under way with this command too much came at once, for all that is known.
    fn turned_away(&mut self) {
        let under_way = self.in_flight.saturating_add(1);
        self.in_flight_max = (self.in_flight_max.min(under_way) / 2).max(1);
        self.taken = 0;
        self.knows_its_bound = true;
        self.tries += 1;
    }
}

/// What a refusal means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server will not take it.
    Refused(Command),
    /// It goes again later.
    Again,
    /// It was tried [`TRIES_MAX`] times.
    GivenUp,
    /// No such command is on its way.
    Unknown,
}

/// The commands on their way.
pub(super) struct Window {
    in_flight_max: usize,
    in_flight: HashMap<Arc<str>, (u64, Command)>,
    rooms: HashMap<Arc<str>, Room>,
    waiting: usize,
    next: u64,
}

impl Window {
    pub(super) fn new(in_flight_max: usize) -> Self {
        let (in_flight, rooms) = (HashMap::new(), HashMap::new());
        Self { in_flight_max: in_flight_max.max(1), in_flight, rooms, waiting: 0, next: 0 }
    }

    /// Lowers the limit to what the server takes.
    pub(super) fn limit(&mut self, in_flight_max: usize) {
        self.in_flight_max = self.in_flight_max.min(in_flight_max.max(1));
    }

    /// Whether a new command of this room may be sent now.
    pub(super) fn takes(&self, room: &str) -> bool {
        let free = |room: &Room| {
            room.in_flight < room.in_flight_max && room.retry_at_ms.is_none() && room.again.is_empty()
        };
        self.in_flight.len() < self.in_flight_max && self.rooms.get(room).is_none_or(free)
    }

    /// Notes a new command as sent.
    pub(super) fn sent(&mut self, command: Command) {
        let number = self.next;
        self.next += 1;
        self.put(number, command);
    }

    fn put(&mut self, number: u64, command: Command) {
        self.rooms.entry(command.room.clone()).or_default().in_flight += 1;
        self.in_flight.insert(command.id.clone(), (number, command));
    }

    /// Takes a command off its way: the server took it.
    pub(super) fn acknowledged(&mut self, id: &str) -> Option<Command> {
        let (_, command) = self.in_flight.remove(id)?;
        if let Some(room) = self.rooms.get_mut(&command.room) {
            room.accepted();
        }
        Some(command)
    }

    /// Handles a no; `retry` where the server says that it may be asked again.
    pub(super) fn rejected(&mut self, id: &str, retry: bool, after_ms: Option<u64>, now_ms: u64) -> Verdict {
        let Some((number, command)) = self.in_flight.remove(id) else { return Verdict::Unknown };
        let room = self.rooms.entry(command.room.clone()).or_default();
        room.in_flight = room.in_flight.saturating_sub(1);
        if !retry && room.retry_at_ms.is_none() {
            return Verdict::Refused(command);
        }
        if room.retry_at_ms.is_none() {
            room.turned_away();
        }
        if room.tries > TRIES_MAX {
            return Verdict::GivenUp;
        }
        let backoff_ms = RETRY_BASE_MS.saturating_mul(1 << room.tries.min(10)).min(RETRY_CAP_MS);
        let at_ms = now_ms.saturating_add(after_ms.unwrap_or(backoff_ms));
        room.retry_at_ms = room.retry_at_ms.max(Some(at_ms));
        room.again.insert(number, command);
        self.waiting += 1;
        Verdict::Again
    }

    /// The connection is gone: everything unanswered goes again on the next one.
    pub(super) fn lost(&mut self, now_ms: u64) {
        for (number, command) in std::mem::take(&mut self.in_flight).into_values() {
            let room = self.rooms.entry(command.room.clone()).or_default();
            room.in_flight = 0;
            room.retry_at_ms = room.retry_at_ms.or(Some(now_ms));
            room.again.insert(number, command);
            self.waiting += 1;
        }
    }

    /// Takes the next command that is due to go again, and notes it as sent: its id and its frame.
    /// `None` also if that does not fit.
    pub(super) fn due(&mut self, now_ms: u64, fits: impl Fn(&Command) -> bool) -> Option<(Arc<str>, String)> {
        if self.waiting == 0 || self.in_flight.len() >= self.in_flight_max {
            return None;
        }
        let ready = |room: &Room| match room.retry_at_ms {
            Some(at_ms) => room.in_flight == 0 && at_ms <= now_ms,
            None => !room.again.is_empty() && room.in_flight < room.in_flight_max,
        };
        let room = self.rooms.values_mut().find(|room| ready(room))?;
        room.retry_at_ms = None;
        let first = room.again.first_entry().filter(|first| fits(first.get()))?;
        let (number, command) = first.remove_entry();
        self.waiting -= 1;
        let sent = (command.id.clone(), command.frame.clone());
        self.put(number, command);
        Some(sent)
    }

    /// When to look for due commands next, if any wait for their time.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let idle = self.rooms.values().filter(|room| room.in_flight == 0);
        idle.filter_map(|room| room.retry_at_ms).min()
    }

    /// Whether everything that was sent has its answer.
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.waiting == 0
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
    use super::*;

    fn command(room: &str, id: &str) -> Command {
        let (room, id, frame) = (room.into(), id.into(), id.to_owned());
        Command { room, id, frame, origin: "x:1".into(), opening: false }
    }

    fn window(ids: &[&str]) -> Window {
        let mut window = Window::new(100);
        window.rooms.insert("den".into(), Room { in_flight_max: ROOM_IN_FLIGHT_MAX, ..Room::default() });
        for id in ids {
            assert!(window.takes("den"));
            window.sent(command("den", id));
        }
        window
    }

    fn due(window: &mut Window, now_ms: u64) -> Vec<String> {
        std::iter::from_fn(|| window.due(now_ms, |_| true)).map(|(_, frame)| frame).collect()
    }

    #[test]
    fn a_final_no_does_not_stop_the_room() {
        let mut window = window(&["a", "b"]);
        assert_eq!(window.rejected("a", false, None, 0), Verdict::Refused(command("den", "a")));
        assert!(window.takes("den"));
        assert_eq!(window.acknowledged("b"), Some(command("den", "b")));
        assert_eq!(window.acknowledged("b"), None);
        assert!(window.is_empty());
    }

    #[test]
    fn a_room_turned_away_goes_again_in_order_from_that_command() {
        let mut window = window(&["a", "b", "c", "d"]);
        window.acknowledged("a");
        assert_eq!(window.rejected("b", true, Some(500), 1_000), Verdict::Again);
        // A no that follows may only be the consequence of the first.
        assert_eq!(window.rejected("d", false, None, 1_000), Verdict::Again);
        assert!(!window.takes("den"));
        assert!(window.takes("other"));
        assert_eq!(due(&mut window, 2_000), Vec::<String>::new(), "c has no answer yet");
        window.acknowledged("c");
        assert_eq!(window.next_due_ms(), Some(1_500));
        assert_eq!(due(&mut window, 1_499), Vec::<String>::new());
        assert_eq!(due(&mut window, 1_500), ["b"], "three were too many at once");
        assert!(!window.takes("den"), "d goes first");
        window.acknowledged("b");
        assert_eq!(due(&mut window, 1_500), ["d"]);
        assert_eq!(window.rejected("d", false, None, 2_000), Verdict::Refused(command("den", "d")));
        assert!(window.takes("den"));
        assert!(window.is_empty());
    }

    #[test]
    fn what_a_lost_connection_left_open_goes_again_in_order() {
        let mut window = window(&["a", "b", "c"]);
        window.acknowledged("b");
        window.lost(7);
        assert!(!window.is_empty());
        assert_eq!(due(&mut window, 7), ["a", "c"]);
    }

    #[test]
    fn limits_hold_in_total_and_for_a_room() {
        let mut window = Window::new(3);
        window.limit(2);
        window.sent(command("a", "1"));
        window.sent(command("b", "2"));
        assert!(!window.takes("c"));
        window.acknowledged("1");
        assert!(window.takes("c"));
        let mut window = Window::new(usize::MAX);
        for number in 0..ROOM_IN_FLIGHT_MAX {
            window.sent(command("a", &number.to_string()));
        }
        assert!(!window.takes("a"));
        assert!(window.takes("b"));
    }

    #[test]
    fn a_room_that_turns_runs_away_gets_smaller_ones_until_it_takes_them() {
        const PLACES: usize = 3;
        let ids: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let mut window = window(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        let (mut run, mut taken, mut now_ms) = (ids.clone(), Vec::new(), 0);
        while !run.is_empty() {
            let fits = run.len() <= PLACES;
            for id in &run {
                if fits {
                    window.acknowledged(id).unwrap();
                } else {
                    assert_eq!(window.rejected(id, true, Some(10), now_ms), Verdict::Again);
                }
            }
            taken.extend(if fits { run } else { Vec::new() });
            now_ms = window.next_due_ms().unwrap_or(now_ms);
            run = due(&mut window, now_ms);
        }
        assert_eq!(taken, ids, "all of them, in order");
    }

    #[test]
    fn a_room_that_takes_all_gets_longer_runs_again() {
        let mut window = window(&["a", "b"]);
        for id in ["a", "b"] {
            window.rejected(id, true, Some(0), 0);
        }
        let (mut sent, mut widest) = (due(&mut window, 0), 0);
        assert_eq!(sent, ["a"], "one by one");
        for number in 0..2 * WIDEN_AFTER {
            for id in sent.drain(..) {
                window.acknowledged(&id).unwrap();
            }
            sent = due(&mut window, 0);
            while window.takes("den") {
                let id = format!("n{number}-{}", sent.len());
                window.sent(command("den", &id));
                sent.push(id);
            }
            widest = widest.max(sent.len());
        }
        assert!(widest >= 4, "{widest}");
    }

    #[test]
    fn a_room_gets_more_at_once_as_it_takes_all() {
        let (mut window, mut number) = (Window::new(usize::MAX), 0);
        let mut fill = |window: &mut Window| {
            let mut sent = Vec::new();
            while window.takes("den") {
                number += 1;
                sent.push(number.to_string());
                window.sent(command("den", &number.to_string()));
            }
            sent
        };
        let mut runs = Vec::new();
        for _ in 0..8 {
            let sent = fill(&mut window);
            runs.push(sent.len());
            for id in &sent {
                window.acknowledged(id).unwrap();
            }
        }
        assert_eq!(runs, [1, 4, 16, 64, 256, 1_024, ROOM_IN_FLIGHT_MAX, ROOM_IN_FLIGHT_MAX]);
    }

    #[test]
    fn a_room_is_not_tried_for_ever() {
        let mut window = window(&["a"]);
        for _ in 0..TRIES_MAX {
            assert_eq!(window.rejected("a", true, Some(0), 0), Verdict::Again);
            assert_eq!(due(&mut window, 0), ["a"]);
        }
        assert_eq!(window.rejected("a", true, Some(0), 0), Verdict::GivenUp);
    }
}
