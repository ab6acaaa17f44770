//! Parked keys: what could not be folded, tried again or let pass.

use actix_web::{HttpResponse, web};
use dramatis_events::Position;
use dramatis_projections::DeadLetter;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::Api;
use super::super::reading::PageQuery;
use super::refused;
use crate::read_models::{Place, Value};

/// A parked key.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::web::api) struct Letter {
    /// The key; a stream's name stands for every key of that stream.
    key: String,
    /// The event that could not be folded: later ones wait.
    #[schema(value_type = String)]
    position: Position,
    /// The event's name.
    event: String,
    /// Why.
    error: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::web::api) struct Letters {
    letters: Vec<Letter>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The parked keys of the live build, in log order.
#[utoipa::path(get, path = "/api/projections/{name}/dead_letters", params(("name" = String, Path), PageQuery),
    responses((status = 200, description = "Parked keys", body = Letters),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn list(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<PageQuery>,
) -> HttpResponse {
    let (after, limit) = match query.opened_to_operators(&api, &name).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    match api.projector.dead_letters(&name).await {
        Ok(mut letters) => {
            letters.retain(|letter| after.as_ref().is_none_or(|after| is_past(letter, after)));
            let more = letters.len() > limit;
            letters.truncate(limit);
            let next = letters.last().filter(|_| more).map(|last| format!("{}/{}", last.position, last.key));
            HttpResponse::Ok()
                .json(Letters { letters: letters.into_iter().map(Letter::from).collect(), next })
        }
        Err(error) => refused(&error),
    }
}

fn is_past(letter: &DeadLetter, after: &Place) -> bool {
    let position = i64::try_from(letter.position.to_engine()).unwrap_or(i64::MAX);
    let after = (&after.value, after.key.as_str());
    match after {
        (Some(Value::Integer(at)), key) => (position, letter.key.as_str()) > (*at, key),
        _ => true,
    }
}

impl From<DeadLetter> for Letter {
    fn from(DeadLetter { key, position, event, error }: DeadLetter) -> Self {
        Self { key, position, event, error }
    }
}

/// Which key.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::web::api) struct KeyQuery {
    /// The parked key.
    key: String,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::web::api) struct Mending {
    /// The key.
    key: String,
    /// Events folded that had waited.
    events: u64,
    /// Why it is parked still, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<String>,
}

/// Folds a parked key again, after a fix.
#[utoipa::path(post, path = "/api/projections/{name}/retry", params(("name" = String, Path), KeyQuery),
    responses((status = 200, description = "What came of it", body = Mending),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn retry(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<KeyQuery>,
) -> HttpResponse {
    mend(&api, &name, query.into_inner().key, false).await
}

/// Folds a parked key again without the event that parked it, which later builds leave out too, in this store
/// and of this history.
#[utoipa::path(post, path = "/api/projections/{name}/skip", params(("name" = String, Path), KeyQuery),
    responses((status = 200, description = "What came of it", body = Mending),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn skip(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<KeyQuery>,
) -> HttpResponse {
    mend(&api, &name, query.into_inner().key, true).await
}

async fn mend(api: &Api, name: &str, key: String, skip: bool) -> HttpResponse {
    match api.projector.mend(name, &key, skip).await {
        Ok(mended) => HttpResponse::Ok().json(Mending { key, events: mended.events, parked: mended.parked }),
        Err(error) => refused(&error),
    }
}
