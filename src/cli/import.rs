//! `dramatis import`: chat logs into rooms, over the same socket that every client uses.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::civil::Date;

use self::ended::Ended;
use self::feed::Feed;
use self::importer::Importer;
use self::report::Progress;
use self::run::Run;
use super::{Failure, ServerUrl, Target, output};

mod answer;
mod clock;
mod ended;
mod feed;
mod importer;
mod lines;
mod parse;
mod plan;
mod report;
mod run;
mod window;

/// How long to wait between two attempts to connect again.
const RECONNECT_EVERY: Duration = Duration::from_millis(250);

/// What can be imported.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// IRC logs: `[12:30] <alice> hello`, `=== bob has joined #den`
    ///
    /// Each file becomes a room named as the file (without its last extension), or as --room says; lines
    /// of the form `#den 2010-03-08 [12:30:00] <alice> hello` go to the room of the channel that they
    /// begin with, and so do those behind them that begin with none. The channel in `=== bob has joined
    /// #den` names no room. Nicks become users, who join and leave, by a kick too, as the log tells. A line that cannot be read or is refused, and one
    /// whose time is odd, is printed with file and line; the rest goes on.
    ///
    /// The commands' ids derive from the lines: an import that broke off goes on when the same
    /// command is run again, and nothing is recorded twice.
    ///
    /// Where the server wants tokens `DRAMATIS_TOKEN` holds that of an integration, and this is who
    /// imports; elsewhere it is integration:irc-import.
    #[command(after_help = "Examples:
  dramatis import irc 2004-11-15.txt
  dramatis import irc logs/*.txt --room ubuntu --ledger acknowledged.txt
  dramatis import irc den.log --date 2010-03-08 --retry-for 60
  zcat den.gz | dramatis import irc /dev/stdin --room den --date 2010-03-08
  DRAMATIS_TOKEN=$(dramatis token --user integration:import --for 1h) dramatis import irc den.log

Exit codes: 0 all lines were handled (some may have been refused), 1 it could not be done, was
refused, or not one line was understood, 2 no server, 3 the connection was lost before the end.")]
    Irc(Irc),
}

/// The arguments of `import irc`.
#[derive(Debug, Args)]
pub struct Irc {
    /// The log files, in the order of their history
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The room for all lines [default: the file's name, and for lines `CHANNEL YYYY-MM-DD [HH:MM:SS] …` the
    /// channel]
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    /// The day on which each file begins [default: the first YYYY-MM-DD in its name]; where its clock
    /// runs back by more than 12 hours the next one does
    ///
    /// A file, but no pipe, whose clock never shows 13:00 or later and runs back from 12 to 1 o'clock, or
    /// from 11 to 0, has a clock of 12 hours: it is taken to begin as it is written, and to be 12 hours
    /// later from each such step on. Other steps back by more than an hour are taken as they are, and told.
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Date>,
    /// A file to which the id of each recorded command is appended as its answer arrives
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Commands that may wait for their answer at once
    #[arg(long, value_name = "N", default_value_t = 4096)]
    in_flight: usize,
    /// How long to try to connect again when the connection is lost
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    retry_for: u64,
    #[command(flatten)]
    target: Target,
}

/// Runs the subcommand.
pub(super) fn run(import: Import) -> anyhow::Result<()> {
    let Import::Irc(arguments) = import;
    let importer = Importer::new(super::token::shown());
    let feed = Feed::new(arguments.files, arguments.room, arguments.date)?;
    let ledger = match &arguments.ledger {
        None => None,
        Some(path) => {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            Some(opened.with_context(|| format!("cannot open the ledger {}", path.display()))?)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let retry_for = Duration::from_secs(arguments.retry_for);
    runtime.block_on(async {
        let progress = Progress::new(feed.bytes());
        let mut run = Run::new(importer, feed.start()?, progress, arguments.in_flight, ledger);
        let ended = keep_connected(&mut run, &arguments.target.url, retry_for).await;
        run.progress.finish(&mut run.report);
        if !matches!(&ended, Err(error) if is_no_server(error)) {
            output::report(&format!("{}\n", run.report.summary(run.progress.elapsed())));
        }
        ended?;
        anyhow::ensure!(
            !run.report.is_of_nothing(),
            "not one line is understood: is this an IRC log, and as text?"
        );
        Ok(())
    })
}

fn is_no_server(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Failure::NoServer { .. }))
}

/// Connects, and connects again for `retry_for` each time the connection is lost.
async fn keep_connected(run: &mut Run, url: &ServerUrl, retry_for: Duration) -> anyhow::Result<()> {
    let mut lost_at: Option<Instant> = None;
    let mut ever_connected = false;
    loop {
        let mut connected = false;
        let ended = run.connection(url, &mut connected).await;
        if connected {
            (lost_at, ever_connected) = (None, true);
        }
        let safe = || format!("{} commands were acknowledged and are safe", run.report.acknowledged());
        let (reason, found) = match ended {
            Ok(()) => return Ok(()),
            Err(Ended::Stop(error)) => return Err(error),
            Err(Ended::Malformed(reason)) => anyhow::bail!("{reason}"),
            Err(Ended::Refused(reason)) => anyhow::bail!("the import was refused: {reason}. {}", safe()),
            Err(Ended::Token(reason)) => anyhow::bail!(
                "the import was refused: {reason}: {}, and run the same command again. {}",
                run.importer.remedy(),
                safe()
            ),
            Err(Ended::NoServer(reason)) => (reason, ever_connected),
            Err(Ended::Lost(reason)) => (reason, true),
        };
        if lost_at.get_or_insert_with(Instant::now).elapsed() >= retry_for {
            let acknowledged = run.report.acknowledged();
            return Err(if found {
                Failure::Unfinished { reason, acknowledged }.into()
            } else {
                Failure::NoServer { url: url.clone(), reason }.into()
            });
        }
        if connected {
            run.progress.say(&format!("{reason}; connecting again for {} s", retry_for.as_secs()));
        }
        tokio::time::sleep(RECONNECT_EVERY).await;
    }
}
