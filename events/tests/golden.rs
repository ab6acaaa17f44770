//! What was ever recorded decodes for ever.
//!
//! `golden/` holds recordings of every event at every schema version, as an export writes them.
//! A line is never edited: a new schema version gets new lines, and the old ones must still be
//! read. What this release cannot read it refuses in words, it does not skip it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::collections::BTreeSet;
use std::fmt::Debug;

use dramatis_events::room::{MessagePosted, RoomEvent};
use dramatis_events::user::UserEvent;
use dramatis_events::{Event, Personal, Recorded};
use serde_json::{Value, json};

const ROOM: &[&str] = &[include_str!("../golden/room.v1.ndjson")];
const USER: &[&str] = &[include_str!("../golden/user.v1.ndjson")];

fn lines(files: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    files.iter().flat_map(|file| file.lines())
}

fn read(line: &str) -> Recorded {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// Reads a golden line after changing its JSON.
fn refusal_of<E: Event + Debug>(line: &str, change: impl Fn(&mut Value)) -> String {
    let mut json: Value = serde_json::from_str(line).unwrap();
    change(&mut json);
    let recorded = read(&json.to_string());
    E::from_envelope(&recorded.envelope).unwrap_err().to_string()
}

/// The same of this one of the room's lines.
fn refusal(line: usize, change: impl Fn(&mut Value)) -> String {
    refusal_of::<RoomEvent>(lines(ROOM).nth(line).unwrap(), change)
}

fn decodes_and_is_written_the_same<E: Event>(files: &'static [&'static str]) {
    for line in lines(files) {
        let before: Value = serde_json::from_str(line).unwrap();
        let mut recorded = read(line);
        let event = E::from_envelope(&recorded.envelope).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(recorded.stream.category(), E::CATEGORY);
        assert_eq!(event.name(), recorded.envelope.name.as_str());
        if recorded.envelope.version == event.version() {
            recorded.envelope.data = event.encode().unwrap();
        }
        assert_eq!(serde_json::to_value(&recorded).unwrap(), before, "{line}");
        let again = read(&serde_json::to_string(&recorded).unwrap());
        assert_eq!(again, recorded, "{line}");
    }
}

#[test]
fn every_recording_decodes_and_is_written_the_same() {
    decodes_and_is_written_the_same::<RoomEvent>(ROOM);
    decodes_and_is_written_the_same::<UserEvent>(USER);
}

fn has_a_recording_of_every_version<E: Event>(files: &'static [&'static str]) {
    let recorded: BTreeSet<(String, u16)> = lines(files)
        .map(|line| read(line).envelope)
        .map(|event| (event.name.as_str().to_owned(), event.version))
        .collect();
    let expected: BTreeSet<(String, u16)> = E::NAMES
        .iter()
        .flat_map(|(name, newest)| (1..=*newest).map(|version| ((*name).to_owned(), version)))
        .collect();
    assert_eq!(recorded, expected);
}

#[test]
fn every_event_has_a_recording_of_every_version() {
    has_a_recording_of_every_version::<RoomEvent>(ROOM);
    has_a_recording_of_every_version::<UserEvent>(USER);
}

#[test]
fn the_recordings_show_every_optional_part() {
    let all: Vec<Recorded> = lines(ROOM).map(read).collect();
    assert!(all.iter().any(|event| event.envelope.command.is_none()));
    assert!(all.iter().any(|event| event.envelope.occurred_at.is_some()));
    assert!(all.iter().any(|event| event.envelope.subject.is_some()));
    assert!(all.iter().any(|event| event.envelope.causation_id.is_some()));
    let sealed = |event: &Recorded| {
        matches!(
            RoomEvent::from_envelope(&event.envelope).unwrap(),
            RoomEvent::MessagePosted(MessagePosted { text: Personal::Sealed { .. }, .. })
        )
    };
    assert!(all.iter().any(sealed));
}

#[test]
fn what_a_newer_release_wrote_is_refused_in_words() {
    let unknown = refusal(3, |json| json["name"] = json!("MessageSung"));
    assert!(unknown.contains("MessageSung") && unknown.contains("upgrade"), "{unknown}");
    let newer = refusal(3, |json| json["version"] = json!(2));
    assert!(newer.contains("MessagePosted has schema version 2, this release reads 1 to 1"), "{newer}");
    let zero = refusal(3, |json| json["version"] = json!(0));
    assert!(zero.contains("schema version 0"), "{zero}");
    let field = refusal(3, |json| json["data"]["mood"] = json!("glad"));
    assert!(field.contains("MessagePosted") && field.contains("unknown field `mood`"), "{field}");
    let missing = refusal(0, |json| json["data"] = json!({"title": "Lobby"}));
    assert!(missing.contains("RoomOpened") && missing.contains("missing field `owner`"), "{missing}");
}

#[test]
fn no_payload_of_any_event_takes_an_unknown_field() {
    let moody = |json: &mut Value| json["data"]["mood"] = json!("glad");
    let of_rooms = lines(ROOM).map(|line| refusal_of::<RoomEvent>(line, moody));
    let of_users = lines(USER).map(|line| refusal_of::<UserEvent>(line, moody));
    for refused in of_rooms.chain(of_users) {
        assert!(refused.contains("unknown field `mood`"), "{refused}");
    }
}

#[test]
fn half_a_command_stamp_is_refused() {
    let mut json: Value = serde_json::from_str(lines(ROOM).next().unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("command_hash");
    let refused = serde_json::from_value::<Recorded>(json).unwrap_err().to_string();
    assert!(refused.contains("command_id and command_hash must stand together"), "{refused}");
}
