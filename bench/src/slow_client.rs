//! `slow-client`: what one client that reads 1 KB/s costs the others, and the server's memory.
//!
//! | variant | room |
//! |---|---|
//! | `alone-p50` and so on | only members that read: from when an event is due until one has read it |
//! | `beside-slow-p50` and so on | the same members, and the slow one |
//! | `held` | the most bytes that ever waited for one client at the server, by its own figure |
//! | `resident` | how much more memory the server has resident at the end beside the slow one: its log's cache and whatever else moves it, too |
//! | `caught-up` | events that the slow one then reads to the end, each once and in order |

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::link::{Address, Inbox, Link, Message};
use crate::offered::Offered;
use crate::pinning::Pinning;
use crate::report::{Latencies, Percentile, Report};
use crate::server::ServerOptions;
use crate::stage::{self, Stopwatch, stamp};
use crate::{Common, NO_VARIANTS};

/// Options of `slow-client`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: ServerOptions,
    /// Clients that read.
    #[arg(long, default_value_t = 1_000)]
    members: usize,
    /// Events a second; enough to fill the slow client's socket.
    #[arg(long, default_value_t = 200)]
    events_per_second: u64,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 2_000)]
    event_bytes: usize,
}

/// What the slow client reads at a time, and how often.
const SIP_BYTES: usize = 1_024;
const SIP_EVERY: Duration = Duration::from_secs(1);
/// The slow client's receive buffer.
const NARROW_BYTES: u32 = 4_096;
/// How long the slow client may take to catch up.
const CAUGHT_UP_WITHIN: Duration = Duration::from_mins(1);
const PERCENTILES: [Percentile; 3] = [Percentile::P50, Percentile::P99, Percentile::Max];

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.common.check(NO_VARIANTS)?;
    ensure!(
        options.members > 0 && options.events_per_second > 0,
        "members, events: expected at least 1 each"
    );
    let pinning = options.server.pin();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let (mut held, mut resident, mut caught_up) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.common.rounds {
        let without = one(options, pinning, false)?;
        alone.push(without.latencies);
        let with = one(options, pinning, true)?;
        beside.push(with.latencies);
        held.push(with.held_kib);
        resident.push(with.resident_kib - without.resident_kib);
        caught_up.push(with.caught_up);
        eprintln!("slow-client: round {} of {}", round + 1, options.common.rounds);
    }
    let mut report = Report::new(
        "slow-client",
        &[
            ("durability", "fdatasync before every delivery".to_owned()),
            ("connections", format!("{} that read", options.members)),
            ("offered", format!("{} events a second", options.events_per_second)),
            ("event_bytes", format!("{} payload", options.event_bytes)),
            ("seconds", options.common.seconds.to_string()),
            ("pinning", pinning.describe()),
            ("server_workers", options.server.describe_workers()),
        ],
    );
    let slow = [("slow", format!("1 that reads {SIP_BYTES} bytes a second into {NARROW_BYTES}"))];
    report.latencies("alone", &alone, &PERCENTILES, &[])?;
    report.latencies("beside-slow", &beside, &PERCENTILES, &slow)?;
    report.values("held", "KiB", &held, None, &slow);
    report.values("resident", "KiB", &resident, None, &slow);
    report.values("caught-up", "events", &caught_up, None, &slow);
    report.print(options.common.json)
}

struct Round {
    /// The others'.
    latencies: Latencies,
    /// What the server has resident, and held for one client at the most.
    resident_kib: f64,
    held_kib: f64,
    /// Events that the slow one read in the end.
    caught_up: f64,
}

/// One round, with or without the slow client.
fn one(options: &Options, pinning: Pinning, with_slow: bool) -> anyhow::Result<Round> {
    let scratch = options.common.scratch()?;
    let server = options.server.start(pinning, scratch.path())?;
    let offered = Offered {
        prefix: "busy",
        rooms: 1,
        members: options.members,
        events_per_second: options.events_per_second,
        event_bytes: options.event_bytes,
    };
    stage::block_on(async {
        let (mut slow, mut resident_kib, mut held_kib) = (None, 0.0, 0.0);
        let meanwhile = async {
            if with_slow {
                slow = Some(Slow::enter(server.address, &offered.room(0)).await?);
            }
            let watch = Stopwatch::start();
            while Duration::from_nanos(watch.nanos()) < options.common.window() {
                tokio::time::sleep(SIP_EVERY.min(options.common.window())).await;
                if let Some(slow) = &mut slow {
                    slow.sip().await?;
                }
            }
            resident_kib = server.resident_kib()?;
            held_kib = server.metric("dramatis_outbox_bytes_most")? / 1_024.0;
            Ok(())
        };
        let outcome = offered.deliver(server.address, meanwhile).await?;
        ensure!(outcome.missing == 0, "{} deliveries did not come", outcome.missing);
        let events = match slow {
            Some(slow) => slow.catch_up(server.address, &offered.room(0)).await?,
            None => 0,
        };
        Ok(Round { latencies: outcome.latencies, resident_kib, held_kib, caught_up: f64::from(events) })
    })
}

/// The slow client, and how far it is.
struct Slow {
    link: Link,
    inbox: Inbox,
    next: Option<u64>,
    events: u32,
}

impl Slow {
    async fn enter(address: Address, room: &str) -> anyhow::Result<Self> {
        let link = Link::open_narrow(address, NARROW_BYTES).await?;
        link.send(hello(room, None).as_bytes()).await?;
        Ok(Self { link, inbox: Inbox::default(), next: None, events: 0 })
    }

    async fn sip(&mut self) -> anyhow::Result<()> {
        let Self { link, inbox, next, events } = self;
        link.sip(inbox, SIP_BYTES, |message| take(message, next, events)).await
    }

    /// Reads on at full speed up to the room's head, over a new connection if the server has closed
    /// this one; how many events came in all.
    async fn catch_up(mut self, address: Address, room: &str) -> anyhow::Result<u32> {
        let mut asking = stage::Client::enter(address, "asking", &[]).await?;
        asking.command(room, "join", &serde_json::json!({})).await?;
        // Its own joining is the last event that the slow one must see.
        let watch = Stopwatch::start();
        let mut joined = false;
        while !joined {
            ensure!(
                Duration::from_nanos(watch.nanos()) < CAUGHT_UP_WITHIN,
                "the slow client never caught up"
            );
            let Self { link, inbox, next, events } = &mut self;
            let read = link
                .read(inbox, |message| {
                    joined |= matches!(message, Message::Event(event) if memchr::memmem::find(event, br#""asking""#).is_some());
                    take(message, next, events)
                })
                .await;
            if let Err(error) = read {
                ensure!(error.to_string().contains("closed"), "{error}");
                self.link = Link::open(address).await?;
                self.inbox = Inbox::default();
                let after = self.next.and_then(|next| next.checked_sub(1));
                self.link.send(hello(room, after).as_bytes()).await?;
            }
        }
        Ok(self.events)
    }
}

fn hello(room: &str, after: Option<u64>) -> String {
    let mut cursor = serde_json::json!({ "room": room });
    if let (Some(after), Some(cursor)) = (after, cursor.as_object_mut()) {
        cursor.insert("after".to_owned(), after.into());
    }
    serde_json::json!({"type": "hello", "user": "slow", "session": "slow", "rooms": [cursor]}).to_string()
}

/// Takes an event, which must be the one after the last.
fn take(message: Message<'_>, next: &mut Option<u64>, events: &mut u32) -> anyhow::Result<()> {
    let Message::Event(event) = message else { return Ok(()) };
    let at = revision(event).context("expected a revision in an event")?;
    ensure!(next.is_none_or(|next| next == at), "expected revision {next:?}, got {at}");
    *next = Some(at + 1);
    *events += u32::from(stamp(event).is_some());
    Ok(())
}

fn revision(event: &[u8]) -> Option<u64> {
    let key = br#""revision":"#;
    let digits = event.get(memchr::memmem::find(event, key)? + key.len()..)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_gap_or_a_repetition_is_noticed() {
        let (mut next, mut events) = (None, 0);
        let mut hear = |event: &str| take(Message::Event(event.as_bytes()), &mut next, &mut events);
        hear(r#"{"type":"event","room":"a","revision":41,"position":"7"}"#).unwrap();
        hear(r#"{"type":"event","room":"a","revision":42,"position":"9"}"#).unwrap();
        hear(r#"{"type":"event","room":"a","revision":44,"position":"12"}"#).unwrap_err();
        hear(r#"{"type":"event","room":"a","revision":42,"position":"9"}"#).unwrap_err();
    }
}
