//! Failures that programs tell apart by the exit code.

use std::time::Duration;

use super::ServerUrl;
use crate::log::embedded::backup::BackupError;

/// A failure with an exit code of its own; any other ends with 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing listens there. Exit code 2.
    #[error(
        "no dramatis server answers at {url} ({reason}): start one with `dramatis serve`, or name another \
         with --url"
    )]
    NoServer {
        /// Where it was looked for.
        url: ServerUrl,
        /// What the system said.
        reason: String,
    },
    /// Something takes connections there, and tells nothing, not even of its health. Exit code 2.
    #[error(
        "no dramatis server answers at {url} (it takes the connection and gives no answer within {patience:?}): \
         start one with `dramatis serve`, or name another with --url"
    )]
    Silent {
        /// Where it was asked.
        url: ServerUrl,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The connection broke, or the server took no more, before an import was done. Exit code 3.
    #[error(
        "the import is not complete: {reason}. {acknowledged} commands were acknowledged and are safe; run \
         the same command again to go on from there"
    )]
    Unfinished {
        /// What happened.
        reason: String,
        /// Commands with a positive answer in this run.
        acknowledged: u64,
    },
    /// A new build shows other documents than the live one. Exit code 3.
    #[error("{}", differ(projection, *documents, *parked))]
    Differs {
        /// The projection.
        projection: String,
        /// How many differ.
        documents: u64,
        /// Keys that are parked in one of the two alone, or from different positions on.
        parked: u64,
    },
    /// Somebody held the build up meanwhile. Exit code 4.
    #[error("the build of {projection} was {state} meanwhile: see `dramatis projections list`")]
    HeldUp {
        /// The projection.
        projection: String,
        /// Its state.
        state: String,
    },
    /// The log's files are damaged. Exit code 2.
    #[error(
        "the log is damaged in {places} place(s): restore the files from a backup, or see `dramatis log repair \
         --help` and `dramatis log reindex --help`"
    )]
    Damage {
        /// How many places there are.
        places: u64,
    },
    /// A backup is damaged. Exit code 2.
    #[error(transparent)]
    DamagedBackup(BackupError),
    /// Nobody reads what the command prints any more, and has seen enough. Exit code 0; nothing is said.
    #[error("nobody reads the output any more")]
    Unread,
}

fn differ(projection: &str, documents: u64, parked: u64) -> String {
    let differing = if documents == 1 {
        format!("1 document of {projection} differs between the live build and the new one")
    } else {
        format!("{documents} documents of {projection} differ between the live build and the new one")
    };
    let keys = if parked == 1 { "1 key".to_owned() } else { format!("{parked} keys") };
    let is = if parked == 1 { "is" } else { "are" };
    match (documents, parked) {
        (_, 0) => differing,
        (0, _) => format!("{keys} of {projection} {is} not parked alike in the live build and the new one"),
        _ => format!("{differing}, and {keys} {is} not parked alike"),
    }
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unread => 0,
            Self::NoServer { .. } | Self::Silent { .. } | Self::Damage { .. } | Self::DamagedBackup(_) => 2,
            Self::Unfinished { .. } | Self::Differs { .. } => 3,
            Self::HeldUp { .. } => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_document_differs_and_several_do() {
        let told = |documents, parked| {
            Failure::Differs { projection: "rooms".to_owned(), documents, parked }.to_string()
        };
        assert_eq!(told(1, 0), "1 document of rooms differs between the live build and the new one");
        assert_eq!(
            told(2, 1),
            "2 documents of rooms differ between the live build and the new one, and 1 key is not parked alike"
        );
        assert_eq!(told(0, 1), "1 key of rooms is not parked alike in the live build and the new one");
        assert_eq!(told(0, 2), "2 keys of rooms are not parked alike in the live build and the new one");
    }
}
