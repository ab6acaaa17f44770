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

/// What a process is started with besides its arguments.
pub type Environment = Vec<(&'static str, String)>;

/// See the module.
pub struct Trial {
    home: tempfile::TempDir,
    /// Of every server.
    environment: Environment,
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
        // Small segments, so that many are closed, and little in memory, so that files are read.
        let environment =
            [("DRAMATIS__LOG__SEGMENT_BYTES", 65_536), ("DRAMATIS__LOG__LIVE_BYTES_MAX", 65_536)];
        let environment = environment.map(|(name, bytes)| (name, bytes.to_string())).to_vec();
        Self { home, environment, ledger, history: History::default(), starting: Duration::ZERO }
    }

    /// One whose older segments move to a cold tier, below the log's directory.
    pub fn with_cold_tier() -> Self {
        let mut trial = Self::new();
        let cold = trial.log().join("cold").to_str().unwrap().to_owned();
        trial.environment.push(("DRAMATIS__LOG__COLD_DIR", cold));
        trial.environment.push(("DRAMATIS__LOG__HOT_SEGMENTS_MAX", "2".to_owned()));
        trial
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

    /// Where the log is.
    pub fn log(&self) -> PathBuf {
        self.data().join("log")
    }

    /// Segments of the log.
    pub fn segments(&self) -> usize {
        let dirs = [self.log(), self.log().join("cold")];
        let paths = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
        paths.filter(|path| path.as_ref().unwrap().path().extension().is_some_and(|e| e == "segment")).count()
    }

    /// A server on the directory, once it listens.
    pub fn start(&mut self, environment: &Environment) -> Server {
        let begun = Instant::now();
        let both = self.environment.iter().chain(environment);
        let both: Vec<_> = both.map(|(name, value)| (*name, value.as_str())).collect();
        let server = Server::start_with(&self.data(), &[], &both);
        self.starting = begun.elapsed();
        server
    }

    /// The first server, with its rooms and writers known to it.
    pub fn begin(&mut self, environment: &Environment) -> Server {
        let server = self.start(environment);
        prepare(&server);
        server
    }

    /// A server that is killed at any moment of its start.
    pub fn kill_a_start(&self, environment: &Environment, chance: &mut Chance) {
        let both = self.environment.iter().chain(environment).cloned();
        let mut child = super::serve(&self.data()).envs(both).spawn().unwrap();
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
