//! Rooms, clients and messages for the questions that drive a server.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use memchr::memmem;

use crate::link::{Address, Dialect, Inbox, Link, Message};

/// How long rooms and clients may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// Connections that are opened at a time.
const OPENING: usize = 64;
/// Rooms that are opened at a time.
const OPEN_ROOMS_AT_A_TIME: usize = 256;

/// Runs a driver on this thread alone.
pub(crate) fn block_on<T>(driver: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(driver))
}

/// A connected client that has said hello.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its connection.
    pub(crate) link: Link,
    /// What it has read by half.
    pub(crate) inbox: Inbox,
}

impl Client {
    /// Connects, says hello and waits until all of its rooms are live.
    pub(crate) async fn enter(address: Address, user: &str, rooms: &[String]) -> anyhow::Result<Self> {
        if address.dialect == Dialect::Nchan {
            return Ok(Self { link: Link::open_nchan(address, rooms).await?, inbox: Inbox::default() });
        }
        let mut client = Self { link: Link::open(address).await?, inbox: Inbox::default() };
        let cursors: Vec<_> = rooms.iter().map(|room| serde_json::json!({ "room": room })).collect();
        let mut hello = serde_json::json!({"type": "hello", "user": user, "session": user, "rooms": cursors});
        if let (Some(token), Some(hello)) = (address.token_for(user)?, hello.as_object_mut()) {
            hello.insert("token".to_owned(), token.into());
        }
        client.link.send(hello.to_string().as_bytes()).await?;
        let is_first = |message: Message<'_>| matches!(message, Message::Live | Message::Other);
        // `ready` counts too; without rooms it is all that comes.
        client
            .wait(rooms.len() + 1, is_first)
            .await
            .with_context(|| format!("{user} did not get into its rooms"))?;
        Ok(client)
    }

    /// Many clients, some at a time; `of` tells the user's name and the rooms.
    pub(crate) async fn enter_all(
        address: Address,
        count: usize,
        of: impl Fn(usize) -> (String, Vec<String>),
    ) -> anyhow::Result<Vec<Self>> {
        let enter =
            |(user, rooms): (String, Vec<String>)| async move { Self::enter(address, &user, &rooms).await };
        stream::iter((0..count).map(&of).map(enter)).buffered(OPENING).try_collect().await
    }

    /// Sends one command and waits for its answer; rooms of nchan need no commands.
    pub(crate) async fn command(
        &mut self,
        room: &str,
        name: &str,
        data: &serde_json::Value,
    ) -> anyhow::Result<()> {
        if self.link.is_nchan() {
            return Ok(());
        }
        self.link.send(command(&format!("{name}-{room}"), room, name, data).as_bytes()).await?;
        self.wait(1, |message| matches!(message, Message::Ack(_))).await
    }

    /// Waits until this many messages of a kind have come.
    pub(crate) async fn wait(
        &mut self,
        mut count: usize,
        wanted: impl Fn(Message<'_>) -> bool,
    ) -> anyhow::Result<()> {
        let Self { link, inbox } = self;
        let waiting = async {
            while count > 0 {
                link.read(inbox, |message| {
                    count = count.saturating_sub(usize::from(wanted(message)));
                    Ok(())
                })
                .await?;
            }
            Ok(())
        };
        tokio::time::timeout(READY_WITHIN, waiting)
            .await
            .context("expected an answer within 2 minutes, none came")?
    }
}

fn command(id: &str, room: &str, name: &str, data: &serde_json::Value) -> String {
    serde_json::json!({"type": "command", "id": id, "room": room, "name": name, "data": data}).to_string()
}

/// Opens rooms, all owned by one user.
pub(crate) async fn open_rooms(address: Address, rooms: &[String]) -> anyhow::Result<()> {
    if address.dialect == Dialect::Nchan {
        return Ok(());
    }
    let mut owner = Client::enter(address, "owner", &[]).await?;
    for some in rooms.chunks(OPEN_ROOMS_AT_A_TIME) {
        let commands = some.iter().map(|room| {
            command(&format!("open-{room}"), room, "open_room", &serde_json::json!({ "title": room }))
        });
        owner.link.send(commands.collect::<Vec<_>>().join("\n").as_bytes()).await?;
        owner.wait(some.len(), |message| matches!(message, Message::Ack(_))).await?;
    }
    Ok(())
}

/// Writes the messages of one poster. Each carries the moment it is timed from, in its text
/// and in its id, so that nobody has to remember it.
#[derive(Debug)]
pub(crate) struct Composer {
    room: String,
    padding: String,
    posted: u64,
}

/// Bytes of a message's payload besides padding: its JSON and the stamp.
const PAYLOAD_FRAME_BYTES: usize = r#"{"kind":"text","text":"@00000000000000000000@"}"#.len();

impl Composer {
    /// Posts to a room messages whose recorded payload has `bytes`.
    pub(crate) fn new(room: &str, bytes: usize) -> Self {
        let padding = "x".repeat(bytes.saturating_sub(PAYLOAD_FRAME_BYTES));
        Self { room: room.to_owned(), padding, posted: 0 }
    }

    /// Appends a message to a frame.
    pub(crate) fn post(&mut self, frame: &mut Vec<u8>, nanos: u64) {
        if !frame.is_empty() {
            frame.push(b'\n');
        }
        self.posted += 1;
        let (room, padding, posted) = (&self.room, &self.padding, self.posted);
        let head = format!(r#"{{"type":"command","id":"@{nanos:020}@{posted}","room":"{room}","#);
        let body = format!(r#""name":"post_message","data":{{"text":"@{nanos:020}@{padding}"}}}}"#);
        frame.extend_from_slice(head.as_bytes());
        frame.extend_from_slice(body.as_bytes());
    }
}

/// The stamp that an ack or an event carries.
pub(crate) fn stamp(message: &[u8]) -> Option<u64> {
    let at = memmem::find(message, br#""@"#)?;
    let digits = message.get(at + 2..at + 22)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The driver's clock: nanoseconds since it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at zero.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since.
    pub(crate) fn nanos(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_json_and_carries_its_stamp() {
        let (mut composer, mut frame) = (Composer::new("lobby", 300), Vec::new());
        composer.post(&mut frame, 12_345);
        composer.post(&mut frame, 12_346);
        let text = String::from_utf8(frame).unwrap();
        let messages: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((messages.len(), stamp(text.as_bytes())), (2, Some(12_345)));
        let said = messages[1]["data"]["text"].as_str().unwrap();
        let payload = format!(r#"{{"kind":"text","text":"{said}"}}"#);
        assert_eq!((payload.len(), stamp(payload.as_bytes())), (300, Some(12_346)));
        assert_ne!(messages[0]["id"], messages[1]["id"]);
        assert_eq!(stamp(br#"{"type":"ack","id":"join-lobby"}"#), None);
    }
}
