//! A plain HTTP client that is not the product's own code: one request a connection, a body that
//! is read as it comes, and server-sent events out of it.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// What is asked.
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    /// Besides `Host`, `Connection` and `Content-Length`.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a str,
}

impl Request<'_> {
    /// The request as it goes over the wire.
    pub fn text(&self, address: SocketAddr) -> String {
        let Self { method, path, headers, body } = self;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        for (name, value) in *headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        if *method == "POST" {
            write!(text, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        text + "\r\n" + body
    }

    /// Sends it and reads the answer's head.
    pub fn send(&self, address: SocketAddr) -> io::Result<Answer> {
        self.send_over(TcpStream::connect(address)?)
    }

    /// The same over a connection that is there already.
    pub fn send_over(&self, mut stream: TcpStream) -> io::Result<Answer> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let address = stream.peer_addr()?;
        stream.write_all(self.text(address).as_bytes())?;
        Answer::read(stream)
    }
}

/// An answer whose body is still to come.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// All headers, in lower case.
    pub head: String,
    reader: BufReader<TcpStream>,
    /// Bytes to come, where there are no chunks.
    left: Option<usize>,
}

impl Answer {
    /// Reads the head of what comes.
    pub fn read(stream: TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        loop {
            let before = head.len();
            if reader.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if head[before..].trim_end().is_empty() {
                break;
            }
        }
        let head = head.to_ascii_lowercase();
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let left = if head.contains("transfer-encoding: chunked") {
            None
        } else {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            Some(length.map_or(0, |length| length.trim().parse().unwrap()))
        };
        Ok(Self { status, head, reader, left })
    }

    /// The connection below, to cut it.
    pub fn connection(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// The next piece of the body; `None` at its proper end.
    fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = match &mut self.left {
            Some(0) => return Ok(None),
            Some(left) => std::mem::take(left),
            None => {
                let mut size = String::new();
                self.reader.read_line(&mut size)?;
                usize::from_str_radix(size.trim(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?
            }
        };
        let mut piece = vec![0; size];
        self.reader.read_exact(&mut piece)?;
        if self.left.is_none() {
            self.reader.read_exact(&mut [0; 2])?;
        }
        Ok((size > 0).then_some(piece))
    }

    /// The whole body.
    pub fn body(mut self) -> io::Result<String> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece()? {
            body.extend(piece);
        }
        String::from_utf8(body).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// The whole body as JSON; null where there is none.
    pub fn json(self) -> io::Result<Value> {
        let body = self.body()?;
        if body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&body)?) }
    }
}

/// A server-sent event.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event {
    /// `message` if the stream does not say.
    pub name: String,
    /// Lines joined by newlines.
    pub data: String,
    /// The id it set, if any.
    pub id: Option<String>,
}

impl Event {
    /// The messages it holds.
    pub fn messages(&self) -> Vec<Value> {
        self.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Server-sent events, read as the HTML standard says (<https://html.spec.whatwg.org/#event-stream-interpretation>).
pub struct Events {
    answer: Answer,
    buffer: String,
}

impl Events {
    /// Out of an answer's body.
    pub fn new(answer: Answer) -> Self {
        Self { answer, buffer: String::new() }
    }

    /// The connection below, to cut it.
    pub fn connection(&self) -> &TcpStream {
        self.answer.connection()
    }

    /// The next event; `None` at the proper end. What is incomplete then is none.
    pub fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let event = parse(block);
                self.buffer = rest.to_owned();
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
            }
            match self.answer.piece()? {
                Some(piece) => self.buffer.push_str(&String::from_utf8(piece).unwrap().replace('\r', "\n")),
                None => return Ok(None),
            }
        }
    }
}

fn parse(block: &str) -> Event {
    let mut event = Event { name: "message".to_owned(), ..Event::default() };
    let mut data = Vec::new();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.name),
            "data" => data.push(value),
            "id" => event.id = Some(value.to_owned()),
            _ => {}
        }
    }
    event.data = data.join("\n");
    event
}
