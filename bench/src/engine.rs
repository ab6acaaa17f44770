//! The log under measurement, opened as the server opens it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use dramatis::clock::SystemClock;
use dramatis::log::embedded::{EmbeddedLog, Options};

/// Opens the embedded log in a directory, with the settings it has by default.
pub(crate) fn open(dir: &Path) -> anyhow::Result<Arc<EmbeddedLog>> {
    let log = EmbeddedLog::open(dir, Options::default(), Arc::new(SystemClock));
    Ok(Arc::new(log.with_context(|| format!("the log in {} does not open", dir.display()))?))
}
