//! What the outside reaches: the socket, the HTTP API, the chat page and the metrics, on one port.

pub mod api;
mod caller;
pub mod guard;
pub mod server;
pub mod socket;
mod ui;
