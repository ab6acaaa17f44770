//! Sends planned commands over one socket and books the answers.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::answer::{Answer, Limits, Reject};
use super::ended::{Ended, closed, lost};
use super::feed::Read;
use super::importer::Importer;
use super::plan::Command;
use super::report::{Progress, Report};
use super::window::{TRIES_MAX, Verdict, Window};
use crate::cli::{Failure, ServerUrl, http};

/// The protocol it speaks.
const SUBPROTOCOL: &str = "dramatis.v1.json";
/// Commands in one frame.
const FRAME_COMMANDS_MAX: usize = 64;
/// Bytes in one frame, where the server takes as many; the first command always fits.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Steps in one go towards a command to send, past lines that give none.
const STEPS_MAX: usize = 64;
/// Frames between the planner and the socket.
const OUTBOX_FRAMES_MAX: usize = 4;
/// How long the server may take to open the socket, and then to answer `hello`.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a word for so long, or for [`HEARTBEATS_MAX`] times as long as the server is silent before it
/// pings, it is gone.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// See [`SILENCE_MAX`].
const HEARTBEATS_MAX: u64 = 2;
/// How often progress is looked at.
const TELL_EVERY: Duration = Duration::from_millis(250);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A run: what is to be sent, what is on its way, what came back.
pub(super) struct Run {
    pub(super) report: Report,
    pub(super) progress: Progress,
    pub(super) ledger: Option<File>,
    pub(super) importer: Importer,
    incoming: mpsc::Receiver<anyhow::Result<Vec<Read>>>,
    window: Window,
    planned: VecDeque<Command>,
    all_planned: bool,
    /// What the server takes at the most of a message and of a frame, bytes.
    message_bytes_max: usize,
    frame_bytes_max: usize,
    /// How long it may be silent.
    silence_max: Duration,
    session: String,
    started: tokio::time::Instant,
}

impl Run {
    pub(super) fn new(
        importer: Importer,
        incoming: mpsc::Receiver<anyhow::Result<Vec<Read>>>,
        progress: Progress,
        in_flight_max: usize,
        ledger: Option<File>,
    ) -> Self {
        Self {
            report: Report::default(),
            progress,
            ledger,
            importer,
            incoming,
            window: Window::new(in_flight_max),
            planned: VecDeque::new(),
            all_planned: false,
            message_bytes_max: usize::MAX,
            silence_max: SILENCE_MAX,
            frame_bytes_max: FRAME_BYTES_MAX,
            session: format!("import-{}", uuid::Uuid::new_v4().simple()),
            started: tokio::time::Instant::now(),
        }
    }

    /// Connects and sends until everything has its answer or the connection ends. `connected`
    /// is set once the server has answered `hello`.
    pub(super) async fn connection(&mut self, url: &ServerUrl, connected: &mut bool) -> Result<(), Ended> {
        let (sink, mut stream) = self.open(url).await?.split();
        *connected = true;
        let (outbox, frames) = mpsc::channel(OUTBOX_FRAMES_MAX);
        let writer = tokio::spawn(write(sink, frames));
        let ended = self.exchange(&mut stream, &outbox).await;
        if ended.is_err() {
            self.window.lost(self.now_ms());
            writer.abort();
        } else {
            // The answers are in; a close that does not arrive changes nothing.
            let _ = outbox.send(Message::Close(None)).await;
            drop(outbox);
            let _ = writer.await;
        }
        ended
    }

    /// Opens a socket and says hello: with the token that there is, and without it to a server that has no
    /// key for tokens, which takes none.
    async fn open(&mut self, url: &ServerUrl) -> Result<Socket, Ended> {
        match self.greet(url).await {
            Err(Ended::Malformed(_)) if self.importer.forgets_its_token() => self.greet(url).await,
            greeted => greeted,
        }
    }

    async fn greet(&mut self, url: &ServerUrl) -> Result<Socket, Ended> {
        let mut request = url.socket().into_client_request().map_err(|error| Ended::Stop(error.into()))?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let opened = connect_async_with_config(request, None, true);
        let opened = tokio::time::timeout(READY_TIMEOUT, opened).await.map_err(|_| {
            Ended::NoServer(format!("it does not open a socket within {} s", READY_TIMEOUT.as_secs()))
        })?;
        let (mut socket, _) = opened.map_err(|error| match error {
            SocketError::Io(error) => Ended::NoServer(error.to_string()),
            SocketError::Http(answer) => match http::from_proxy(answer.status()) {
                Some(reason) => Ended::NoServer(reason),
                None => Ended::Stop(anyhow::anyhow!(
                    "{url} does not open a socket at /socket: it answered {}",
                    answer.status()
                )),
            },
            error => Ended::Stop(anyhow::Error::new(error).context(format!("{url}/socket"))),
        })?;
        let hello = self.importer.hello(&self.session);
        socket.send(Message::text(hello)).await.map_err(|error| lost(&error))?;
        let ready = tokio::time::timeout(READY_TIMEOUT, self.ready(&mut socket)).await;
        ready.map_err(|_| Ended::Lost(format!("no `ready` within {} s", READY_TIMEOUT.as_secs())))??;
        Ok(socket)
    }

    async fn ready(&mut self, socket: &mut Socket) -> Result<(), Ended> {
        loop {
            let Some(text) = next_text(socket.next().await)? else { continue };
            for line in text.lines() {
                match read(line)? {
                    Answer::Ready { heartbeat_ms, limits } => {
                        let silent = Duration::from_millis(heartbeat_ms.saturating_mul(HEARTBEATS_MAX));
                        self.silence_max = silent.max(SILENCE_MAX);
                        self.keep_to(&limits);
                        return Ok(());
                    }
                    Answer::Reject(reject) => {
                        let why = format!("the server refuses {}: {}", self.importer.user(), reject.reason());
                        let malformed = reject.malformed();
                        return Err(if malformed {
                            Ended::Malformed(why)
                        } else {
                            Ended::Stop(anyhow::anyhow!(why))
                        });
                    }
                    Answer::Ack { .. } | Answer::Ping | Answer::Other => {}
                }
            }
        }
    }

    fn keep_to(&mut self, limits: &Limits) {
        if let Some(max) = limits.in_flight_commands_max {
            self.window.limit(max);
        }
        self.message_bytes_max = limits.message_bytes_max.unwrap_or(usize::MAX);
        self.frame_bytes_max = limits.frame_bytes_max.unwrap_or(usize::MAX).min(FRAME_BYTES_MAX);
    }

    async fn exchange(
        &mut self,
        stream: &mut SplitStream<Socket>,
        outbox: &mpsc::Sender<Message>,
    ) -> Result<(), Ended> {
        let mut tell = tokio::time::interval(TELL_EVERY);
        let mut frame = String::new();
        let mut heard = tokio::time::Instant::now();
        loop {
            if frame.is_empty() {
                self.fill(&mut frame).map_err(Ended::Stop)?;
            }
            if frame.is_empty() && self.all_planned && self.planned.is_empty() && self.window.is_empty() {
                return Ok(());
            }
            let due = self.window.next_due_ms().map(|at_ms| self.started + Duration::from_millis(at_ms));
            let wants_more = frame.is_empty() && self.planned.is_empty() && !self.all_planned;
            tokio::select! {
                // A dead connection is told by its reading side, which knows why.
                permit = outbox.reserve(), if !frame.is_empty() && !outbox.is_closed() => {
                    let permit = permit.map_err(|_| Ended::Lost("the connection cannot be written to".into()))?;
                    permit.send(Message::text(std::mem::take(&mut frame)));
                }
                message = stream.next() => {
                    heard = tokio::time::Instant::now();
                    if let Some(text) = next_text(message)? {
                        self.answers(&text, outbox)?;
                    }
                }
                batch = self.incoming.recv(), if wants_more => self.take(batch).map_err(Ended::Stop)?,
                () = tokio::time::sleep_until(due.unwrap_or(self.started)), if due.is_some() => {}
                _ = tell.tick() => {
                    self.progress.tell(&mut self.report);
                    if heard.elapsed() > self.silence_max {
                        let seconds = self.silence_max.as_secs();
                        return Err(Ended::Lost(format!("no word from the server in {seconds} s")));
                    }
                }
            }
        }
    }

    /// Puts as many commands as may go now into a frame: what goes again before what is new.
    fn fill(&mut self, frame: &mut String) -> anyhow::Result<()> {
        let now_ms = self.now_ms();
        for _ in 0..FRAME_COMMANDS_MAX {
            // The line break is a byte too.
            let left = self.frame_bytes_max.saturating_sub(frame.len()).saturating_sub(1);
            let (first, message_bytes_max) = (frame.is_empty(), self.message_bytes_max);
            let fits = move |command: &Command| first || command.frame.len() <= left;
            let next = match self.window.due(now_ms, fits) {
                Some(again) => Some(again),
                None => self.next_new(fits)?,
            };
            let Some((id, text)) = next else { break };
            if text.len() > message_bytes_max {
                // One that was sent to a server that took more, before the connection was lost.
                if let Verdict::Refused(command) = self.window.rejected(&id, false, None, now_ms) {
                    self.too_large(&command);
                }
                continue;
            }
            if !first {
                frame.push('\n');
            }
            frame.push_str(&text);
            if frame.len() >= self.frame_bytes_max / 2 {
                break;
            }
        }
        Ok(())
    }

    /// The next command not sent before, if its room takes it now and it fits; its id and its frame.
    fn next_new(&mut self, fits: impl Fn(&Command) -> bool) -> anyhow::Result<Option<(Arc<str>, String)>> {
        for _ in 0..STEPS_MAX {
            if let Some(command) = self.planned.pop_front_if(|next| next.frame.len() > self.message_bytes_max)
            {
                self.too_large(&command);
                continue;
            }
            if self.planned.front().is_some() || self.all_planned {
                break;
            }
            match self.incoming.try_recv() {
                Ok(batch) => self.take(Some(batch))?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.take(None)?,
            }
        }
        let takes = |command: &mut Command| {
            command.frame.len() <= self.message_bytes_max && fits(command) && self.window.takes(&command.room)
        };
        let Some(command) = self.planned.pop_front_if(takes) else { return Ok(None) };
        let sent = (command.id.clone(), command.frame.clone());
        self.window.sent(command);
        self.report.sent += 1;
        Ok(Some(sent))
    }

    /// Books what was read; `None` is the end of it.
    fn take(&mut self, batch: Option<anyhow::Result<Vec<Read>>>) -> anyhow::Result<()> {
        match batch {
            Some(batch) => {
                self.planned.extend(batch?.into_iter().flat_map(|read| self.report.read(read)));
            }
            None => self.all_planned = true,
        }
        Ok(())
    }

    fn too_large(&mut self, command: &Command) {
        let (bytes, max) = (command.frame.len(), self.message_bytes_max);
        let reason = format!("its command has {bytes} bytes, and the server takes {max} at the most");
        self.report.refuse(&command.origin, &reason);
    }

    /// Books the answers of one frame: first in the ledger, then in memory.
    fn answers(&mut self, text: &str, outbox: &mpsc::Sender<Message>) -> Result<(), Ended> {
        let answers = text.lines().map(read).collect::<Result<Vec<_>, _>>()?;
        self.note(&answers).map_err(Ended::Stop)?;
        for answer in answers {
            match answer {
                Answer::Ack { id, position, duplicate } => {
                    if self.window.acknowledged(&id).is_some() {
                        match (position, duplicate) {
                            (None, _) => self.report.unchanged += 1,
                            (Some(_), true) => self.report.duplicates += 1,
                            (Some(_), false) => self.report.recorded += 1,
                        }
                    }
                }
                Answer::Reject(reject) => self.rejected(&reject)?,
                Answer::Ping => {
                    // A full outbox is traffic enough to show that somebody is here.
                    let _ = outbox.try_send(Message::text(r#"{"type":"pong"}"#));
                }
                Answer::Ready { .. } | Answer::Other => {}
            }
        }
        Ok(())
    }

    /// Writes the ids of what is durable, in one write.
    fn note(&mut self, answers: &[Answer<'_>]) -> anyhow::Result<()> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let mut lines = String::new();
        for answer in answers {
            if let Answer::Ack { id, position: Some(_), .. } = answer {
                lines.push_str(id);
                lines.push('\n');
            }
        }
        ledger
            .write_all(lines.as_bytes())
            .map_err(|error| anyhow::anyhow!("cannot write the ledger: {error}"))
    }

    fn rejected(&mut self, reject: &Reject<'_>) -> Result<(), Ended> {
        let Some(id) = &reject.id else {
            return Err(Ended::Stop(anyhow::anyhow!("the server does not understand: {}", reject.reason())));
        };
        if reject.token_expired() {
            return Err(Ended::Token(reject.reason()));
        }
        match self.window.rejected(id, reject.retry, reject.after_ms, self.now_ms()) {
            Verdict::Refused(command) if command.opening && reject.room_exists() => {
                self.report.unchanged += 1;
            }
            Verdict::Refused(command) if reject.not_a_member() && self.report.is_full(&command.room) => {
                self.report.excluded += 1;
            }
            Verdict::Refused(command) => {
                self.report.refuse(&command.origin, &reject.reason());
                if reject.room_full() {
                    self.report.full(&command.room);
                }
            }
            Verdict::Again | Verdict::Unknown => {}
            Verdict::GivenUp => {
                let reason = format!("the server turned a room away {TRIES_MAX} times: {}", reject.reason());
                let acknowledged = self.report.acknowledged();
                return Err(Ended::Stop(Failure::Unfinished { reason, acknowledged }.into()));
            }
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut frames: mpsc::Receiver<Message>) {
    while let Some(frame) = frames.recv().await {
        if sink.send(frame).await.is_err() {
            return;
        }
    }
}

/// The text of a frame; `None` for a frame without one.
fn next_text(
    message: Option<Result<Message, SocketError>>,
) -> Result<Option<tokio_tungstenite::tungstenite::Utf8Bytes>, Ended> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Close(Some(close)))) => Err(closed(close.code.into(), &close.reason)),
        Some(Ok(Message::Close(None))) | None => Err(Ended::Lost("the server closed the connection".into())),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(lost(&error)),
    }
}

fn read(line: &str) -> Result<Answer<'_>, Ended> {
    serde_json::from_str(line)
        .map_err(|error| Ended::Stop(anyhow::anyhow!("the server sent what is no answer ({error}): {line}")))
}
