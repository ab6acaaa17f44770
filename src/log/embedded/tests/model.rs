//! Random histories of appends, reads, faults, crashes and reopenings, against a plain list.
//!
//! What was acknowledged is there for ever, once, in its order; what failed is wholly there
//! or not at all. `DRAMATIS_TEST_TIER=long` tries many more histories.

use dramatis_events::Envelope;
use proptest::prelude::*;

use super::disk::{Chance, Disk, Fault};
use super::*;
use crate::log::Expected;
use crate::log::contract::{command, event, everything, of_command, revisions, stream};

const PAGE: ReadLimit = ReadLimit { events: 100_000, bytes: usize::MAX };
const STREAMS: usize = 4;

type Answered = Result<Vec<Arc<Recorded>>, AppendError>;

#[derive(Debug, Clone)]
enum Step {
    /// Appends one after the other: stream, events, bytes of each, whether the condition is right.
    Append {
        stream: usize,
        events: usize,
        bytes: usize,
        right: bool,
        command: bool,
    },
    /// Unconditional appends that wait together.
    Together {
        appends: usize,
        bytes: usize,
    },
    Read {
        stream: usize,
        from: u64,
        events: usize,
        bytes: usize,
    },
    Plan {
        after: usize,
        fault: Fault,
    },
    Restart,
    Crash {
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(Fault::Error), Just(Fault::Cut)];
    prop_oneof![
        8 => (0..STREAMS, 1..5_usize, 0..900_usize, prop::bool::weighted(0.8), any::<bool>()).prop_map(
            |(stream, events, bytes, right, command)| Step::Append { stream, events, bytes, right, command }
        ),
        3 => (1..9_usize, 0..400_usize).prop_map(|(appends, bytes)| Step::Together { appends, bytes }),
        4 => (0..STREAMS, 0..40_u64, 0..20_usize, 0..3_000_usize).prop_map(|(stream, from, events, bytes)| {
            Step::Read { stream, from, events, bytes }
        }),
        2 => (0..8_usize, fault).prop_map(|(after, fault)| Step::Plan { after, fault }),
        1 => Just(Step::Restart),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let segment_bytes = prop_oneof![Just(1), Just(4_096), Just(20_000), Just(1 << 20)];
    (segment_bytes, prop_oneof![Just(1), Just(4_000), Just(1 << 20)]).prop_map(
        |(segment_bytes, live_bytes_max)| Options {
            segment_bytes,
            live_bytes_max,
            append_queue_len_max: 4,
            ..Options::default()
        },
    )
}

struct World {
    disk: Disk,
    options: Options,
    log: Option<EmbeddedLog>,
    known: Vec<Arc<Recorded>>,
    /// Appends whose outcome is not known.
    fated: Vec<Append>,
    commands: Vec<(CommandRef, Position, Revision)>,
    appends: usize,
}

/// As many as a limit allows.
fn within(events: Vec<Arc<Recorded>>, limit: ReadLimit) -> Vec<Arc<Recorded>> {
    let mut left = Left::new(limit);
    events.into_iter().take_while(|event| left.take(event.envelope.data.len())).collect()
}

fn room(number: usize) -> StreamId {
    stream(&format!("room-main.{number}"))
}

impl World {
    fn open(options: Options) -> Self {
        let disk = Disk::default();
        let log = Some(open_disk(&disk, options.clone()).unwrap());
        Self { disk, options, log, known: Vec::new(), fated: Vec::new(), commands: Vec::new(), appends: 0 }
    }

    fn log(&self) -> &EmbeddedLog {
        self.log.as_ref().unwrap()
    }

    fn of(&self, stream: &StreamId) -> Vec<Arc<Recorded>> {
        self.known.iter().filter(|event| event.stream == *stream).cloned().collect()
    }

    fn head(&self, stream: &StreamId) -> Option<Revision> {
        self.of(stream).last().map(|event| event.revision)
    }

    fn next(&mut self, stream: usize, expected: Expected, events: usize, bytes: usize, asks: bool) -> Append {
        self.appends += 1;
        let data = |index| format!("{}.{index}{}", self.appends, "x".repeat(bytes));
        let one = |index| {
            let plain = event("MessagePosted", data(index));
            let stamped = of_command("alice", &format!("c{}", self.appends));
            if asks { Envelope { data: plain.data, ..stamped } } else { plain }
        };
        Append { stream: room(stream), expected, envelopes: (0..events).map(one).collect() }
    }

    /// Takes what was answered into the model.
    fn answered(&mut self, append: Append, answer: Answered) {
        match answer {
            Ok(recorded) => {
                let envelopes: Vec<_> = recorded.iter().map(|event| event.envelope.clone()).collect();
                assert_eq!(envelopes, append.envelopes, "what is recorded is what was given");
                self.learn(&recorded);
            }
            Err(AppendError::Failure { .. }) => {
                assert!(self.log().poisoned().is_some());
                self.fated.push(append);
            }
            Err(AppendError::Unavailable { .. }) => assert!(self.log().poisoned().is_some()),
            Err(error) => panic!("{error}"),
        }
    }

    fn learn(&mut self, recorded: &[Arc<Recorded>]) {
        for event in recorded {
            assert_eq!(event.position.to_engine(), self.known.len() as u64, "no gap, no double");
            let expected = self.head(&event.stream).map_or(Revision::FIRST, Revision::next);
            assert_eq!(event.revision, expected);
            self.known.push(event.clone());
        }
        let last = recorded.last().unwrap();
        if let Some(stamp) = &last.envelope.command {
            let asked = command(&last.stream, "alice", stamp.id.as_str());
            self.commands.push((asked, last.position, last.revision));
        }
    }

    async fn append(&mut self, append: Append, right: bool) {
        let answer = self.log().append(append.clone()).await;
        let refused =
            Err(AppendError::Conflict { expected: append.expected, actual: self.head(&append.stream) });
        if right || matches!(answer, Err(AppendError::Unavailable { .. })) {
            self.answered(append, answer);
        } else {
            assert_eq!(answer, refused);
        }
    }

    async fn together(&mut self, appends: usize, bytes: usize) {
        let appends: Vec<_> = (0..appends)
            .map(|number| self.next(number % STREAMS, Expected::Any, 1 + number % 3, bytes, true))
            .collect();
        let waiting: Vec<_> =
            appends.iter().map(|append| tokio::spawn(self.log().append(append.clone()))).collect();
        let mut answers = Vec::new();
        for (append, answer) in appends.into_iter().zip(waiting) {
            answers.push((append, answer.await.unwrap()));
        }
        let place =
            |answer: &Answered| answer.as_ref().map_or(u64::MAX, |events| events[0].position.to_engine());
        answers.sort_by_key(|(_, answer)| place(answer));
        for (append, answer) in answers {
            self.answered(append, answer);
        }
    }

    async fn read(&self, stream: usize, from: u64, limit: ReadLimit) {
        let stream = room(stream);
        let mine = self.of(&stream);
        let read = self.log().read_stream(&stream, Revision::new(from), limit).await.unwrap();
        let rest = mine.iter().filter(|event| event.revision.get() >= from).cloned().collect();
        assert_eq!(read, within(rest, limit));
        let before = Some(Revision::new(from));
        let read = self.log().read_stream_backwards(&stream, before, limit).await.unwrap();
        let rest = mine.iter().rev().filter(|event| event.revision.get() < from).cloned().collect();
        assert_eq!(read, within(rest, limit));
        let filter = Filter { stream: Some(stream.clone()), ..Filter::default() };
        assert_eq!(everything(self.log(), &filter, limit).await, mine);
        assert_eq!(self.log().stream_head(&stream).await.unwrap(), self.head(&stream));
    }

    /// What the open log shows, and what would survive a loss of power right now.
    async fn check(&self) {
        let shown = everything(self.log(), &Filter::default(), PAGE).await;
        assert_eq!(shown, self.known, "what is shown is what was acknowledged");
        let head = self.known.last().map(|event| event.position);
        assert_eq!(*self.log().head().borrow(), head);
        let survivor = open_disk(&self.disk.durable(), self.options.clone()).unwrap();
        let durable = everything(&survivor, &Filter::default(), PAGE).await;
        assert!(durable.starts_with(&self.known), "an answer was not durable");
        assert!(durable.len() == self.known.len() || !self.fated.is_empty());
        for (asked, position, revision) in &self.commands {
            let outcome = self.log().find_command(asked.clone()).await.unwrap().expect("a known command");
            assert_eq!((outcome.position, outcome.revision), (*position, *revision));
        }
    }

    async fn reopen(&mut self, crash: Option<u64>) {
        let epoch = self.log().epoch();
        self.log = None;
        match crash {
            Some(seed) => self.disk.crash(seed),
            None => self.disk.heal(),
        }
        if let Some(seed) = crash.filter(|seed| seed % 2 == 1) {
            // Power is lost again while the log recovers.
            self.disk.plan(Chance(seed).below(6), Fault::Cut);
            if let Err(error) = open_disk(&self.disk, self.options.clone()) {
                assert!(matches!(error, OpenError::Io(_)), "{error}");
            }
            self.disk.crash(seed.wrapping_add(1));
        }
        let log = open_disk(&self.disk, self.options.clone()).unwrap();
        assert_eq!(log.epoch(), epoch, "nothing acknowledged was cut");
        let found = everything(&log, &Filter::default(), PAGE).await;
        assert!(found.starts_with(&self.known), "something acknowledged is gone or changed");
        self.log = Some(log);
        let mut more = found[self.known.len()..].to_vec();
        let mut fated = std::mem::take(&mut self.fated);
        while !more.is_empty() {
            let begins =
                |append: &Append| append.envelopes[0] == more[0].envelope && append.stream == more[0].stream;
            let which = fated.iter().position(begins).expect("nothing is there that was not asked, or twice");
            let append = fated.remove(which);
            assert!(more.len() >= append.envelopes.len(), "half an append");
            let rest = more.split_off(append.envelopes.len());
            self.answered(append, Ok(std::mem::replace(&mut more, rest)));
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append { stream, events, bytes, right, command } => {
                let actual = self.head(&room(stream));
                let wrong = Expected::Exact(actual.map_or(Revision::FIRST, Revision::next));
                let expected = if right { Expected::after(actual) } else { wrong };
                let append = self.next(stream, expected, events, bytes, command);
                self.append(append, right).await;
            }
            Step::Together { appends, bytes } => self.together(appends, bytes).await,
            Step::Read { stream, from, events, bytes } => {
                self.read(stream, from, ReadLimit { events, bytes }).await;
            }
            Step::Plan { after, fault } => self.disk.plan(after, fault),
            Step::Restart => self.reopen(None).await,
            Step::Crash { seed } => self.reopen(Some(seed)).await,
        }
        self.check().await;
        if self.log().poisoned().is_some() && Chance(self.appends as u64).below(2) == 0 {
            self.reopen(Some(self.appends as u64)).await;
            self.check().await;
        }
    }
}

fn cases() -> u32 {
    let long = std::env::var("DRAMATIS_TEST_TIER").is_ok_and(|tier| tier == "long");
    if long { 4_096 } else { 64 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_history_is_kept(options in options(), steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::open(options);
            for step in steps {
                world.take(step).await;
            }
            world.reopen(Some(1)).await;
            world.check().await;
            assert_eq!(revisions(&world.of(&room(0))), (0..world.of(&room(0)).len() as u64).collect::<Vec<_>>());
        });
    }
}
