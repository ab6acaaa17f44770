//! Who did how much where, and what happened when.

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use dramatis_events::{EntityId, MemberId, StreamId, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::reading::{
    MinPosition, PageQuery, answer, limit, limit_default, marked, marked_where, nowhere, page, page_len,
    sealed_place, wait,
};
use super::times::given;
use super::{Api, problem};
use crate::auth::Pass;
use crate::protocol::ErrorCode;
use crate::read_models::ReadModelError;
use crate::read_models::queries::{Listing, insight};

#[derive(Serialize)]
struct Page {
    activity: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn activity(api: &Api, found: Result<Listing, ReadModelError>) -> HttpResponse {
    page(api, found, |activity, next| {
        let next = next.and_then(|next| sealed_place(api, next));
        HttpResponse::Ok().json(Page { activity, next })
    })
}

/// What members did in a room, the one who did something last first; those who left, too.
#[utoipa::path(get, path = "/api/rooms/{room}/activity", params(("room" = String, Path), PageQuery), responses(
    (status = 200, description = "`{activity: […], next}`"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn of_room(
    api: web::Data<Api>,
    room: web::Path<EntityId>,
    query: web::Query<PageQuery>,
) -> HttpResponse {
    let (after, limit) = match query.opened(&api, &["activity"]).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let stream = StreamId::room(&room);
    let found = insight::activity_of_room(&*api.read_models, &stream, after, limit).await;
    if let Some(answer) = nowhere(&api, &room, &found, Listing::is_empty).await {
        return answer;
    }
    let answer = activity(&api, found);
    marked(&api, "activity", stream.as_str(), answer)
}

/// What a user or persona did in each room that the token opens, the one with the latest first. A page may
/// hold fewer than asked for, and there is a next one all the same.
#[utoipa::path(get, path = "/api/users/{user}/activity", params(("user" = String, Path), PageQuery), responses(
    (status = 200, description = "`{activity: […], next}`"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn of_user(
    api: web::Data<Api>,
    request: HttpRequest,
    user: web::Path<MemberId>,
    query: web::Query<PageQuery>,
) -> HttpResponse {
    let (after, limit) = match query.opened(&api, &["activity"]).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let found = insight::activity_of_member(&*api.read_models, "main", &user, after, limit).await;
    let answer = activity(
        &api,
        found.map(|found| match request.extensions().get::<Pass>() {
            Some(pass) => opened(pass, found),
            None => found,
        }),
    );
    // Whole rooms that wait, and this member in one.
    let concerned = |key: &str| key.split_once('/').is_none_or(|(_, member)| member == user.as_str());
    marked_where(&api, "activity", concerned, answer)
}

/// What of it is of rooms that the token opens.
fn opened(pass: &Pass, mut activity: Listing) -> Listing {
    #[derive(Deserialize)]
    struct Named {
        room: EntityId,
    }
    let room = |one: &RawValue| serde_json::from_str::<Named>(one.get());
    activity.items.retain(|one| room(one).is_ok_and(|named| pass.opens(&named.room)));
    activity
}

/// Which hours.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StatisticsQuery {
    /// From the hour in which this time lies: RFC 3339 or Unix milliseconds.
    from: Option<String>,
    /// Up to the hour in which this time lies: RFC 3339 or Unix milliseconds.
    to: Option<String>,
    /// Hours at the most, 1 to 500; more is taken as 500. To go on, ask from an hour past the last one.
    #[serde(default = "limit_default", deserialize_with = "limit")]
    limit: u16,
    /// Wait until the read model has got to this position.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

impl StatisticsQuery {
    fn times(&self) -> Result<(Option<UnixMillis>, Option<UnixMillis>), String> {
        Ok((given("from", self.from.as_deref())?, given("to", self.to.as_deref())?))
    }
}

#[derive(Serialize)]
struct Hours {
    hours: Vec<Box<RawValue>>,
    more: bool,
}

/// What happened in a room, hour by hour, oldest first; an hour in which nothing did is left out.
#[utoipa::path(get, path = "/api/rooms/{room}/statistics", params(("room" = String, Path), StatisticsQuery), responses(
    (status = 200, description = "`{hours: […], more}`"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn statistics(
    api: web::Data<Api>,
    room: web::Path<EntityId>,
    query: web::Query<StatisticsQuery>,
) -> HttpResponse {
    let (from, to) = match query.times() {
        Ok(times) => times,
        Err(why) => return problem(ErrorCode::Malformed, why),
    };
    if let Err(answer) = wait(&api, "statistics", query.min_position).await {
        return answer;
    }
    let (stream, limit) = (StreamId::room(&room), page_len(query.limit));
    let found = insight::statistics(&*api.read_models, &stream, from, to, limit).await;
    if let Some(answer) = nowhere(&api, &room, &found, Listing::is_empty).await {
        return answer;
    }
    let answer = answer(&api, found, |Listing { items, next }| {
        HttpResponse::Ok().json(Hours { hours: items, more: next.is_some() })
    });
    marked(&api, "statistics", stream.as_str(), answer)
}
