//! `dramatis backup`: copies of the log, made beside a running server, and the way back.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dramatis_events::{Position, UnixMillis};
use indicatif::HumanBytes;
use jiff::Timestamp;

use super::log::Progress;
use super::{DataArguments, Failure, output};
use crate::clock::{Clock as _, SystemClock, parse_time, time_text};
use crate::config::ReadModelsEngine;
use crate::engines;
use crate::log::embedded::backup::{self, BackupError, Listed, Manifest, Source, Until, Wanted};
use crate::read_models::sqlite;

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Makes a backup of all that is recorded by now; the server may run meanwhile
    ///
    /// Segments that never change any more are copied once and shared by all backups of a store.
    #[command(after_help = "Examples:
  dramatis backup create --store /mnt/backups
  dramatis backup create --store /mnt/backups --name before-upgrade --data /var/lib/dramatis")]
    Create {
        /// Where the backups are.
        #[command(flatten)]
        store: Store,
        /// What to call it [default: the time, as 20240131T235959Z]
        #[arg(long)]
        name: Option<String>,
        /// What is backed up.
        #[command(flatten)]
        data: DataArguments,
    },
    /// Lists the backups of a store, the oldest first
    #[command(after_help = "Exit codes: 0 done, 1 it could not be done, 2 the list of a backup is damaged.")]
    List {
        /// Where the backups are.
        #[command(flatten)]
        store: Store,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Reads every byte of a backup and compares it with what was put there
    #[command(
        after_help = "Exit codes: 0 all is as it was put there, 1 it could not be done, 2 damage was found."
    )]
    Verify {
        /// Where the backups are.
        #[command(flatten)]
        store: Store,
        /// Which; all if none is named
        name: Option<String>,
    },
    /// Restores a backup into an empty directory, whole or up to a point
    ///
    /// The log there begins a new epoch: clients start over with the restored history, and the
    /// read models are built from it when the server starts.
    #[command(after_help = "Examples:
  dramatis backup restore --store /mnt/backups latest --into restored
  dramatis backup restore --store /mnt/backups latest --into restored --until-time 2024-01-31T12:00:00Z
  dramatis serve --data restored")]
    Restore {
        /// Where the backups are.
        #[command(flatten)]
        store: Store,
        /// Which; `latest` is the last one made
        name: String,
        /// The data directory to make; it must be empty or not be there
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// The position of the last event to restore; the rest of its command comes with it
        #[arg(long, value_name = "POSITION", conflicts_with = "until_time")]
        until_position: Option<Position>,
        /// Restore what was recorded up to this time: RFC 3339, or Unix milliseconds
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        until_time: Option<UnixMillis>,
    },
}

/// Where backups are.
#[derive(Debug, Args)]
pub struct Store {
    /// The directory of the backups
    #[arg(long, value_name = "DIR", env = "DRAMATIS_BACKUPS")]
    store: PathBuf,
}

/// Runs the subcommand.
pub(super) fn run(command: Backup) -> anyhow::Result<()> {
    match command {
        Backup::Create { store, name, data } => create(&store.store, name, &data),
        Backup::List { store, json } => list(&store.store, json),
        Backup::Verify { store, name } => verify(&store.store, name),
        Backup::Restore { store, name, into, until_position, until_time } => {
            let until = match (until_position, until_time) {
                (Some(position), _) => Until::Position(position),
                (None, Some(time)) => Until::Time(time),
                (None, None) => Until::Latest,
            };
            restore(&store.store, &name, &into, until)
        }
    }
}

fn create(store: &Path, name: Option<String>, data: &DataArguments) -> anyhow::Result<()> {
    let config = data.load()?;
    let (hot, cold) = engines::log_dirs(&config);
    let now = SystemClock.now();
    let name = match name {
        Some(name) => name,
        None => Timestamp::from_millisecond(now.get())?.strftime("%Y%m%dT%H%M%SZ").to_string(),
    };
    let read_models = match config.read_models.engine {
        // They are derived: what is wrong with them keeps nobody from a backup.
        ReadModelsEngine::Sqlite => {
            sqlite::summary(&engines::read_models_file(&config)).unwrap_or_else(|error| {
                output::tell(&format!("dramatis: the names of the read models are not noted: {error}"));
                serde_json::Value::Null
            })
        }
        // A server has backups of its own, and needs none: all comes back from the log.
        ReadModelsEngine::Mongodb => serde_json::Value::Null,
    };
    let mut progress = Progress::new(true);
    let (source, wanted) =
        (Source::new(&hot, cold.as_deref()), Wanted { name, created_at: now, read_models });
    let mut waits = || {
        let store = store.display();
        output::tell(&format!("dramatis: waiting for another process that has the store {store} to itself"));
    };
    let made =
        backup::create(&source, store, wanted, &mut waits, &mut |done, total| progress.reach(done, total))?;
    progress.finish();
    output::report(&format!(
        "backup {} holds {} events in {}, {} of them new in {}\n",
        made.name,
        made.events,
        HumanBytes(made.bytes()),
        HumanBytes(made.new_bytes),
        store.display()
    ));
    Ok(())
}

fn list(store: &Path, json: bool) -> anyhow::Result<()> {
    let Listed { backups, unread } = backup::list(store)?;
    if !json && backups.is_empty() {
        output::show(&format!("no backups in {}\n", store.display()))?;
    }
    for backup in &backups {
        let told = if json { serde_json::to_string(backup)? } else { line(backup) };
        output::show(&format!("{told}\n"))?;
    }
    judge(unread)
}

/// Tells all that is wrong with backups; damage counts most.
fn judge(mut errors: Vec<BackupError>) -> anyhow::Result<()> {
    errors.sort_by_key(BackupError::is_damage);
    let Some(last) = errors.pop() else { return Ok(()) };
    for error in errors {
        output::tell(&format!("dramatis: {error}"));
    }
    Err(if last.is_damage() { Failure::DamagedBackup(last).into() } else { last.into() })
}

fn line(backup: &Manifest) -> String {
    let until = backup.times().map_or_else(|| "-".to_owned(), |(_, last)| time_text(last));
    format!(
        "{:<20} {} events {:>12} {:>12} ({} new) last event {until} epoch {}",
        backup.name,
        time_text(backup.created_at),
        backup.events,
        HumanBytes(backup.bytes()).to_string(),
        HumanBytes(backup.new_bytes),
        backup.epoch
    )
}

fn verify(store: &Path, name: Option<String>) -> anyhow::Result<()> {
    let (names, mut errors) = if let Some(name) = name {
        (vec![name], Vec::new())
    } else {
        let Listed { backups, unread } = backup::list(store)?;
        // Nothing is proven of nothing: the disk that is meant may not be mounted.
        anyhow::ensure!(!backups.is_empty() || !unread.is_empty(), "no backups in {}", store.display());
        (backups.into_iter().map(|backup| backup.name).collect(), unread)
    };
    for name in names {
        let mut progress = Progress::new(true);
        let verified = backup::verify(store, &name, &mut |done, total| progress.reach(done, total));
        progress.finish();
        match verified {
            Ok(whole) => {
                let bytes = HumanBytes(whole.bytes());
                let told = format!("backup {} is whole: {} events in {bytes}\n", whole.name, whole.events);
                output::report(&told);
            }
            Err(error) => {
                let is_none = matches!(error, BackupError::Unknown { .. } | BackupError::NoStore { .. });
                if !is_none {
                    output::report(&format!("backup {name} is not whole\n"));
                }
                errors.push(error);
            }
        }
    }
    judge(errors)
}

fn restore(store: &Path, name: &str, into: &Path, until: Until) -> anyhow::Result<()> {
    let mut progress = Progress::new(true);
    let restored = backup::restore(store, name, into, until, SystemClock.now(), &mut |done, total| {
        progress.reach(done, total);
    })?;
    progress.finish();
    let last = restored.last_position.map_or_else(|| "none".to_owned(), |last| last.to_string());
    let dir = into.display();
    output::report(&format!(
        "restored backup {} into {dir}: last position {last}, new epoch {}\n\
         start it with: dramatis serve --data {dir}\n",
        restored.manifest.name, restored.epoch
    ));
    Ok(())
}
