//! Projections: how far they are, and building one anew beside the live one.

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use dramatis_events::Position;
use futures_util::Stream;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::{Api, problem};
use crate::projector::{Health, OnDifference, Rebuild, RebuildError, RebuildProgress, Status};
use crate::protocol::ErrorCode;
use crate::read_models::ReadModelError;

/// How a projection stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Standing {
    /// Its name.
    name: &'static str,
    /// The version of its fold.
    version: u32,
    /// The collection of its live build.
    build: String,
    /// Up to where it is done.
    #[schema(value_type = Option<String>)]
    position: Option<Position>,
    /// The log's last position.
    #[schema(value_type = Option<String>)]
    head: Option<Position>,
    /// `catching_up`, `live`, `retrying` or `stopped`.
    state: &'static str,
    /// What failed, while retrying.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Documents in the live build.
    documents: u64,
    /// Keys parked in the live build.
    parked: usize,
}

/// Every projection and how far it is.
#[utoipa::path(get, path = "/api/projections", responses((status = 200, description = "Projections", body = [Standing])))]
pub(super) async fn list(api: web::Data<Api>) -> HttpResponse {
    let mut standings = Vec::new();
    for status in api.projector.status() {
        match standing(&api, status).await {
            Ok(standing) => standings.push(standing),
            Err(error) => return problem(ErrorCode::Unavailable, error.to_string()),
        }
    }
    HttpResponse::Ok().json(standings)
}

async fn standing(api: &Api, status: Status) -> Result<Standing, ReadModelError> {
    let documents = match status.collection.as_str() {
        "" => 0,
        collection => api.read_models.count(collection).await?,
    };
    let (state, error) = match status.health {
        Health::CatchingUp => ("catching_up", None),
        Health::Live => ("live", None),
        Health::Retrying { error, .. } => ("retrying", Some(error)),
        Health::Stopped => ("stopped", None),
    };
    Ok(Standing {
        name: status.projection,
        version: status.version,
        build: status.collection,
        position: status.position,
        head: *api.stage.log.head().borrow(),
        state,
        error,
        documents,
        parked: status.parked,
    })
}

/// One line of a rebuild.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Step {
    /// How far it read.
    #[schema(value_type = Option<String>)]
    position: Option<Position>,
    /// The log's last position.
    #[schema(value_type = Option<String>)]
    head: Option<Position>,
    /// How much of the log that is.
    percent: u64,
    /// Events folded a second.
    events_per_second: u64,
    /// Documents written; in the last line, documents there are.
    documents: u64,
    /// Time left, milliseconds.
    eta_ms: u64,
    /// Whether the new build is live.
    done: bool,
    /// The new build's digest, in the last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Builds a projection anew beside the live build and switches over; a line whenever it got further.
#[utoipa::path(post, path = "/api/projections/{name}/rebuild", params(("name" = String, Path)), responses(
    (status = 200, description = "Progress, one object a line", content_type = "application/x-ndjson", body = Step),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn rebuild(api: web::Data<Api>, name: web::Path<String>) -> HttpResponse {
    match api.projector.rebuild(&name, OnDifference::Stop) {
        Ok(rebuild) => HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines(rebuild)),
        Err(error @ RebuildError::Unknown(_)) => problem(ErrorCode::NotFound, error.to_string()),
        Err(error @ RebuildError::Running) => problem(ErrorCode::Conflict, error.to_string()),
        Err(error) => problem(ErrorCode::Unavailable, error.to_string()),
    }
}

enum Watching {
    Progress(Rebuild, watch::Receiver<RebuildProgress>),
    Done,
}

fn lines(rebuild: Rebuild) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let progress = rebuild.progress();
    futures_util::stream::unfold(Watching::Progress(rebuild, progress), |watching| async move {
        let Watching::Progress(rebuild, mut progress) = watching else { return None };
        if progress.changed().await.is_ok() {
            let step = step(&progress.borrow_and_update());
            return Some((Ok(line(&step)), Watching::Progress(rebuild, progress)));
        }
        let mut last = step(&progress.borrow());
        match rebuild.finish().await {
            Ok(report) => {
                last.done = true;
                last.percent = 100;
                last.eta_ms = 0;
                last.documents = report.documents;
                last.digest = Some(report.digest.to_string());
            }
            Err(error) => last.error = Some(error.to_string()),
        }
        Some((Ok(line(&last)), Watching::Done))
    })
}

fn step(progress: &RebuildProgress) -> Step {
    Step {
        position: progress.position,
        head: progress.head,
        percent: progress.percent,
        events_per_second: progress.events_per_s,
        documents: progress.documents_written,
        eta_ms: progress.eta_s.saturating_mul(1_000),
        done: false,
        digest: None,
        error: None,
    }
}

fn line(step: &Step) -> Bytes {
    let mut text = serde_json::to_vec(step).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
