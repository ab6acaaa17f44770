//! Reactors: they read events and issue commands.
//!
//! A reaction is identified by the event that caused it, its command id comes from that event's,
//! so it happens once however often it is tried. Whatever is told to two streams goes this way:
//! the one's event is durable first, and the other's follows from it, after a crash too.

mod checkpoint;
mod invitations;

pub use checkpoint::Checkpoint;
pub use invitations::Invitations;
