//! Clients without a WebSocket: a session whose messages go out as server-sent events
//! (`web::sse`) or as answers to polls (`web::poll`), and whose messages come in by `POST`.
//!
//! All carry the messages of `protocol`, unchanged, and all speak to the same session actor: a
//! transport drains an outbox and feeds a session, no more.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /api/stream`, body a `hello` | starts the session; the answer is an event stream |
//! | `GET /api/stream` | the same from `Last-Event-ID` or `?cursor=`, or anew with `?room=a&room=b` |
//! | `POST /api/poll?wait=25`, body a `hello` | starts the session; answers `{cursor, messages, close?}` |
//! | `GET /api/poll?cursor=…&wait=25` | what follows the cursor: at once if there is anything, else after the wait |
//! | `POST /api/poll?wait=25`, body `{cursor}` | the same, for a cursor that is too long for an address |
//! | `POST /api/frames` | `subscribe`, `unsubscribe`, `ephemeral`, `seen`, … for the session's stream or poll, which carries the answers |
//! | `POST /api/commands` | one `command`, with or without a session; answers its `ack`, or a problem |
//!
//! One event of the stream holds what one text frame of the socket would: messages joined by
//! newlines; its `id` is the cursor behind them. An event named `close` holds
//! `{"type":"close","code":…,"reason":…}` with the code that a socket would be closed with, and is the last.
//!
//! Who asks is told by the header `Dramatis-User`, and which of their sessions by
//! `Dramatis-Session`; where a page cannot set headers (`EventSource`), by the cookie
//! `dramatis_user` and the parameter `session`. A page elsewhere can send neither such headers
//! nor JSON without asking first, and is refused then; a cookie is taken from own pages only.
//!
//! The cursor holds all: a stream or poll may be resumed on any node, by either of them, or by
//! the `cursor` of a `hello` on a socket, and a `hello` with the rooms' own epochs and revisions
//! goes from a socket to a stream or poll. What is left of a poll between two requests only
//! saves work; it goes after the silence that would end a socket.

pub(super) mod caller;
pub(super) mod commands;
mod feed;
pub(super) mod frames;
pub(super) mod opening;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dramatis_events::{CommandId, MemberId};
use tokio::sync::mpsc;

use super::poll::Take;
use super::socket::{Door, connection_id};
use crate::actors::directory::Arrival;
use crate::actors::meters::Seat;
use crate::actors::outbox::Outbox;
use crate::actors::places::Place;
use crate::actors::session::{Inbound, Origin, Session};
use crate::auth::Pass;
use crate::protocol::{CloseCode, Cursor, ErrorCode, Reject};
use feed::Feed;
use opening::Opening;

/// Bodies of `POST /api/frames` that may wait for their session; each may be as long as a frame.
const FRAMES_LEN_MAX: usize = 2;
/// Polls that may wait behind the one being answered, which gives way to them.
pub(super) const POLLS_LEN_MAX: usize = 4;

/// A user and the session they named.
type Key = (MemberId, CommandId);

/// The streams and polls of this process, by session.
#[derive(Default)]
pub(super) struct Fallbacks {
    sessions: Mutex<HashMap<Key, Ways>>,
}

/// The ways into a session, from any thread.
struct Ways {
    arrival: Arrival,
    frames: mpsc::Sender<Inbound>,
    polls: Option<mpsc::Sender<Take>>,
    /// This opens all that the session may have been opened to; none in local mode.
    pass: Option<Pass>,
}

impl Fallbacks {
    fn enter(self: &Arc<Self>, key: Key, ways: Ways) -> Entered {
        let entered = Entered { fallbacks: self.clone(), key: key.clone(), arrival: ways.arrival };
        match self.lock().entry(key) {
            // The directory will close this one.
            Entry::Occupied(later) if later.get().arrival > ways.arrival => {}
            Entry::Occupied(mut earlier) => {
                earlier.insert(ways);
            }
            Entry::Vacant(place) => {
                place.insert(ways);
            }
        }
        entered
    }

    fn frames(&self, key: &Key) -> Option<mpsc::Sender<Inbound>> {
        self.lock().get(key).map(|ways| ways.frames.clone())
    }

    /// The session may be opened to what this pass opens from now on.
    fn may_open(&self, key: &Key, pass: Pass) {
        if let Some(ways) = self.lock().get_mut(key) {
            ways.pass = ways.pass.take().map(|known| known.or(pass));
        }
    }

    /// The polls of a session, for a request with this pass, with which the session goes on if it has room
    /// for that: else with the next one's. None if what waits there may be more than the pass opens.
    pub(super) fn polls(&self, key: &Key, pass: Option<&Pass>) -> Option<mpsc::Sender<Take>> {
        let mut sessions = self.lock();
        let ways = sessions.get_mut(key)?;
        let polls = ways.polls.clone()?;
        if let Some(known) = &ways.pass {
            let pass = pass.filter(|pass| pass.opens_all_of(known))?;
            ways.pass = Some(pass.clone());
            let _ = ways.frames.try_send(Inbound::Pass(pass.clone()));
        }
        Some(polls)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Ways>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the ways into a session out when its transport ends.
struct Entered {
    fallbacks: Arc<Fallbacks>,
    key: Key,
    arrival: Arrival,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut sessions = self.fallbacks.lock();
        if sessions.get(&self.key).is_some_and(|ways| ways.arrival == self.arrival) {
            sessions.remove(&self.key);
        }
    }
}

/// A session of which a transport holds this end; the session ends when it is dropped.
pub(super) struct Started {
    pub(super) outbox: Rc<Outbox>,
    /// Where the client stands, to be moved by what goes out.
    pub(super) cursor: Cursor,
    _entered: Entered,
    _places: (Place, Option<Seat>),
}

impl Drop for Started {
    fn drop(&mut self) {
        self.outbox.finish();
    }
}

/// Starts a session on this thread, or answers why not.
pub(super) fn start(
    door: &Door,
    fallbacks: &Arc<Fallbacks>,
    opening: Opening,
    polls: Option<mpsc::Sender<Take>>,
) -> Result<Started, Reject> {
    let arrival = door.stage.directory.arrive();
    let Opening { key, hello, address, pass, rooms, .. } = opening;
    let places = places(door, address)?;
    let outbox = door.outbox();
    let (frames, received) = mpsc::channel(FRAMES_LEN_MAX);
    let cursor = Cursor::asking(key.0.clone(), rooms);
    let entered = fallbacks.enter(key, Ways { arrival, frames, polls, pass });
    if !outbox.is_closing() {
        let feed = Feed::new(hello, received, outbox.clone());
        let (stage, rooms) = (door.stage.clone(), door.rooms.clone());
        // Its address has paid for each request as such, and who shows a token too.
        let origin = Origin { address: None, has_paid: door.stage.keys.is_some() };
        Session::start_here(stage, rooms, outbox.clone(), connection_id(), arrival, origin, feed);
    }
    Ok(Started { outbox, cursor, _entered: entered, _places: places })
}

/// A place in the process, and one of the address, if that is limited.
fn places(door: &Door, address: Option<IpAddr>) -> Result<(Place, Option<Seat>), Reject> {
    let account = address.and_then(|address| door.stage.meters.address(address));
    let full = || refusal(CloseCode::TooManyConnections);
    let of_process = door.connections.enter().ok_or_else(full)?;
    let of_address = account.map(|account| account.connect().ok_or_else(full)).transpose()?;
    Ok((of_process, of_address))
}

/// Why a session was closed before it said anything.
pub(super) fn refusal(code: CloseCode) -> Reject {
    let (code, message) = match code {
        CloseCode::TooManyConnections => {
            let message = "this server, your address or your user has as many connections as may be: close \
                           others, or try again later";
            (ErrorCode::Unavailable, message.to_owned())
        }
        CloseCode::Malformed => (ErrorCode::Malformed, "the hello was not taken".to_owned()),
        CloseCode::TooBig => {
            let message = "the hello is too long, or names more rooms than may be followed: name fewer";
            (ErrorCode::TooLarge, message.to_owned())
        }
        other => {
            let message =
                format!("the session was closed with {} before it began: try again", other.number());
            (ErrorCode::Unavailable, message)
        }
    };
    Reject::new(None, code, message)
}
