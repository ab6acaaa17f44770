//! A log as this format's first version wrote it, kept for ever: it must open, read the same, and
//! go on. A later format adds a folder of its own and leaves this one as it is.

use std::path::PathBuf;

use super::*;
use crate::log::Expected;
use crate::log::contract::{append, command, event, everything, of_command, stream};

const PAGE: ReadLimit = ReadLimit { events: 1_000, bytes: usize::MAX };

fn golden(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/log/embedded/tests/golden/v{version}"))
}

/// Every optional field is there once and missing once.
fn envelopes(number: u64) -> Vec<dramatis_events::Envelope> {
    let mut plain = event("RoomOpened", format!(r#"{{"title":"{number}"}}"#));
    if number.is_multiple_of(3) {
        plain.occurred_at = Some(dramatis_events::UnixMillis::new(1_000_000_000_000));
        plain.correlation_id = Some(plain.id);
    }
    if number.is_multiple_of(4) {
        plain.causation_id = Some(plain.id);
        plain.subject = Some(dramatis_events::UserId::parse("alice").unwrap());
    }
    vec![plain, of_command("persona:muse", &format!("c{number}"))]
}

/// Writes the folder of a new version; one that is there is never written again.
async fn write(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let log = open(dir, tiny()).unwrap();
    for number in 0..24 {
        let room = stream(&format!("room-main.{}", number % 3));
        append(&log, &room, Expected::Any, envelopes(number)).await.unwrap();
    }
    let events = everything(&log, &Filter::default(), PAGE).await;
    let lines: Vec<_> = events.iter().map(|event| serde_json::to_string(&**event).unwrap()).collect();
    drop(log);
    std::fs::write(dir.join("events.ndjson"), lines.join("\n") + "\n").unwrap();
    std::fs::remove_file(dir.join("LOCK")).unwrap();
}

#[tokio::test]
async fn a_log_of_every_version_opens_and_goes_on() {
    let newest = golden(u32::from(format::VERSION));
    if !newest.exists() {
        write(&newest).await;
        panic!("{} was written: look at it, and keep it", newest.display());
    }
    for version in 1..=u32::from(format::VERSION) {
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(golden(version)).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join("events.ndjson")).unwrap();
        let expected: Vec<Recorded> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let room = stream("room-main.1");
        for added in 0..2 {
            let log = open(dir.path(), tiny()).unwrap();
            let events = everything(&log, &Filter::default(), PAGE).await;
            assert!(events.iter().map(|event| &**event).take(48).eq(&expected), "version {version}");
            assert_eq!(events.len(), 48 + 2 * added);
            let outcome = log.find_command(command(&room, "persona:muse", "c1")).await.unwrap().unwrap();
            assert_eq!(outcome.revision, Revision::new(1));
            append(&log, &room, Expected::Exact(Revision::new(15 + 2 * added as u64)), envelopes(99))
                .await
                .unwrap();
        }
    }
}
