//! `dramatis log`: looking after the files of the embedded log. No server is asked; `verify`
//! and `info` may run beside one.

use clap::Subcommand;
use serde_json::{Value, json};

use super::DataArguments;
use crate::engines;
use crate::log::embedded::offline::{Damage, Place};

mod info;
mod progress;
mod reindex;
mod repair;
mod verify;

pub(super) use progress::Progress;

/// What to do with the files.
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Reads every byte of the log and lists all damage
    ///
    /// Every segment is walked, in the cold tier too: headers, batches, records, the index of each
    /// closed segment and its hash in the chain. Nothing is locked or written, so it may run beside
    /// a server: the end of the open segment may then be unfinished, which is no damage. Ctrl-c
    /// stops it at any time; what was found is told as it is found.
    #[command(after_help = "Exit codes: 0 all reads back, 1 it could not be done, 2 damage was found.

Examples:
  dramatis log verify
  dramatis log verify --data /var/lib/dramatis --json")]
    Verify {
        /// Where the log is.
        #[command(flatten)]
        files: DataArguments,
        /// Prints one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Says what the log holds: segments, events, streams, names and times
    ///
    /// It is told by the indexes of closed segments; only the open one is read. It locks and writes
    /// nothing, so it may run beside a server.
    #[command(after_help = "Exit codes: 0 done, 1 it could not be done, 2 damage was found on the way.

Examples:
  dramatis log info
  dramatis log info --full --json | jq .names")]
    Info {
        /// Where the log is.
        #[command(flatten)]
        files: DataArguments,
        /// Reads the whole log and counts the events of each name and category
        #[arg(long)]
        full: bool,
        /// Prints one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Builds again what is derived from closed segments: indexes, and their lines in the chain
    ///
    /// No server may run. Segments are never touched. Lines of the chain that contradict the segments
    /// stay, unless they are accepted to be replaced: the chain then says so in an anchor line.
    #[command(after_help = "Exit codes: 0 all agrees now, 1 it could not be done, 2 damage is left.

Examples:
  dramatis log reindex
  dramatis log reindex --data /var/lib/dramatis --accept-chain")]
    Reindex {
        /// Where the log is.
        #[command(flatten)]
        files: DataArguments,
        /// Writes the chain anew where it is broken or contradicts the segments
        #[arg(long)]
        accept_chain: bool,
    },
    /// Says where history would be cut so that the log opens again; cuts only with --cut
    ///
    /// No server may run. History is cut at its first damage: all that follows is lost to the log,
    /// whether it reads back or not, and is moved into a folder `cut-<time>` beside it. A new epoch
    /// begins, so that clients and projections start over. Restoring the damaged file from a backup
    /// is better. The unfinished tail that a crash leaves needs no repair: opening the log cuts it.
    #[command(
        after_help = "Exit codes: 0 nothing was to be cut or it is done, 1 it could not be done, 2 damage was
found and nothing was changed.

Examples:
  dramatis log repair
  dramatis log repair --data /var/lib/dramatis --cut"
    )]
    Repair {
        /// Where the log is.
        #[command(flatten)]
        files: DataArguments,
        /// Cuts, and says what was cut
        #[arg(long)]
        cut: bool,
    },
}

/// Where the log of these settings is.
fn place(files: &DataArguments) -> anyhow::Result<Place> {
    let (dir, cold) = engines::log_dirs(&files.load()?);
    Ok(Place { dir, cold })
}

/// Runs the subcommand.
pub(super) fn run(command: Log) -> anyhow::Result<()> {
    match command {
        Log::Verify { files, json } => verify::run(&place(&files)?, json),
        Log::Info { files, full, json } => info::run(&place(&files)?, full, json),
        Log::Reindex { files, accept_chain } => reindex::run(&place(&files)?, accept_chain),
        Log::Repair { files, cut } => repair::run(&place(&files)?, cut),
    }
}

/// Damage for programs.
fn documents(damage: &[Damage]) -> Value {
    let document =
        |found: &Damage| json!({"file": found.file, "offset": found.offset, "reason": found.reason});
    damage.iter().map(document).collect()
}
