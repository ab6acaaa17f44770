//! Messages by their words.

use dramatis_events::{EntityId, MemberId, StreamId};
use dramatis_projections::{Projection as _, Search as Words};

use serde_json::value::RawValue;

use super::{cut, number, of_live, raw, text};
use crate::read_models::{Direction, Document, FIND_MAX, ReadModelError, ReadModels, Search};

/// How found messages are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The best match first.
    Best,
    /// The latest first.
    Newest,
}

/// Which messages.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What must occur.
    pub text: String,
    /// Only in this room.
    pub room: Option<EntityId>,
    /// Only what this member said.
    pub by: Option<MemberId>,
    /// In which order.
    pub order: Order,
    /// How many of the first to leave out.
    pub skip: usize,
    /// How many at the most.
    pub limit: usize,
}

/// Messages of a tenant that hold what is asked, and whether there are more.
pub async fn messages(
    store: &dyn ReadModels,
    tenant: &str,
    asked: Asked,
) -> Result<(Vec<Box<RawValue>>, bool), ReadModelError> {
    let Asked { text: words, room, by, order, skip, limit } = asked;
    let mut equal = vec![text("tenant", tenant)];
    equal.extend(by.map(|by| text("by", by.as_str())));
    let limit = limit.min(FIND_MAX - 1);
    let search = Search {
        text: words,
        key_prefix: room.map(|room| format!("{}/", StreamId::room(&room))),
        equal,
        sort: match order {
            Order::Best => None,
            Order::Newest => Some((number("posted_at"), Direction::Descending)),
        },
        skip,
        limit: limit + 1,
    };
    let found = of_live(store, Words::NAME, |build| store.search(build, search.clone())).await?;
    let (found, more) = cut(found.unwrap_or_default(), limit);
    let items = found.into_iter().map(|Document { key, body, .. }| raw(&key, body));
    Ok((items.collect::<Result<_, _>>()?, more))
}
