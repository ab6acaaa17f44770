//! The three transports as one thing: a line that begins with a `hello` or a cursor, gives
//! messages, takes frames, and breaks. None of it is the product's own code.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::PATIENCE;
use crate::support::http::{Events, Request};

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Socket,
    Stream,
    Poll,
}

/// All of them.
pub const WAYS: [Way; 3] = [Way::Socket, Way::Stream, Way::Poll];

/// Why a line is no more.
#[derive(Debug)]
pub enum Broken {
    /// The network.
    Cut,
    /// The server said goodbye, with this code.
    Closed(u16),
    /// The server refused the beginning, with this status and problem.
    Refused(u16, Value),
}

impl std::convert::From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Self {
        Self::Cut
    }
}

impl std::convert::From<tungstenite::Error> for Broken {
    fn from(_: tungstenite::Error) -> Self {
        Self::Cut
    }
}

/// Who is on the line.
#[derive(Debug, Clone)]
pub struct Person {
    pub user: String,
    pub session: String,
}

impl Person {
    fn headers(&self) -> [(&str, &str); 3] {
        [
            ("Content-Type", "application/json"),
            ("Dramatis-User", &self.user),
            ("Dramatis-Session", &self.session),
        ]
    }

    /// Posts JSON and gives status and answer.
    pub fn post(&self, to: SocketAddr, path: &str, body: &Value) -> Result<(u16, Value), Broken> {
        let request = Request { method: "POST", path, headers: &self.headers(), body: &body.to_string() };
        let answer = request.send(to)?;
        Ok((answer.status, answer.json()?))
    }
}

/// From where a line goes on.
#[derive(Debug, Clone)]
pub enum From {
    /// The client's own epochs and revisions: the `rooms` of a `hello`.
    Rooms(Value),
    /// An opaque cursor.
    Cursor(String),
}

/// A line that is open.
pub enum Line {
    Socket(Box<WebSocket<TcpStream>>),
    Stream(Events),
    Poll { cursor: String, first: VecDeque<Value> },
}

/// Messages that came together, and the cursor behind them.
pub struct Came {
    pub messages: Vec<Value>,
    pub cursor: Option<String>,
}

impl Line {
    /// Opens a line.
    pub fn open(way: Way, to: SocketAddr, person: &Person, from: &From) -> Result<Self, Broken> {
        let mut hello = json!({"type": "hello", "user": person.user, "session": person.session});
        match from {
            From::Rooms(rooms) => hello["rooms"] = rooms.clone(),
            From::Cursor(cursor) => hello["cursor"] = json!(cursor),
        }
        match way {
            Way::Socket => socket(to, &hello),
            Way::Stream => stream(to, person, from, &hello),
            Way::Poll => poll(to, person, from, &hello),
        }
    }

    /// What comes next; a poll that has nothing to say gives nothing.
    pub fn next(&mut self, to: SocketAddr, person: &Person) -> Result<Came, Broken> {
        match self {
            Self::Socket(socket) => match socket.read()? {
                Message::Text(text) => {
                    let messages = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                    Ok(Came { messages, cursor: None })
                }
                Message::Close(reason) => {
                    Err(Broken::Closed(reason.map_or(1005, |reason| reason.code.into())))
                }
                _ => Ok(Came { messages: Vec::new(), cursor: None }),
            },
            Self::Stream(events) => {
                let event = events.next()?.ok_or(Broken::Cut)?;
                if event.name == "close" {
                    let code = event.messages()[0]["code"].as_u64().unwrap();
                    return Err(Broken::Closed(u16::try_from(code).unwrap()));
                }
                Ok(Came { messages: event.messages(), cursor: event.id })
            }
            Self::Poll { cursor, first } => {
                if first.is_empty() {
                    let path = format!("/api/poll?cursor={cursor}&wait=2");
                    let headers = &person.headers()[1..];
                    let request = Request { method: "GET", path: &path, headers, body: "" };
                    let answer = request.send(to)?;
                    let status = answer.status;
                    (*cursor, *first) = page(status, answer.json()?)?;
                }
                Ok(Came { messages: first.drain(..).collect(), cursor: Some(cursor.clone()) })
            }
        }
    }

    /// Says something; `false` where there is no session any more to say it to.
    pub fn say(&mut self, to: SocketAddr, person: &Person, frame: &Value) -> Result<bool, Broken> {
        if let Self::Socket(socket) = self {
            socket.send(Message::text(frame.to_string()))?;
            return Ok(true);
        }
        match person.post(to, "/api/frames", frame)? {
            (202, _) => Ok(true),
            (404 | 503, _) => Ok(false),
            (status, problem) => Err(Broken::Refused(status, problem)),
        }
    }

    /// Ends it from this side, wherever it is.
    pub fn cut(&self) {
        let connection = match self {
            Self::Socket(socket) => socket.get_ref(),
            Self::Stream(events) => events.connection(),
            Self::Poll { .. } => return,
        };
        let _ = connection.shutdown(Shutdown::Both);
    }
}

fn socket(to: SocketAddr, hello: &Value) -> Result<Line, Broken> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let request = format!("ws://{to}/socket").into_client_request()?;
    let (mut socket, _) = tungstenite::client(request, stream).map_err(|_| Broken::Cut)?;
    socket.send(Message::text(hello.to_string()))?;
    Ok(Line::Socket(Box::new(socket)))
}

fn stream(to: SocketAddr, person: &Person, from: &From, hello: &Value) -> Result<Line, Broken> {
    let headers = person.headers();
    let body = hello.to_string();
    let answer = match from {
        From::Rooms(_) => {
            Request { method: "POST", path: "/api/stream", headers: &headers, body: &body }.send(to)?
        }
        From::Cursor(cursor) => {
            let headers = [headers[1], headers[2], ("Last-Event-ID", cursor.as_str())];
            Request { method: "GET", path: "/api/stream", headers: &headers, body: "" }.send(to)?
        }
    };
    if answer.status == 200 {
        return Ok(Line::Stream(Events::new(answer)));
    }
    Err(Broken::Refused(answer.status, answer.json()?))
}

fn poll(to: SocketAddr, person: &Person, from: &From, hello: &Value) -> Result<Line, Broken> {
    match from {
        From::Rooms(_) => {
            let (status, answer) = person.post(to, "/api/poll?wait=2", hello)?;
            let (cursor, first) = page(status, answer)?;
            Ok(Line::Poll { cursor, first })
        }
        From::Cursor(cursor) => Ok(Line::Poll { cursor: cursor.clone(), first: VecDeque::new() }),
    }
}

fn page(status: u16, mut answer: Value) -> Result<(String, VecDeque<Value>), Broken> {
    if status != 200 {
        return Err(Broken::Refused(status, answer));
    }
    if let Some(code) = answer["close"].as_u64() {
        return Err(Broken::Closed(u16::try_from(code).unwrap()));
    }
    let cursor = answer["cursor"].as_str().unwrap().to_owned();
    let messages = answer["messages"].take();
    Ok((cursor, serde_json::from_value(messages).unwrap()))
}
