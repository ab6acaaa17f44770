//! One history: a log on a simulated disk, beside a plain list of what it acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use dramatis_events::EventName;

use super::Counts;
use super::endings::Ending;
use crate::clock::ManualClock;
use crate::log::contract::stream;
use crate::log::embedded::tests::bugs::Bug;
use crate::log::embedded::tests::disk::{Chance, Disk, Fault};
use crate::log::embedded::tests::open_disk_at;
use crate::log::embedded::*;

pub(super) const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };
/// Every log has it, so that a history is the same each time.
const LOG: u64 = 0x00c0_ffee;
const RESERVE_BYTES: u64 = 1_000;
pub(super) const ROOMS: [&str; 4] = ["room-main.0", "room-main.1", "user-main.2", "user-main.3"];
pub(super) const NAMES: [&str; 3] = ["MessagePosted", "MemberJoined", "MemberLeft"];

/// Whether the file is there that says: what was answered may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relaxed {
    No,
    Maybe,
    Yes,
}

pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) clock: ManualClock,
    pub(super) disk: Disk,
    pub(super) options: Options,
    pub(super) log: Option<EmbeddedLog>,
    pub(super) epoch: Epoch,
    /// What was acknowledged, or found after its outcome was unknown.
    pub(super) known: Vec<Arc<Recorded>>,
    /// The batch whose outcome is not known.
    pub(super) fated: Vec<Append>,
    /// So many of the known events are durable even in the relaxed mode.
    pub(super) kept: usize,
    pub(super) relaxed: Relaxed,
    pub(super) low: bool,
    pub(super) now: i64,
    pub(super) appends: usize,
    /// Segments that were damaged before the chain named them.
    pub(super) unhashed: Vec<String>,
    /// The disk's operations when its survivor was last looked at.
    looked: Option<usize>,
    pub(super) counts: Counts,
}

pub(super) fn room(number: usize) -> StreamId {
    stream(ROOMS[number % ROOMS.len()])
}

pub(super) fn draw_options(chance: &mut Chance) -> Options {
    let segment_bytes = match chance.below(40) {
        0 => 300_000,
        other => [1, 1_500, 4_000, 12_000][other % 4],
    };
    let durability = match chance.below(8) {
        0 | 1 => Durability::Interval(Duration::from_hours(1)),
        2 => Durability::Interval(Duration::ZERO),
        _ => Durability::Sync,
    };
    let live_bytes_max = [1, 4_000, 1 << 20][chance.below(3)];
    Options {
        segment_bytes,
        live_bytes_max,
        durability,
        reserve_bytes: RESERVE_BYTES,
        // So many that what waits together shares a batch, as the model takes for granted.
        append_queue_len_max: 65_536,
        ..Options::default()
    }
}

pub(super) fn draw_fault(chance: &mut Chance) -> Fault {
    [Fault::Cut, Fault::Write, Fault::Short, Fault::Full, Fault::Sync][chance.below(5)]
}

impl World {
    pub(super) fn begin(seed: u64, bug: Option<Bug>) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
        let disk = Disk::seeded(chance.below(usize::MAX) as u64, bug);
        let epoch = Epoch::first(LOG);
        disk.replace("epoch", format!("{epoch}\n").as_bytes()).unwrap();
        let (clock, options) = (ManualClock::default(), draw_options(&mut chance));
        let log = Some(open_disk_at(&disk, options.clone(), &clock).unwrap());
        let relaxed = if options.durability == Durability::Sync { Relaxed::No } else { Relaxed::Yes };
        Self {
            chance,
            clock,
            disk,
            options,
            log,
            epoch,
            known: Vec::new(),
            fated: Vec::new(),
            kept: 0,
            relaxed,
            low: false,
            now: 10_000,
            appends: 0,
            unhashed: Vec::new(),
            looked: None,
            counts: Counts::default(),
        }
    }

    pub(super) fn log(&self) -> &EmbeddedLog {
        self.log.as_ref().unwrap()
    }

    pub(super) fn of(&self, stream: &StreamId) -> Vec<Arc<Recorded>> {
        self.known.iter().filter(|event| event.stream == *stream).cloned().collect()
    }

    pub(super) fn head(&self, stream: &StreamId) -> Option<Revision> {
        self.known.iter().rev().find(|event| event.stream == *stream).map(|event| event.revision)
    }

    /// One step of a history.
    pub(super) async fn step(&mut self) {
        match self.chance.below(28) {
            0..8 => self.append_one().await,
            8..12 => self.append_together().await,
            12..15 => {
                self.counts.note("step: read");
                self.probe(&[]).await;
            }
            15..19 => self.plan(),
            19 => self.reopen(Ending::Close).await,
            20 => self.reopen(Ending::Kill).await,
            21 | 22 => self.reopen(Ending::Crash).await,
            23 | 24 => self.flip_at_rest().await,
            25 => self.flip_beside().await,
            _ => self.fill_or_free(),
        }
        self.check().await;
        if self.log().poisoned().is_some() && self.chance.below(2) == 0 {
            let ending = [Ending::Close, Ending::Kill, Ending::Crash][self.chance.below(3)];
            self.reopen(ending).await;
            self.check().await;
        }
    }

    fn plan(&mut self) {
        self.counts.note("step: plan a fault");
        let (after, fault) = (self.chance.below(6), draw_fault(&mut self.chance));
        self.disk.plan(after, fault);
    }

    fn fill_or_free(&mut self) {
        self.counts.note("step: fill or free the disk");
        self.low = !self.low;
        let free = if self.low { RESERVE_BYTES - 1 } else { u64::MAX };
        self.disk.has_space(storage::Space { free, total: u64::MAX });
    }

    pub(super) fn next(&self, stream: &StreamId) -> u64 {
        self.head(stream).map_or(0, |head| head.get() + 1)
    }

    /// Whether these are wholly the events of the batch whose outcome is not known.
    pub(super) fn are_fated(&self, more: &[Arc<Recorded>]) -> bool {
        let fated =
            self.fated.iter().flat_map(|append| append.envelopes.iter().map(|given| (&append.stream, given)));
        more.iter().map(|event| (&event.stream, &event.envelope)).eq(fated)
    }

    /// What the open log shows, and what would survive a loss of power right now.
    pub(super) async fn check(&mut self) {
        self.counts.faults(&self.disk.fired());
        let shown = everything(self.log()).await;
        assert!(
            shown == self.known,
            "what is shown is what was acknowledged: {} of {}",
            shown.len(),
            self.known.len()
        );
        assert_eq!(*self.log().head().borrow(), self.known.last().map(|event| event.position));
        for _ in 0..3 {
            self.check_command().await;
        }
        if self.looked == Some(self.disk.ops()) {
            return;
        }
        self.looked = Some(self.disk.ops());
        let survivor = open_disk_at(&self.disk.durable(), self.options.clone(), &self.clock).unwrap();
        let durable = everything(&survivor).await;
        if self.options.durability == Durability::Sync || durable.len() >= self.known.len() {
            assert!(durable.starts_with(&self.known), "an answer was not durable");
            let more = &durable[self.known.len()..];
            assert!(more.is_empty() || self.are_fated(more), "a batch is there in part, or twice");
        } else {
            assert!(
                durable.len() >= self.kept && self.known.starts_with(&durable),
                "a hole, or a settled event is lost"
            );
            assert!(
                survivor.epoch().counter() > self.epoch.counter(),
                "events were lost under the same epoch"
            );
        }
    }

    /// The outcome of a command that recorded something, or of one that never did.
    async fn check_command(&mut self) {
        let number = 1 + self.chance.below(self.appends + 1);
        let stream = room(self.chance.below(ROOMS.len()));
        let asked = crate::log::contract::command(&stream, "alice", &format!("c{number}"));
        let found = self.log().find_command(asked.clone()).await.unwrap();
        assert_eq!(found, self.outcome(&asked), "{asked:?}");
    }

    pub(super) fn outcome(&self, asked: &CommandRef) -> Option<CommandOutcome> {
        let events = self.known.iter().skip_while(|event| !asked.is_of(event));
        let last = events.take_while(|event| asked.is_of(event)).last()?;
        let hash = last.envelope.command.as_ref()?.hash;
        Some(CommandOutcome { hash, revision: last.revision, position: last.position })
    }
}

/// The whole log, unfiltered.
pub(super) async fn everything(log: &EmbeddedLog) -> Vec<Arc<Recorded>> {
    let (events, error) = walk(log, None, &Filter::default(), PAGE).await;
    assert_eq!(error, None);
    events
}

/// All pages past a position, up to the first error.
pub(super) async fn walk(
    log: &EmbeddedLog,
    mut after: Option<Position>,
    filter: &Filter,
    limit: ReadLimit,
) -> (Vec<Arc<Recorded>>, Option<LogError>) {
    let mut events = Vec::new();
    loop {
        match log.read_all(after, filter.clone(), limit).await {
            Ok(page) => {
                events.extend(page.events);
                if page.scanned == after {
                    return (events, None);
                }
                assert!(page.scanned > after, "a page never goes back");
                after = page.scanned;
            }
            Err(error) => return (events, Some(error)),
        }
    }
}

/// An event name of those that are used.
pub(super) fn name(number: usize) -> EventName {
    EventName::parse(NAMES[number % NAMES.len()]).unwrap()
}

/// Counts by what is counted.
pub(super) type Table = BTreeMap<&'static str, usize>;
