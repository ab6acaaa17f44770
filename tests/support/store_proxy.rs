//! A way to a server that can be cut or held up, as if the server were stopped or hung.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What becomes of bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All goes through.
    Open,
    /// Connections are closed, new ones at once, as those to a stopped server.
    Cut,
    /// Connections are taken and nothing comes back, as from a process under SIGSTOP.
    Held,
}

type State = Arc<(Mutex<(Way, Vec<TcpStream>)>, Condvar)>;

/// The proxy; it lasts as long as the test's process.
pub struct StoreProxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: State,
}

impl StoreProxy {
    /// Starts one before a server.
    pub fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state: State = Arc::new((Mutex::new((Way::Open, Vec::new())), Condvar::new()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = shared.0.lock().unwrap();
                if state.0 == Way::Cut {
                    continue;
                }
                let Ok(inner) = TcpStream::connect(&server) else { continue };
                state.1.extend([client.try_clone().unwrap(), inner.try_clone().unwrap()]);
                let back = (inner.try_clone().unwrap(), client.try_clone().unwrap());
                for (from, to) in [(client, inner), back] {
                    let shared = shared.clone();
                    std::thread::spawn(move || pass(from, to, &shared));
                }
            }
        });
        Self { address, state }
    }

    /// Changes the way.
    pub fn set(&self, way: Way) {
        let mut state = self.state.0.lock().unwrap();
        state.0 = way;
        if way == Way::Cut {
            for connection in state.1.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        self.state.1.notify_all();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        drop(state.1.wait_while(state.0.lock().unwrap(), |state| state.0 == Way::Held).unwrap());
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
