//! `dramatis log repair`.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::progress::Progress;
use crate::cli::{Failure, output};
use crate::clock::{Clock as _, SystemClock};
use crate::log::embedded::offline::{self, Place, Repair};

/// Runs the subcommand.
pub(super) fn run(place: &Place, cut: bool) -> anyhow::Result<()> {
    let mut progress = Progress::new(true);
    let folder = folder();
    let repair = if cut {
        offline::cut(place, &folder, SystemClock.now(), &mut progress)
    } else {
        offline::plan(place, &mut progress)
    };
    progress.finish();
    let repair = repair?;
    output::report(&text(&repair, cut.then_some(folder.as_str())));
    if repair.is_needed() && !cut {
        return Err(Failure::Damage { places: 1 }.into());
    }
    Ok(())
}

/// A name that sorts by time.
fn folder() -> String {
    jiff::Timestamp::now().to_zoned(TimeZone::UTC).strftime("cut-%Y%m%dT%H%M%S%3fZ").to_string()
}

fn text(repair: &Repair, folder: Option<&str>) -> String {
    let mut text = String::new();
    let done = folder.is_some();
    let say = |what: &'static str, would: &'static str| if done { what } else { would };
    // Writing to a String cannot fail.
    for (name, end) in &repair.stray {
        let what = say("removed", "would remove");
        let _ =
            writeln!(text, "{what} what stands behind the end of {name} at byte {end}: no event is in it");
    }
    if repair.epoch_lost {
        let _ = writeln!(
            text,
            "{} a new epoch: the segments tell the log's id, but not the last epoch that its file named",
            say("began", "would begin")
        );
    }
    if let Some(cut) = &repair.cut {
        let _ = writeln!(
            text,
            "{} {} from byte {} on: {}",
            say("cut", "would cut"),
            cut.file,
            cut.offset,
            cut.reason
        );
        for name in &cut.later {
            let _ = writeln!(text, "{} {name}", say("moved aside", "would move aside"));
        }
        let _ = match cut.next_position.saturating_sub(repair.kept) {
            0 => writeln!(text, "lost: events from position {} on; how many is not known", repair.kept),
            lost => writeln!(
                text,
                "lost: {lost} events from position {} on, of which {} read back; {} whole batches; {} bytes",
                repair.kept, cut.whole_events, cut.whole_batches, cut.bytes
            ),
        };
    } else {
        text.push_str("history reads back whole: nothing is to be cut\n");
    }
    if repair.unfinished && repair.cut.is_none() {
        text.push_str(
            "the unfinished tail needs no repair: opening the log cuts it, it was never acknowledged\n",
        );
    }
    let _ = writeln!(text, "kept: {} events, epoch {}", repair.kept, repair.epoch);
    if repair.chain_broken {
        text.push_str("the chain is broken and stays so: see `dramatis log reindex --help`\n");
    }
    match folder {
        None if repair.is_needed() => {
            text.push_str("nothing was changed: --cut does it, if there is no backup to restore\n");
        }
        Some(folder) if repair.cut.is_some() => {
            let _ = writeln!(
                text,
                "what was cut lies in {folder}; the new epoch tells clients and projections to start over"
            );
        }
        _ => {}
    }
    text
}
