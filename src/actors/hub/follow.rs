//! One connection's place in one room.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use dramatis_events::{MemberId, Revision, StreamId};

use crate::actors::outbox::Outbox;
use crate::actors::rights::Rights;
use crate::protocol::{Closed, Followed, ServerMessage};

/// See the module.
pub struct Follow {
    /// The room's stream.
    pub stream: StreamId,
    /// Who reads.
    pub reader: MemberId,
    /// The revision that comes next.
    pub next: Cell<Revision>,
    /// Whether the client was told that history is done.
    pub announced: Cell<bool>,
    /// Whether the state is to be sent before anything else.
    pub wants_state: Cell<bool>,
    /// Whether the reader may still read.
    pub rights: Rights,
    /// Whether the hub pushes; else the session reads the log.
    pub(super) live: Cell<bool>,
    /// Whether its reader and the others are company: it was live once, and none of what the hub has seen
    /// since takes the right to read.
    pub(super) in_company: Cell<bool>,
    /// Whether the client was told the whole presence and every change since.
    pub(super) knows_presence: Cell<bool>,
    gone: Cell<bool>,
    /// Where it stands among the room's followers.
    pub(super) slot: Cell<usize>,
    pub(super) outbox: Rc<Outbox>,
}

impl Follow {
    /// A place from which the log must be read first.
    pub fn new(
        stream: StreamId,
        reader: MemberId,
        next: Revision,
        outbox: Rc<Outbox>,
        rights: Rights,
    ) -> Self {
        Self {
            stream,
            reader,
            next: Cell::new(next),
            announced: Cell::new(false),
            wants_state: Cell::new(false),
            rights,
            live: Cell::new(false),
            in_company: Cell::new(false),
            knows_presence: Cell::new(false),
            gone: Cell::new(false),
            slot: Cell::new(0),
            outbox,
        }
    }

    /// Whether the hub pushes.
    pub fn is_live(&self) -> bool {
        self.live.get()
    }

    /// Whether the connection no longer follows: nothing more of the room may be pushed.
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Whether its reader hears what the others do besides.
    pub(super) fn may_hear(&self) -> bool {
        self.in_company.get() && !self.is_gone() && !self.rights.have_ended()
    }

    /// Whether the others hear what its reader does besides.
    pub fn may_be_heard(&self) -> bool {
        self.may_hear() && self.rights.may_be_heard()
    }

    /// The last message of a room that the reader may read no more.
    pub fn goodbye(&self) -> Option<Bytes> {
        self.live.set(false);
        let Followed::Room(room) = Followed::of(&self.stream) else { return None };
        Some(ServerMessage::Closed(Closed { room, code: self.rights.code() }).encode())
    }

    /// From now on the session reads the log, until the hub can take over again.
    pub(super) fn fall_behind(&self) {
        self.live.set(false);
        self.outbox.set_behind();
    }

    pub(super) fn go(&self) {
        self.gone.set(true);
        self.live.set(false);
        self.outbox.forget(&self.stream);
    }
}
