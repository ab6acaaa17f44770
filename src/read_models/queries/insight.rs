//! Who did how much where, and what happened when.

use dramatis_events::{MemberId, StreamId, UnixMillis};
use dramatis_projections::{Activity, Field, Projection as _, Statistics};

use super::{Listing, number, page, raw, text};
use crate::read_models::{Direction, Document, Place, Query, ReadModelError, ReadModels, Value};

/// What members did in a room, the one who did something last first.
pub async fn activity_of_room(
    store: &dyn ReadModels,
    room: &StreamId,
    after: Option<Place>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    let equal = vec![text("tenant", room.tenant()), text("room", room.id())];
    super::list(store, Activity::NAME, latest_first(equal, after, limit)).await
}

/// What one member did in every room, the one with the latest first.
pub async fn activity_of_member(
    store: &dyn ReadModels,
    tenant: &str,
    member: &MemberId,
    after: Option<Place>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    let equal = vec![text("tenant", tenant), text("member", member.as_str())];
    super::list(store, Activity::NAME, latest_first(equal, after, limit)).await
}

fn latest_first(equal: Vec<(Field, Value)>, after: Option<Place>, limit: usize) -> Query {
    let sort = Some(number("last_at"));
    Query { key_prefix: None, equal, sort, direction: Direction::Descending, after, limit }
}

/// The hours of a room in which something happened, ascending: from the hour in which `from` lies
/// up to the one in which `to` lies.
pub async fn statistics(
    store: &dyn ReadModels,
    room: &StreamId,
    from: Option<UnixMillis>,
    to: Option<UnixMillis>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    const HOUR_MS: i64 = 3_600_000;
    // A query goes on past a place: past the hour before the first.
    let before = from.map(|from| UnixMillis::new(from.get().saturating_sub(HOUR_MS)));
    let before = before.and_then(|before| Statistics::key(room, before));
    let last = to.and_then(|to| Statistics::key(room, to));
    // Beyond every calendar there are no hours.
    let late = before.is_none() && from.is_some_and(|from| from.get() > 0);
    let early = last.is_none() && to.is_some_and(|to| to.get() < 0);
    if late || early {
        return Ok(Listing { items: Vec::new(), next: None });
    }
    let query = Query {
        key_prefix: Some(format!("{room}/")),
        equal: Vec::new(),
        sort: None,
        direction: Direction::Ascending,
        after: before.map(|key| Place { value: None, key }),
        limit,
    };
    let (documents, more) = page(store, Statistics::NAME, query).await?;
    let found = documents.len();
    let within = |document: &Document| last.as_ref().is_none_or(|last| document.key <= *last);
    let documents: Vec<_> = documents.into_iter().take_while(within).collect();
    let more = more && documents.len() == found;
    let next = documents.last().filter(|_| more).map(|last| Place { value: None, key: last.key.clone() });
    let items = documents.into_iter().map(|Document { key, body, .. }| raw(&key, body));
    Ok(Listing { items: items.collect::<Result<_, _>>()?, next })
}
