//! Threads: which there are in a room, and what was said in one.

use std::collections::HashMap;

use dramatis_events::{Revision, StreamId};
use dramatis_projections::{Projection as _, Replies, Reply, Threads, Timeline};
use serde_json::value::RawValue;

use super::pages::PAGE_BYTES_MAX;
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

/// How many pages of replies are looked at for one page of messages: where a room is parked, none of
/// them may have a message.
const PAGES_MAX: usize = 8;

/// How many messages are read at once: each may be large, and a page ends by the one with which it would get past
/// [`PAGE_BYTES_MAX`].
const SLICE: usize = 16;

/// Messages of a thread, and where to go on.
#[derive(Debug)]
pub struct Said {
    /// The documents, canonical JSON.
    pub items: Vec<Box<RawValue>>,
    /// The revision to hand in as `after` for the next page; `None` after the last.
    pub next: Option<Revision>,
}

/// Messages of a thread in the order of the room, its first one at the head: those past `after`.
/// Replies that the timeline does not show, as it is behind or has them parked, are passed over: a page may be
/// empty though it is not the last.
pub async fn messages(
    store: &dyn ReadModels,
    room: &StreamId,
    first: Revision,
    after: Option<Revision>,
    limit: usize,
) -> Result<Said, ReadModelError> {
    let mut wanted = Vec::new();
    wanted.extend((after < Some(first)).then_some(first));
    let full = limit + wanted.len();
    let (mut items, mut bytes, mut last, mut seen, mut more) = (Vec::new(), 0_usize, None, None, true);
    let mut after = after.map(|after| Replies::key(room, first, after));
    for _ in 0..PAGES_MAX {
        let query = Query {
            key_prefix: Some(Replies::key_prefix(room, first)),
            equal: Vec::new(),
            sort: None,
            direction: Direction::Ascending,
            after: after.map(|key| Place { value: None, key }),
            limit: full.saturating_sub(items.len() + wanted.len()),
        };
        let (replies, further) = page(store, Replies::NAME, query).await?;
        for Document { key, body, .. } in &replies {
            let reply: Reply = serde_json::from_str(body).map_err(|e| unreadable(key, &e))?;
            wanted.push(reply.revision);
        }
        for revisions in std::mem::take(&mut wanted).chunks(SLICE) {
            let keyed = revisions.iter().map(|revision| (*revision, Timeline::key(room, *revision)));
            let mut bodies = of_timeline(store, keyed.clone().map(|(_, key)| key).collect()).await?;
            for (revision, key) in keyed {
                seen = Some(revision);
                let Some(body) = bodies.remove(&key) else { continue };
                bytes = bytes.saturating_add(body.len());
                if bytes > PAGE_BYTES_MAX && !items.is_empty() {
                    return Ok(Said { items, next: last });
                }
                items.push(raw(&key, body)?);
                last = Some(revision);
            }
        }
        (after, more) = (replies.last().map(|reply| reply.key.clone()), further);
        if !more || items.len() >= full {
            break;
        }
    }
    Ok(Said { items, next: last.or(seen).filter(|_| more) })
}

async fn of_timeline(
    store: &dyn ReadModels,
    keys: Vec<String>,
) -> Result<HashMap<String, String>, ReadModelError> {
    let stored = of_live(store, Timeline::NAME, |build| store.load(build, keys.clone())).await?;
    Ok(stored.unwrap_or_default().into_iter().filter_map(|stored| Some((stored.key, stored.body?))).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests;
