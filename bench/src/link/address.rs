//! Where a server is, in which dialect it is spoken to, and what its clients show.

use std::net::SocketAddr;

use dramatis::auth::{Claims, Keys};

/// How messages are wrapped on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As text frames.
    Plain,
    /// As Socket.IO's events of the name `message`.
    SocketIo,
    /// As what nchan hands on: each text frame is an event, there is neither hello nor ack.
    Nchan,
    /// As requests of HTTP that publish to nchan.
    NchanPublisher,
}

/// Where a server listens, and how it is spoken to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    pub(crate) dialect: Dialect,
    /// What clients' tokens are signed with, if they have any.
    pub(crate) keys: Option<&'static Keys>,
}

impl Address {
    /// One whose clients need no tokens.
    pub(crate) fn new(socket: SocketAddr, dialect: Dialect) -> Self {
        Self { socket, dialect, keys: None }
    }

    /// A token for this user, of an hour.
    pub(crate) fn token_for(&self, user: &str) -> anyhow::Result<Option<String>> {
        let Some(keys) = self.keys else { return Ok(None) };
        let exp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() + 3_600;
        let claims = Claims { sub: user.parse()?, exp, kind: None, rooms: None };
        Ok(Some(keys.mint(&claims)?))
    }
}
