//! What the outside reaches: the socket, the HTTP API, the chat page and the metrics, on one port.

pub mod api;
mod body;
mod caller;
mod cross_origin;
mod fallback;
pub mod guard;
mod kept;
pub mod peer;
mod poll;
pub mod server;
pub mod socket;
mod sse;
mod stalled;
mod ui;
