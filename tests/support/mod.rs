//! What the end-to-end tests share: the real binary as a process, and a plain socket client
//! that is not the product's own code.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may fail loudly")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tokio_tungstenite::tungstenite::{self, Message};

pub mod documents;
pub mod http;
pub mod imports;
pub mod ledger;
pub mod rounds;
pub mod small_disk;
pub mod store_proxy;
pub mod unsynced;

/// Nothing in a test takes this long; waiting longer is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Says that something is not tested here.
#[expect(clippy::explicit_write, reason = "the output of macros is kept back when the test passes")]
pub fn skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").unwrap();
}

/// The binary under test.
pub fn dramatis() -> Command {
    Command::new(env!("CARGO_BIN_EXE_dramatis"))
}

/// A server on this data directory and any free port, not yet started.
pub fn serve(data: &Path) -> Command {
    let mut command = dramatis();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    command.env("RUST_LOG", "warn").envs(FAST_CLIENTS).stdout(Stdio::piped());
    command
}

/// The clients of most tests are faster than people; those of limits set them anew.
const FAST_CLIENTS: [(&str, &str); 4] = [
    ("DRAMATIS__LIMITS__SESSION__COMMANDS_PER_S", "0"),
    ("DRAMATIS__LIMITS__SESSION__BYTES_PER_S", "0"),
    ("DRAMATIS__LIMITS__USER__COMMANDS_PER_S", "0"),
    ("DRAMATIS__LIMITS__USER__BYTES_PER_S", "0"),
];

/// A server process; killed when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server on this data directory and any free port, and waits until it listens.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[], &[])
    }

    /// The same with further arguments and environment.
    pub fn start_with(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let child = serve(data).args(arguments).envs(environment.iter().copied()).spawn().unwrap();
        Self::once_it_listens(child).expect("the server ended before it listened")
    }

    /// Starts a server that may refuse to; the error is what it says on standard error.
    pub fn try_start(data: &Path, environment: &[(&str, &str)]) -> Result<Self, String> {
        let mut said = tempfile::tempfile().unwrap();
        let to = said.try_clone().unwrap();
        let child = serve(data).envs(environment.iter().copied()).stderr(to).spawn().unwrap();
        Self::once_it_listens(child).ok_or_else(|| {
            let mut text = String::new();
            said.rewind().unwrap();
            said.read_to_string(&mut text).unwrap();
            text
        })
    }

    /// `None` once it ended instead.
    pub fn once_it_listens(mut child: Child) -> Option<Self> {
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        while !line.contains("http://") {
            line.clear();
            if stdout.read_line(&mut line).unwrap() == 0 {
                child.wait().unwrap();
                return None;
            }
        }
        let address = line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap();
        let address = address.trim_end_matches('/').parse().unwrap();
        Some(Self { child, address })
    }

    /// The base address for `--url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills the process as a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to end and returns its exit code.
    pub fn terminate(self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.ended()
    }

    /// Waits for the process to end and returns its exit code; `None` if a signal ended it.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// The process's id.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A new connection that has said hello.
    pub fn client(&self, user: &str, rooms: &Value) -> Client {
        let mut client = Client::connect(self.address);
        client.hello(user, &format!("session-of-{user}"), rooms);
        client
    }

    /// `GET`: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http(
            self.address,
            &format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address),
        )
    }

    /// `GET` of JSON that must succeed.
    pub fn get_json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The metric of this name.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").1;
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// `POST` of JSON: status and body.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let (status, body) = http(self.address, &request);
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// Opens a room.
    pub fn open_room(&self, room: &str, user: &str) {
        let (status, body) = self.post("/api/rooms", &json!({"user": user, "room": room, "title": room}));
        assert_eq!(status, 201, "{body}");
    }

    /// Waits until the session of this user's `client` is noted in the log, which nothing else waits for.
    pub fn session_noted(&self, user: &str) {
        let (started, session) = (Instant::now(), format!("session-of-{user}"));
        let is_it = |event: &Value| event["by"] == user && event["data"]["session"] == session.as_str();
        while !self.events(&["--name", "SessionStarted"]).iter().any(is_it) {
            assert!(started.elapsed() < PATIENCE, "{session} is not noted");
        }
    }

    /// Runs another subcommand against this server.
    pub fn run(&self, arguments: &[&str]) -> Output {
        dramatis().args(arguments).args(["--url", &self.url()]).output().unwrap()
    }

    /// Every event of the log, or of one room, as the command line prints them.
    pub fn events(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(&[&["events", "read"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lines_of_json(&output.stdout)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Newline-delimited JSON.
pub fn lines_of_json(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Sends a raw HTTP request and reads the answer: status and body, chunks joined.
pub fn http(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.to_owned() })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(rest.get(..size).unwrap());
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

/// An address at which nobody listens: nobody else gets it while the socket is kept.
pub fn nobody() -> (OwnedFd, String) {
    let held = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&held).unwrap()).unwrap();
    (held, format!("http://{address}"))
}

/// Commands of this process: a port comes again, and so would an id made of one.
static COMMANDS: AtomicU64 = AtomicU64::new(1);

/// A socket client that checks nothing for the server.
pub struct Client {
    socket: WebSocket<TcpStream>,
    waiting: VecDeque<Value>,
    /// Whether `presence` is received too; who comes and goes is told at any time.
    pub hears_presence: bool,
}

impl Client {
    /// Connects with the protocol's subprotocol.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, &[("Sec-WebSocket-Protocol", "dramatis.v1.json")])
            .expect("the handshake succeeds")
    }

    /// Connects with these headers; the error is the HTTP status of a refusal.
    pub fn try_connect(address: SocketAddr, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = format!("ws://{address}/socket").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self { socket, waiting: VecDeque::new(), hears_presence: false }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("the handshake broke: {error}"),
        }
    }

    /// The socket below.
    pub fn socket(&mut self) -> &mut WebSocket<TcpStream> {
        &mut self.socket
    }

    /// Sends a text frame as it is.
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Sends one message.
    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    /// Says hello and returns `ready`.
    pub fn hello(&mut self, user: &str, session: &str, rooms: &Value) -> Value {
        self.send(&json!({"type": "hello", "user": user, "session": session, "rooms": rooms}));
        self.receive_type("ready")
    }

    /// The next message, pings and unwanted presence apart; `Err` is the close code.
    pub fn try_receive(&mut self) -> Result<Value, u16> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                if message["type"] == "ping" {
                    self.send(&json!({"type": "pong"}));
                    continue;
                }
                return Ok(message);
            }
            let frame = self.try_receive_frame()?;
            self.waiting.extend(frame);
        }
    }

    /// All messages of the next frame; `Err` is the close code.
    pub fn try_receive_frame(&mut self) -> Result<Vec<Value>, u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let messages = text.lines().map(|line| serde_json::from_str(line).unwrap());
                    let heard: Vec<Value> =
                        messages.filter(|m: &Value| self.hears_presence || m["type"] != "presence").collect();
                    if !heard.is_empty() {
                        return Ok(heard);
                    }
                }
                Ok(Message::Close(reason)) => return Err(reason.map_or(1005, |reason| reason.code.into())),
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return Err(1005),
                Err(_) => return Err(1006),
            }
        }
    }

    /// The next message.
    pub fn receive(&mut self) -> Value {
        self.try_receive().expect("the connection is open")
    }

    /// The next message of this type; those before it are dropped.
    pub fn receive_type(&mut self, kind: &str) -> Value {
        loop {
            let message = self.receive();
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The close code, after anything still sent.
    pub fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.try_receive() {
                return code;
            }
        }
    }

    /// Sends a command and returns its id.
    pub fn command(&mut self, room: &str, name: &str, data: &Value) -> String {
        let id = format!("c{}", COMMANDS.fetch_add(1, Ordering::Relaxed));
        self.send(&json!({"type": "command", "id": id, "room": room, "name": name, "data": data}));
        id
    }

    /// Sends a command and returns its `ack` or `reject`; messages before it are dropped.
    pub fn ask(&mut self, room: &str, name: &str, data: &Value) -> Value {
        let id = self.command(room, name, data);
        self.answer(&id)
    }

    /// The answer to this id.
    pub fn answer(&mut self, id: &str) -> Value {
        loop {
            let message = self.receive();
            if message["id"] == id {
                return message;
            }
        }
    }
}

/// The real chat logs, if they lie beside the checkout.
pub fn irc_logs() -> Option<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/irc");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".raw.txt"))
        .collect();
    files.sort();
    (!files.is_empty()).then_some(files)
}
