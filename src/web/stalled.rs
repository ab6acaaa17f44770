//! What a client that does not read may hold: few bytes in the kernel, and its connection for a
//! while only.
//!
//! The HTTP dispatcher waits for such a client for ever, and with it a stream's session or a long
//! answer does; so the system is asked to end the connection.

use std::time::Duration;

use actix_rt::net::TcpStream;
use rustix::net::sockopt;

/// Bounds what the kernel keeps for a connection (with 0 bytes it keeps megabytes), and how long
/// the client may take no byte of it. Only Linux can do the latter (`TCP_USER_TIMEOUT`, which
/// counts a window that stays closed, too).
pub(super) fn bound(io: &TcpStream, send_buffer_bytes: usize, write_timeout: Duration) {
    if send_buffer_bytes > 0 {
        let _ = sockopt::set_socket_send_buffer_size(io, send_buffer_bytes);
    }
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(io, u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX));
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
}

/// From here on somebody watches the time who knows better what was written when.
pub(super) fn is_watched(io: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(io, 0);
    #[cfg(not(target_os = "linux"))]
    let _ = io;
}
