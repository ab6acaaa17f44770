//! Documents that no store can hold, and times.

use dramatis_events::room::RoomEvent;
use serde::Deserialize;

use super::testing::{document, history};
use super::*;

/// The mean length of what was said, as a newcomer writes it.
#[derive(Serialize, Deserialize)]
struct Mean {
    said: u64,
    characters: f64,
}

struct Means;

impl Projection for Means {
    const NAME: &'static str = "means";
    const VERSION: u32 = 1;
    const KEY: &'static [KeyPart] = &[];
    const EVENTS: &'static [&'static str] = &["MessagePosted"];
    const INDEXES: &'static [Index] = &[];
    type Event = RoomEvent;
    type Document = Mean;

    fn keys(recorded: &Recorded, _: &RoomEvent, keys: &mut Vec<String>) {
        keys.push(recorded.stream.to_string());
    }

    fn fold(document: &mut Option<Mean>, _: &Recorded, _: &RoomEvent) -> Result<(), FoldError> {
        document.get_or_insert(Mean { said: 0, characters: 2.5 }).said += 1;
        Ok(())
    }
}

#[test]
fn what_no_store_can_hold_fails_its_own_test() {
    let said = history(r#"alice MessagePosted {"kind":"text","text":"hello"}"#);
    let refused = document::<Means>("room-main.lobby", &said).unwrap_err();
    assert!(refused.to_string().contains("no floats"), "{refused}");
}

#[test]
fn a_time_beyond_what_a_document_holds_is_none() {
    let said = history(r#"alice MessagePosted {"kind":"text","text":"hello"}"#);
    for (occurred_at, expected) in [(-5, -5), (1 << 53, 1 << 53), ((1 << 53) + 1, 1_000), (i64::MIN, 1_000)] {
        let mut said = said[0].clone();
        said.envelope.occurred_at = Some(UnixMillis::new(occurred_at));
        assert_eq!(happened_at(&said), UnixMillis::new(expected));
    }
}
