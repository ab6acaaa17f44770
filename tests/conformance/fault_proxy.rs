//! A proxy that does to connections what bad networks do: cuts them anywhere, delays them, splits
//! what they carry, and repeats HTTP requests whose answer it says it lost, or keeps the first.
//! What it does to a connection is drawn from a seed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::imports::Chance;

/// How long a client waits to hear that nobody is there.
const NOBODY_THERE: Duration = Duration::from_millis(5);

/// How often each fault was done.
#[derive(Debug, Default)]
pub struct Done {
    pub plain: AtomicU64,
    pub cut: AtomicU64,
    pub delayed: AtomicU64,
    pub split: AtomicU64,
    pub repeated: AtomicU64,
}

/// See the module. Its listener lasts as long as the process.
pub struct FaultProxy {
    /// Where clients connect.
    pub address: SocketAddr,
    upstream: Mutex<SocketAddr>,
    chance: Mutex<Chance>,
    /// How often each fault was done.
    pub done: Done,
}

/// What happens to one connection.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// After so many bytes in this direction.
    Cut {
        upwards: bool,
        after: usize,
    },
    /// Each piece, by so long.
    Delay(Duration),
    /// Into pieces of this many bytes.
    Split(usize),
    /// The client gets the first answer, or the second.
    Repeat {
        first: bool,
    },
}

impl FaultProxy {
    /// Listens on any free port.
    pub fn start(upstream: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (upstream, chance) = (Mutex::new(upstream), Mutex::new(Chance::of(0)));
        let proxy = Arc::new(Self { address, upstream, chance, done: Done::default() });
        let serving = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (proxy, fault) = (serving.clone(), serving.next_fault());
                std::thread::spawn(move || proxy.serve(client, fault));
            }
        });
        proxy
    }

    /// The server is elsewhere now.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap() = upstream;
    }

    /// Draws the faults that follow from this seed.
    pub fn reseed(&self, seed: u64) {
        *self.chance.lock().unwrap() = Chance::of(seed);
    }

    fn next_fault(&self) -> Fault {
        let mut chance = self.chance.lock().unwrap();
        let below = |chance: &mut Chance, bound| usize::try_from(chance.below(bound)).unwrap();
        match chance.below(10) {
            0 | 1 => Fault::Cut { upwards: true, after: below(&mut chance, 700) },
            2..=4 => Fault::Cut { upwards: false, after: below(&mut chance, 4_000) },
            5 => Fault::Delay(Duration::from_millis(1 + chance.below(5))),
            6 => Fault::Split(1 + below(&mut chance, 20)),
            7 | 8 => Fault::Repeat { first: chance.below(2) == 0 },
            _ => Fault::None,
        }
    }

    fn serve(&self, mut client: TcpStream, fault: Fault) {
        let Ok(mut head) = read_request(&mut client) else { return };
        let text = String::from_utf8_lossy(&head).into_owned();
        let answered_whole = ["/api/poll", "/api/commands", "/api/frames"];
        let may_repeat = answered_whole.iter().any(|path| text.contains(path));
        let fault = if matches!(fault, Fault::Repeat { .. }) && !may_repeat { Fault::None } else { fault };
        self.count(fault);
        if let Fault::Repeat { first } = fault {
            let answers = [self.whole_answer(&head), self.whole_answer(&head)];
            if let Some(Ok(answer)) = answers.into_iter().nth(usize::from(!first)) {
                let _ = client.write_all(&answer);
            }
            return;
        }
        if let Fault::Cut { upwards: true, after } = fault {
            head.truncate(after);
        }
        let Ok(mut server) = TcpStream::connect(*self.upstream.lock().unwrap()) else {
            // A server that is not there is slow to say so.
            std::thread::sleep(NOBODY_THERE);
            return;
        };
        let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
        for end in [&client, &server] {
            let _ = end.set_nodelay(true);
        }
        let cut_already = matches!(fault, Fault::Cut { upwards: true, after } if after <= head.len());
        if server.write_all(&head).is_ok() && !cut_already {
            let sent = head.len();
            let upwards = std::thread::spawn(move || carry(from_client, to_server, fault, true, sent));
            carry(server, client, fault, false, 0);
            let _ = upwards.join();
        }
    }

    fn whole_answer(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(*self.upstream.lock().unwrap())?;
        server.set_read_timeout(Some(PATIENCE))?;
        server.write_all(request)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn count(&self, fault: Fault) {
        let count = match fault {
            Fault::None => &self.done.plain,
            Fault::Cut { .. } => &self.done.cut,
            Fault::Delay(_) => &self.done.delayed,
            Fault::Split(_) => &self.done.split,
            Fault::Repeat { .. } => &self.done.repeated,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request with its body.
fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    client.set_read_timeout(Some(PATIENCE))?;
    let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return Ok(request);
        }
    }
}

/// Carries bytes one way until either end is done or the fault says so; then both ways are cut.
fn carry(mut from: TcpStream, mut to: TcpStream, fault: Fault, upwards: bool, mut carried: usize) {
    let mut buffer = [0; 16 * 1_024];
    let _ = from.set_read_timeout(Some(PATIENCE));
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut bytes = &buffer[..read];
        let cut = match fault {
            Fault::Cut { upwards: way, after } if way == upwards => carried + read >= after,
            _ => false,
        };
        if let (true, Fault::Cut { after, .. }) = (cut, fault) {
            bytes = &bytes[..after.saturating_sub(carried).min(read)];
        }
        if let Fault::Delay(delay) = fault {
            std::thread::sleep(delay);
        }
        let size = if let Fault::Split(size) = fault { size } else { usize::MAX };
        let pieces = bytes.chunks(size.min(bytes.len().max(1)));
        if pieces.into_iter().any(|piece| to.write_all(piece).is_err()) || cut {
            break;
        }
        carried += read;
    }
    for end in [&from, &to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}
