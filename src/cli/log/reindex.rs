//! `dramatis log reindex`.

use std::fmt::Write as _;

use super::progress::Progress;
use crate::cli::{Failure, output};
use crate::log::embedded::offline::{self, Place, Reindexed};

/// Runs the subcommand.
pub(super) fn run(place: &Place, accept_chain: bool) -> anyhow::Result<()> {
    let mut progress = Progress::new(true);
    let done = offline::reindex(place, accept_chain, &mut progress);
    progress.finish();
    let done = done?;
    output::report(&text(&done));
    match done.damaged + u64::from(done.refused.is_some()) {
        0 => Ok(()),
        places => Err(Failure::Damage { places }.into()),
    }
}

fn text(done: &Reindexed) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for name in &done.removed {
        let _ = writeln!(text, "removed  {name}, which belonged to no closed segment");
    }
    for name in &done.indexes {
        let _ = writeln!(text, "built    {name}");
    }
    if let Some(from) = done.accepted {
        let kept = done.kept.as_ref().map(|file| format!("; the old file is {file}")).unwrap_or_default();
        let _ = writeln!(text, "accepted the chain as the segments give it from position {from} on{kept}");
    }
    for name in &done.lines {
        let _ = writeln!(text, "chained  {name}");
    }
    if let Some(reason) = &done.refused {
        let _ = writeln!(
            text,
            "DAMAGED  chain: {reason}. It is left as it is: --accept-chain writes it anew, once every segment \
             reads back"
        );
    }
    let _ = writeln!(
        text,
        "closed   {} segments, {} indexes built, {} lines added to the chain",
        done.closed,
        done.indexes.len(),
        done.lines.len()
    );
    text
}
