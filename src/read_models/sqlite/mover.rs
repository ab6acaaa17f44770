//! Moves what was written from the write-ahead log into the file, beside the writer: pages are synced for
//! that, twice, and a disk may take a tenth of a second, which all who wait for a document would wait too.
//!
//! The log is begun anew by the first write that finds all of it moved. While much is written there is
//! always more, so the last few pages are moved again and again until they are all, or were tried often enough.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
pub(super) struct Calls {
    calls: SyncSender<()>,
    turn: Arc<Turn>,
}

/// Whose turn it is to move: `SQLite` refuses who comes while another is at it.
#[derive(Default)]
struct Turn {
    taken: Mutex<()>,
    /// The writer waits for it.
    wanted: AtomicBool,
}

impl Turn {
    fn take(&self) -> MutexGuard<'_, ()> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mover {
    /// Starts it for this file, which may not be there yet; it ends once nobody is left to call it.
    pub(super) fn start(path: PathBuf) -> std::io::Result<(Self, Calls)> {
        let ((calls, called), turn) = (sync_channel(1), Arc::<Turn>::default());
        let of_mover = turn.clone();
        let named = std::thread::Builder::new().name("read-models-move".to_owned());
        let thread = named.spawn(move || {
            step_back(READ_MODELS);
            move_when_called(&path, &called, &of_mover);
        });
        Ok((Self(Some(thread?)), Calls { calls, turn }))
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
                let _ = self.calls.try_send(());
            }
            if pages >= PAGES_MAX {
                self.turn.wanted.store(true, Ordering::SeqCst);
                let _turn = self.turn.take();
                self.turn.wanted.store(false, Ordering::SeqCst);
                // What cannot be moved now, as somebody reads it, is tried again with the next write.
                let _ = log.checkpoint();
            }
            Ok(())
        }))
    }
}

fn move_when_called(path: &Path, called: &Receiver<()>, turn: &Turn) {
    let mut connection = None;
    for () in called {
        if let Err(error) = move_all(path, &mut connection, turn) {
            tracing::warn!(place = %path.display(), %error, "the write-ahead log is not moved into the file");
        }
    }
}

fn move_all(path: &Path, connection: &mut Option<Connection>, turn: &Turn) -> rusqlite::Result<()> {
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
        if turn.wanted.load(Ordering::SeqCst) {
            break;
        }
        let _turn = turn.take();
        let (pages, moved) = connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE)?;
        if pages == moved {
            break;
        }
    }
    Ok(())
}
