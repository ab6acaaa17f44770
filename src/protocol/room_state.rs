//! A room as a latecomer gets it, how far people have read in it, and how it is taken away.

use dramatis_events::{EntityId, Revision};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Followed;

/// The server's `room_state`: what a latecomer gets in place of a room's history.
#[derive(Debug, Serialize, ToSchema)]
pub struct RoomState {
    /// The room, or `me`.
    pub room: Followed,
    /// The revision that `state` was read at; the next event is the one after it.
    pub revision: Revision,
    /// The public state.
    #[schema(value_type = serde_json::Value)]
    pub state: Box<RawValue>,
    /// The last events up to that revision, ascending.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub events: Vec<Box<RawValue>>,
}

/// The server's `closed`: no more events of this room come.
#[derive(Debug, Serialize, ToSchema)]
pub struct Closed {
    /// The room.
    pub room: EntityId,
    /// Why.
    pub code: ClosedCode,
}

/// Why a room is no longer the client's to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClosedCode {
    /// The member was removed from it.
    Removed,
    /// Only members read it, and the client is none (any more).
    NotAMember,
    /// The room was erased.
    Erased,
    /// The room was closed.
    Closed,
}

/// A client's `seen`: it has shown the room up to this revision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    #[serde(rename = "type", default)]
    #[schema(value_type = String)]
    _type: IgnoredAny,
    /// The room.
    pub room: EntityId,
    /// The last revision shown.
    pub revision: Revision,
}
