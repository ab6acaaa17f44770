//! The physical limit of a fan-out: one `send` a message and socket, and nothing else. It runs
//! as a process of its own where the server would run.

use std::io::Write as _;
use std::net::TcpListener;

use clap::Args;

use crate::server::READY;

/// Options of the bare sender.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Sockets to wait for.
    #[arg(long)]
    connections: usize,
    /// Bytes of one send.
    #[arg(long)]
    bytes: usize,
}

/// Accepts its sockets, then sends to each in turn until they are closed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{READY}{}", listener.local_addr()?);
    let mut sockets = Vec::new();
    for _ in 0..options.connections {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    let message = vec![b'x'; options.bytes];
    loop {
        for socket in &mut sockets {
            if socket.write_all(&message).is_err() {
                return Ok(());
            }
        }
    }
}
