//! Reading threads: which there are in a room, and what was said in one.

use actix_web::{HttpResponse, web};
use dramatis_events::{EntityId, Revision, StreamId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::reading::{
    MinPosition, PageQuery, answer, limit, limit_default, marked, nowhere, page, page_len, wait,
};
use super::{Api, problem};
use crate::protocol::ErrorCode;
use crate::read_models::queries::Listing;
use crate::read_models::queries::threads::{self, Said};

#[derive(Serialize)]
struct Threads {
    threads: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A room's threads, the one with the latest reply first.
#[utoipa::path(get, path = "/api/rooms/{room}/threads", params(("room" = String, Path), PageQuery), responses(
    (status = 200, description = "`{threads: […], next}`"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    api: web::Data<Api>,
    room: web::Path<EntityId>,
    query: web::Query<PageQuery>,
) -> HttpResponse {
    let (after, limit) = match query.opened(&api, &["threads"]).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let stream = StreamId::room(&room);
    let found = threads::threads(&*api.read_models, &stream, after, limit).await;
    if let Some(answer) = nowhere(&api, &room, &found, Listing::is_empty).await {
        return answer;
    }
    let answer = page(&api, found, |threads, next| HttpResponse::Ok().json(Threads { threads, next }));
    marked(&api, "threads", stream.as_str(), answer)
}

/// The read models that a thread is shown from.
const OF_A_THREAD: [&str; 3] = ["threads", "replies", "timeline"];

/// Which messages of a thread.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ThreadQuery {
    /// Only messages past this revision, the thread's first one among them if it is; without it, from that on.
    after: Option<u64>,
    /// Replies at the most, 1 to 500; more is taken as 500.
    #[serde(default = "limit_default", deserialize_with = "limit")]
    limit: u16,
    /// Wait until the read models have got to this position.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

#[derive(Serialize)]
struct Conversation {
    /// Nothing was answered yet: a message alone.
    thread: Option<Box<RawValue>>,
    messages: Vec<Box<RawValue>>,
    more: bool,
    /// Past which revision the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Revision>,
}

/// What was said in a thread, oldest first. The messages' `reply_to` makes the tree.
#[utoipa::path(get, path = "/api/rooms/{room}/threads/{root}",
    params(("room" = String, Path), ("root" = u64, Path, description = "The first message's revision"), ThreadQuery),
    responses(
        (status = 200, description = "`{thread, messages: […], more, next?}`; `thread` is null if nothing was answered; messages that the timeline does not hold yet are left out, so there may be none; with `more` it goes on `after` the revision `next`"),
        (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn one(
    api: web::Data<Api>,
    path: web::Path<(EntityId, u64)>,
    query: web::Query<ThreadQuery>,
) -> HttpResponse {
    for projection in OF_A_THREAD {
        if let Err(answer) = wait(&api, projection, query.min_position).await {
            return answer;
        }
    }
    let (room, first) = path.into_inner();
    let (stream, first) = (StreamId::room(&room), Revision::new(first));
    let after = query.after.map(Revision::new);
    let reading = async {
        let store = &*api.read_models;
        let messages = threads::messages(store, &stream, first, after, page_len(query.limit)).await?;
        Ok((threads::thread(store, &stream, first).await?, messages))
    };
    let answer = answer(&api, reading.await, |(thread, Said { items, next })| {
        if items.is_empty() && next.is_none() && after < Some(first) {
            return problem(ErrorCode::NotFound, format!("room {room} has no message {first}"));
        }
        HttpResponse::Ok().json(Conversation { thread, messages: items, more: next.is_some(), next })
    });
    let marked = |answer, projection| marked(&api, projection, stream.as_str(), answer);
    OF_A_THREAD.into_iter().fold(answer, marked)
}
