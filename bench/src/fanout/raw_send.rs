//! The physical limits of a fan-out: one `send` a message and socket, and nothing else. It runs
//! as a process of its own where the server would run.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

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
    /// Wait for one more socket, and begin each round only when a byte has come on it.
    #[arg(long)]
    in_turn: bool,
}

/// Accepts its sockets, then sends to each in turn until they are closed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{READY}{}", listener.local_addr()?);
    let mut sockets = Vec::new();
    for _ in 0..options.connections {
        sockets.push(accept(&listener)?);
    }
    let mut turns = options.in_turn.then(|| accept(&listener)).transpose()?;
    let message = vec![b'x'; options.bytes];
    loop {
        if let Some(turns) = &mut turns
            && turns.read_exact(&mut [0]).is_err()
        {
            return Ok(());
        }
        for socket in &mut sockets {
            if socket.write_all(&message).is_err() {
                return Ok(());
            }
        }
    }
}

fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
