//! A client without a socket, which holds the server to the letter of its cursors.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::noop_waker;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::actors::Stage;
use crate::actors::hub::Rooms;
use crate::actors::outbox::{Next, Outbox};
use crate::actors::session::Inbound;
use crate::actors::tests::start_session;
use crate::protocol::CloseCode;

/// One connection, and what its client makes of what comes.
struct Connection {
    outbox: Rc<Outbox>,
    inbound: Option<mpsc::UnboundedSender<Inbound>>,
    /// The next revision the server must send, for each room it has said it follows.
    places: BTreeMap<String, Place>,
    /// Cursors that were asked for and not yet answered, oldest first.
    asked: Vec<(String, Option<u64>)>,
    closed: Option<CloseCode>,
}

/// Where a connection stands in a room.
#[derive(Default)]
struct Place {
    /// The last revision that came; `None` until the first one of a latest page.
    last: Option<u64>,
    live: bool,
}

/// See the module.
pub(super) struct Client {
    stage: Arc<Stage>,
    rooms: Rc<Rooms>,
    name: &'static str,
    connections: Vec<Connection>,
    /// The last revision handled, by room: what a cursor is made of.
    pub(super) handled: BTreeMap<String, u64>,
    ids: u64,
    /// What was received, for who must understand a failure.
    heard: Vec<String>,
}

impl Client {
    pub(super) fn new(stage: &Arc<Stage>, rooms: &Rc<Rooms>, name: &'static str) -> Self {
        Self {
            stage: stage.clone(),
            rooms: rooms.clone(),
            name,
            connections: Vec::new(),
            handled: BTreeMap::new(),
            ids: 0,
            heard: Vec::new(),
        }
    }

    /// Opens a connection, whether or not there is one, and says hello with all cursors.
    pub(super) fn connect(&mut self, rooms: &[&str]) {
        let outbox = self.rooms.outbox();
        let (sender, receiver) = mpsc::unbounded_channel();
        let inbound = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        start_session(&self.stage, &self.rooms, &outbox, Box::pin(inbound));
        let asked = rooms.iter().map(|room| ((*room).to_owned(), self.handled.get(*room).copied())).collect();
        self.connections.push(Connection {
            outbox,
            inbound: Some(sender),
            places: BTreeMap::new(),
            asked,
            closed: None,
        });
        let cursors: Vec<_> = rooms.iter().map(|room| self.cursor(room)).collect();
        self.send(&json!({"type": "hello", "user": self.name, "session": "tab", "rooms": cursors}));
    }

    /// Cuts the newest connection, if there is one: what waits for it is lost.
    pub(super) fn cut(&mut self) -> bool {
        let connection = self.connections.pop();
        if let Some(connection) = &connection {
            connection.outbox.peer_done();
            connection.outbox.finish();
        }
        connection.is_some()
    }

    pub(super) fn subscribe(&mut self, room: &str) {
        let mut message = self.cursor(room);
        self.ids += 1;
        message["type"] = "subscribe".into();
        message["id"] = format!("s{}", self.ids).into();
        let after = self.handled.get(room).copied();
        if let Some(connection) = self.connections.last_mut() {
            connection.asked.push((room.to_owned(), after));
        }
        self.send(&message);
    }

    pub(super) fn unsubscribe(&mut self, room: &str) {
        self.ids += 1;
        self.send(&json!({"type": "unsubscribe", "id": format!("u{}", self.ids), "room": room}));
    }

    fn cursor(&self, room: &str) -> Value {
        let mut cursor = json!({"room": room, "epoch": self.stage.log.epoch()});
        if let Some(after) = self.handled.get(room) {
            cursor["after"] = (*after).into();
        }
        cursor
    }

    fn send(&self, message: &Value) {
        if let Some(inbound) = self.connections.last().and_then(|connection| connection.inbound.as_ref()) {
            let _ = inbound.send(Inbound::Text(message.to_string()));
        }
    }

    /// Handles one write of each connection; whether there was any.
    pub(super) fn read(&mut self, bytes: usize) -> bool {
        let mut any = false;
        for connection in &mut self.connections {
            any |= connection.read(bytes, &mut self.handled, &mut self.heard);
        }
        self.connections.retain(|connection| connection.closed.is_none());
        any
    }

    /// Everything that was to come has come: the client is live at the head of what it follows.
    pub(super) fn check(&self, heads: &BTreeMap<String, u64>, follows: &[String], run: &str) {
        let heard = self.heard.join("\n");
        let [connection] = self.connections.as_slice() else {
            panic!("{run}: {} connections\n{heard}", self.connections.len())
        };
        assert_eq!(
            connection.places.keys().collect::<Vec<_>>(),
            follows.iter().collect::<Vec<_>>(),
            "{run}\n{heard}"
        );
        for (room, place) in &connection.places {
            assert!(place.live, "{run}: {room} is not live\n{heard}");
            assert_eq!(place.last, heads.get(room).copied(), "{run}: {room}\n{heard}");
        }
    }
}

impl Connection {
    fn read(&mut self, bytes: usize, handled: &mut BTreeMap<String, u64>, heard: &mut Vec<String>) -> bool {
        let waker = noop_waker();
        match self.outbox.poll_next(&Context::from_waker(&waker), bytes) {
            Poll::Pending => false,
            Poll::Ready(Next::Control(_)) => true,
            Poll::Ready(Next::Close(code)) => {
                self.inbound = None;
                self.outbox.finish();
                self.closed = Some(code);
                true
            }
            Poll::Ready(Next::Write(messages)) => {
                for line in messages.iter().flat_map(|messages| messages.split(|byte| *byte == b'\n')) {
                    heard.push(String::from_utf8_lossy(line).into_owned());
                    self.handle(&serde_json::from_slice(line).unwrap(), handled, heard);
                }
                self.outbox.drained(messages.bytes());
                true
            }
        }
    }

    fn handle(&mut self, message: &Value, handled: &mut BTreeMap<String, u64>, heard: &[String]) {
        let heard = || heard.join("\n");
        let room = message["room"].as_str().unwrap_or_default();
        match message["type"].as_str().unwrap() {
            "ready" => {
                // What was asked for since is answered later.
                let entries = message["rooms"].as_array().unwrap();
                for (entry, (room, after)) in entries.iter().zip(self.asked.drain(..entries.len())) {
                    assert_eq!(
                        (&entry["how"], &entry["room"]),
                        (&json!("events"), &json!(room)),
                        "{}",
                        heard()
                    );
                    self.places.insert(room, Place { last: after, live: false });
                }
            }
            "subscribed" => {
                let (asked, after) = self.asked.remove(0);
                assert_eq!(asked, room, "{}", heard());
                self.places.insert(asked, Place { last: after, live: false });
            }
            "unsubscribed" => {
                self.places.remove(room);
            }
            "event" => {
                let revision = message["revision"].as_u64().unwrap();
                let place = self
                    .places
                    .get_mut(room)
                    .unwrap_or_else(|| panic!("{room} is not followed\n{}", heard()));
                let next = place.last.map_or(revision, |last| last + 1);
                assert_eq!(revision, next, "{room}\n{}", heard());
                place.last = Some(revision);
                let known = handled.entry(room.to_owned()).or_insert(revision);
                *known = revision.max(*known);
            }
            "live" => {
                let place = self
                    .places
                    .get_mut(room)
                    .unwrap_or_else(|| panic!("{room} is not followed\n{}", heard()));
                assert!(!std::mem::replace(&mut place.live, true), "{room} is live twice\n{}", heard());
                assert_eq!(message["revision"].as_u64(), place.last, "{}", heard());
            }
            "presence" | "ping" => {}
            other => panic!("{other} was not asked for\n{}", heard()),
        }
    }
}
