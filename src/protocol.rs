//! The client protocol, version 1: frames, error codes and close codes.
//!
//! This is the one place that knows their JSON. A text frame holds one message or several,
//! newline-joined, in both directions; all transports carry the same messages.

mod client;
mod code;
mod cursor;
mod drain;
mod ephemeral;
mod followed;
mod presence;
mod room_state;
pub mod schema;
mod server;
#[cfg(test)]
mod tests;
mod token;

pub use client::{
    CatchUp, ClientMessage, CommandFrame, Hello, HistoryRequest, MalformedMessage, RoomCursor, Subscribe,
    Unsubscribe, Wanted, message_id, parse_message, session_name,
};
pub use code::{CloseCode, ErrorCode};
pub use cursor::{Cursor, CursorError};
pub use drain::Drain;
pub use ephemeral::{Ephemeral, EphemeralFrame, EphemeralName, EphemeralNameError};
pub use followed::{Followed, ME};
pub use presence::{Presence, PresenceChange};
pub use room_state::{Closed, ClosedCode, RoomState, Seen};
pub use server::{
    Ack, EventFrame, How, Limits, Live, Page, Ready, Reconnect, Reject, RoomEntry, ServerMessage, Subscribed,
    Unsubscribed,
};
pub use token::{Authenticate, AuthenticateBy, Authenticated, TOKEN_BYTES_MAX, Token, TokenError};

/// The WebSocket subprotocol this version answers to.
pub const SUBPROTOCOL: &str = "dramatis.v1.json";

/// The most events of one history page.
pub const HISTORY_EVENTS_MAX: u32 = 200;

/// So many of a room's last events are looked through for messages that a user has not read.
pub const UNREAD_EVENTS_MAX: usize = 200;
