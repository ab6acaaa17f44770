//! The rooms of one member.

use std::collections::HashMap;

use dramatis_events::{EntityId, MemberId, StreamId};
use dramatis_projections::{Members, Projection as _, Rooms};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::insight::activity_of_member;
use super::{Listing, of_live, raw, unreadable};
use crate::read_models::{Place, ReadModelError, ReadModels};

/// A room that the member is in.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The room's id.
    pub id: EntityId,
    /// Its document of `rooms`.
    pub room: Box<RawValue>,
    /// Its document of `members`.
    pub member: Box<RawValue>,
}

/// The rooms that the member is in, the one first in which they did something last. Of `limit`
/// rooms that are looked at, those that they have left meanwhile are not told.
pub async fn rooms_of_member(
    store: &dyn ReadModels,
    tenant: &str,
    member: &MemberId,
    after: Option<Place>,
    limit: usize,
) -> Result<(Vec<Joined>, Option<Place>), ReadModelError> {
    #[derive(Deserialize)]
    struct Named {
        room: EntityId,
    }
    let Listing { items, next } = activity_of_member(store, tenant, member, after, limit).await?;
    let named = items.iter().map(|item| serde_json::from_str::<Named>(item.get()).map(|named| named.room));
    let ids = named.collect::<Result<Vec<_>, _>>().map_err(|e| unreadable(member.as_str(), &e))?;
    let key = |room: &EntityId| StreamId::room(room).to_string();
    let key_of_member = |room: &EntityId| format!("{}/{member}", StreamId::room(room));
    let mut rooms = documents(store, Rooms::NAME, ids.iter().map(key).collect()).await?;
    let mut members = documents(store, Members::NAME, ids.iter().map(key_of_member).collect()).await?;
    let joined = ids.into_iter().filter_map(|id| {
        let (room, member) = (rooms.remove(&key(&id))?, members.remove(&key_of_member(&id))?);
        Some(Joined { id, room, member })
    });
    Ok((joined.collect(), next))
}

/// The documents with these keys, by key.
async fn documents(
    store: &dyn ReadModels,
    projection: &str,
    keys: Vec<String>,
) -> Result<HashMap<String, Box<RawValue>>, ReadModelError> {
    let found = of_live(store, projection, |build| store.load(build, keys.clone())).await?;
    let there = found.unwrap_or_default().into_iter().filter_map(|stored| Some((stored.key, stored.body?)));
    there.map(|(key, body)| raw(&key, body).map(|body| (key, body))).collect()
}
