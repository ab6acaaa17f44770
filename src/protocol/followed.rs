//! What a client follows: a room, or `me`, its own stream.

use std::fmt;

use dramatis_events::user::UserEvent;
use dramatis_events::{EntityId, Event, IdError, MemberId, StreamId};
use serde::{Deserialize, Serialize};

/// The word for one's own stream where else a room is named; no room may be called so.
pub const ME: &str = "me";

/// A room, or the client's own stream: invitations, notices, read markers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Followed {
    /// One's own stream.
    Me,
    /// A room.
    Room(EntityId),
}

impl Followed {
    /// The room, if it is one.
    pub const fn room(&self) -> Option<&EntityId> {
        match self {
            Self::Me => None,
            Self::Room(room) => Some(room),
        }
    }

    /// The stream that this client means; none for its own, if it is no person.
    pub fn stream(&self, client: &MemberId) -> Option<StreamId> {
        match self {
            Self::Me => client.user().map(|user| StreamId::user(&user)),
            Self::Room(room) => Some(StreamId::room(room)),
        }
    }

    /// What a client calls this stream.
    pub fn of(stream: &StreamId) -> Self {
        match EntityId::parse(stream.id()) {
            Ok(room) if !is_own(stream) => Self::Room(room),
            _ => Self::Me,
        }
    }

    /// The same as text.
    pub fn name_of(stream: &StreamId) -> &str {
        if is_own(stream) { ME } else { stream.id() }
    }
}

fn is_own(stream: &StreamId) -> bool {
    stream.category() == UserEvent::CATEGORY
}

impl From<EntityId> for Followed {
    fn from(room: EntityId) -> Self {
        if room.as_str() == ME { Self::Me } else { Self::Room(room) }
    }
}

impl TryFrom<String> for Followed {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        EntityId::parse(&text).map(Self::from)
    }
}

impl From<Followed> for String {
    fn from(followed: Followed) -> Self {
        followed.to_string()
    }
}

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Me => f.write_str(ME),
            Self::Room(room) => room.fmt(f),
        }
    }
}
