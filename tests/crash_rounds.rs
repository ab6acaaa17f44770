//! Kill after kill under load: what a server acknowledged to writers in another process is in
//! its log exactly once, as it was acknowledged, before anything is sent again.
//!
//! `kill -9` ends the process and leaves the system's page cache: `unsynced.rs` takes that too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use support::imports::{Chance, caught_up};
use support::ledger::{assert_comparison_can_fail, write_until_cut};
use support::rounds::{Environment, Trial, rounds};

/// Rounds on one directory.
const ROUNDS_OF_DIRECTORY: u64 = 20;
/// Everything is compared in every round of this number, and the newest part in the others.
const COMPARE_ALL_EVERY: u64 = 5;

#[test]
#[ignore = "the process of the writers, started by the other tests"]
fn the_writers() {
    write_until_cut();
}

#[test]
fn the_comparison_can_fail() {
    assert_comparison_can_fail();
}

#[derive(Default)]
struct Totals {
    rounds: u64,
    killed_starts: u64,
    acknowledged: usize,
    told_again: u64,
    events: usize,
    segments: usize,
}

fn kill_over_one_directory(rounds: u64, chance: &mut Chance, totals: &mut Totals) {
    let cold = chance.below(2) == 0;
    println!("a directory {} a cold tier", if cold { "with" } else { "without" });
    let mut trial = if cold { Trial::with_cold_tier() } else { Trial::new() };
    let mut server = trial.begin(&Environment::new());
    for round in 1..=rounds {
        let kill = trial.write_and_kill(server, chance);
        let killed_starts = [0, 0, 1, 3][usize::try_from(chance.below(4)).unwrap()];
        for _ in 0..killed_starts {
            trial.kill_a_start(&Environment::new(), chance);
        }
        server = trial.start(&Environment::new());
        let all = round % COMPARE_ALL_EVERY == 0 || round == rounds;
        trial.compare(&server, all);
        totals.rounds += 1;
        totals.killed_starts += killed_starts;
        println!(
            "round {}: killed {:?} after {} answers, then {killed_starts} starts; {} acknowledged, {} events, {} segments",
            totals.rounds,
            kill.later,
            kill.answers,
            trial.acknowledged().0,
            trial.history.events.len(),
            trial.segments(),
        );
    }
    caught_up(&server);
    assert_eq!(server.terminate(), Some(0));
    let (acknowledged, told_again) = trial.acknowledged();
    totals.acknowledged += acknowledged;
    totals.told_again += told_again;
    totals.events += trial.history.events.len();
    totals.segments += trial.segments();
}

#[test]
fn acknowledged_commands_survive_kills_under_load() {
    let (rounds, mut chance, mut totals) = (rounds(10, 300), Chance::new(), Totals::default());
    while totals.rounds < rounds {
        let of_directory = (rounds - totals.rounds).min(ROUNDS_OF_DIRECTORY);
        kill_over_one_directory(of_directory, &mut chance, &mut totals);
    }
    let Totals { rounds, killed_starts, acknowledged, told_again, events, segments } = totals;
    println!(
        "{rounds} kills under load and {killed_starts} of starts: {acknowledged} commands acknowledged, \
         {told_again} told again, {events} events in {segments} segments, none lost, none twice"
    );
    assert!(told_again > 0, "no command that had been recorded was sent again");
}
