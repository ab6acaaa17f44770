//! Priorities of threads.

/// The priority of what keeps read models up with the log, as `nice` counts it: a third of the usual
/// share. Whoever waits for a room's events waits for nothing else, and a read model that falls behind
/// catches up in larger batches. Not further back: at 10 it lags half as much again, and it writes
/// files, see [`step_back`].
pub(crate) const READ_MODELS: i32 = 5;

/// Lets all threads of a higher priority go before this one, from now on; 1 (a little) to 19 (as
/// far as it goes), as `nice` counts it. Never forward: the whole process may stand further back.
/// Only for what computes, mostly: who holds a lock, that of a file system's journal included, while
/// others go first holds up those who wait for it.
pub(crate) fn step_back(nice: i32) {
    // On Linux a priority is a thread's own, elsewhere it would be the whole process's.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        let this = Some(rustix::thread::gettid());
        let stepped = getpriority_process(this)
            .and_then(|now| if now < nice { setpriority_process(this, nice) } else { Ok(()) });
        if let Err(error) = stepped {
            tracing::debug!(%error, "a thread keeps its priority");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}
