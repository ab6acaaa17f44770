//! The language of dramatis: ids, envelopes and the events of every stream category.
//!
//! Everything here is plain data with one JSON form. The crate promises that whatever was
//! ever recorded decodes for ever (`golden/` holds one recording per schema version), and it
//! never does I/O, reads a clock or draws a random number.

mod envelope;
mod event;
mod id;
mod place;
pub mod room;
#[cfg(feature = "schema")]
pub mod schema;
mod sealed;
mod stream;
pub mod user;

pub use envelope::{CommandStamp, Envelope, EventName, Recorded};
pub use event::{DecodeError, EncodeError, Event};
pub use id::{CommandId, CommandKey, ContentHash, EventId, IdError, MemberId, MemberKind, UserId};
pub use place::{Epoch, ParseEpochError, ParsePositionError, Position, Revision, UnixMillis};
pub use sealed::{Personal, SealedField};
pub use stream::{Category, EntityId, StreamId, TenantId};

use crate::room::RoomEvent;
use crate::user::UserEvent;

/// Every stream category there is, with [`Event::NAMES`] of its events.
pub const CATEGORIES: [(&str, &[(&str, u16)]); 2] =
    [(RoomEvent::CATEGORY, RoomEvent::NAMES), (UserEvent::CATEGORY, UserEvent::NAMES)];
