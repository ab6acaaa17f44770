//! A reader that follows the protocol's rules over whatever way it has, and holds the server to
//! them: what comes on a line is contiguous from where its room's entry said, begins nowhere
//! past what the reader holds, and is never said twice without having been asked for twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::imports::Chance;
use crate::ways::{Broken, Came, From, Line, Person, WAYS, Way};

/// What the reader holds of a room.
#[derive(Debug, Default)]
pub struct Held {
    pub epoch: Option<Value>,
    /// Every event, once, in order.
    pub events: Vec<Value>,
}

impl Held {
    fn next(&self) -> u64 {
        u64::try_from(self.events.len()).unwrap()
    }

    fn cursor(&self, room: &str) -> Value {
        json!({"room": room, "epoch": self.epoch, "after": self.next().checked_sub(1)})
    }
}

/// What happened to the reader.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub lines: u64,
    pub moves: u64,
    pub by_cursor: u64,
    pub broken: u64,
    pub replaced: u64,
    pub repeated: u64,
}

/// See the module.
pub struct Reader {
    person: Person,
    rooms: Vec<String>,
    /// How many events each room will have.
    want: u64,
    held: BTreeMap<String, Held>,
    /// An opaque cursor behind all that was handled, and what must come next after it, by room.
    cursor: Option<(String, BTreeMap<String, u64>)>,
    way: Option<Way>,
    /// A room was asked for twice, so that its events may come twice.
    asked_again: bool,
    pub counts: Counts,
}

/// What one line has said so far.
#[derive(Default)]
struct Said {
    ready: bool,
    /// By room, the revision that must come next.
    next: BTreeMap<String, u64>,
    asked: Vec<String>,
}

impl Reader {
    /// A reader of these rooms, each of which will have so many events.
    pub fn new(person: Person, rooms: &[String], want: u64) -> Self {
        let held = rooms.iter().map(|room| (room.clone(), Held::default())).collect();
        let counts = Counts::default();
        let rooms = rooms.to_vec();
        Self { person, rooms, want, held, cursor: None, way: None, asked_again: false, counts }
    }

    /// Reads until all is held; gives it.
    pub fn read(mut self, to: SocketAddr, chance: &mut Chance) -> (BTreeMap<String, Held>, Counts) {
        while !self.is_done() {
            let way = WAYS[usize::try_from(chance.below(3)).unwrap()];
            self.counts.lines += 1;
            self.counts.moves += u64::from(self.way.is_some_and(|before| before != way));
            self.way = Some(way);
            match self.line(way, to, chance) {
                Ok(()) => {}
                Err(Broken::Cut) => self.counts.broken += 1,
                // A repeated request of a line given up may come late and take the session over.
                Err(Broken::Closed(4507)) => self.counts.replaced += 1,
                Err(Broken::Closed(code)) => assert!(code < 4500, "closed for good with {code}"),
                Err(Broken::Refused(status, problem)) => assert_eq!(status, 503, "{problem}"),
            }
        }
        (self.held, self.counts)
    }

    fn is_done(&self) -> bool {
        self.held.values().all(|held| held.next() >= self.want)
    }

    fn line(&mut self, way: Way, to: SocketAddr, chance: &mut Chance) -> Result<(), Broken> {
        let (from, next) = self.from(chance);
        let mut line = Line::open(way, to, &self.person, &from)?;
        // A poll that goes on may find its session where it was, which then says no new `ready`.
        let goes_on = way == Way::Poll && matches!(from, From::Cursor(_));
        let mut said = if goes_on { Said { ready: true, next, ..Said::default() } } else { Said::default() };
        let mut left = chance.below(2 * self.want);
        while !self.is_done() {
            let Came { messages, cursor } = line.next(to, &self.person)?;
            for message in &messages {
                left = left.saturating_sub(u64::from(self.handle(&mut said, message)));
            }
            self.cursor = cursor.map(|cursor| (cursor, said.next.clone()));
            self.ask_for_more(&mut said, &mut line, to)?;
            if left == 0 {
                line.cut();
                return Ok(());
            }
        }
        Ok(())
    }

    /// The last room is asked for later, on the line.
    fn from(&mut self, chance: &mut Chance) -> (From, BTreeMap<String, u64>) {
        if let Some((cursor, next)) = self.cursor.take()
            && chance.below(2) == 0
        {
            self.counts.by_cursor += 1;
            return (From::Cursor(cursor), next);
        }
        let known = self
            .held
            .iter()
            .filter(|(room, held)| held.next() > 0 || **room != self.rooms[self.rooms.len() - 1]);
        (From::Rooms(known.map(|(room, held)| held.cursor(room)).collect()), BTreeMap::new())
    }

    fn ask_for_more(&mut self, said: &mut Said, line: &mut Line, to: SocketAddr) -> Result<(), Broken> {
        if !said.ready {
            return Ok(());
        }
        let missing =
            self.rooms.iter().filter(|room| !said.next.contains_key(*room) && !said.asked.contains(room));
        for room in missing.cloned().collect::<Vec<_>>() {
            let mut frame = self.held[&room].cursor(&room);
            frame["type"] = json!("subscribe");
            frame["id"] = json!(format!("subscribe-{room}-{}", self.counts.lines));
            if !line.say(to, &self.person, &frame)? {
                return Err(Broken::Cut);
            }
            said.asked.push(room);
        }
        Ok(())
    }

    /// Whether it was an event that the reader did not hold.
    fn handle(&mut self, said: &mut Said, message: &Value) -> bool {
        match message["type"].as_str().unwrap() {
            "ready" => {
                *said = Said { ready: true, ..Said::default() };
                for entry in message["rooms"].as_array().unwrap() {
                    self.entry(said, entry);
                }
            }
            "subscribed" => {
                self.asked_again |= said.next.contains_key(message["room"].as_str().unwrap());
                self.entry(said, message);
            }
            "event" => return self.event(said, message),
            "live" => {
                let next = said.next[message["room"].as_str().unwrap()];
                assert_eq!(
                    message["revision"].as_u64(),
                    next.checked_sub(1),
                    "live is said where history ends"
                );
            }
            "ping" | "presence" => {}
            other => panic!("{other} was not asked for: {message}"),
        }
        false
    }

    fn entry(&mut self, said: &mut Said, entry: &Value) {
        let room = entry["room"].as_str().unwrap();
        assert_eq!(entry["how"], "events", "{entry}");
        let held = self.held.get_mut(room).unwrap();
        assert_eq!(held.epoch.get_or_insert_with(|| entry["epoch"].clone()), &entry["epoch"]);
        let next = entry["after"].as_u64().map_or(0, |after| after + 1);
        assert!(next <= held.next(), "{entry}: {} are held, so some are lost", held.next());
        assert!(
            next == held.next() || self.asked_again,
            "{entry}: {} are held, so some would come twice",
            held.next()
        );
        said.next.insert(room.to_owned(), next);
    }

    fn event(&mut self, said: &mut Said, event: &Value) -> bool {
        let room = event["room"].as_str().unwrap();
        let next = said.next.get_mut(room).unwrap_or_else(|| panic!("{room} is not followed: {event}"));
        let revision = event["revision"].as_u64().unwrap();
        assert_eq!(revision, *next, "in order on one line: {event}");
        *next += 1;
        let held = self.held.get_mut(room).unwrap();
        if revision < held.next() {
            self.counts.repeated += 1;
            assert!(self.asked_again, "twice, although asked for once: {event}");
            return false;
        }
        assert_eq!(revision, held.next());
        held.events.push(event.clone());
        true
    }
}
