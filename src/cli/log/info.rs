//! `dramatis log info`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::documents;
use super::progress::Progress;
use crate::cli::{Failure, output};
use crate::clock::time_text;
use crate::log::embedded::offline::{self, Damage, Info, Place};

/// Runs the subcommand.
pub(super) fn run(place: &Place, full: bool, json: bool) -> anyhow::Result<()> {
    let mut progress = Progress::new(!json);
    let info = offline::info(place, full, &mut progress);
    progress.finish();
    let info = info?;
    let shown =
        output::show(&if json { format!("{}\n", document(&info, &progress.damage)) } else { text(&info) });
    match info.damaged {
        0 => shown,
        places => Err(Failure::Damage { places }.into()),
    }
}

fn text(info: &Info) -> String {
    let epoch = info.epoch.map_or_else(|| "unknown".to_owned(), |epoch| epoch.to_string());
    let mut text = format!(
        "epoch      {epoch}\nsegments   {}, {} of them cold, {} bytes\nevents     {}",
        info.segments, info.cold, info.bytes, info.events
    );
    // Writing to a String cannot fail.
    if let Some(last) = info.next_position.checked_sub(1) {
        let _ = write!(text, ", positions 0 to {last}");
    }
    if let Some((first, last)) = info.recorded {
        let _ = write!(text, "\nrecorded   {} to {}", time_text(first), time_text(last));
    }
    let streams = info.streams.map_or_else(|| "unknown".to_owned(), |streams| streams.to_string());
    let _ = writeln!(text, "\nstreams    {streams}");
    for (what, counts) in [("categories", &info.categories), ("names", &info.names)] {
        let shown: Vec<String> = counts
            .iter()
            .map(|(name, count)| count.map_or_else(|| name.clone(), |count| format!("{name} {count}")))
            .collect();
        let _ = writeln!(text, "{what:<10} {}", shown.join(", "));
    }
    if info.more_kinds {
        text.push_str("and more that the indexes do not name: --full counts them\n");
    }
    text
}

fn document(info: &Info, damage: &[Damage]) -> Value {
    json!({
        "epoch": info.epoch.map(|epoch| epoch.to_string()),
        "segments": info.segments,
        "cold_segments": info.cold,
        "bytes": info.bytes,
        "events": info.events,
        "streams": info.streams,
        "first_position": info.next_position.checked_sub(1).map(|_| "0"),
        "last_position": info.next_position.checked_sub(1).map(|last| last.to_string()),
        "first_recorded_at": info.recorded.map(|(first, _)| first.get()),
        "last_recorded_at": info.recorded.map(|(_, last)| last.get()),
        "categories": &info.categories,
        "names": &info.names,
        "all_names": !info.more_kinds,
        "damage": documents(damage),
    })
}
