//! Server and driver on cores of their own, where the machine has two and `taskset`.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// The server's core.
const SERVER_CORE: &str = "0";
/// The driver's core.
const DRIVER_CORE: &str = "1";

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pinning {
    /// Server on core 0, driver on core 1.
    Apart,
    /// Wherever the system puts them.
    None,
}

impl Pinning {
    /// Moves this process to the driver's core if that can be done. To be called before any
    /// thread is started: threads inherit it.
    pub(crate) fn take(wanted: bool) -> Self {
        if !wanted || super::report::cores() < 2 {
            return Self::None;
        }
        let own = std::process::id().to_string();
        let moved = Command::new("taskset")
            .args(["-a", "-c", "-p", DRIVER_CORE, &own])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if moved.is_ok_and(|status| status.success()) { Self::Apart } else { Self::None }
    }

    /// A command for the server's core.
    pub(crate) fn server_command(self, program: &OsStr) -> Command {
        match self {
            Self::Apart => {
                let mut command = Command::new("taskset");
                command.args(["-c", SERVER_CORE]).arg(program);
                command
            }
            Self::None => Command::new(program),
        }
    }

    /// As a condition.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Apart => "server on core 0, driver on core 1".to_owned(),
            Self::None => "none".to_owned(),
        }
    }
}
