//! One history: a log on a simulated disk, beside a plain list of what it acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use dramatis_events::{Envelope, EventName};
use futures_util::FutureExt as _;

use super::Counts;
use crate::clock::ManualClock;
use crate::log::Expected;
use crate::log::contract::{event, of_command, stream};
use crate::log::embedded::tests::bugs::Bug;
use crate::log::embedded::tests::disk::{Chance, Disk, Fault, Op};
use crate::log::embedded::tests::open_disk_at;
use crate::log::embedded::*;

pub(super) const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };
/// Every log has it, so that a history is the same each time.
const LOG: u64 = 0x00c0_ffee;
const RESERVE_BYTES: u64 = 1_000;
const ROOMS: [&str; 4] = ["room-main.0", "room-main.1", "user-main.2", "user-main.3"];
const NAMES: [&str; 3] = ["MessagePosted", "MemberJoined", "MemberLeft"];

type Answered = Result<Vec<Arc<Recorded>>, AppendError>;

/// Whether the file is there that says: what was answered may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relaxed {
    No,
    Maybe,
    Yes,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Close,
    /// The process is gone, the machine goes on.
    Kill,
    /// The machine is gone, and with it some of what was not synced.
    Crash,
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
    fated: Vec<Append>,
    /// So many of the known events are durable even in the relaxed mode.
    kept: usize,
    pub(super) relaxed: Relaxed,
    low: bool,
    now: i64,
    appends: usize,
    /// The disk's operations when its survivor was last looked at.
    looked: Option<usize>,
    pub(super) counts: Counts,
}

pub(super) fn room(number: usize) -> StreamId {
    stream(ROOMS[number % ROOMS.len()])
}

fn draw_options(chance: &mut Chance) -> Options {
    let segment_bytes = match chance.below(40) {
        0 => 300_000,
        other => [1, 1_500, 4_000, 12_000][other % 4],
    };
    let durability = match chance.below(8) {
        0 | 1 => Durability::Interval(Duration::from_secs(3_600)),
        2 => Durability::Interval(Duration::ZERO),
        _ => Durability::Sync,
    };
    let live_bytes_max = [1, 4_000, 1 << 20][chance.below(3)];
    Options {
        segment_bytes,
        live_bytes_max,
        durability,
        reserve_bytes: RESERVE_BYTES,
        append_queue_len_max: 64,
        ..Options::default()
    }
}

fn draw_fault(chance: &mut Chance) -> Fault {
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

    fn tick(&mut self) {
        let step = i64::try_from(self.chance.below(100)).unwrap();
        // One in five steps of the clock is backwards.
        self.now += if step < 20 { -5 * step } else { step };
        self.clock.set(dramatis_events::UnixMillis::new(self.now));
    }

    fn build(&mut self, stream: StreamId, expected: Expected, may_repeat: bool) -> Append {
        self.appends += 1;
        let bytes = [40, 40, 40, 40, 400, 400, 3_000][self.chance.below(7)];
        let bytes = self.chance.below(bytes);
        let count = 1 + self.chance.below(4);
        let repeated = if may_repeat && self.chance.below(8) == 0 { self.repeated(&stream) } else { None };
        let id = match self.chance.below(3) {
            0 => repeated,
            _ => repeated.or_else(|| Some(format!("c{}", self.appends))),
        };
        let mut envelopes = Vec::new();
        for number in 0..count {
            let data = format!("{}.{number}{}", self.appends, "x".repeat(bytes));
            let name = NAMES[self.chance.below(NAMES.len())];
            let plain = event(name, data);
            envelopes.push(match &id {
                Some(id) => Envelope { name: plain.name, data: plain.data, ..of_command("alice", id) },
                None => plain,
            });
        }
        Append { stream, expected, envelopes }
    }

    /// A command that recorded something before, though not last.
    fn repeated(&mut self, stream: &StreamId) -> Option<String> {
        let id = |event: &Arc<Recorded>| Some(event.envelope.command.as_ref()?.id.as_str().to_owned());
        let last = self.known.last().and_then(id);
        let ids: Vec<_> =
            self.of(stream).iter().filter_map(id).filter(|id| Some(id) != last.as_ref()).collect();
        let at = self.chance.below(ids.len());
        ids.get(at).cloned()
    }

    fn draw_expected(&mut self, head: Option<Revision>) -> Expected {
        match self.chance.below(7) {
            0 => Expected::Exact(head.map_or(Revision::FIRST, Revision::next)),
            1 => Expected::NoStream,
            2 => Expected::Any,
            _ => Expected::after(head),
        }
    }

    async fn append_one(&mut self) {
        self.counts.note("step: append");
        self.tick();
        let stream = room(self.chance.below(ROOMS.len()));
        let expected = self.draw_expected(self.head(&stream));
        let append = self.build(stream, expected, true);
        let answer = self.log().append(append.clone()).await;
        self.answered(vec![(append, answer)]);
    }

    /// Appends that wait together: the writer is held within a write until all are queued.
    async fn append_together(&mut self) {
        self.counts.note("step: append together");
        self.tick();
        let first = self.build(room(0), Expected::Any, false);
        let (entered, release) = self.disk.hold(Op::Write);
        let mut answer = self.log().append(first.clone());
        let mut held = false;
        let answered = loop {
            if let Some(answered) = (&mut answer).now_or_never() {
                break Some(answered);
            }
            if entered.try_recv().is_ok() {
                held = true;
                break None;
            }
            tokio::task::yield_now().await;
        };
        self.disk.hold_nothing();
        if let Some(answered) = answered {
            assert!(!held && answered.is_err(), "an answer left without a write");
            self.answered(vec![(first, answered)]);
            return;
        }
        let mut heads =
            HashMap::from([(first.stream.clone(), self.next(&first.stream) + first.envelopes.len() as u64)]);
        let mut rest = Vec::new();
        for _ in 0..1 + self.chance.below(7) {
            let stream = room(self.chance.below(ROOMS.len()));
            let next = heads.get(&stream).copied().unwrap_or_else(|| self.next(&stream));
            let expected = self.draw_expected(head_before(next));
            let append = self.build(stream.clone(), expected, false);
            if fits(expected, next) {
                heads.insert(stream, next + append.envelopes.len() as u64);
            }
            let mut answer = Box::pin(tokio::task::unconstrained(self.log().append(append.clone())));
            assert!((&mut answer).now_or_never().is_none(), "an answer left while the writer is held");
            rest.push((append, answer));
        }
        release.send(()).unwrap();
        let answered = answer.await;
        self.answered(vec![(first, answered)]);
        let mut answers = Vec::new();
        for (append, answer) in rest {
            answers.push((append, answer.await));
        }
        self.answered(answers);
    }

    fn next(&self, stream: &StreamId) -> u64 {
        self.head(stream).map_or(0, |head| head.get() + 1)
    }

    /// Judges the answers of one batch and takes them into the model.
    fn answered(&mut self, answers: Vec<(Append, Answered)>) {
        let poisoned = self.log().poisoned().is_some();
        let mut heads = HashMap::new();
        for (append, answer) in answers {
            let before = self.next(&append.stream);
            let next = *heads.entry(append.stream.clone()).or_insert(before);
            let fits = fits(append.expected, next);
            match answer {
                Ok(recorded) => {
                    assert!(fits, "a wrong condition was let through");
                    let given = recorded.iter().map(|event| &event.envelope).eq(&append.envelopes);
                    assert!(given, "what is recorded is what was given");
                    let last = self.known.last().map_or(i64::MIN, |event| event.recorded_at.get());
                    let now = last.max(self.now);
                    assert!(recorded.iter().all(|event| event.recorded_at.get() == now));
                    self.learn(&recorded);
                    heads.insert(append.stream, next + recorded.len() as u64);
                    self.counts.note("answer: recorded");
                }
                Err(AppendError::Conflict { expected, actual }) => {
                    assert!(!fits && expected == append.expected, "a right condition was refused");
                    assert_eq!(actual, head_before(next));
                    self.counts.note("refusal: conflict");
                }
                Err(AppendError::Failure { .. }) => {
                    assert!(poisoned && fits);
                    heads.insert(append.stream.clone(), next + append.envelopes.len() as u64);
                    self.fated.push(append);
                    self.counts.note("refusal: outcome unknown");
                }
                Err(AppendError::Unavailable { reason }) if poisoned => {
                    assert!(reason.contains("restart"), "{reason}");
                    if fits {
                        heads.insert(append.stream, next + append.envelopes.len() as u64);
                    }
                    self.counts.note("refusal: poisoned");
                }
                Err(AppendError::Unavailable { reason }) => {
                    assert!(self.low && reason.contains("reserve"), "{reason}");
                    if fits {
                        heads.insert(append.stream, next + append.envelopes.len() as u64);
                    }
                    self.counts.note("refusal: low space");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(super) fn learn(&mut self, recorded: &[Arc<Recorded>]) {
        for event in recorded {
            assert_eq!(
                event.position.to_engine(),
                self.known.len() as u64,
                "no gap, no double, no other order"
            );
            assert_eq!(event.revision.get(), self.next(&event.stream));
            let last = self.known.last().map(|event| event.recorded_at);
            assert!(last <= Some(event.recorded_at), "recorded_at ran backwards");
            self.known.push(event.clone());
        }
    }

    /// Whether these are wholly the events of the batch whose outcome is not known.
    fn are_fated(&self, more: &[Arc<Recorded>]) -> bool {
        let fated =
            self.fated.iter().flat_map(|append| append.envelopes.iter().map(|given| (&append.stream, given)));
        more.iter().map(|event| (&event.stream, &event.envelope)).eq(fated)
    }

    /// What the open log shows, and what would survive a loss of power right now.
    pub(super) async fn check(&mut self) {
        for fault in self.disk.fired() {
            self.counts.fault(fault);
        }
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

    /// Ends the process and opens the log again, perhaps with faults on the way.
    pub(super) async fn reopen(&mut self, ending: Ending) {
        self.counts.note(match ending {
            Ending::Close => "restart: after closing",
            Ending::Kill => "restart: after a kill",
            Ending::Crash => "restart: after a loss of power",
        });
        let lossy = self.end(ending) && ending == Ending::Crash;
        let mut may_lose = lossy;
        for attempt in 0.. {
            if attempt < 2 && self.chance.below(4) == 0 {
                let (after, fault) = (self.chance.below(8), draw_fault(&mut self.chance));
                self.disk.plan(after, fault);
            }
            self.options = draw_options(&mut self.chance);
            if self.options.durability != Durability::Sync && self.relaxed == Relaxed::No {
                self.relaxed = Relaxed::Maybe;
            }
            match open_disk_at(&self.disk, self.options.clone(), &self.clock) {
                Ok(log) => {
                    self.log = Some(log);
                    break;
                }
                Err(OpenError::Io(error)) => {
                    let fired = self.disk.fired();
                    assert!(!fired.is_empty(), "{error}");
                    fired.into_iter().for_each(|fault| self.counts.fault(fault));
                    self.counts.note("restart: a fault while opening");
                }
                Err(error) => panic!("{error}"),
            }
            if self.chance.below(2) == 0 {
                self.disk.crash(self.chance.below(usize::MAX) as u64);
                may_lose = may_lose || self.lossy();
            } else {
                self.disk.heal();
            }
        }
        self.find(may_lose).await;
    }

    /// Whether the last process may have left answered events unsynced.
    fn lossy(&self) -> bool {
        self.kept < self.known.len() && self.relaxed != Relaxed::No
    }

    /// Ends the process; whether what it answered may be lost with the machine.
    fn end(&mut self, ending: Ending) -> bool {
        let poisoned = self.log().poisoned().is_some();
        if ending != Ending::Close {
            self.disk.cut();
        }
        for fault in self.disk.fired() {
            self.counts.fault(fault);
        }
        self.log = None;
        let fired = self.disk.fired();
        if self.options.durability != Durability::Sync {
            self.relaxed = match ending {
                Ending::Close if fired.is_empty() && !poisoned => Relaxed::No,
                Ending::Close if !poisoned => Relaxed::Maybe,
                _ => Relaxed::Yes,
            };
        }
        fired.into_iter().for_each(|fault| self.counts.fault(fault));
        match ending {
            Ending::Crash => self.disk.crash(self.chance.below(usize::MAX) as u64),
            _ => self.disk.heal(),
        }
        self.lossy()
    }

    /// Compares what an opened log holds with what is known.
    pub(super) async fn find(&mut self, may_lose: bool) {
        let epoch = self.log().epoch();
        assert_eq!(epoch.log(), self.epoch.log());
        let raised = epoch.counter() > self.epoch.counter();
        match self.relaxed {
            Relaxed::No => assert!(epoch == self.epoch, "nothing acknowledged was cut"),
            Relaxed::Maybe => assert!(epoch.counter() >= self.epoch.counter()),
            Relaxed::Yes => assert!(raised, "what was acknowledged may be lost"),
        }
        self.epoch = epoch;
        let found = everything(self.log()).await;
        if found.len() < self.known.len() {
            assert!(may_lose && found.len() >= self.kept, "something acknowledged is gone");
            assert!(self.known.starts_with(&found), "a hole");
            assert!(raised, "events were lost under the same epoch");
            self.counts.note("found: relaxed answers lost");
            self.known = found;
        } else {
            assert!(found.starts_with(&self.known), "something acknowledged is gone or changed");
            let more = found[self.known.len()..].to_vec();
            if more.is_empty() {
                self.counts.note(if self.fated.is_empty() {
                    "found: all"
                } else {
                    "found: all, the failed batch not"
                });
            } else {
                assert!(self.are_fated(&more), "nothing is there that was not asked, or in part, or twice");
                self.counts.note("found: all, the failed batch too");
                self.learn(&more);
            }
        }
        self.fated.clear();
        self.kept = self.known.len();
        self.relaxed = if self.options.durability == Durability::Sync { Relaxed::No } else { Relaxed::Yes };
        self.assert_clean_tail();
    }
}

fn fits(expected: Expected, next: u64) -> bool {
    expected == Expected::Any || expected == Expected::after(head_before(next))
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
