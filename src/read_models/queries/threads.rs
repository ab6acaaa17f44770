//! Threads: which there are in a room, and what was said in one.

use std::collections::HashMap;

use dramatis_events::{Revision, StreamId};
use dramatis_projections::{Projection as _, Replies, Reply, Threads, Timeline};
use serde_json::value::RawValue;

use super::{Listing, number, of_live, one, page, raw, text, unreadable};
use crate::read_models::{Direction, Document, Place, Query, ReadModelError, ReadModels};

/// The threads of a room, the one with the latest reply first.
pub async fn threads(
    store: &dyn ReadModels,
    room: &StreamId,
    after: Option<Place>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    let query = Query {
        key_prefix: None,
        equal: vec![text("tenant", room.tenant()), text("room", room.id())],
        sort: Some(number("active_at")),
        direction: Direction::Descending,
        after,
        limit,
    };
    super::list(store, Threads::NAME, query).await
}

/// What its replies make of a thread; `None` if nothing was answered.
pub async fn thread(
    store: &dyn ReadModels,
    room: &StreamId,
    first: Revision,
) -> Result<Option<Box<RawValue>>, ReadModelError> {
    one(store, Threads::NAME, &Threads::key(room, first)).await
}

/// Messages of a thread in the order of the room, its first one at the head: those past `after`.
/// A reply that the timeline has not got to yet ends the page before it.
pub async fn messages(
    store: &dyn ReadModels,
    room: &StreamId,
    first: Revision,
    after: Option<Revision>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    let query = Query {
        key_prefix: Some(Replies::key_prefix(room, first)),
        equal: Vec::new(),
        sort: None,
        direction: Direction::Ascending,
        after: after.map(|after| Place { value: None, key: Replies::key(room, first, after) }),
        limit,
    };
    let (replies, more) = page(store, Replies::NAME, query).await?;
    let head = after.is_none().then_some(first);
    let mut wanted = Vec::with_capacity(replies.len() + 1);
    wanted.extend(head.map(|first| Timeline::key(room, first)));
    for Document { key, body, .. } in &replies {
        let reply: Reply = serde_json::from_str(body).map_err(|e| unreadable(key, &e))?;
        wanted.push(Timeline::key(room, reply.revision));
    }
    let mut bodies = of_timeline(store, wanted.clone()).await?;
    let found: Vec<_> = wanted.into_iter().map_while(|key| Some((bodies.remove(&key)?, key))).collect();
    let last = found.last().map(|(_, key)| Place { value: None, key: key.clone() });
    let all = found.len() == replies.len() + usize::from(head.is_some());
    let items = found.into_iter().map(|(body, key)| raw(&key, body)).collect::<Result<_, _>>()?;
    Ok(Listing { items, next: last.filter(|_| more || !all) })
}

async fn of_timeline(
    store: &dyn ReadModels,
    keys: Vec<String>,
) -> Result<HashMap<String, String>, ReadModelError> {
    let stored = of_live(store, Timeline::NAME, |build| store.load(build, keys.clone())).await?;
    Ok(stored.unwrap_or_default().into_iter().filter_map(|stored| Some((stored.key, stored.body?))).collect())
}
