//! Events offered at a fixed rate to rooms of one size, whether or not the server keeps up: the
//! load under `fanout`'s `coalesced`, `slow-client` and the bystanders of `resume-storm`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;

use crate::link::{Address, Message};
use crate::report::Latencies;
use crate::stage::{self, Client, Composer, Stopwatch, stamp};

/// Measuring starts after this long.
const WARM_UP: Duration = Duration::from_millis(500);
/// What was offered must have come so long after the last of it.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);
/// Events that are due are posted together so often.
const TICK: Duration = Duration::from_millis(1);

/// Rooms of one size and the events they get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered<'a> {
    /// What their names begin with, not used before.
    pub(crate) prefix: &'a str,
    pub(crate) rooms: usize,
    /// Followers of each room.
    pub(crate) members: usize,
    /// Over all rooms, in turn.
    pub(crate) events_per_second: u64,
    /// Bytes of an event's payload.
    pub(crate) event_bytes: usize,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Deliveries a second while measuring.
    pub(crate) rate: f64,
    /// From when an event was due to when a follower has read it, for those read while measuring.
    pub(crate) latencies: Latencies,
    /// Deliveries that had not come long after the last event was offered.
    pub(crate) missing: u64,
}

/// What the followers share.
struct Gauge {
    watch: Stopwatch,
    counting: Cell<bool>,
    counted: Cell<u32>,
    read: Cell<u64>,
    latencies: RefCell<Latencies>,
}

impl Offered<'_> {
    /// The name of a room.
    pub(crate) fn room(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Opens the rooms, brings all in, and offers the events while `meanwhile` runs. An event
    /// that comes twice or out of order is an error.
    pub(crate) async fn deliver(
        &self,
        address: Address,
        meanwhile: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Outcome> {
        let rooms: Vec<_> = (0..self.rooms).map(|number| self.room(number)).collect();
        stage::open_rooms(address, &rooms).await?;
        let mut posters = Vec::new();
        for room in &rooms {
            let mut poster = Client::enter(address, &format!("poster-of-{room}"), &[]).await?;
            poster.command(room, "join", &serde_json::json!({})).await?;
            posters.push(poster);
        }
        let follower = |number: usize| {
            let user = format!("{}-follower-{number}", self.prefix);
            (user, vec![self.room(number / self.members)])
        };
        let followers = Client::enter_all(address, self.rooms * self.members, follower).await?;
        let gauge = Rc::new(Gauge {
            watch: Stopwatch::start(),
            counting: Cell::new(false),
            counted: Cell::new(0),
            read: Cell::new(0),
            latencies: RefCell::new(Latencies::new()?),
        });
        let links: Vec<_> = posters.iter().map(|poster| poster.link.clone()).collect();
        let mut clients = JoinSet::new();
        for client in posters.into_iter().chain(followers) {
            clients.spawn_local(read(client, gauge.clone()));
        }
        let stop = Cell::new(false);
        let posting = self.post(&links, &gauge, &stop);
        let measuring = async {
            tokio::time::sleep(WARM_UP).await;
            let watch = Stopwatch::start();
            gauge.counting.set(true);
            meanwhile.await?;
            gauge.counting.set(false);
            stop.set(true);
            anyhow::Ok(Duration::from_nanos(watch.nanos()))
        };
        let run = async {
            let (posted, took) = tokio::try_join!(posting, measuring)?;
            let due = posted * u64::try_from(self.members)?;
            let drained = async {
                while gauge.read.get() < due {
                    tokio::time::sleep(TICK).await;
                }
            };
            let _ = tokio::time::timeout(DRAINED_WITHIN, drained).await;
            anyhow::Ok((took, due.saturating_sub(gauge.read.get())))
        };
        let (took, missing) = tokio::select! {
            ran = run => ran?,
            ended = clients.join_next() => {
                ended.context("expected clients")???;
                bail!("a client ended before the round did")
            }
        };
        let latencies = gauge.latencies.borrow().clone();
        Ok(Outcome { rate: f64::from(gauge.counted.get()) / took.as_secs_f64(), latencies, missing })
    }

    /// Posts what is due until told to stop; how many events that were.
    async fn post(
        &self,
        links: &[crate::link::Link],
        gauge: &Gauge,
        stop: &Cell<bool>,
    ) -> anyhow::Result<u64> {
        let mut composers: Vec<_> =
            (0..self.rooms).map(|number| Composer::new(&self.room(number), self.event_bytes)).collect();
        let mut frames = vec![Vec::new(); self.rooms];
        let (began, mut posted) = (gauge.watch.nanos(), 0_u64);
        let rooms = u64::try_from(self.rooms)?;
        let mut ticks = tokio::time::interval(TICK);
        while !stop.get() {
            ticks.tick().await;
            let now = gauge.watch.nanos();
            loop {
                // In 128 bits, so that no length of a run matters.
                let due =
                    u64::try_from(u128::from(posted) * 1_000_000_000 / u128::from(self.events_per_second))?;
                if began + due > now {
                    break;
                }
                let room = usize::try_from(posted % rooms)?;
                if let (Some(composer), Some(frame)) = (composers.get_mut(room), frames.get_mut(room)) {
                    composer.post(frame, began + due);
                }
                posted += 1;
            }
            for (link, frame) in links.iter().zip(&mut frames).filter(|(_, frame)| !frame.is_empty()) {
                link.send(frame).await?;
                frame.clear();
            }
        }
        Ok(posted)
    }
}

async fn read(mut client: Client, gauge: Rc<Gauge>) -> anyhow::Result<std::convert::Infallible> {
    let mut last = None;
    loop {
        let on_message = |message: Message<'_>| {
            let Message::Event(event) = message else { return Ok(()) };
            // Events of the room's own history carry no stamp.
            let Some(due) = stamp(event) else { return Ok(()) };
            ensure!(last < Some(due), "an event came twice or out of order");
            last = Some(due);
            gauge.read.set(gauge.read.get() + 1);
            if gauge.counting.get() {
                gauge.counted.set(gauge.counted.get() + 1);
                gauge.latencies.borrow_mut().record(gauge.watch.nanos().saturating_sub(due));
            }
            Ok(())
        };
        client.link.read(&mut client.inbox, on_message).await?;
    }
}
