//! One data directory, the writers' ledger of it, and a server that is killed over it again
//! and again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Server;
use super::imports::Chance;
use super::ledger::{History, Ledger, Writers, prepare};

/// So many rounds by tier; `DRAMATIS_TEST_ROUNDS` says otherwise.
pub fn rounds(default: u64, long: u64) -> u64 {
    let asked = std::env::var("DRAMATIS_TEST_ROUNDS").ok();
    let of_tier = if super::imports::long_tier() { long } else { default };
    asked.map_or(of_tier, |rounds| rounds.parse().expect("a number"))
}

/// Small segments, so that many are closed, and little in memory, so that files are read.
const SETTINGS: [(&str, &str); 2] =
    [("DRAMATIS__LOG__SEGMENT_BYTES", "65536"), ("DRAMATIS__LOG__LIVE_BYTES_MAX", "65536")];

/// See the module.
pub struct Trial {
    home: tempfile::TempDir,
    ledger: Ledger,
    /// What was read.
    pub history: History,
    /// How long the last start took.
    starting: Duration,
}

/// What a kill came to.
pub struct Kill {
    /// After so many answers of these writers.
    pub answers: u64,
    /// And that much later.
    pub later: Duration,
}

impl Trial {
    /// An empty directory with room for a ledger beside the data.
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let ledger = Ledger::read(&home.path().join("ledger"));
        Self { home, ledger, history: History::default(), starting: Duration::ZERO }
    }

    /// Where the server keeps its data.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What lies beside the data.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Commands that are acknowledged, and answers that told of an earlier one.
    pub fn acknowledged(&self) -> (usize, u64) {
        (self.ledger.answers.len(), self.ledger.duplicates)
    }

    /// Segments of the log.
    pub fn segments(&self) -> usize {
        let names = std::fs::read_dir(self.data().join("log")).unwrap();
        names.filter(|name| name.as_ref().unwrap().path().extension().is_some_and(|e| e == "segment")).count()
    }

    /// A server on the directory, once it listens.
    pub fn start(&mut self, environment: &[(&str, &str)]) -> Server {
        let begun = Instant::now();
        let server = Server::start_with(&self.data(), &[], &[environment, &SETTINGS].concat());
        self.starting = begun.elapsed();
        server
    }

    /// The first server, with its rooms and writers known to it.
    pub fn begin(&mut self, environment: &[(&str, &str)]) -> Server {
        let server = self.start(environment);
        prepare(&server);
        server
    }

    /// A server that is killed at any moment of its start.
    pub fn kill_a_start(&self, environment: &[(&str, &str)], chance: &mut Chance) {
        let mut command = super::serve(&self.data());
        let mut child =
            command.envs(environment.iter().copied()).envs(SETTINGS).spawn().expect("the binary starts");
        let longest = u64::try_from(self.starting.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(chance.below(longest + 1)));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Lets the writers write, and kills the server over it.
    pub fn write_and_kill(&self, server: Server, chance: &mut Chance) -> Kill {
        let (answers, later) = (1 + chance.below(400), Duration::from_micros(chance.below(8_000)));
        Writers::start(server.address, &self.beside("ledger")).kill_at(server, answers, later);
        Kill { answers, later }
    }

    /// Compares the log, all of it or the newest part, with the ledger and with what was read
    /// before; says what is wrong.
    pub fn findings(&mut self, server: &Server, all: bool) -> Vec<String> {
        self.history.compare(server, all, &mut self.ledger)
    }

    /// The same, where nothing may be.
    pub fn compare(&mut self, server: &Server, all: bool) {
        let findings = self.findings(server, all);
        let shown = findings.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        if !findings.is_empty() {
            let kept = std::mem::replace(&mut self.home, tempfile::tempdir().unwrap()).keep();
            panic!("{} findings, the files are kept in {}:\n{shown}", findings.len(), kept.display());
        }
    }
}
