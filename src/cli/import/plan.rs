//! From lines to commands. Pure: the same files in the same order give the same commands with
//! the same ids, so that running an import again records nothing twice.
//!
//! Who is a member of which room is tracked over the whole run: the log names people by nick,
//! the server by user id, and a nick that changes keeps its user id until it leaves.

use std::collections::HashMap;
use std::sync::Arc;

use dramatis_events::{EntityId, UserId};
use jiff::civil::Date;
use serde::Serialize;
use serde_json::{Value, json};

use super::clock::{self, Dial};
use super::parse::{self, Line, Message, System};

/// A command ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// The room it is for.
    pub(super) room: Arc<str>,
    /// Its id, unique over all rooms.
    pub(super) id: Arc<str>,
    /// The frame, JSON.
    pub(super) frame: String,
    /// `file:line`, for reports.
    pub(super) origin: Arc<str>,
    /// Opens the room: a refusal because it is open already is no news.
    pub(super) opening: bool,
}

#[derive(Serialize)]
struct Frame<'a> {
    r#type: &'static str,
    id: &'a str,
    room: &'a str,
    name: &'static str,
    data: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<i64>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Somebody said something.
    Message,
    /// Somebody did something.
    Action,
    /// A system line of this kind.
    System(&'static str),
}

/// A line that gave no command although it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is no line of a chat log.
    Unparsed(String),
    /// It is one, but the server could not take what it says.
    Refused(Counted, String),
}

/// Where in a file the planner stands.
pub(super) struct FileState {
    /// The room of lines that name none.
    room: String,
    date: Option<Date>,
    time_ms: i64,
    seen_time: bool,
    dial: Dial,
    /// Half days past those that the clock shows.
    half_days: i64,
    warning: Option<String>,
}

impl FileState {
    /// For a file whose lines without a channel belong to `room` and to `date`, and whose clock counts so
    /// many hours.
    pub(super) fn new(room: String, date: Option<Date>, dial: Dial) -> Self {
        Self { room, date, time_ms: 0, seen_time: false, dial, half_days: 0, warning: None }
    }

    /// What is odd about the time of the last line.
    pub(super) fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn occurred_at(&self) -> Option<i64> {
        let midnight = self.date?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(midnight.timestamp().as_millisecond() + self.time_ms + self.half_days * clock::HALF_DAY_MS)
    }

    /// Takes over the line's time, and its date, or the next day or half of it once that has begun.
    fn advance(&mut self, message: &Message<'_>) {
        match message.place {
            Some((_, date)) => (self.date, self.half_days) = (Some(date), 0),
            None if self.seen_time => self.step(message.time_ms),
            None => {}
        }
        self.time_ms = message.time_ms;
        self.seen_time = true;
    }

    fn step(&mut self, time_ms: i64) {
        let meant = match self.dial.step(self.time_ms, time_ms) {
            clock::Step::Within => return,
            clock::Step::NextDay => {
                self.date = self.date.and_then(|date| date.tomorrow().ok());
                return;
            }
            // The commands' ids hold the day and are to stay as they were: it is kept beside that.
            clock::Step::HalfDay => {
                self.half_days += 1;
                "and never shows 13:00 or later: taken for a clock of 12 hours, all from here on is 12 hours later"
            }
            clock::Step::Unclear => {
                "which is less than at midnight (more than 12 hours): the times from here on may be wrong, of another \
                 day or half of a day"
            }
        };
        let (from, to) = (clock::shown(self.time_ms), clock::shown(time_ms));
        self.warning = Some(format!("the clock runs back from {from} to {to}, {meant}"));
    }
}

#[derive(Default)]
struct RoomState {
    /// The users who are members, with the names they go by.
    members: HashMap<String, String>,
    /// A nick in use → the user id behind it, where the two differ.
    aliases: HashMap<String, String>,
}

impl RoomState {
    /// The user id behind a nick. An alias whose owner has left is nobody's: the nick counts.
    fn user(&self, nick: &str) -> String {
        let owner = self.aliases.get(nick).filter(|owner| self.members.contains_key(*owner));
        owner.map_or_else(|| nick.to_owned(), Clone::clone)
    }
}

/// Plans a whole run.
#[derive(Default)]
pub(super) struct Planner {
    /// The room of every line, whatever it names.
    room: Option<String>,
    rooms: HashMap<String, RoomState>,
    /// How often a line was seen, by the hash of room, date and line.
    seen: HashMap<[u8; 16], u32>,
}

/// One line on its way to commands.
struct Step<'a> {
    room: &'a str,
    origin: &'a Arc<str>,
    digest: [u8; 16],
    nth: u32,
    occurred_at: Option<i64>,
}

impl Planner {
    /// With the room that all lines go to, if one was given.
    pub(super) fn new(room: Option<String>) -> Self {
        Self { room, ..Self::default() }
    }

    /// Plans one decoded line; its commands are appended to `commands` in order.
    pub(super) fn line(
        &mut self,
        file: &mut FileState,
        origin: &Arc<str>,
        text: &str,
        commands: &mut Vec<Command>,
    ) -> Result<Counted, Problem> {
        let line = parse::parse(text).map_err(Problem::Unparsed)?;
        let counted = match &line {
            Line::Message(Message { action: false, .. }) => Counted::Message,
            Line::Message(_) => Counted::Action,
            Line::System(system) => Counted::System(system.kind()),
        };
        if let Line::Message(message) = &line {
            file.advance(message);
            if let (Some((channel, _)), None) = (message.place, &self.room) {
                channel.clone_into(&mut file.room);
            }
        }
        let room = self.room.clone().unwrap_or_else(|| file.room.clone());
        if matches!(line, Line::System(System::Mode | System::Topic | System::Other)) {
            return Ok(counted);
        }
        EntityId::parse(&room).map_err(|error| {
            Problem::Refused(counted, format!("no room can have this name, give one by --room: {error}"))
        })?;
        let date = file.date.map(|date| date.to_string()).unwrap_or_default();
        let digest = digest(&[room.as_bytes(), date.as_bytes(), text.as_bytes()]);
        let seen = self.seen.entry(digest).or_default();
        *seen += 1;
        let step = Step { room: &room, origin, digest, nth: *seen, occurred_at: file.occurred_at() };
        if !self.rooms.contains_key(&room) {
            self.rooms.insert(room.clone(), RoomState::default());
            commands.push(open(&room, origin));
        }
        let state = self.rooms.entry(room.clone()).or_default();
        let planned = match line {
            Line::Message(message) => said(state, &step, &message, commands),
            Line::System(system) => happened(state, &step, &system, commands),
        };
        planned.map_err(|reason| Problem::Refused(counted, reason)).map(|()| counted)
    }
}

fn said(
    state: &mut RoomState,
    step: &Step<'_>,
    message: &Message<'_>,
    commands: &mut Vec<Command>,
) -> Result<(), String> {
    let user = enter(state, step, &message.nick, "join", commands)?;
    let data = if message.action {
        json!({"text": message.text, "kind": "action"})
    } else {
        json!({"text": message.text})
    };
    commands.push(step.command(&user, "post_message", data, ""));
    Ok(())
}

fn happened(
    state: &mut RoomState,
    step: &Step<'_>,
    system: &System<'_>,
    commands: &mut Vec<Command>,
) -> Result<(), String> {
    match system {
        System::Joined(nick) => enter(state, step, nick, "", commands).map(|_| ()),
        System::Left(nick, reason) => {
            leave(state, step, nick, *reason, commands);
            Ok(())
        }
        // Only a room's owner removes, which is who imports, and nobody of the log.
        System::Kicked(nick, by) => {
            leave(state, step, nick, Some(&format!("kicked by {by}")), commands);
            Ok(())
        }
        System::Renamed(old, new) => {
            let user = state.user(old);
            let Some(shown) = state.members.get_mut(&user) else { return Ok(()) };
            state.aliases.remove(&**old);
            if **new != *user {
                state.aliases.insert(new.to_string(), user.clone());
            }
            // What would record nothing is not sent: a later run would find another state.
            if *shown != **new {
                *shown = new.to_string();
                commands.push(step.command(&user, "rename_member", json!({"display_name": new}), ""));
            }
            Ok(())
        }
        System::Mode | System::Topic | System::Other => Ok(()),
    }
}

/// Who is a member leaves.
fn leave(
    state: &mut RoomState,
    step: &Step<'_>,
    nick: &str,
    reason: Option<&str>,
    commands: &mut Vec<Command>,
) {
    let user = state.user(nick);
    state.aliases.remove(nick);
    if state.members.remove(&user).is_some() {
        let data = reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}));
        commands.push(step.command(&user, "leave", data, ""));
    }
}

/// The user behind a nick, joined first if nobody saw them come in.
fn enter(
    state: &mut RoomState,
    step: &Step<'_>,
    nick: &str,
    purpose: &str,
    commands: &mut Vec<Command>,
) -> Result<String, String> {
    let user = state.user(nick);
    UserId::parse(&user).map_err(|error| error.to_string())?;
    if !state.members.contains_key(&user) {
        state.members.insert(user.clone(), user.clone());
        state.aliases.remove(nick);
        commands.push(step.command(&user, "join", json!({}), purpose));
    }
    Ok(user)
}

impl Step<'_> {
    fn command(&self, by: &str, name: &'static str, data: Value, purpose: &str) -> Command {
        let id = id(&[&self.digest, &self.nth.to_le_bytes(), purpose.as_bytes()]);
        let by = Some(by);
        let occurred_at = self.occurred_at;
        let frame = Frame { r#type: "command", id: &id, room: self.room, name, data, by, occurred_at };
        command(&frame, self.origin)
    }
}

fn open(room: &str, origin: &Arc<str>) -> Command {
    let id = id(&[b"open", room.as_bytes()]);
    let data = json!({"title": room});
    let frame =
        Frame { r#type: "command", id: &id, room, name: "open_room", data, by: None, occurred_at: None };
    Command { opening: true, ..command(&frame, origin) }
}

fn command(frame: &Frame<'_>, origin: &Arc<str>) -> Command {
    Command {
        room: frame.room.into(),
        id: frame.id.into(),
        // A struct of texts and numbers always serializes.
        frame: serde_json::to_string(frame).unwrap_or_default(),
        origin: origin.clone(),
        opening: false,
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part).update(&[0]);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn id(parts: &[&[u8]]) -> String {
    format!("{:032x}", u128::from_be_bytes(digest(parts)))
}

/// The first `YYYY-MM-DD` in a file's name.
pub(super) fn date_in(name: &str) -> Option<Date> {
    name.char_indices().find_map(|(at, _)| name.get(at..at + 10)?.parse().ok())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests;
