//! `dramatis-bench`: one subcommand a question, each with its peers and physical limits in the
//! same run, interleaved round by round.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/dramatis-bench append            # a table
//! target/release/dramatis-bench latency --json    # one JSON object a line
//! ```
//!
//! Subcommands that speak to a server start the `dramatis` binary that lies beside this one (or
//! `--server-bin`) on an empty directory, pinned to core 0, and drive it from core 1 over real
//! sockets. Figures of a shared machine drift: compare ratios, and only within one run.

mod append;
mod connect;
mod connections;
mod engine;
mod fanout;
mod latency;
mod limits;
mod link;
mod load;
mod memory;
mod offered;
mod open;
mod pace;
mod payload;
mod peers;
mod pinning;
mod projection_lag;
mod rebuild;
mod replay;
mod report;
mod resume_storm;
mod server;
mod slow_client;
mod stage;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};

/// Measures dramatis beside what the machine itself can do.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// How fast are events recorded durably: at the log's port, and through sockets.
    Append(append::Options),
    /// How fast are events read back: as recorded, and decoded to the event types.
    Replay(replay::Options),
    /// How fast are read models made of events.
    Rebuild(rebuild::Options),
    /// What does a large log cost to open, and what do the first reads cost then.
    Open(open::Options),
    /// How long do a command's answer and its event take when commands come at a fixed rate.
    Latency(latency::Options),
    /// How long after a command's answer do queries see what it did.
    ProjectionLag(projection_lag::Options),
    /// How fast does one event reach all who follow its room.
    Fanout(fanout::Options),
    /// How many clients a second connect and are greeted.
    Connect(connect::Options),
    /// How much memory and processor time does an idle connection cost the server.
    Connections(connections::Options),
    /// How fast is everybody live again who comes back at once.
    ResumeStorm(resume_storm::Options),
    /// What do clients that never read cost the others.
    SlowClient(slow_client::Options),
    /// A process of `open`: opens its log.
    #[command(hide = true)]
    OpenChild(open::child::Options),
    /// The peer of `fanout`: sends raw bytes to each of its sockets in turn.
    #[command(hide = true)]
    RawSend(fanout::raw_send::Options),
}

/// Of a question that is asked in one way.
const NO_VARIANTS: &[&str] = &[];

/// What every question takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
    /// How often everything is measured; medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of measuring, for each variant and round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Run only these variants, comma-separated; their limits run with them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where data is written while measuring; the system's temporary directory by default.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Common {
    /// Refuses what cannot be measured; these are the variants there are.
    fn check(&self, variants: &[impl AsRef<str>]) -> anyhow::Result<()> {
        ensure!(self.rounds > 0, "rounds: expected at least 1, got 0: leave it out for 5");
        let seconds = self.seconds;
        ensure!((0.05..=3_600.0).contains(&seconds), "seconds: expected 0.05 to 3600, got {seconds}");
        let variants: Vec<_> = variants.iter().map(AsRef::as_ref).collect();
        for only in &self.only {
            ensure!(
                !variants.is_empty(),
                "only: expected nothing here, where all is one variant, got {only:?}"
            );
            let known = variants.contains(&only.as_str());
            ensure!(known, "only: expected some of {}, got {only:?}", variants.join(", "));
        }
        Ok(())
    }

    fn wants(&self, variant: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == variant)
    }

    fn window(&self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.seconds)
    }

    fn scratch(&self) -> anyhow::Result<tempfile::TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("dramatis-bench-");
        Ok(match &self.dir {
            Some(dir) => builder.tempdir_in(dir)?,
            None => builder.tempdir()?,
        })
    }
}

fn main() -> anyhow::Result<()> {
    // Asked before anything is pinned, since a pinned process sees one core.
    report::cores();
    match Cli::parse().question {
        Question::Append(options) => append::run(&options),
        Question::Replay(options) => replay::run(&options),
        Question::Rebuild(options) => rebuild::run(&options),
        Question::Open(options) => open::run(&options),
        Question::OpenChild(options) => open::child::run(&options),
        Question::Latency(options) => latency::run(&options),
        Question::ProjectionLag(options) => projection_lag::run(&options),
        Question::Fanout(options) => fanout::run(&options),
        Question::Connect(options) => connect::run(&options),
        Question::Connections(options) => connections::run(&options),
        Question::ResumeStorm(options) => resume_storm::run(&options),
        Question::SlowClient(options) => slow_client::run(&options),
        Question::RawSend(options) => fanout::raw_send::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_variant_is_refused_with_those_there_are() {
        let common = |only: &str| Common {
            json: false,
            rounds: 1,
            seconds: 1.0,
            only: vec![only.to_owned()],
            dir: None,
        };
        assert!(common("fold").check(&["fold", "sqlite"]).is_ok());
        let told =
            |refused: anyhow::Result<()>| refused.err().map(|error| error.to_string()).unwrap_or_default();
        let refused = told(common("flod").check(&["fold", "sqlite"]));
        assert!(refused.contains("expected some of fold, sqlite, got \"flod\""), "{refused}");
        let refused = told(common("fold").check(NO_VARIANTS));
        assert!(refused.contains("expected nothing here"), "{refused}");
    }
}
