//! Bodies of requests that come in part: counted as messages of sockets that have come in part are, and
//! given up like those when all together are too much.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use super::Rooms;
use crate::actors::shrink::shrink;

/// Those of one thread that may be told to go, by the number under which they are counted.
#[derive(Default)]
pub(super) struct Bodies(RefCell<HashMap<u64, Rc<Notify>>>);

impl Bodies {
    /// Tells one that it is given up.
    pub(super) fn give_up(&self, number: u64) {
        if let Some(told) = self.0.borrow().get(&number) {
            told.notify_one();
        }
    }
}

/// What has come of one body; counted until it is dropped.
pub struct Body {
    rooms: Rc<Rooms>,
    number: u64,
    bytes: usize,
    told: Rc<Notify>,
}

impl Body {
    /// Nothing has come of it. No connection and no other body has this number.
    pub fn new(rooms: Rc<Rooms>, number: u64) -> Self {
        Self { rooms, number, bytes: 0, told: Rc::default() }
    }

    /// So many bytes more have come; whether they may be kept.
    pub fn add(&mut self, bytes: usize) -> bool {
        if self.bytes == 0 {
            self.rooms.bodies.0.borrow_mut().insert(self.number, self.told.clone());
        }
        let before = self.bytes;
        self.bytes = before.saturating_add(bytes);
        self.rooms.unfinished().change(self.number, before, self.bytes)
    }

    /// Resolves once the body is given up, since others need the room.
    pub fn given_up(&self) -> impl Future<Output = ()> + use<> {
        let told = self.told.clone();
        async move { told.notified().await }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.rooms.unfinished().change(self.number, self.bytes, 0);
            let mut bodies = self.rooms.bodies.0.borrow_mut();
            bodies.remove(&self.number);
            shrink(&mut bodies);
        }
    }
}
