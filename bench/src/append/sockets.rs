//! The variants through sockets: clients post, and an answer means durable.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::{Options, Results};
use crate::link::{Address, Message};
use crate::pinning::Pinning;
use crate::report::Latencies;
use crate::stage::{self, Client, Composer, Stopwatch, stamp};

/// Measuring starts after this long.
const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    sockets: usize,
    rooms: usize,
    in_flight: usize,
    follow: bool,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "sockets-512", sockets: 512, rooms: 512, in_flight: 1, follow: true },
    Shape { name: "hot-room-64", sockets: 64, rooms: 1, in_flight: 64, follow: false },
];

/// One round of both variants, each with a server of its own.
pub(super) fn round(options: &Options, pinning: Pinning, results: &mut Results) -> anyhow::Result<()> {
    for shape in SHAPES.into_iter().filter(|shape| options.common.wants(shape.name)) {
        let scratch = options.common.scratch()?;
        let server = options.server.start(pinning, scratch.path())?;
        let (rate, latencies) = stage::block_on(measure(options, shape, server.address))?;
        let measured = results.entry(shape.name).or_default();
        measured.rates.push(rate);
        measured.latencies.push(latencies);
    }
    Ok(())
}

/// What the clients of a round share.
struct Gauge {
    watch: Stopwatch,
    counting: Cell<bool>,
    answered: Cell<u32>,
    latencies: RefCell<Latencies>,
}

async fn measure(options: &Options, shape: Shape, address: Address) -> anyhow::Result<(f64, Latencies)> {
    let rooms: Vec<String> = (0..shape.rooms).map(|number| format!("room-{number}")).collect();
    stage::open_rooms(address, &rooms).await?;
    let room_of = |number: usize| format!("room-{}", number % shape.rooms);
    let follows = |number| if shape.follow { vec![room_of(number)] } else { Vec::new() };
    let mut clients =
        Client::enter_all(address, shape.sockets, |number| (format!("poster-{number}"), follows(number)))
            .await?;
    let gauge = Rc::new(Gauge {
        watch: Stopwatch::start(),
        counting: Cell::new(false),
        answered: Cell::new(0),
        latencies: RefCell::new(Latencies::new()?),
    });
    // All are in before the first one posts: who joins would have to wait behind the posters.
    for (number, client) in clients.iter_mut().enumerate() {
        client.command(&room_of(number), "join", &serde_json::json!({})).await?;
    }
    let mut posters = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let composer = Composer::new(&room_of(number), options.event_bytes);
        posters.spawn_local(post(client, composer, shape.in_flight, gauge.clone()));
    }
    let measuring = async {
        tokio::time::sleep(WARM_UP).await;
        let from = gauge.watch.nanos();
        gauge.counting.set(true);
        tokio::time::sleep(options.common.window()).await;
        gauge.counting.set(false);
        Duration::from_nanos(gauge.watch.nanos() - from)
    };
    let took = tokio::select! {
        took = measuring => took,
        ended = posters.join_next() => {
            ended.context("expected posters")???;
            anyhow::bail!("a poster ended before the round did");
        }
    };
    posters.abort_all();
    let rate = f64::from(gauge.answered.get()) / took.as_secs_f64();
    let latencies = gauge.latencies.borrow().clone();
    Ok((rate, latencies))
}

/// Keeps as many commands in flight as it may.
async fn post(
    mut client: Client,
    mut composer: Composer,
    in_flight_max: usize,
    gauge: Rc<Gauge>,
) -> anyhow::Result<std::convert::Infallible> {
    let (mut in_flight, mut frame) = (0, Vec::new());
    loop {
        while in_flight < in_flight_max {
            composer.post(&mut frame, gauge.watch.nanos());
            in_flight += 1;
        }
        if !frame.is_empty() {
            client.link.send(&frame).await?;
            frame.clear();
        }
        let answer = |message: Message<'_>| {
            if let Message::Ack(ack) = message {
                in_flight -= 1;
                if gauge.counting.get() {
                    let sent = stamp(ack).context("expected an ack of a post")?;
                    gauge.answered.set(gauge.answered.get() + 1);
                    gauge.latencies.borrow_mut().record(gauge.watch.nanos().saturating_sub(sent));
                }
            }
            Ok(())
        };
        client.link.read(&mut client.inbox, answer).await?;
    }
}
