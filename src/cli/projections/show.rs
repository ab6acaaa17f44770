//! What the server says about read models, as people read it.

use serde_json::Value;

/// The columns of the list: the field of the answer is the heading.
const COLUMNS: [&str; 10] =
    ["name", "version", "build", "position", "head", "lag_events", "lag_ms", "state", "documents", "parked"];
/// The columns of the dead letters.
const LETTER_COLUMNS: [&str; 4] = ["position", "event", "key", "error"];

/// JSON over lines.
pub(super) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A value without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A field as text; `-` if there is none.
fn field(row: &Value, name: &str) -> String {
    match row.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(value) => plain(value),
    }
}

fn table(rows: &[Value], columns: &[&str]) -> String {
    let mut lines = vec![columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| field(row, column)).collect()));
    let width =
        |index: usize| lines.iter().filter_map(|line| line.get(index)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|index| width(index).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The projections, and below them what needs an admin's eye.
pub(super) fn list(standings: &Value) -> String {
    let mut text = table(rows(standings), &COLUMNS);
    for standing in rows(standings) {
        let name = field(standing, "name");
        if let Some(error) = standing.get("error").and_then(Value::as_str) {
            text.extend([name.as_str(), ": ", error, "\n"]);
        }
        let active = |state: &str| matches!(state, "building" | "proving" | "paused" | "differs");
        if let Some(one) = standing.get("job").filter(|one| active(&field(one, "state"))) {
            text.push_str(&job_line(&name, one));
            if let Some(difference) = one.get("difference") {
                let (name, count) = (name.as_str(), how_many(difference));
                text.extend([name, ": ", &count, ", as `dramatis projections watch ", name, "` shows\n"]);
            }
            if let Some(parked) = one.get("parked") {
                text.extend([name.as_str(), ": ", &are_parked(parked), "\n"]);
            }
        }
        for build in rows(standing.get("kept").unwrap_or(&Value::Null)) {
            text.push_str(&kept(&name, build));
        }
    }
    text
}

/// A build that stays for a while.
fn kept(name: &str, kept: &Value) -> String {
    let at = kept.get("drop_at").and_then(Value::as_i64);
    let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let at = at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
    let what = match kept.get("as_of") {
        None => "was live before and".to_owned(),
        Some(_) => format!("shows position {} and", field(kept, "as_of")),
    };
    format!("{name}: {} {what} is kept until {at}\n", field(kept, "build"))
}

/// A build that is there no more.
pub(super) fn dropped(name: &str, kept: &Value) -> String {
    format!("{name}: {}, which showed position {}, is dropped\n", field(kept, "build"), field(kept, "as_of"))
}

/// So many of something that has an `s` if they are several.
fn several(number: &str, what: &str) -> String {
    if number == "1" { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// One line of a build's progress.
pub(super) fn progress(job: &Value) -> String {
    let seconds = |ms: u64| format!(", {}.{} s left", ms / 1_000, ms % 1_000 / 100);
    let eta = job.get("eta_ms").and_then(Value::as_u64).map(seconds).unwrap_or_default();
    format!(
        "{}: position {} of {}, {} events/s, {} written{eta}",
        field(job, "state"),
        field(job, "position"),
        field(job, "target"),
        field(job, "events_per_second"),
        several(&field(job, "documents_written"), "document"),
    )
}

/// How a build stands or ended, and how it differs.
pub(super) fn job(name: &str, job: &Value) -> String {
    let difference = job.get("difference").map(difference);
    job_line(name, job) + &difference.unwrap_or_default() + &parked(job)
}

fn are_parked(parked: &Value) -> String {
    match field(parked, "keys").as_str() {
        "1" => "1 key is parked in it".to_owned(),
        keys => format!("{keys} keys are parked in it"),
    }
}

/// Which keys a build has parked, and why.
fn parked(job: &Value) -> String {
    let Some(parked) = job.get("parked") else { return String::new() };
    let mut text = format!("{}; what came later is missing:\n", are_parked(parked));
    for key in rows(parked.get("shown").unwrap_or(&Value::Null)) {
        let (name, position, error) = (field(key, "key"), field(key, "position"), field(key, "error"));
        text.extend(["  ", &name, " from position ", &position, " on: ", &error, "\n"]);
    }
    text
}

fn job_line(name: &str, job: &Value) -> String {
    let (build, state) = (field(job, "build"), field(job, "state"));
    let completion = job.get("completion").map(|completion| {
        format!(
            "{} at position {}, digest {}",
            several(&field(completion, "documents"), "document"),
            field(completion, "position"),
            field(completion, "digest")
        )
    });
    let completion = completion.unwrap_or_default();
    match (field(job, "purpose").as_str(), state.as_str()) {
        ("rebuild", "done") => format!("{name} is rebuilt and {build} is live: {completion}\n"),
        ("verify", "done") => {
            let frozen = job.get("compared_frozen") == Some(&Value::Bool(true));
            let frozen = if frozen { ", as far as its live build goes, which is frozen there" } else { "" };
            match job.get("difference") {
                None => format!("{name} is what the log says{frozen}: {completion}\n"),
                Some(_) => format!("{name} is not what the log says{frozen}: a new build has {completion}\n"),
            }
        }
        ("as_of", "done") => {
            format!("{name} as of position {} is {build}: {completion}\n", field(job, "as_of"))
        }
        (_, "building") if matches!(job.get("position"), None | Some(Value::Null)) => {
            format!("{name}: {build} is begun\n")
        }
        (_, "paused") => format!(
            "{name}: {build} is paused at position {}; `dramatis projections resume {name}` goes on\n",
            field(job, "position")
        ),
        (_, "building" | "proving") => {
            format!("{name}: {build} is {} %, {}\n", field(job, "percent"), progress(job))
        }
        (_, "differs") => format!(
            "{name}: {build} is complete and differs from the live build; nothing was switched. \
             `dramatis projections accept {name}` switches, `cancel` drops it\n"
        ),
        (_, state) => format!("{name}: {build} is {state}\n"),
    }
}

fn how_many(difference: &Value) -> String {
    let documents = match field(difference, "documents").as_str() {
        "1" => "1 document differs".to_owned(),
        documents => format!("{documents} documents differ"),
    };
    let parked = match field(difference, "parked").as_str() {
        "-" | "0" => return documents,
        "1" => "1 key is not parked alike".to_owned(),
        keys => format!("{keys} keys are not parked alike"),
    };
    if documents.starts_with("0 ") { parked } else { format!("{documents}, {parked}") }
}

/// Which documents differ, and how.
fn difference(difference: &Value) -> String {
    let shown = rows(difference.get("shown").unwrap_or(&Value::Null));
    let mut text = how_many(difference);
    let parked = rows(difference.get("parked_shown").unwrap_or(&Value::Null));
    text.push_str(if shown.is_empty() && parked.is_empty() { "\n" } else { ", among them:\n" });
    for document in shown {
        let fields: Vec<_> = rows(document.get("fields").unwrap_or(&Value::Null)).iter().map(plain).collect();
        let fields = if fields.is_empty() { String::new() } else { format!(" in {}", fields.join(", ")) };
        let both = format!(
            "  {}{fields}\n    live {:>8}  {}\n    new  {:>8}  {}\n",
            field(document, "key"),
            field(document, "live_position"),
            field(document, "live"),
            field(document, "new_position"),
            field(document, "new"),
        );
        text.push_str(&both);
    }
    for key in parked {
        let (live, new) = (field(key, "live"), field(key, "new"));
        text.extend([
            "  ",
            &field(key, "key"),
            " is parked from position ",
            &live,
            " on in the live build, from ",
        ]);
        text.extend([new.as_str(), " on in the new one\n"]);
    }
    text
}

/// Why later events are not in a document.
pub(super) fn waits(parked: &Value) -> String {
    let (position, error) = (field(parked, "position"), field(parked, "error"));
    format!("it waits from position {position} on, and nothing later is in it: {error}")
}

/// The parked keys.
pub(super) fn dead_letters(letters: &Value) -> String {
    if rows(letters).is_empty() {
        "nothing is parked\n".to_owned()
    } else {
        table(rows(letters), &LETTER_COLUMNS)
    }
}

/// What came of trying a key again.
pub(super) fn mended(mended: &Value) -> String {
    let (key, events) = (field(mended, "key"), field(mended, "events"));
    match mended.get("parked") {
        None => format!("{key} goes on: folded {} that waited\n", several(&events, "event")),
        Some(_) => {
            format!("{key}: folded {} that waited, then it was parked again\n", several(&events, "event"))
        }
    }
}

/// What leaving an event out means.
pub(super) fn skipped(name: &str) -> String {
    format!(
        "the event is left out of later builds of {name}, too, in this store and history; in another it is to be \
         skipped again. `dramatis projections verify {name}` tells whether \
         the live build is what a new one shows then; `rebuild` builds it anew\n"
    )
}

/// That the way back was taken.
pub(super) fn rolled_back(name: &str, back: &Value) -> String {
    format!("{name}: {} is live again instead of {}\n", field(back, "to"), field(back, "from"))
}

/// One event that made a document what it is.
pub(super) fn cause(event: &Value) -> String {
    let mut text = format!(
        "{}  {}@{}  {} by {}  {}",
        field(event, "position"),
        field(event, "stream"),
        field(event, "revision"),
        field(event, "name"),
        field(event, "author"),
        field(event, "data"),
    );
    if event.get("skipped").is_some() {
        text.push_str("  (skipped)");
    }
    if let Some(why) = event.get("unreadable").and_then(Value::as_str) {
        text.extend(["  (cannot be read: ", why, ")"]);
    }
    text.push('\n');
    text
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_is_a_table_and_what_needs_an_eye() {
        let rows = json!([
            {"name": "timeline", "version": 1, "build": "timeline@1", "position": "41", "head": "42", "state": "live",
             "lag_events": 1, "lag_ms": 20, "documents": 1_234, "parked": 0},
            {"name": "members", "position": null, "parked": 2, "state": "frozen", "error": "it is of version 1",
             "kept": [{"build": "members@1", "drop_at": 1_700_000_000_123_i64, "warm_until": 1},
                      {"build": "members@3", "as_of": "7", "drop_at": 1_700_000_000_000_i64}],
             "job": {"build": "members@2", "state": "differs", "purpose": "rebuild",
                     "difference": {"documents": 1, "shown": [{"key": "room-main.a"}]}}},
        ]);
        insta::assert_snapshot!(list(&rows), @r#"
        name      version  build       position  head  lag_events  lag_ms  state   documents  parked
        timeline  1        timeline@1  41        42    1           20      live    1234       0
        members   -        -           -         -     -           -       frozen  -          2
        members: it is of version 1
        members: members@2 is complete and differs from the live build; nothing was switched. `dramatis projections accept members` switches, `cancel` drops it
        members: 1 document differs, as `dramatis projections watch members` shows
        members: members@1 was live before and is kept until 2023-11-14T22:13:20Z
        members: members@3 shows position 7 and is kept until 2023-11-14T22:13:20Z
        "#);
    }

    #[test]
    fn builds_are_told_as_they_ended() {
        let completion = json!({"position": "9", "documents": 3, "digest": "ab"});
        let difference = json!({"documents": 2, "shown": [
            {"key": "room-main.a", "fields": ["title"], "live": "{\"title\":\"a\"}", "new": "{\"title\":\"b\"}",
             "live_position": "3", "new_position": "3"},
            {"key": "room-main.b", "fields": [], "live": null, "new": "{}", "live_position": null, "new_position": "4"},
        ]});
        let jobs = [
            json!({"build": "rooms@2", "purpose": "rebuild", "state": "building", "percent": 40, "position": "4",
                   "target": "9", "events_per_second": 100, "documents_written": 5, "eta_ms": 1_250}),
            json!({"build": "rooms@2", "purpose": "rebuild", "state": "done", "completion": completion}),
            json!({"build": "rooms@2", "purpose": "rebuild", "state": "differs", "difference": difference}),
            json!({"build": "rooms@2", "purpose": "verify", "state": "done", "completion": completion}),
            json!({"build": "rooms@2", "purpose": "as_of", "as_of": "9", "state": "done", "completion": completion}),
            json!({"build": "rooms@2", "purpose": "rebuild", "state": "building", "position": null}),
            json!({"build": "rooms@2", "purpose": "rebuild", "state": "paused", "position": "5"}),
            json!({"build": "rooms@2", "purpose": "verify", "state": "done", "completion": completion,
                   "compared_frozen": true,
                   "parked": {"keys": 1, "shown": [{"key": "room-main.c", "position": "7", "error": "out of place"}]}}),
        ];
        let told: String = jobs.iter().map(|one| job("rooms", one)).collect();
        insta::assert_snapshot!(told, @r#"
        rooms: rooms@2 is 40 %, building: position 4 of 9, 100 events/s, 5 documents written, 1.2 s left
        rooms is rebuilt and rooms@2 is live: 3 documents at position 9, digest ab
        rooms: rooms@2 is complete and differs from the live build; nothing was switched. `dramatis projections accept rooms` switches, `cancel` drops it
        2 documents differ, among them:
          room-main.a in title
            live        3  {"title":"a"}
            new         3  {"title":"b"}
          room-main.b
            live        -  -
            new         4  {}
        rooms is what the log says: 3 documents at position 9, digest ab
        rooms as of position 9 is rooms@2: 3 documents at position 9, digest ab
        rooms: rooms@2 is begun
        rooms: rooms@2 is paused at position 5; `dramatis projections resume rooms` goes on
        rooms is what the log says, as far as its live build goes, which is frozen there: 3 documents at position 9, digest ab
        1 key is parked in it; what came later is missing:
          room-main.c from position 7 on: out of place
        "#);
    }
}
