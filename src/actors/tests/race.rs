//! The races of attaching, resuming, leaving, falling behind and moving: sessions, hub and
//! outboxes over a log whose reads are let through one by one, in every order (small worlds)
//! or in orders drawn by a seed (large ones). Nothing is left to luck: an order is a list of
//! choices, printed with a failure, and comes again from it.

mod client;
pub(super) mod scripted;

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;
use dramatis_events::StreamId;

use client::Client;
use scripted::{Holds, ScriptedLog};

use super::{limits, stage_over};
use crate::actors::hub::Hub;
use crate::config::SocketConfig;
use crate::log::{Append, EventLog as _, Expected, contract};

/// After so many turns every actor has done all that it can without the test.
const TURNS: usize = 24;
/// Orders of one small world at the most in the default tier: those that differ late. As many
/// again are drawn by chance where these are not all; the long tier takes all.
const ORDERS: usize = 120;
/// Orders drawn of each large world; the long tier draws many more.
const DRAWN: u64 = 120;
const DRAWN_LONG: u64 = 20_000;

/// What happens, each list in its order, and the lists in any order to each other.
struct Story {
    name: &'static str,
    /// Events each room has before anything happens.
    before: &'static [(&'static str, u64)],
    /// The room that gets one more event, again and again.
    appends: &'static [&'static str],
    /// What each client does.
    clients: &'static [&'static [Deed]],
    /// Whether outboxes are so small that rooms fall behind.
    slow: bool,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    /// Connects for the first time, or again beside a connection that is still open.
    Connect(&'static [&'static str]),
    /// Is cut off.
    Cut,
    Subscribe(&'static str),
    Unsubscribe(&'static str),
}

use Deed::{Connect, Cut, Subscribe, Unsubscribe};

/// Chooses one of so many; the list of choices is the order.
struct Choices {
    made: Vec<(usize, usize)>,
    given: Vec<usize>,
    /// Beyond what is given: the first, or by chance.
    seed: Option<u64>,
}

impl Choices {
    fn choose(&mut self, of: usize) -> usize {
        let choice = match (self.given.get(self.made.len()), &mut self.seed) {
            (Some(choice), _) => *choice,
            (None, None) => 0,
            (None, Some(state)) => {
                // SplitMix64 (Steele, Lea, Flood 2014).
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(of).unwrap()).unwrap()
            }
        };
        self.made.push((choice, of));
        choice
    }

    /// The next order in which one choice, as late as can be, is another one.
    fn next(mut self) -> Option<Vec<usize>> {
        while let Some((choice, of)) = self.made.pop() {
            if choice + 1 < of {
                let before = self.made.iter().map(|(choice, _)| *choice);
                return Some(before.chain([choice + 1]).collect());
            }
        }
        None
    }
}

impl Drop for Choices {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the order was {:?}", self.made.iter().map(|(choice, _)| *choice).collect::<Vec<_>>());
        }
    }
}

struct World {
    log: Arc<ScriptedLog>,
    clients: Vec<(Client, std::slice::Iter<'static, Deed>)>,
    appends: std::slice::Iter<'static, &'static str>,
    heads: BTreeMap<String, u64>,
    follows: Vec<Vec<String>>,
    read_bytes: usize,
}

impl World {
    async fn new(story: &Story, holds: Holds, limits: SocketConfig) -> Self {
        let log = Arc::new(ScriptedLog::new(holds));
        let mut heads = BTreeMap::new();
        for (room, events) in story.before {
            for _ in 0..*events {
                append(&log, room, &mut heads).await;
            }
        }
        let stage = stage_over(log.clone(), limits);
        let rooms = Hub::start_here(&stage);
        let names = ["alice", "bob", "carol"];
        let clients = names.iter().zip(story.clients);
        let clients: Vec<_> =
            clients.map(|(name, deeds)| (Client::new(&stage, &rooms, name), deeds.iter())).collect();
        settle().await;
        Self {
            log,
            follows: vec![Vec::new(); clients.len()],
            clients,
            appends: story.appends.iter(),
            heads,
            read_bytes: if story.slow { 1 } else { 64 * 1024 },
        }
    }

    /// One step of one list, or one read let through; `false` once all lists are done.
    async fn step(&mut self, choices: &mut Choices) -> bool {
        let reads = self.log.gate().waiting();
        let appends = usize::from(self.appends.len() > 0);
        let deeds: Vec<_> =
            (0..self.clients.len()).filter(|client| self.clients[*client].1.len() > 0).collect();
        if appends + deeds.len() == 0 && reads == 0 {
            return false;
        }
        let choice = choices.choose(appends + deeds.len() + reads);
        if choice < appends {
            let room = self.appends.next().unwrap();
            append(&self.log, room, &mut self.heads).await;
        } else if let Some(client) = deeds.get(choice - appends) {
            self.deed(*client);
        } else {
            self.log.gate().let_through(choice - appends - deeds.len());
        }
        settle().await;
        self.clients.iter_mut().for_each(|(client, _)| {
            client.read(self.read_bytes);
        });
        settle().await;
        true
    }

    fn deed(&mut self, client: usize) {
        let follows = &mut self.follows[client];
        let (client, deeds) = &mut self.clients[client];
        match *deeds.next().unwrap() {
            Connect(rooms) => {
                *follows = rooms.iter().map(ToString::to_string).collect();
                follows.sort();
                client.connect(rooms);
            }
            Cut => {
                client.cut();
            }
            Subscribe(room) => {
                follows.retain(|known| known != room);
                follows.push(room.to_owned());
                follows.sort();
                client.subscribe(room);
            }
            Unsubscribe(room) => {
                follows.retain(|known| known != room);
                client.unsubscribe(room);
            }
        }
    }

    /// Lets everything through and checks that nothing is missing.
    async fn end(mut self, run: &str) {
        self.log.gate().open();
        let mut quiet = 0;
        while quiet < 3 {
            settle().await;
            let any =
                self.clients.iter_mut().fold(false, |any, (client, _)| client.read(self.read_bytes) || any);
            quiet = if any { 0 } else { quiet + 1 };
        }
        for ((client, _), follows) in self.clients.iter().zip(&self.follows) {
            client.check(&self.heads, follows, run);
        }
        self.clients.iter_mut().for_each(|(client, _)| while client.cut() {});
        self.log.close();
        settle().await;
    }
}

async fn append(log: &ScriptedLog, room: &str, heads: &mut BTreeMap<String, u64>) {
    let stream = StreamId::parse(&format!("room-main.{room}")).unwrap();
    let event = if heads.contains_key(room) {
        contract::event("MessagePosted", r#"{"kind":"text","text":"a few words, as people say them"}"#)
    } else {
        contract::event("RoomOpened", r#"{"title":"A room","owner":"alice"}"#)
    };
    let envelopes = vec![event];
    let recorded = log.append(Append { stream, expected: Expected::Any, envelopes }).await.unwrap();
    heads.insert(room.to_owned(), recorded[0].revision.get());
}

async fn settle() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

async fn run(story: &Story, holds: Holds, limits: &SocketConfig, mut choices: Choices) -> Choices {
    let mut world = World::new(story, holds, limits.clone()).await;
    while world.step(&mut choices).await {}
    let made: Vec<_> = choices.made.iter().map(|(choice, _)| *choice).collect();
    world.end(&format!("{}, {holds:?}, order {made:?}", story.name)).await;
    choices
}

const SMALL: &[Story] = &[
    Story {
        name: "attach",
        before: &[("lobby", 2)],
        appends: &["lobby"],
        clients: &[&[Connect(&["lobby"])]],
        slow: false,
    },
    Story {
        name: "resume",
        before: &[("lobby", 1)],
        appends: &["lobby"],
        clients: &[&[Connect(&["lobby"]), Cut, Connect(&["lobby"])]],
        slow: false,
    },
    Story {
        name: "leave and return",
        before: &[("lobby", 1)],
        appends: &["lobby"],
        clients: &[&[Connect(&["lobby"]), Unsubscribe("lobby"), Subscribe("lobby")]],
        slow: false,
    },
    Story {
        name: "ask again while following",
        before: &[("lobby", 1)],
        appends: &["lobby"],
        clients: &[&[Connect(&["lobby"]), Subscribe("lobby")]],
        slow: false,
    },
    Story {
        name: "move to another connection",
        before: &[("lobby", 1)],
        appends: &["lobby"],
        clients: &[&[Connect(&["lobby"]), Connect(&["lobby"])]],
        slow: false,
    },
];

const LARGE: &[Story] = &[
    Story {
        name: "everything at once",
        before: &[("lobby", 3), ("den", 60)],
        appends: &["lobby", "den", "lobby", "lobby", "den", "lobby"],
        clients: &[
            &[Connect(&["lobby", "den"]), Unsubscribe("den"), Cut, Connect(&["den", "lobby"])],
            &[Connect(&["lobby"]), Subscribe("den"), Connect(&["lobby", "den"]), Unsubscribe("lobby")],
            &[Connect(&["den"]), Cut, Connect(&["den"]), Subscribe("den"), Subscribe("lobby")],
        ],
        slow: false,
    },
    Story {
        name: "falling behind",
        before: &[("lobby", 5), ("den", 1)],
        appends: &["lobby", "lobby", "den", "lobby", "lobby", "lobby", "den", "lobby", "lobby", "lobby"],
        clients: &[
            &[Connect(&["lobby", "den"]), Cut, Connect(&["lobby", "den"])],
            &[Connect(&["lobby"]), Connect(&["lobby", "den"]), Unsubscribe("lobby"), Subscribe("lobby")],
        ],
        slow: true,
    },
];

fn limits_of(story: &Story) -> SocketConfig {
    let mut limits = limits();
    if story.slow {
        limits.outbox_bytes_max = 600;
    }
    limits
}

fn long_tier() -> bool {
    std::env::var("DRAMATIS_TEST_TIER").is_ok_and(|tier| tier == "long" || tier == "soak")
}

fn drawn(seed: u64) -> Choices {
    Choices { made: Vec::new(), given: Vec::new(), seed: Some(seed) }
}

#[test]
fn in_every_order_nothing_is_lost_or_doubled() {
    System::new().block_on(async {
        for story in SMALL {
            let limits = limits_of(story);
            for holds in [Holds::Before, Holds::After] {
                let (mut given, mut orders) = (Some(Vec::new()), 0);
                while let Some(choices) = given.take_if(|_| orders < ORDERS || long_tier()) {
                    let choices = Choices { made: Vec::new(), given: choices, seed: None };
                    given = run(story, holds, &limits, choices).await.next();
                    orders += 1;
                }
                if given.is_none() {
                    println!("{}, {holds:?}: {orders} orders, all there are", story.name);
                    continue;
                }
                for seed in 0..DRAWN {
                    run(story, holds, &limits, drawn(seed)).await;
                }
                println!("{}, {holds:?}: {orders} orders, and {DRAWN} by chance", story.name);
            }
        }
    });
}

#[test]
fn in_any_order_nothing_is_lost_or_doubled() {
    let seed = std::env::var("DRAMATIS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = match seed {
        Some(seed) => seed..seed + 1,
        None => 0..if long_tier() { DRAWN_LONG } else { DRAWN },
    };
    System::new().block_on(async {
        for story in LARGE {
            let limits = limits_of(story);
            for seed in seeds.clone() {
                let holds = [Holds::Before, Holds::After, Holds::Both][usize::try_from(seed % 3).unwrap()];
                run(story, holds, &limits, drawn(seed)).await;
            }
            println!("{}: {} orders, seeds {seeds:?}", story.name, seeds.end - seeds.start);
        }
    });
}
