//! The signals that end the process: SIGTERM, SIGINT, and SIGHUP unless whoever started it has that
//! ignored, as `nohup` does.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::EXIT_CUT_SHORT;

/// Signals that come so soon after the first are the same wish: supervisors often tell a process, and
/// then its group.
const SAME_WISH: Duration = Duration::from_secs(1);

/// See the module. They are heard from the making of this on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
    /// When the first one came.
    came: Option<Instant>,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: (!hang_up_is_ignored()).then(|| signal(SignalKind::hangup())).transpose()?,
            came: None,
        })
    }

    /// Whether the process is to end.
    pub(super) fn came(&self) -> bool {
        self.came.is_some()
    }

    /// Waits for the first one, if it has not come.
    pub(super) async fn first(&mut self) {
        if self.came.is_none() {
            self.next().await;
            self.came = Some(Instant::now());
        }
    }

    /// Does that work to its end. A first signal is noted meanwhile; another one ends the process.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.next() => match self.came {
                    None => self.came = Some(Instant::now()),
                    Some(first) if first.elapsed() < SAME_WISH => {}
                    Some(_) => {
                        tracing::warn!("ending at once: another signal came");
                        std::process::exit(EXIT_CUT_SHORT);
                    }
                },
            }
        }
    }

    async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// Whether the process was started with SIGHUP ignored; taken for so where the system does not tell.
fn hang_up_is_ignored() -> bool {
    let ignored = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    // SIGHUP is number 1, the lowest bit.
    ignored.is_none_or(|mask| mask & 1 == 1)
}
