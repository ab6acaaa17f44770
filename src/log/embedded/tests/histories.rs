//! Seeded histories: appends, reads, restarts, crashes and faults of every kind, each step held
//! against a plain list of what was acknowledged.
//!
//! A history follows from its seed alone; one that fails says how to replay it
//! (`DRAMATIS_TEST_SEED`). `DRAMATIS_TEST_TIER=long` runs many more.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

pub(super) use self::damage::{batches, files};
use self::endings::Ending;
use self::world::{Table, World};
use super::bugs::Bug;
use super::disk::Fault;

mod appends;
mod damage;
mod endings;
mod world;

const REPLAY: &str = "cargo test -p dramatis --lib log::embedded::tests::histories -- --nocapture";
const HISTORIES: u64 = 400;
const HISTORIES_LONG: u64 = 12_000;
/// Within so many histories each seeded bug is found.
const FIND_WITHIN: u64 = 100;

/// How often what was tried and what came of it.
#[derive(Debug, Default)]
struct Counts(Table);

impl Counts {
    fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn faults(&mut self, faults: &[Fault]) {
        for fault in faults {
            self.note(match fault {
                Fault::Error => "fault: EIO",
                Fault::Cut => "fault: power lost within an operation",
                Fault::Write => "fault: EIO on write",
                Fault::Short => "fault: EIO after a short write",
                Fault::Full => "fault: ENOSPC",
                Fault::Sync => "fault: EIO on fsync",
            });
        }
    }

    fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>9} {what}"))
    }
}

/// What a whole run must have met, besides the steps themselves.
const KINDS: [&str; 36] = [
    "answer: recorded",
    "fault: EIO after a short write",
    "fault: EIO on fsync",
    "fault: EIO on write",
    "fault: ENOSPC",
    "fault: power lost within an operation",
    "flip: beside the running log",
    "flip: chain",
    "flip: closed segment",
    "flip: closed segment's header",
    "flip: index",
    "flip: open segment's header",
    "flip: open segment, before the last batch",
    "flip: open segment, behind its end",
    "flip: open segment, last batch",
    "flipped: all reads right",
    "flipped: an error on reading",
    "flipped: not opened",
    "flipped: nothing lost",
    "flipped: taken for a torn tail",
    "found: all",
    "found: all, the failed batch not",
    "found: all, the failed batch too",
    "found: relaxed answers lost",
    "refusal: conflict",
    "refusal: low space",
    "refusal: outcome unknown",
    "refusal: poisoned",
    "refusal: where the stream stands is damaged",
    "restart: a fault while opening",
    "restart: after a kill",
    "restart: after a loss of power",
    "restart: after closing",
    "step: append",
    "step: append together",
    "step: read",
];

/// Runs one history; panics where the log breaks its word.
fn run(seed: u64, bug: Option<Bug>) -> Counts {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::begin(seed, bug);
        for _ in 0..8 + world.chance.below(24) {
            world.step().await;
            world.counts.note("steps in all");
        }
        world.reopen(Ending::Crash).await;
        world.check().await;
        world.probe(&[]).await;
        world.assert_derived();
        world.counts
    })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Lets this thread panic without a word while a bug is looked for.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, Box<dyn std::any::Any + Send>> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loudly = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loudly(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result
}

#[test]
fn histories_are_kept() {
    let seed: Option<u64> = std::env::var("DRAMATIS_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let long = std::env::var("DRAMATIS_TEST_TIER").is_ok_and(|tier| tier == "long" || tier == "soak");
    let seeds = match seed {
        Some(seed) => seed..seed + 1,
        None => 0..if long { HISTORIES_LONG } else { HISTORIES },
    };
    let (mut all, histories) = (Counts::default(), seeds.end - seeds.start);
    for seed in seeds {
        match catch_unwind(|| run(seed, None)) {
            Ok(counts) => all.add(&counts),
            Err(panic) => {
                eprintln!("history {seed} broke; to replay it: DRAMATIS_TEST_SEED={seed} {REPLAY}");
                resume_unwind(panic);
            }
        }
    }
    println!("{histories} histories:\n{all}");
    if histories >= HISTORIES {
        for kind in KINDS {
            assert!(all.0.contains_key(kind), "no history met {kind:?}");
        }
    }
}

#[test]
fn a_history_follows_from_its_seed() {
    for seed in 0..20 {
        assert_eq!(run(seed, None).0, run(seed, None).0, "seed {seed}");
    }
}

#[test]
fn every_seeded_bug_is_found() {
    for bug in [Bug::AckBeforeSync, Bug::SkipChecksum, Bug::CutOneByteMore, Bug::CutOneByteLess] {
        let found = (0..FIND_WITHIN).find(|seed| quietly(|| run(*seed, Some(bug))).is_err());
        let seed = found.unwrap_or_else(|| panic!("{bug:?} is not found in {FIND_WITHIN} histories"));
        println!("{bug:?} is found in history {} of {FIND_WITHIN}", seed + 1);
    }
}
