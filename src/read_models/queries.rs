//! The questions an API asks, answered from the live build that the alias names.

use dramatis_events::{Revision, StreamId};
use dramatis_projections::{Field, FieldKind, Members, Projection, Rooms, Timeline};
use serde_json::value::RawValue;

use super::{Answer, Direction, Document, Place, Query, ReadModelError, ReadModels, Value};

pub mod insight;
pub mod me;
pub mod pages;
pub mod search;
pub mod threads;

/// Some documents, and where to go on. They may be fewer than were asked for: see [`pages`].
#[derive(Debug, Clone)]
pub struct Listing {
    /// The documents, canonical JSON.
    pub items: Vec<Box<RawValue>>,
    /// Hand it in as `after` for the next page; `None` after the last.
    pub next: Option<Place>,
}

impl Listing {
    /// Whether it holds no document.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// How a list of rooms is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomOrder {
    /// The one with the latest message first.
    Activity,
    /// By title, by its bytes.
    Title,
}

impl RoomOrder {
    fn field(self) -> Field {
        match self {
            Self::Activity => number("active_at"),
            Self::Title => Field { name: "title", kind: FieldKind::Text },
        }
    }
}

/// The rooms of a tenant.
pub async fn rooms(
    store: &dyn ReadModels,
    tenant: &str,
    order: RoomOrder,
    after: Option<Place>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    let direction = match order {
        RoomOrder::Activity => Direction::Descending,
        RoomOrder::Title => Direction::Ascending,
    };
    let (equal, sort) = (vec![text("tenant", tenant)], Some(order.field()));
    list(store, Rooms::NAME, Query { key_prefix: None, equal, sort, direction, after, limit }).await
}

/// Where a list of rooms goes on after the one of this document.
pub fn after_room(order: RoomOrder, room: &StreamId, document: &RawValue) -> Result<Place, ReadModelError> {
    place(room.as_str(), document.get(), Some(order.field()))
}

/// One room.
pub async fn room(store: &dyn ReadModels, room: &StreamId) -> Result<Option<Box<RawValue>>, ReadModelError> {
    one(store, Rooms::NAME, room.as_str()).await
}

/// Messages of a room, newest first: those below `before`, or the last ones.
pub async fn timeline(
    store: &dyn ReadModels,
    room: &StreamId,
    before: Option<Revision>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    let after = before.map(|revision| Place { value: None, key: Timeline::key(room, revision) });
    list(store, Timeline::NAME, of_room(room, Direction::Descending, after, limit)).await
}

/// The members of a room, by their ids.
pub async fn members(
    store: &dyn ReadModels,
    room: &StreamId,
    after: Option<Place>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    list(store, Members::NAME, of_room(room, Direction::Ascending, after, limit)).await
}

fn of_room(room: &StreamId, direction: Direction, after: Option<Place>, limit: usize) -> Query {
    // No id holds a slash: nothing of another room begins so.
    let key_prefix = Some(format!("{room}/"));
    Query { key_prefix, equal: Vec::new(), sort: None, direction, after, limit }
}

async fn one(
    store: &dyn ReadModels,
    projection: &str,
    key: &str,
) -> Result<Option<Box<RawValue>>, ReadModelError> {
    let found = of_live(store, projection, |build| store.get(build, key)).await?.flatten();
    found.map(|Document { key, body, .. }| raw(&key, body)).transpose()
}

async fn list(store: &dyn ReadModels, projection: &str, query: Query) -> Result<Listing, ReadModelError> {
    let sort = query.sort;
    let (documents, more) = page(store, projection, query).await?;
    let last = documents.last().filter(|_| more);
    let next = last.map(|last| place(&last.key, &last.body, sort)).transpose()?;
    let items = documents.into_iter().map(|Document { key, body, .. }| raw(&key, body));
    Ok(Listing { items: items.collect::<Result<_, _>>()?, next })
}

/// Documents of the live build, and whether there are more.
async fn page(
    store: &dyn ReadModels,
    projection: &str,
    mut query: Query,
) -> Result<(Vec<Document>, bool), ReadModelError> {
    // One more than asked for tells whether there is a next page.
    let limit = query.limit.min(super::FIND_MAX - 1);
    query.limit = limit + 1;
    let found = of_live(store, projection, |build| store.find(build, query.clone())).await?;
    Ok(cut(found.unwrap_or_default(), limit))
}

/// What of these documents is one page of so many at the most, and whether there are more.
fn cut(mut documents: Vec<Document>, limit: usize) -> (Vec<Document>, bool) {
    let held = pages::fitting(
        documents.iter().take(limit).map(|document| document.body.len()),
        pages::PAGE_BYTES_MAX,
    );
    let more = documents.len() > held;
    documents.truncate(held);
    (documents, more)
}

fn text(field: &'static str, value: &str) -> (Field, Value) {
    (Field { name: field, kind: FieldKind::Text }, Value::Text(value.to_owned()))
}

const fn number(field: &'static str) -> Field {
    Field { name: field, kind: FieldKind::Integer }
}

/// What the live build answers, which may be switched and dropped between a look at the alias and
/// the question; `None` while there is none.
pub async fn of_live<T>(
    store: &dyn ReadModels,
    projection: &str,
    ask: impl Fn(&str) -> Answer<T>,
) -> Result<Option<T>, ReadModelError> {
    let (mut live, mut tried) = (store.live(projection).await?, None);
    while let Some(collection) = live {
        match ask(&collection).await {
            Err(ReadModelError::NoBuild { .. }) if tried.as_ref() != Some(&collection) => {
                live = store.alias(projection).await?;
                tried = Some(collection);
            }
            answer => return answer.map(Some),
        }
    }
    Ok(None)
}

fn place(key: &str, body: &str, sort: Option<Field>) -> Result<Place, ReadModelError> {
    let key = key.to_owned();
    let Some(field) = sort else { return Ok(Place { value: None, key }) };
    let body: serde_json::Value = serde_json::from_str(body).map_err(|e| unreadable(&key, &e))?;
    let value = body.get(field.name);
    let value = match field.kind {
        FieldKind::Text => value.and_then(|value| value.as_str()).map(|text| Value::Text(text.to_owned())),
        FieldKind::Integer => value.and_then(serde_json::Value::as_i64).map(Value::Integer),
    };
    match value {
        Some(value) => Ok(Place { value: Some(value), key }),
        None => Err(ReadModelError::Damaged { place: key, reason: format!("no field {:?}", field.name) }),
    }
}

fn raw(key: &str, body: String) -> Result<Box<RawValue>, ReadModelError> {
    RawValue::from_string(body).map_err(|e| unreadable(key, &e))
}

fn unreadable(key: &str, error: &serde_json::Error) -> ReadModelError {
    ReadModelError::Damaged { place: format!("document {key:?}"), reason: error.to_string() }
}
