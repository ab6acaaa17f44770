//! Going away in good order: every client is told its own slot for coming back.

use serde::Serialize;
use utoipa::ToSchema;

/// The server's `drain`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Drain {
    /// The connection is closed after this, in milliseconds.
    pub in_ms: u64,
    /// Come back this long after that, in milliseconds: each client has a slot of its own.
    pub slot_ms: u64,
}
