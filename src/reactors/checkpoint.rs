//! Up to where a reactor is done: a small file beside the log.
//!
//! It only saves work. Without it, or with one of another epoch, a reactor reads the log from its
//! start, and every command it issues again is answered as the duplicate it is.

use std::io;
use std::path::PathBuf;

use dramatis_events::{Epoch, Position};
use serde::{Deserialize, Serialize};

use crate::dirs;

/// See the module.
#[derive(Debug)]
pub struct Checkpoint {
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Done {
    epoch: Epoch,
    position: Position,
}

impl Checkpoint {
    /// The one in this file, which need not be there.
    pub fn at(file: PathBuf) -> Self {
        Self { file }
    }

    /// The last event that is done with, in this epoch.
    pub fn load(&self, epoch: Epoch) -> Option<Position> {
        let text = std::fs::read(&self.file).ok()?;
        let done: Done = serde_json::from_slice(&text).ok()?;
        (done.epoch == epoch).then_some(done.position)
    }

    /// Replaces it in one step. It is not synced: an older one does no harm.
    pub fn save(&self, epoch: Epoch, position: Position) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            dirs::make(folder)?;
        }
        dirs::replace(&self.file, &serde_json::to_vec(&Done { epoch, position })?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_comes_back_in_its_own_epoch_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reactors").join("invitations.json");
        let (checkpoint, epoch) = (Checkpoint::at(file.clone()), Epoch::first(7));
        assert_eq!(checkpoint.load(epoch), None);
        checkpoint.save(epoch, Position::from_engine(41)).unwrap();
        checkpoint.save(epoch, Position::from_engine(42)).unwrap();
        assert_eq!(checkpoint.load(epoch), Some(Position::from_engine(42)));
        assert_eq!(checkpoint.load(epoch.raised()), None);
        std::fs::write(file, "{").unwrap();
        assert_eq!(checkpoint.load(epoch), None);
    }
}
