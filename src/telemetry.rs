//! What the process says about itself: log lines on standard error, so that standard output
//! stays free for results.

pub mod metrics;

use std::io::{self, IsTerminal as _, Stderr, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{TelemetryConfig, TelemetryFormat, directives};

/// What clients send wrong is answered, and no error of ours: whoever likes could fill the disk with
/// lines about it. Named in the directives it is logged again.
const UNLOGGED: &str = "actix_http::h1::dispatcher=off";

/// Sets up logging for the process. `RUST_LOG` overrides the configured level.
pub fn init(config: &TelemetryConfig) -> anyhow::Result<()> {
    let of_process = std::env::var("RUST_LOG").unwrap_or_default();
    let (name, written) = if of_process.trim().is_empty() {
        ("telemetry.level", config.level.as_str())
    } else {
        ("RUST_LOG", of_process.as_str())
    };
    let filter = directives(written).and_then(|read| EnvFilter::try_new(format!("{UNLOGGED},{read}")).ok());
    let filter = filter.ok_or_else(|| {
        anyhow::anyhow!(
            "{name} must be a level such as info, or directives such as info,dramatis::log=debug; got {written:?}"
        )
    })?;
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        TelemetryFormat::Auto => !terminal,
        TelemetryFormat::Text => false,
        TelemetryFormat::Json => true,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Forgiving(io::stderr()))
        .log_internal_errors(false);
    let set = if json {
        subscriber.json().flatten_event(true).try_init()
    } else {
        subscriber.with_ansi(terminal).try_init()
    };
    set.map_err(|error| anyhow::anyhow!("logging cannot be set up: {error}"))
}

/// Standard error, whose loss is nobody's: a log line that cannot be written, as the disk is full or
/// the reader of a pipe has gone, must not end what the process is there for.
struct Forgiving(Stderr);

impl Write for Forgiving {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            // Nor is any of it taken where nothing more fits.
            Err(_) | Ok(0) => Ok(bytes.len()),
            taken => taken,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}
