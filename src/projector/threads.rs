//! The projector's threads: one keeps what is live up with the log, one makes builds beside it. Both
//! let the rooms go first, the builds let everything else.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::priority::{READ_MODELS, step_back};

/// The priority of builds beside the live ones, as `nice` counts it. Both threads compute; engines
/// write on theirs.
const BUILDS: i32 = 10;

/// Threads to run a projector on. They end when this is dropped, outside of any runtime, with what
/// still runs there.
pub struct Threads {
    live: Runtime,
    builds: Runtime,
}

/// Where the tasks of a projector run.
#[derive(Clone)]
pub(super) struct Handles {
    pub(super) live: Handle,
    pub(super) builds: Handle,
}

impl Threads {
    /// Starts them.
    pub fn start() -> io::Result<Self> {
        Ok(Self { live: thread("projector", READ_MODELS)?, builds: thread("rebuild", BUILDS)? })
    }

    pub(super) fn handles(&self) -> Handles {
        Handles { live: self.live.handle().clone(), builds: self.builds.handle().clone() }
    }
}

impl Handles {
    /// The runtime that this is called in, for all.
    pub(super) fn here() -> Self {
        Self { live: Handle::current(), builds: Handle::current() }
    }
}

fn thread(name: &str, nice: i32) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    // The log's own reads go to further threads of the same priority.
    builder.worker_threads(1).thread_name(name).on_thread_start(move || step_back(nice)).enable_all();
    builder.build()
}
