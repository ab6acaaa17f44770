//! `dramatis log verify`.

use serde_json::{Value, json};

use super::documents;
use super::progress::Progress;
use crate::cli::{Failure, output};
use crate::log::embedded::offline::{self, Damage, Place, Verified};

/// Runs the subcommand.
pub(super) fn run(place: &Place, json: bool) -> anyhow::Result<()> {
    let mut progress = Progress::new(!json);
    let verified = offline::verify(place, &mut progress);
    progress.finish();
    let verified = verified?;
    let shown = output::show(&if json {
        format!("{}\n", document(&verified, &progress.damage, &progress.notes))
    } else {
        text(&verified)
    });
    match verified.damaged {
        0 => shown,
        places => Err(Failure::Damage { places }.into()),
    }
}

fn text(verified: &Verified) -> String {
    let Verified { segments, cold, bytes, batches, events, indexes, hashes, .. } = verified;
    let epoch = verified.epoch.map_or_else(|| "unknown".to_owned(), |epoch| epoch.to_string());
    let range = match verified.next_position.checked_sub(1) {
        Some(last) => format!(", the last at position {last}"),
        None => String::new(),
    };
    let closed = segments.saturating_sub(1);
    let damaged = match verified.damaged {
        0 => "nothing".to_owned(),
        1 => "1 place".to_owned(),
        places => format!("{places} places"),
    };
    let link = verified.link.as_deref().unwrap_or("broken");
    format!(
        "epoch    {epoch}\nsegments {segments}, {cold} of them cold, {bytes} bytes\n\
         events   {events} in {batches} batches read back{range}\nindexes  {indexes} of {closed} agree\n\
         hashes   {hashes} of {closed} agree\nlink     {link}\ndamaged  {damaged}\n"
    )
}

fn document(verified: &Verified, damage: &[Damage], notes: &[String]) -> Value {
    json!({
        "epoch": verified.epoch.map(|epoch| epoch.to_string()),
        "segments": verified.segments,
        "cold_segments": verified.cold,
        "bytes": verified.bytes,
        "batches": verified.batches,
        "events": verified.events,
        "last_position": verified.next_position.checked_sub(1).map(|last| last.to_string()),
        "indexes": verified.indexes,
        "hashes": verified.hashes,
        "link": verified.link,
        "damage": documents(damage),
        "notes": notes,
    })
}
