//! Events into one room and out to all who follow it: the load under `fanout` and `slow-client`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;

use crate::link::{Link, Message};
use crate::report::Latencies;
use crate::server::Server;
use crate::stage::{self, Client, Composer, Stopwatch, stamp};

/// Measuring starts after this long.
const WARM_UP: Duration = Duration::from_millis(300);

/// One room under load. The next events are posted as the last have reached all members.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    /// Its name, not used before.
    pub(crate) room: &'a str,
    /// Clients that follow it and read.
    pub(crate) members: usize,
    /// Clients that follow it and never read.
    pub(crate) stuck: usize,
    /// Events posted and not yet read by all members.
    pub(crate) in_flight: u64,
    /// Bytes of an event's payload.
    pub(crate) event_bytes: usize,
    /// How long is measured.
    pub(crate) window: Duration,
}

impl Load<'_> {
    /// Deliveries to members while measuring, and how long each took from its post.
    pub(crate) async fn deliver(&self, server: &Server) -> anyhow::Result<(Sent, Latencies)> {
        let address = server.address;
        stage::open_rooms(address, &[self.room.to_owned()]).await?;
        let mut poster = Client::enter(address, "poster", &[]).await?;
        poster.command(self.room, "join", &serde_json::json!({})).await?;
        let follower = |number| (format!("follower-{number}"), vec![self.room.to_owned()]);
        let followers = Client::enter_all(address, self.members, follower).await?;
        let stuck = |number| (format!("stuck-{number}"), vec![self.room.to_owned()]);
        let stuck = Client::enter_all(address, self.stuck, stuck).await?;
        let gauge = Rc::new(Gauge {
            watch: Stopwatch::start(),
            counting: Cell::new(false),
            counted: Cell::new(0),
            delivered: Cell::new(0),
            posted: Cell::new(0),
            in_flight: self.in_flight,
            members: u64::try_from(self.members)?,
            poster: poster.link.clone(),
            composer: RefCell::new(Composer::new(self.room, self.event_bytes)),
            latencies: RefCell::new(Latencies::new()?),
        });
        let mut clients = JoinSet::new();
        clients.spawn_local(read(poster, gauge.clone()));
        for follower in followers {
            clients.spawn_local(read(follower, gauge.clone()));
        }
        gauge.post()?;
        let window = measure_while(clients, &gauge.counting, self.window, server).await?;
        // Until here their sockets stayed open and unread.
        drop(stuck);
        let latencies = gauge.latencies.borrow().clone();
        Ok((window.sent(gauge.counted.get()), latencies))
    }
}

/// What the followers of a round share.
struct Gauge {
    watch: Stopwatch,
    counting: Cell<bool>,
    counted: Cell<u32>,
    delivered: Cell<u64>,
    posted: Cell<u64>,
    in_flight: u64,
    members: u64,
    poster: Link,
    composer: RefCell<Composer>,
    latencies: RefCell<Latencies>,
}

impl Gauge {
    /// Posts as many events as may now be in flight.
    fn post(&self) -> anyhow::Result<()> {
        let mut frame = Vec::new();
        let done = self.delivered.get() / self.members;
        while self.posted.get() - done < self.in_flight {
            self.composer.borrow_mut().post(&mut frame, self.watch.nanos());
            self.posted.set(self.posted.get() + 1);
        }
        if !frame.is_empty() {
            ensure!(
                self.poster.try_send(&frame)?,
                "the poster's socket had no room: try a lower --in-flight"
            );
        }
        Ok(())
    }

    fn delivered(&self, event: &[u8]) {
        // Events of the room's own history carry no stamp.
        let Some(posted) = stamp(event) else { return };
        self.delivered.set(self.delivered.get() + 1);
        if self.counting.get() {
            self.counted.set(self.counted.get() + 1);
            self.latencies.borrow_mut().record(self.watch.nanos().saturating_sub(posted));
        }
    }
}

/// How long was measured, and for how long of that the server was on a processor.
pub(crate) struct Window {
    took: Duration,
    busy: Duration,
}

/// What went through in a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Messages a second.
    pub(crate) rate: f64,
    /// Microseconds on a processor that each cost the server.
    pub(crate) busy_us: f64,
}

impl Window {
    /// So many messages did.
    pub(crate) fn sent(&self, messages: u32) -> Sent {
        let messages = f64::from(messages);
        Sent { rate: messages / self.took.as_secs_f64(), busy_us: self.busy.as_secs_f64() * 1e6 / messages }
    }
}

/// Counts for the window while the clients run.
pub(crate) async fn measure_while(
    mut clients: JoinSet<anyhow::Result<std::convert::Infallible>>,
    counting: &Cell<bool>,
    window: Duration,
    server: &Server,
) -> anyhow::Result<Window> {
    let measuring = async {
        tokio::time::sleep(WARM_UP).await;
        let (watch, before) = (Stopwatch::start(), server.busy()?);
        counting.set(true);
        tokio::time::sleep(window).await;
        counting.set(false);
        let took = Duration::from_nanos(watch.nanos());
        anyhow::Ok(Window { took, busy: server.busy()?.saturating_sub(before) })
    };
    tokio::select! {
        window = measuring => window,
        ended = clients.join_next() => {
            ended.context("expected clients")???;
            bail!("a client ended before the round did")
        }
    }
}

async fn read(mut client: Client, gauge: Rc<Gauge>) -> anyhow::Result<std::convert::Infallible> {
    loop {
        let on_message = |message: Message<'_>| {
            if let Message::Event(event) = message {
                gauge.delivered(event);
            }
            Ok(())
        };
        client.link.read(&mut client.inbox, on_message).await?;
        gauge.post()?;
    }
}
