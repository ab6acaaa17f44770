//! Builds beside the live one: started, held up, accepted, dropped; and the way back.

use actix_web::{HttpResponse, web};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::reading::MinPosition;
use super::super::times::last_recorded;
use super::super::{Api, problem};
use super::{JobView, KeptView, refused};
use crate::clock::{Clock as _, SystemClock, parse_time, time_text};
use crate::projector::{AsOf, JobProgress, Order, Purpose, Wish};
use crate::protocol::ErrorCode;

/// How to build.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::web::api) struct RebuildQuery {
    /// Switch although the new build shows other documents than the live one.
    #[serde(default)]
    accept: bool,
    /// Events a second at the most; without it, live traffic is given way to.
    #[serde(default, deserialize_with = "events_per_second")]
    #[param(minimum = 1)]
    events_per_second: Option<u64>,
}

fn events_per_second<'de, D: Deserializer<'de>>(asked: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(asked)?;
    let number = text.parse::<u64>().ok().filter(|number| *number > 0);
    let refused =
        || D::Error::custom(format!("events_per_second must be a number, at least 1; got {text:?}"));
    number.map(Some).ok_or_else(refused)
}

/// Builds a projection anew beside the live build, which it takes the place of once it is
/// proven. Answers at once; `GET /api/projections/{name}` tells how far it is.
#[utoipa::path(post, path = "/api/projections/{name}/rebuild", params(("name" = String, Path), RebuildQuery),
    responses((status = 202, description = "It is being built", body = JobView),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn rebuild(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<RebuildQuery>,
) -> HttpResponse {
    let RebuildQuery { accept, events_per_second } = query.into_inner();
    order(&api, &name, Order { purpose: Purpose::Rebuild, accept, events_per_s_max: events_per_second }).await
}

/// Builds a projection beside the live build to tell whether they are the same, and drops it.
#[utoipa::path(post, path = "/api/projections/{name}/verify", params(("name" = String, Path)),
    responses((status = 202, description = "It is being built", body = JobView),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn verify(api: web::Data<Api>, name: web::Path<String>) -> HttpResponse {
    order(&api, &name, Order { purpose: Purpose::Verify, accept: false, events_per_s_max: None }).await
}

/// As of when: one of the two.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::web::api) struct AsOfQuery {
    /// A position, or an epoch, a colon and a position.
    #[param(value_type = Option<String>)]
    position: Option<MinPosition>,
    /// A time, RFC 3339 or Unix milliseconds.
    time: Option<String>,
}

/// Builds a projection as it was at a position or time, to be read under its build's name for
/// as long as builds are kept.
#[utoipa::path(post, path = "/api/projections/{name}/as_of", params(("name" = String, Path), AsOfQuery),
    responses((status = 202, description = "It is being built", body = JobView),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn as_of(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<AsOfQuery>,
) -> HttpResponse {
    let as_of = match past(&api, query.position, ("time", query.time.as_deref())).await {
        Ok(Some(as_of)) => as_of,
        Ok(None) => return problem(ErrorCode::Malformed, "either position or time says as of when"),
        Err((code, why)) => return problem(code, why),
    };
    match api.projector.position_at(as_of).await {
        Ok(position) => {
            let purpose = Purpose::AsOf { position };
            order(&api, &name, Order { purpose, accept: false, events_per_s_max: None }).await
        }
        Err(error) => refused(&error),
    }
}

/// A position of this history or a time, if one of them is given. What is recorded of a time that is still
/// to come nobody knows.
pub(super) async fn past(
    api: &Api,
    position: Option<MinPosition>,
    (named, time): (&str, Option<&str>),
) -> Result<Option<AsOf>, (ErrorCode, String)> {
    let malformed = |why: String| (ErrorCode::Malformed, why);
    match (position, time) {
        (Some(_), Some(_)) => Err(malformed("give a position or a time, not both".to_owned())),
        (Some(position), None) => position.check(api).map(|position| Some(AsOf::Position(position))),
        (None, Some(time)) => {
            let time = parse_time(time).map_err(|why| malformed(format!("{named}: {why}")))?;
            let (log, now) = (&*api.stage.log, SystemClock.now());
            if time > now && time > last_recorded(log).await.unwrap_or(now) {
                let now = time_text(now);
                return Err((ErrorCode::AheadOfLog, format!("that time is still to come: here it is {now}")));
            }
            Ok(Some(AsOf::Time(time)))
        }
        (None, None) => Ok(None),
    }
}

async fn order(api: &Api, name: &str, order: Order) -> HttpResponse {
    match api.projector.order(name, order).await {
        Ok(job) => HttpResponse::Accepted().json(JobView::from(JobProgress::begun(job))),
        Err(error) => refused(&error),
    }
}

/// Holds a build up; `resume` goes on with it.
#[utoipa::path(post, path = "/api/projections/{name}/pause", params(("name" = String, Path)),
    responses((status = 200, description = "It is paused", body = JobView),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn pause(api: web::Data<Api>, name: web::Path<String>) -> HttpResponse {
    wish(&api, &name, Wish::Pause).await
}

/// Goes on with a build that was held up.
#[utoipa::path(post, path = "/api/projections/{name}/resume", params(("name" = String, Path)),
    responses((status = 200, description = "It goes on", body = JobView),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn resume(api: web::Data<Api>, name: web::Path<String>) -> HttpResponse {
    wish(&api, &name, Wish::Resume).await
}

/// Drops a build that is being made.
#[utoipa::path(post, path = "/api/projections/{name}/cancel", params(("name" = String, Path)),
    responses((status = 200, description = "It is cancelled", body = JobView),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn cancel(api: web::Data<Api>, name: web::Path<String>) -> HttpResponse {
    wish(&api, &name, Wish::Cancel).await
}

/// Has a build go live although its documents differ from the live ones.
#[utoipa::path(post, path = "/api/projections/{name}/accept", params(("name" = String, Path)),
    responses((status = 200, description = "It goes live", body = JobView),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn accept(api: web::Data<Api>, name: web::Path<String>) -> HttpResponse {
    wish(&api, &name, Wish::Accept).await
}

async fn wish(api: &Api, name: &str, wish: Wish) -> HttpResponse {
    match api.projector.wish(name, wish).await {
        Ok(job) => {
            let known = api.projector.job(name).ok().flatten();
            let known = known.filter(|known| known.job.collection == job.collection);
            HttpResponse::Ok().json(JobView::from(known.unwrap_or_else(|| JobProgress::begun(job))))
        }
        Err(error) => refused(&error),
    }
}

/// Which build.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::web::api) struct DropQuery {
    /// Its name, as `as_of` answered it.
    build: String,
}

/// Drops a build as of a position or time before its time; who reads it then is told that it is
/// not there.
#[utoipa::path(post, path = "/api/projections/{name}/drop", params(("name" = String, Path), DropQuery),
    responses((status = 200, description = "It is dropped", body = KeptView),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn drop_past(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<DropQuery>,
) -> HttpResponse {
    match api.projector.drop_past(&name, &query.build).await {
        Ok(kept) => HttpResponse::Ok().json(KeptView::from(kept)),
        Err(error) => refused(&error),
    }
}

/// The way back.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::web::api) struct Back {
    /// The build that was live.
    from: String,
    /// The build that is live now.
    to: String,
}

/// Has queries get the build that was live before.
#[utoipa::path(post, path = "/api/projections/{name}/rollback", params(("name" = String, Path)),
    responses((status = 200, description = "It is live again", body = Back),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn roll_back(api: web::Data<Api>, name: web::Path<String>) -> HttpResponse {
    match api.projector.roll_back(&name).await {
        Ok(back) => HttpResponse::Ok().json(Back { from: back.from, to: back.to }),
        Err(error) => refused(&error),
    }
}
