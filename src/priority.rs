//! Priorities of threads.

/// Lets all threads of a higher priority go before this one, from now on; 1 (a little) to 19 (as
/// far as it goes), as `nice` counts it. Only for what computes: who holds a lock, that of a file
/// system's journal included, while others go first holds up those who wait for it.
pub(crate) fn step_back(nice: i32) {
    // On Linux a priority is a thread's own, elsewhere it would be the whole process's.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice) {
        tracing::debug!(%error, "a thread keeps the usual priority");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}
