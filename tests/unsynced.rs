//! Power failures: after a kill, what the server wrote to its log and did not sync is dropped,
//! all of it or by sectors in any order. What was acknowledged is there all the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::Server;
use support::imports::Chance;
use support::ledger::write_until_cut;
use support::rounds::{Environment, Trial, rounds};
use support::unsynced::{Dropped, Failure, Layer, build};

/// Rounds on one directory.
const ROUNDS_OF_DIRECTORY: u64 = 20;
/// Everything is compared in every round of this number, and the newest part in the others.
const COMPARE_ALL_EVERY: u64 = 5;

#[test]
#[ignore = "the process of the writers, started by the other tests"]
fn the_writers() {
    write_until_cut();
}

fn any_failure(chance: &mut Chance) -> Failure {
    match chance.below(5) {
        0 => Failure::All,
        1 => Failure::Sectors(0),
        2 => Failure::Sectors(50),
        3 => Failure::Sectors(90),
        _ => Failure::Cut,
    }
}

#[derive(Default)]
struct Totals {
    rounds: u64,
    failures: u64,
    failures_of_starts: u64,
    dropped: Dropped,
    acknowledged: usize,
    events: usize,
    segments: usize,
}

/// Kills a server on its way up, once or not; the power fails over it, or not.
fn fail_a_start(trial: &Trial, layer: &mut Layer, chance: &mut Chance, totals: &mut Totals) {
    if chance.below(3) > 0 {
        return;
    }
    trial.kill_a_start(&layer.environment(), chance);
    if chance.below(2) == 0 {
        totals.failures_of_starts += 1;
        totals.dropped.add(layer.fail(any_failure(chance), chance));
    }
}

fn fail_over_one_directory(library: &Path, rounds: u64, chance: &mut Chance, totals: &mut Totals) {
    let cold = chance.below(2) == 0;
    println!("a directory {} a cold tier", if cold { "with" } else { "without" });
    let mut trial = if cold { Trial::with_cold_tier() } else { Trial::new() };
    let mut layer = Layer::new(library, &trial.log(), &trial.beside("layer"));
    let mut server = trial.begin(&layer.environment());
    for round in 1..=rounds {
        let kill = trial.write_and_kill(server, chance);
        // Now and then the next process finds all that this one wrote, and then the power fails.
        let failure = (chance.below(5) > 0).then(|| any_failure(chance));
        let dropped = failure.map(|failure| layer.fail(failure, chance)).unwrap_or_default();
        totals.dropped.add(dropped);
        totals.failures += u64::from(failure.is_some());
        fail_a_start(&trial, &mut layer, chance, totals);
        server = trial.start(&layer.environment());
        trial.compare(&server, round % COMPARE_ALL_EVERY == 0 || round == rounds);
        totals.rounds += 1;
        println!(
            "round {}: killed {:?} after {} answers, {failure:?}: {dropped:?}; {} acknowledged, {} events, {} segments",
            totals.rounds,
            kill.later,
            kill.answers,
            trial.acknowledged().0,
            trial.history.events.len(),
            trial.segments(),
        );
    }
    server.kill();
    totals.acknowledged += trial.acknowledged().0;
    totals.events += trial.history.events.len();
    totals.segments += trial.segments();
}

#[test]
fn acknowledged_commands_survive_the_loss_of_what_was_not_synced() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = build(home.path()) else { return };
    let (rounds, mut chance, mut totals) = (rounds(5, 150), Chance::new(), Totals::default());
    while totals.rounds < rounds {
        let of_directory = (rounds - totals.rounds).min(ROUNDS_OF_DIRECTORY);
        fail_over_one_directory(&library, of_directory, &mut chance, &mut totals);
    }
    let Totals { rounds, failures, failures_of_starts, dropped, acknowledged, events, segments } = totals;
    println!(
        "{rounds} kills under load with {failures} failures, and {failures_of_starts} of starts: {dropped:?}; \
         {acknowledged} commands acknowledged, {events} events in {segments} segments, none lost, none twice"
    );
    assert!(dropped.writes > 0, "all had been synced each time: nothing was tried");
}

/// The same over a disk that only says that it syncs: what was acknowledged is lost, and found so.
#[test]
fn the_loss_of_acknowledged_commands_is_found() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = build(home.path()) else { return };
    let (mut trial, mut chance) = (Trial::new(), Chance::new());
    let mut layer = Layer::new(&library, &trial.log(), &trial.beside("layer"));
    let server = trial.begin(&layer.environment());
    trial.compare(&server, true);
    server.kill();
    layer.fail(Failure::All, &mut chance);

    let mut environment = layer.environment();
    environment.push(("DRAMATIS_DROP_LIE", "1".to_owned()));
    let server = trial.start(&environment);
    trial.write_and_kill(server, &mut chance);
    layer.fail(Failure::All, &mut chance);
    let server = Server::start(&trial.data());
    let findings = trial.findings(&server, true);
    let acknowledged = trial.acknowledged().0;
    println!("{acknowledged} acknowledged over a disk that lies, {} findings", findings.len());
    assert!(acknowledged > 0);
    assert_eq!(findings.iter().filter(|finding| finding.contains("is lost")).count(), acknowledged);
}

/// The epoch of the log, as every reader is told it.
fn epoch(server: &Server) -> String {
    let answer = ureq::get(format!("{}/api/events?limit=1", server.url())).call().unwrap();
    answer.headers()["dramatis-epoch"].to_str().unwrap().to_owned()
}

/// Where the server was told not to wait for syncs, what is lost is the end, and everybody can
/// tell that something may be: the epoch is another one.
#[test]
fn what_relaxed_durability_may_lose_begins_a_new_epoch() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = build(home.path()) else { return };
    let (rounds, mut chance, mut lost_in) = (rounds(3, 30), Chance::new(), 0);
    for round in 0..rounds {
        let mut trial = Trial::new();
        let mut layer = Layer::new(&library, &trial.log(), &trial.beside("layer"));
        // One segment, so that nothing is synced before the interval ends; or many.
        let one_segment = round % 2 == 0;
        let relaxed = |mut environment: Environment| {
            if one_segment {
                environment.push(("DRAMATIS__LOG__SEGMENT_BYTES", "67108864".to_owned()));
            }
            environment.push(("DRAMATIS__LOG__DURABILITY", "interval".to_owned()));
            environment.push(("DRAMATIS__LOG__SYNC_INTERVAL_MS", "60000".to_owned()));
            environment
        };
        let server = trial.begin(&relaxed(layer.environment()));
        let before = epoch(&server);
        trial.compare(&server, true);
        assert_eq!(server.terminate(), Some(0));

        let server = trial.start(&relaxed(layer.environment()));
        assert_eq!(epoch(&server), before, "the end was clean");
        trial.compare(&server, true);
        trial.write_and_kill(server, &mut chance);
        let failure = if round == 0 { Failure::All } else { any_failure(&mut chance) };
        let dropped = layer.fail(failure, &mut chance);

        let server = trial.start(&relaxed(layer.environment()));
        assert_ne!(epoch(&server), before, "{failure:?}: {dropped:?}");
        let findings = trial.findings(&server, true);
        let lost = findings.iter().filter(|finding| finding.contains("is lost")).count();
        assert_eq!(lost, findings.len(), "{failure:?}: {dropped:?}: {findings:?}");
        println!("{failure:?}: {dropped:?}: {lost} of {} lost", trial.acknowledged().0);
        lost_in += u64::from(lost > 0);
    }
    assert!(lost_in > 0, "all had been synced each time: nothing was tried");
}

/// `dd` under the layer: `conv` says what it does about syncing.
fn dd(layer: &mut Layer, from: &str, to: &Path, conv: &str) {
    let mut child = Command::new("dd")
        .args([format!("of={}", to.display()), "bs=700".to_owned(), format!("conv={conv}")])
        .envs(layer.environment())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), from.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_layer_drops_what_was_not_synced_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = build(home.path()) else { return };
    let dir: PathBuf = home.path().join("log");
    fs::create_dir(&dir).unwrap();
    let (mut layer, mut chance) = (Layer::new(&library, &dir, &home.path().join("layer")), Chance::new());
    let (old, new) = ("o".repeat(700), "n".repeat(1_400));
    let (named, nameless) = (dir.join("named"), dir.join("nameless"));

    dd(&mut layer, &old, &named, "fsync");
    let synced = Command::new("sync").arg(&dir).envs(layer.environment()).status().unwrap();
    assert!(synced.success());
    dd(&mut layer, &new, &named, "notrunc");
    dd(&mut layer, &old, &nameless, "fsync");
    assert_eq!(fs::read_to_string(&named).unwrap(), new);
    let dropped = layer.fail(Failure::All, &mut chance);
    assert_eq!((dropped.writes, dropped.sectors, dropped.lengths, dropped.names), (2, 3, 1, 1));
    assert_eq!(fs::read_to_string(&named).unwrap(), old);
    assert!(!nameless.exists());

    dd(&mut layer, &new, &named, "fsync");
    assert_eq!(layer.fail(Failure::All, &mut chance).writes, 0);
    assert_eq!(fs::read_to_string(&named).unwrap(), new);

    // Longer than it was synced, cut to nothing, or anything between, by whole sectors.
    dd(&mut layer, &old, &named, "notrunc");
    layer.fail(Failure::Sectors(0), &mut chance);
    let mixed = fs::read(&named).unwrap();
    assert_eq!(mixed.len(), 1_400);
    for sector in mixed[..512].chunks(512).chain([&mixed[512..700]]) {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "torn within a sector: {mixed:?}");
    }
}
