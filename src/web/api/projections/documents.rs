//! Documents by key: as they are, as they were, and the events that made them so.

use actix_web::{HttpResponse, web};
use dramatis_events::{Position, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::super::reading::{MinPosition, limit, limit_default, page_len, wait_as_operator};
use super::super::{Api, problem};
use super::jobs::past;
use super::refused;
use crate::projector::{AdminError, AsOf, Cause, Causes};
use crate::protocol::ErrorCode;
use crate::read_models::queries::of_live;
use crate::read_models::{Answer, Document, ReadModelError};

/// Another build stands where it stands.
const WAITS_FOR_LIVE: &str = "min_position goes without build: it waits for the live build, and reads that";

/// Which document, as of when.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::web::api) struct DocumentQuery {
    /// Its key.
    key: String,
    /// As of this position, or an epoch, a colon and a position.
    #[param(value_type = Option<String>)]
    as_of: Option<MinPosition>,
    /// As of this time, RFC 3339 or Unix milliseconds.
    as_of_time: Option<String>,
    /// In this build instead of the live one.
    build: Option<String>,
    /// Wait until the live build has got to this position; goes without `build`.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

/// A document.
#[derive(Debug, Serialize)]
struct DocumentView {
    key: String,
    /// The event that changed it last.
    position: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Box<RawValue>>,
    /// Why later events are not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<Parked>,
}

#[derive(Debug, Serialize)]
struct Parked {
    position: Position,
    error: String,
}

/// One document: as it is, or as it was.
#[utoipa::path(get, path = "/api/projections/{name}/document", params(("name" = String, Path), DocumentQuery),
    responses((status = 200, description = "`{key, position, document, parked?}`: `parked` tells from which position on events are not in it and why; `document` is null where that is its first event"),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn one(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<DocumentQuery>,
) -> HttpResponse {
    let DocumentQuery { key, as_of, as_of_time, build, min_position } = query.into_inner();
    let found = match past(&api, as_of, ("as_of_time", as_of_time.as_deref())).await {
        Err((code, why)) => return problem(code, why),
        Ok(Some(_)) if build.is_some() || min_position.is_some() => {
            return problem(ErrorCode::Malformed, "as_of goes with neither build nor min_position");
        }
        Ok(Some(as_of)) => then(&api, &name, &key, as_of).await,
        Ok(None) if build.is_some() && min_position.is_some() => {
            return problem(ErrorCode::Malformed, WAITS_FOR_LIVE);
        }
        Ok(None) => {
            if let Err(answer) = wait_as_operator(&api, &name, min_position).await {
                return answer;
            }
            now(&api, &name, &key, build).await
        }
    };
    match found {
        Ok(Some(document)) => HttpResponse::Ok().json(document),
        Ok(None) => problem(ErrorCode::NotFound, no_document(&name, &key)),
        Err(error) => refused(&error),
    }
}

fn no_document(name: &str, key: &str) -> String {
    let form = dramatis_projections::named(name).map(dramatis_projections::DynProjection::key_form);
    let form = form.map_or_else(String::new, |form| {
        format!("; its keys are as {form}, and revisions in keys have 20 digits")
    });
    format!("{name} has no document {key:?}{form}")
}

async fn then(api: &Api, name: &str, key: &str, as_of: AsOf) -> Result<Option<DocumentView>, AdminError> {
    let past = api.projector.past(name, key, as_of).await?;
    let parked = past.parked.map(|letter| Parked { position: letter.position, error: letter.error });
    let body = past.body.or_else(|| parked.as_ref().map(|_| "null".to_owned()));
    body.map(|body| view(key, past.position, body, parked)).transpose()
}

async fn now(
    api: &Api,
    name: &str,
    key: &str,
    build: Option<String>,
) -> Result<Option<DocumentView>, AdminError> {
    api.projector.job(name)?;
    let live = build.is_none();
    let found = of(api, name, build, |build| api.read_models.get(build, key)).await?.flatten();
    let status = api.projector.status_of(name).filter(|_| live);
    let letter = status.as_ref().and_then(|status| status.waits(key));
    let parked = letter.map(|letter| Parked { position: letter.position, error: letter.error.clone() });
    // That nothing of it could be folded is another answer than that nothing is there.
    let waits = parked.as_ref().map(|_| (None, "null".to_owned()));
    let found = found.map(|found| (Some(found.position), found.body)).or(waits);
    found.map(|(position, body)| view(key, position, body, parked)).transpose()
}

/// What a build answers: the one asked for, if it is one of this projection, or the live one.
async fn of<T>(
    api: &Api,
    name: &str,
    build: Option<String>,
    ask: impl Fn(&str) -> Answer<T>,
) -> Result<Option<T>, AdminError> {
    let Some(build) = build else { return of_live(&*api.read_models, name, ask).await.map_err(store) };
    let is_of_it = build.split_once('@').is_some_and(|(of, _)| of == name);
    let answer = if is_of_it { Some(ask(&build).await) } else { None };
    match answer {
        None | Some(Err(ReadModelError::NoBuild { .. } | ReadModelError::Unfit { .. })) => {
            Err(AdminError::NoSuchBuild { projection: name.to_owned(), build })
        }
        Some(answer) => answer.map(Some).map_err(store),
    }
}

fn view(
    key: &str,
    position: Option<Position>,
    body: String,
    parked: Option<Parked>,
) -> Result<DocumentView, AdminError> {
    let document = RawValue::from_string(body).map_err(|error| {
        store(ReadModelError::Damaged { place: format!("document {key:?}"), reason: error.to_string() })
    })?;
    Ok(DocumentView { key: key.to_owned(), position, document: Some(document), parked })
}

fn store(error: ReadModelError) -> AdminError {
    AdminError::Run(error.into())
}

/// Which documents.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::web::api) struct DocumentsQuery {
    /// Only keys past this one.
    after: Option<String>,
    /// In this build instead of the live one.
    build: Option<String>,
    /// Documents at the most, 1 to 500; more is taken as 500.
    #[serde(default = "limit_default", deserialize_with = "limit")]
    limit: u16,
    /// Whether each comes with its document, or with its key and position alone.
    #[serde(default = "with_bodies")]
    bodies: bool,
    /// Wait until the live build has got to this position; goes without `build`.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

const fn with_bodies() -> bool {
    true
}

#[derive(Debug, Serialize)]
struct Page {
    documents: Vec<DocumentView>,
    more: bool,
}

/// The documents of a build in the order of their keys.
#[utoipa::path(get, path = "/api/projections/{name}/documents", params(("name" = String, Path), DocumentsQuery),
    responses((status = 200, description = "`{documents: [{key, position, document?}], more}`: fewer than asked for where they are large; with `more` it goes on `after` the last key"),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn all(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<DocumentsQuery>,
) -> HttpResponse {
    let DocumentsQuery { after, build, limit, bodies, min_position } = query.into_inner();
    if build.is_some() && min_position.is_some() {
        return problem(ErrorCode::Malformed, WAITS_FOR_LIVE);
    }
    if let Err(answer) = wait_as_operator(&api, &name, min_position).await {
        return answer;
    }
    match page(&api, &name, build, after, page_len(limit), bodies).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => refused(&error),
    }
}

async fn page(
    api: &Api,
    name: &str,
    build: Option<String>,
    after: Option<String>,
    limit: usize,
    bodies: bool,
) -> Result<Page, AdminError> {
    api.projector.job(name)?;
    let scan = async |after: Option<String>, limit| {
        let scan = |build: &str| api.read_models.scan(build, after.clone(), limit);
        Ok::<_, AdminError>(of(api, name, build.clone(), scan).await?.unwrap_or_default())
    };
    // One more than asked for tells whether there is a next page.
    let mut found = scan(after, limit + 1).await?;
    let more = match found.last() {
        None => false,
        Some(_) if found.len() > limit => true,
        // It may have ended for its bytes.
        Some(last) => !scan(Some(last.key.clone()), 1).await?.is_empty(),
    };
    found.truncate(limit);
    let documents = found.into_iter().map(|Document { key, position, body }| {
        let position = Some(position);
        if bodies {
            view(&key, position, body, None)
        } else {
            Ok(DocumentView { key, position, document: None, parked: None })
        }
    });
    Ok(Page { documents: documents.collect::<Result<_, _>>()?, more })
}

/// Why which document is what it is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::web::api) struct WhyQuery {
    /// Its key.
    key: String,
    /// Only events past this position.
    #[param(value_type = Option<String>)]
    after: Option<Position>,
    /// Events at the most, 1 to 500; more is taken as 500.
    #[serde(default = "limit_default", deserialize_with = "limit")]
    limit: u16,
}

#[derive(Debug, Serialize)]
struct CausesView {
    events: Vec<CauseView>,
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Position>,
}

#[derive(Debug, Serialize)]
struct CauseView {
    position: Position,
    stream: String,
    revision: u64,
    name: String,
    author: String,
    recorded_at: UnixMillis,
    data: Box<RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

/// The events that made a document what it is, in log order.
#[utoipa::path(get, path = "/api/projections/{name}/why", params(("name" = String, Path), WhyQuery),
    responses((status = 200, description = "`{events: [{position, stream, revision, name, author, recorded_at, data}], more, next?}`: fewer than asked for where they are large, and perhaps none where they stand far apart; with `more` it goes on `after` the position `next`"),
    (status = "4XX", description = "Refused", body = super::super::Problem, content_type = "application/problem+json")))]
pub(in crate::web::api) async fn why(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<WhyQuery>,
) -> HttpResponse {
    let WhyQuery { key, after, limit } = query.into_inner();
    match api.projector.why(&name, &key, after, page_len(limit)).await {
        Ok(Causes { events, next }) => {
            let events = events.iter().map(CauseView::of).collect();
            HttpResponse::Ok().json(CausesView { events, more: next.is_some(), next })
        }
        Err(error) => refused(&error),
    }
}

impl CauseView {
    fn of(cause: &Cause) -> Self {
        let recorded = &cause.recorded;
        let data = std::str::from_utf8(&recorded.envelope.data).unwrap_or("null").to_owned();
        let data = RawValue::from_string(data).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self {
            position: recorded.position,
            stream: recorded.stream.to_string(),
            revision: recorded.revision.get(),
            name: recorded.envelope.name.to_string(),
            author: recorded.envelope.author.to_string(),
            recorded_at: recorded.recorded_at,
            data,
            skipped: cause.skipped,
            unreadable: cause.unreadable.clone(),
        }
    }
}
