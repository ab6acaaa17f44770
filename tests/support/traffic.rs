//! People who post and read while a server comes and goes.
#![allow(unreachable_pub, reason = "as all that tests share")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
#![allow(dead_code, reason = "not every suite has all kinds of people")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::Client;
use crate::support::http::Request;
use crate::support::imports::long_tier;

/// Commands a second that a slow machine folds too, with whatever else a test has it do.
pub const SLOW: u32 = 500;
/// Queries a second of whoever reads.
const READS: u32 = 200;

/// Commands a second, as many as the tier's machine can fold.
pub fn rate() -> u32 {
    if long_tier() && !cfg!(debug_assertions) { 2_000 } else { SLOW }
}

/// What people saw of a server that was killed again and again.
#[derive(Default)]
pub struct Seen {
    /// Messages acknowledged, by their revision.
    pub posted: BTreeSet<u64>,
    /// The newest message that a query showed.
    pub newest: u64,
    /// Queries answered.
    pub asked: u64,
}

impl Seen {
    /// Has people post and read until the server is gone, which this is to bring about once somebody
    /// posts, at this rate.
    pub fn until_gone<T>(&mut self, address: SocketAddr, rate: u32, end: impl FnOnce() -> T) -> T {
        let Self { posted, newest, asked } = self;
        std::thread::scope(|scope| {
            let (begun, begins) = mpsc::channel();
            scope.spawn(move || post_until_gone(address, rate, posted, &begun));
            scope.spawn(|| read_until_gone(address, newest, asked));
            begins.recv().expect("somebody posts");
            end()
        })
    }
}

/// Posts at the rate until the server is gone, and notes what was acknowledged.
fn post_until_gone(address: SocketAddr, rate: u32, posted: &mut BTreeSet<u64>, begun: &mpsc::Sender<()>) {
    let mut client = Client::connect(address);
    client.hello("poster", "session-of-poster", &json!([]));
    client.ask("den", "join", &json!({}));
    begun.send(()).unwrap();
    let mut pace = Pace::of(rate, POSTED_TOGETHER);
    for batch in 0.. {
        pace.wait();
        for number in 0..POSTED_TOGETHER {
            let id = format!("{}-{batch}-{number}", address.port());
            let data = json!({"text": id});
            let command =
                json!({"type": "command", "id": id, "room": "den", "name": "post_message", "data": data});
            if client.socket().send(Message::text(command.to_string())).is_err() {
                return;
            }
        }
        for _ in 0..POSTED_TOGETHER {
            let Ok(answer) = client.try_receive() else { return };
            assert_eq!(answer["type"], "ack", "{answer}");
            posted.insert(answer["revision"].as_u64().unwrap());
        }
    }
}

/// Asks for the newest message until the server is gone: no answer fails or goes back in time,
/// over restarts too.
fn read_until_gone(address: SocketAddr, newest: &mut u64, asked: &mut u64) {
    let (path, mut reads) = ("/api/rooms/den/timeline?limit=1", Pace::of(READS, 1));
    while let Ok(answer) = (Request { method: "GET", path, headers: &[], body: "" }).send(address) {
        let status = answer.status;
        let Ok(page) = answer.json() else { return };
        assert_eq!(status, 200, "{page}");
        let revision = page["messages"][0]["revision"].as_u64().unwrap();
        assert!(revision >= *newest, "back from {newest} to {revision}");
        (*newest, *asked) = (revision, *asked + 1);
        reads.wait();
    }
}

/// Messages sent before their answers are read.
pub const POSTED_TOGETHER: u32 = 32;

/// A fixed rate, so that a machine is not asked for more than it can fold; what came late is not
/// made up for.
pub struct Pace {
    due: Instant,
    every: Duration,
}

impl Pace {
    /// So many a second, so many at once; begins now.
    pub fn of(rate: u32, at_once: u32) -> Self {
        Self { due: Instant::now(), every: Duration::from_secs(1) * at_once / rate }
    }

    /// Waits until the next are due.
    pub fn wait(&mut self) {
        let now = Instant::now();
        std::thread::sleep(self.due.saturating_duration_since(now));
        self.due = self.due.max(now) + self.every;
    }
}
