//! How many files the process may have open: a connection is one, and the log, the read models and the
//! system need some, too.

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are kept back from connections: segments, read models, a store's connections.
const KEPT_BACK: u64 = 512;

/// With fewer than these not even the threads of a process can begin.
const FILES_MIN: u64 = 64;

/// Lets the process have as many open files as it may.
pub(super) fn raise_limit() -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map(|()| maximum);
    // `None` is no limit.
    let files = raised.unwrap_or(current).unwrap_or(u64::MAX);
    ensure!(
        files >= FILES_MIN,
        "the process may have {files} files open and needs {FILES_MIN}, with connections more: raise the limit (ulimit \
         -n, LimitNOFILE=)"
    );
    Ok(())
}

/// How many connections the files suffice for that the process may have open. So many are wanted.
pub(super) fn left_for(wanted: usize) -> usize {
    let Some(files) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    let left = usize::try_from(left(files)).unwrap_or(usize::MAX);
    if left < wanted {
        tracing::info!(
            files,
            connections = left,
            "the process may have fewer files open than server.connections_max ({wanted}) needs: so many connections \
             are taken; raise the limit (ulimit -n, LimitNOFILE=)"
        );
    }
    left
}

/// What so many files leave for connections: at least half.
fn left(files: u64) -> u64 {
    files - KEPT_BACK.min(files / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_back_and_most_are_left() {
        for (files, connections) in [(0, 0), (256, 128), (1_024, 512), (20_000, 19_488)] {
            assert_eq!(left(files), connections);
        }
    }
}
