//! Documents with a long past.

use super::*;
use crate::projector::history::Asked;

#[tokio::test]
async fn a_document_with_too_long_a_past_is_not_folded_for_one_answer() {
    let place = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&place));
    let text = "x".repeat(1024 * 1024);
    for _ in 0..65 {
        log.write(&format!(r#"lobby alice MessageEdited {{"target":3,"text":"{text}"}}"#));
    }
    let (shared, timeline) = (shared(&log, &store, 2), dramatis_projections::named("timeline").unwrap());
    let key = "room-main.lobby/00000000000000000003";
    let past = |at: usize| {
        let as_of = AsOf::Position(log.all()[at].position);
        history::past(&shared, timeline, key, as_of)
    };
    assert!(past(1).await.is_ok());
    assert!(matches!(past(64).await, Err(AdminError::TooMuch { .. })), "64 MiB are the most");
}

#[tokio::test]
async fn of_a_long_history_it_is_told_what_was_found_and_where_to_go_on() {
    let place = Place::new();
    let (log, store) = (ScriptedLog::new(EPOCH), store(&place));
    log.write("lobby alice RoomOpened {\"title\":\"Lobby\",\"owner\":\"alice\"}");
    for number in 1..=40 {
        log.write(&format!(r#"lobby alice MessagePosted {{"kind":"text","text":"{number}"}}"#));
    }
    log.write(r#"lobby alice MessageEdited {"target":1,"text":"one"}"#);
    log.write(r#"lobby alice MessageEdited {"target":30,"text":"thirty"}"#);
    let (shared, timeline) = (shared(&log, &store, 2), dramatis_projections::named("timeline").unwrap());
    let told = async |key: &str| {
        let (mut after, mut revisions, mut pages) = (None, Vec::new(), 0);
        loop {
            let asked = Asked { key, after, limit: 9, events_max: 10 };
            let Causes { events, next } = history::causes_past(&shared, timeline, asked).await.unwrap();
            revisions.extend(events.iter().map(|cause| cause.recorded.revision.get()));
            pages += 1;
            after = next;
            if after.is_none() {
                return (revisions, pages);
            }
        }
    };
    // Of 43 events those from the first message on are read, ten for a page; the last page finds the end.
    assert_eq!(told("room-main.lobby/00000000000000000001").await, (vec![1, 41], 5));
    assert_eq!(
        told("room-main.lobby/00000000000000000030").await,
        (vec![30, 42], 2),
        "those before it are not read"
    );
    assert_eq!(told("room-main.lobby/00000000000000000043").await, (vec![], 1));
}
