//! Moves what was written from the write-ahead log into the file, beside the writer: pages are synced for
//! that, twice, and a disk may take a tenth of a second, which all who wait for a document would wait too.
//!
//! The log is begun anew by the first write that finds all of it moved. While much is written there is
//! always more, so the last few pages are moved again and again until they are all, or were tried often enough.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME, OpenFlags};

use crate::priority::{READ_MODELS, step_back};

/// Pages of 4 KiB that changes may fill before they are moved. Of more fewer would be moved, as one that many
/// batches change moves once; but what is synced at a time keeps the disk from the log, and so from commands.
pub(super) const MOVED_PAGES: u32 = 256;
/// Where a log has grown so long all the same the writer moves it itself: so it gives way to a slow disk.
pub(super) const PAGES_MAX: u32 = 16_384;
/// How often it is tried to have nothing left behind.
const PASSES_MAX: usize = 8;

/// The thread that moves.
pub(super) struct Mover(Option<JoinHandle<()>>);

/// Calls it.
#[derive(Clone)]
pub(super) struct Calls(SyncSender<()>);

impl Mover {
    /// Starts it for this file, which may not be there yet; it ends once nobody is left to call it.
    pub(super) fn start(path: PathBuf) -> std::io::Result<(Self, Calls)> {
        let (calls, called) = sync_channel(1);
        let named = std::thread::Builder::new().name("read-models-move".to_owned());
        let thread = named.spawn(move || {
            step_back(READ_MODELS);
            move_when_called(&path, &called);
        });
        Ok((Self(Some(thread?)), Calls(calls)))
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

impl Calls {
    /// Has what this connection writes moved.
    pub(super) fn follow(self, writer: &mut Connection) -> rusqlite::Result<()> {
        let mut called_at = 0;
        writer.wal_hook(Some(move |log: &mut Wal, pages: std::ffi::c_int| {
            let pages = u32::try_from(pages).unwrap_or(0);
            if pages < called_at {
                // It was begun anew.
                called_at = 0;
            }
            if pages - called_at >= MOVED_PAGES {
                called_at = pages;
                // It may be at it, or have been called already.
                let _ = self.0.try_send(());
            }
            if pages >= PAGES_MAX {
                // Refused while the other thread moves.
                let _ = log.checkpoint();
            }
            Ok(())
        }))
    }
}

fn move_when_called(path: &Path, called: &Receiver<()>) {
    let mut connection = None;
    for () in called {
        if let Err(error) = move_all(path, &mut connection) {
            tracing::warn!(place = %path.display(), %error, "the write-ahead log is not moved into the file");
        }
    }
}

fn move_all(path: &Path, connection: &mut Option<Connection>) -> rusqlite::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        none => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let opened = Connection::open_with_flags(path, flags)?;
            opened.pragma_update(None, "synchronous", "NORMAL")?;
            // The last connection that closes would move all that is left, for which the next process waits.
            opened.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            none.insert(opened)
        }
    };
    for _ in 0..PASSES_MAX {
        let (pages, moved) = connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE)?;
        if pages == moved {
            break;
        }
    }
    Ok(())
}
