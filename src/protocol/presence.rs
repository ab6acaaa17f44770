//! Presence: who follows a room now. The whole comes first, after that only what changed.
//!
//! A person with several devices is one presence. In a room with more people present than the
//! server lists (`presence.listed_max`) the list is a sample that says so, and changes tell
//! the number alone; once there are few enough again, the whole comes anew.

use dramatis_events::{EntityId, MemberId};
use serde::Serialize;
use utoipa::ToSchema;

/// The server's `presence`: `full` or `diff`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Presence<'a> {
    /// The room.
    #[schema(value_type = EntityId)]
    pub room: &'a EntityId,
    /// The whole, or what changed.
    #[serde(flatten)]
    pub change: PresenceChange<'a>,
}

/// The whole, or what changed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceChange<'a> {
    /// Forget what was known of this room's presence and take this.
    Full {
        /// Members present.
        count: u64,
        /// Those that are listed, by name.
        #[schema(value_type = Vec<MemberId>)]
        members: Vec<&'a MemberId>,
        /// Whether `members` holds all of them.
        complete: bool,
    },
    /// Since the last `presence` of this room.
    Diff {
        /// Members present now.
        count: u64,
        /// Who came; empty where the list is not complete.
        #[schema(value_type = Vec<MemberId>)]
        joined: Vec<&'a MemberId>,
        /// Who left; empty where the list is not complete.
        #[schema(value_type = Vec<MemberId>)]
        left: Vec<&'a MemberId>,
    },
}
