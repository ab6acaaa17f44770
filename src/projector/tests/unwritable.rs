//! Documents that no store can hold as they are: numbers too large, and what is too long.

use dramatis_projections::{FoldError, Room, Rooms};

use super::*;

rooms_folded!(
    /// The fold of rooms, in which eve counts further than stores do.
    Counting,
    Rooms::VERSION,
    |document: &mut Option<Room>, recorded: &Recorded, event: &RoomEvent| {
        Rooms::fold(document, recorded, event)?;
        if let Some(room) = document.as_mut().filter(|_| recorded.envelope.author.as_str() == "eve") {
            room.message_count = u64::MAX;
        }
        Ok::<_, FoldError>(())
    }
);

rooms_folded!(
    /// The fold of rooms, in which what eve does makes a room longer than documents may be.
    Growing,
    Rooms::VERSION,
    |document: &mut Option<Room>, recorded: &Recorded, event: &RoomEvent| {
        Rooms::fold(document, recorded, event)?;
        if let Some(room) = document.as_mut().filter(|_| recorded.envelope.author.as_str() == "eve") {
            room.title = "x".repeat(2 * 1024 * 1024);
        }
        Ok::<_, FoldError>(())
    }
);

#[tokio::test]
async fn a_number_too_large_parks_its_key_at_the_event_and_the_others_go_on() {
    parked_alone(&Counting, "beyond 2^53").await;
}

#[tokio::test]
async fn a_document_too_long_parks_its_key_at_the_event_and_the_others_go_on() {
    parked_alone(&Growing, "may take 2097152").await;
}

async fn parked_alone(fold: &'static dyn DynProjection, why: &str) {
    let mut dumps = Vec::new();
    for page in [1, 2, 3, 100] {
        let folder = Place::new();
        let (log, store) = (ScriptedLog::new(EPOCH), store(&folder));
        log.write(STORY);
        let eve = log.write(r#"lobby eve MessagePosted {"kind":"text","text":"one more"}"#);
        let position = log.write(
            r#"lobby alice MessagePosted {"kind":"text","text":"waits"}
               den bob MessagePosted {"kind":"text","text":"goes on"}"#,
        );
        let start = || {
            let (log, store, clock) = (log.clone(), store.clone(), Arc::new(SystemClock));
            Projector::start_these(&[fold], log, store, clock, options(page), Handles::here())
        };
        let projector = start();
        projector.wait_for("rooms", position, LONG).await.unwrap();
        let letters = projector.dead_letters("rooms").await.unwrap();
        let letter = &letters[0];
        assert_eq!((letters.len(), letter.key.as_str(), letter.position), (1, "room-main.lobby", eve));
        assert!(letter.error.contains(why) && !letter.error.contains("rebuild"), "{}", letter.error);
        // Tried again it is parked again, and let pass it goes on.
        let mended = projector.mend("rooms", "room-main.lobby", false).await.unwrap();
        assert!(mended.parked.unwrap().contains(why));
        let past = projector.past("rooms", "room-main.lobby", AsOf::Position(position)).await.unwrap();
        assert_eq!(past.parked.map(|letter| letter.position), Some(eve));
        let mended = projector.mend("rooms", "room-main.lobby", true).await.unwrap();
        assert_eq!(mended.parked, None);
        projector.stop().await;
        let live = store.alias("rooms").await.unwrap().unwrap();
        let documents = store.scan(&live, None, 10).await.unwrap();
        dumps.push(documents.into_iter().map(|document| document.body).collect::<Vec<_>>());
        assert!(dumps[0].iter().all(|body| body.contains("message_count")), "{dumps:?}");
    }
    assert!(dumps.iter().all(|dump| *dump == dumps[0]), "{dumps:?}");
}
