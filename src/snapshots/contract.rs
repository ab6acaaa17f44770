//! What every engine of [`Snapshots`] is held to.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use dramatis_events::{Epoch, EventId, Revision, StreamId, UnixMillis};

use super::{Key, LastEvent, Snapshot, Snapshots};

/// The epoch of the suite's keys.
pub(crate) const EPOCH: Epoch = Epoch::first(7);

pub(crate) fn key(stream: &str) -> Key {
    let stream = StreamId::parse(stream).unwrap();
    Key { stream, decider: "room", state_version: 3, epoch: EPOCH }
}

pub(crate) fn snapshot(revision: u64, state: &[u8]) -> Snapshot {
    let (revision, id) = (Revision::new(revision), EventId::from_bytes([revision.to_le_bytes()[0]; 16]));
    let last = LastEvent { revision, id, recorded_at: UnixMillis::new(1_760_000_000_000) };
    Snapshot { last, state: state.to_vec() }
}

pub(crate) async fn run(store: &dyn Snapshots) {
    let (lobby, attic) = (key("room-main.lobby"), key("room-main.attic"));
    assert_eq!(store.load(&lobby).await, None);
    let (first, later, other) = (snapshot(4, b"{}"), snapshot(900, b"[1,2]"), snapshot(0, b""));
    assert!(store.save(&lobby, first.clone()).await);
    assert_eq!(store.load(&lobby).await, Some(first.clone()));
    assert_eq!(store.load(&attic).await, None);
    assert!(store.save(&attic, other.clone()).await);
    assert!(store.save(&lobby, later.clone()).await);
    assert_eq!(store.load(&lobby).await, Some(later), "the later one takes the place");
    assert_eq!(store.load(&attic).await, Some(other));

    let others = [
        Key { decider: "persona", ..lobby.clone() },
        Key { state_version: 4, ..lobby.clone() },
        Key { state_version: 2, ..lobby.clone() },
        Key { epoch: EPOCH.raised(), ..lobby.clone() },
        Key { epoch: Epoch::first(8), ..lobby.clone() },
    ];
    for other in others {
        assert_eq!(store.load(&other).await, None, "{other:?}");
        assert!(store.save(&other, first.clone()).await);
        assert_eq!(store.load(&other).await, Some(first.clone()), "{other:?}");
        assert_eq!(store.load(&lobby).await, None, "one snapshot a stream");
        assert!(store.save(&lobby, first.clone()).await);
    }

    let large = snapshot(u64::from(u32::MAX), &vec![b' '; 3 * 1024 * 1024]);
    assert!(store.save(&lobby, large.clone()).await);
    assert_eq!(store.load(&lobby).await, Some(large));
}
