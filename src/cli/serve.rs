//! `dramatis serve`: the composition root.

use crate::config::Config;

/// Runs the server until it is told to stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("nothing to serve on {} yet", config.server.listen)
}
