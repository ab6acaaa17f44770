//! Projections: how far they are, what is built beside them, and what came to nothing.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use dramatis_events::{Epoch, Position, UnixMillis};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use utoipa::{IntoParams, ToSchema};

use super::{Api, problem};
use crate::projector::{
    AdminError, Completion, Difference, Health, JobProgress, Kept, Parked, Purpose, RunError, another_log,
    kept_elsewhere,
};
use crate::protocol::ErrorCode;
use crate::read_models::ReadModelError;

pub(super) mod documents;
pub(super) mod jobs;
pub(super) mod letters;

/// How long is waited for what is not known yet, right after a start.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// How long the documents of all builds that are asked for are counted, at the most.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

/// How a projection stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Standing {
    /// Its name.
    name: &'static str,
    /// The version of its fold.
    version: u32,
    /// The collection of its live build.
    build: String,
    /// The epoch of the log.
    #[schema(value_type = String)]
    epoch: Epoch,
    /// Up to where it is done.
    #[schema(value_type = Option<String>)]
    position: Option<Position>,
    /// The log's last position.
    #[schema(value_type = Option<String>)]
    head: Option<Position>,
    /// `catching_up`, `live`, `frozen` (queries get an older build as it stands), `standby`
    /// (another process keeps it in this store), `foreign` (the store holds it of another log), `retrying`,
    /// `unsupported` (the store cannot keep it) or `stopped`.
    state: &'static str,
    /// What failed, why it is frozen or not kept, or who keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Events of the log it has not looked at.
    lag_events: u64,
    /// For how long it has not been at the log's end, milliseconds.
    lag_ms: u64,
    /// Events folded since the process started.
    events: u64,
    /// Documents in the live build; left out if they were not to be counted, or cannot be now, or not within
    /// five seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<u64>,
    /// Keys parked in the live build.
    parked: usize,
    /// The last build made beside the live one.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<JobView>,
    /// Builds that stay for a while.
    kept: Vec<KeptView>,
}

/// A build made beside the live one.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobView {
    /// Its collection.
    build: String,
    /// `rebuild`, `verify` or `as_of`.
    purpose: &'static str,
    /// The position it is to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    as_of: Option<Position>,
    /// `building`, `proving`, `paused`, `differs` (accept it or cancel it), `done`, `cancelled`
    /// or `failed`.
    state: &'static str,
    /// Whether to switch although documents differ.
    accept: bool,
    /// How far it read.
    #[schema(value_type = Option<String>)]
    position: Option<Position>,
    /// How far it is to read.
    #[schema(value_type = Option<String>)]
    target: Option<Position>,
    /// How much of that is done, 0 to 100.
    percent: u64,
    /// Events folded.
    events: u64,
    /// Events folded a second, while it worked.
    events_per_second: u64,
    /// The most events a second, if it is held back by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_second_max: Option<u64>,
    /// Documents written, each as often as it was.
    documents_written: u64,
    /// Time left, milliseconds, while it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_ms: Option<u64>,
    /// When it was asked for, Unix milliseconds.
    #[schema(value_type = i64)]
    started_at: UnixMillis,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    ended_at: Option<UnixMillis>,
    /// Time worked on it, without pauses, milliseconds.
    worked_ms: u64,
    /// That it is complete: position, number of documents, digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    completion: Option<Completion>,
    /// Keys that are parked in it: `{keys, shown: [{key, position, error}]}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    parked: Option<Parked>,
    /// Whether it was compared where a live build that goes on no more stands, at its position.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    compared_frozen: bool,
    /// How its documents differ from those of the live build, and its parked keys:
    /// `{documents, shown: [{key, fields, live, new, live_position, new_position}], parked, parked_shown:
    /// [{key, live, new}]}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    difference: Option<Difference>,
    /// The build it took the place of.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A build that stays for a while.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeptView {
    /// Its collection.
    build: String,
    /// The position it shows, if it was made to show one; else it was live before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    as_of: Option<Position>,
    /// Until when it is kept up with the log, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    warm_until: Option<UnixMillis>,
    /// When it is dropped, Unix milliseconds.
    #[schema(value_type = i64)]
    drop_at: UnixMillis,
}

/// What to look at.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Whether to count documents, which takes longer the more there are; true unless said.
    #[serde(default = "yes")]
    counts: bool,
}

const fn yes() -> bool {
    true
}

/// Every projection and how far it is.
#[utoipa::path(get, path = "/api/projections", params(ListQuery), responses(
    (status = 200, description = "Projections", body = [Standing]),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn list(api: web::Data<Api>, query: web::Query<ListQuery>) -> HttpResponse {
    let (names, until) = (api.projector.status(), Instant::now() + KNOWN_WITHIN);
    let standings = names.iter().map(|status| standing(&api, status.projection, query.counts, until));
    let standings = join_all(standings).await;
    HttpResponse::Ok().json(standings.into_iter().flatten().collect::<Vec<_>>())
}

/// One projection and how far it is.
#[utoipa::path(get, path = "/api/projections/{name}", params(("name" = String, Path), ListQuery), responses(
    (status = 200, description = "The projection", body = Standing),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn one(
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<ListQuery>,
) -> HttpResponse {
    match standing(&api, &name, query.counts, Instant::now() + KNOWN_WITHIN).await {
        Some(standing) => HttpResponse::Ok().json(standing),
        None => refused(&AdminError::Unknown(name.into_inner())),
    }
}

async fn standing(api: &Api, name: &str, counts: bool, until: Instant) -> Option<Standing> {
    api.projector.known(name, until).await;
    // Looked at before the build that is live: one that is done is live by then.
    let job = api.projector.job(name).ok().flatten();
    let status = api.projector.status_of(name)?;
    let documents = match status.collection.as_str() {
        _ if !counts || matches!(status.health, Health::Foreign { .. } | Health::Standby { .. }) => None,
        "" => Some(0),
        // Whoever looks into a trouble of the store, or at very many documents, is not to be without the rest.
        collection => {
            timeout(COUNTED_WITHIN, api.read_models.count(collection)).await.ok().and_then(Result::ok)
        }
    };
    let (state, lag_events) = (status.health.as_str(), status.lag_events());
    let error = match status.health {
        Health::CatchingUp | Health::Live | Health::Stopped => None,
        Health::Frozen { reason } | Health::Unsupported { reason } => Some(reason),
        Health::Foreign { epoch } => Some(another_log(epoch)),
        Health::Standby { holder } => Some(kept_elsewhere(&holder)),
        Health::Retrying { error, .. } => Some(error),
    };
    Some(Standing {
        name: status.projection,
        version: status.version,
        build: status.collection,
        epoch: status.epoch,
        position: status.position,
        head: status.head,
        state,
        error,
        lag_events,
        lag_ms: status.lag_ms,
        events: status.events,
        documents,
        parked: status.parked.len(),
        job: job.map(JobView::from),
        kept: status.kept.into_iter().map(KeptView::from).collect(),
    })
}

impl From<JobProgress> for JobView {
    fn from(progress: JobProgress) -> Self {
        let JobProgress { job, position, target, percent, events_per_s, eta_ms } = progress;
        let (purpose, as_of) = match job.purpose {
            Purpose::Rebuild => ("rebuild", None),
            Purpose::Verify => ("verify", None),
            Purpose::AsOf { position } => ("as_of", Some(position)),
        };
        Self {
            build: job.collection,
            purpose,
            as_of,
            state: job.state.as_str(),
            accept: job.accept,
            position,
            target,
            percent,
            events: job.events,
            events_per_second: events_per_s,
            events_per_second_max: job.events_per_s_max,
            documents_written: job.documents_written,
            eta_ms,
            started_at: job.started_at,
            ended_at: job.ended_at,
            worked_ms: job.worked_ms,
            completion: job.completion,
            parked: job.parked,
            compared_frozen: job.compared_frozen,
            difference: job.difference,
            replaced: job.replaced,
            error: job.error,
        }
    }
}

impl From<Kept> for KeptView {
    fn from(kept: Kept) -> Self {
        let Kept { collection, as_of, warm_until, drop_at } = kept;
        Self { build: collection, as_of, warm_until, drop_at }
    }
}

/// What an admin is told instead.
fn refused(error: &AdminError) -> HttpResponse {
    let code = match error {
        AdminError::Unknown(_)
        | AdminError::NoSuchBuild { .. }
        | AdminError::NotKept { .. }
        | AdminError::NotParked { .. }
        | AdminError::Run(RunError::Store(ReadModelError::NoBuild { .. })) => ErrorCode::NotFound,
        AdminError::Busy { .. }
        | AdminError::NoJob { .. }
        | AdminError::NotNow { .. }
        | AdminError::NotToSwitch { .. }
        | AdminError::TooManyKept { .. }
        | AdminError::NothingKept { .. }
        | AdminError::OtherHistory { .. }
        | AdminError::Frozen { .. }
        | AdminError::TooManySkipped { .. } => ErrorCode::Conflict,
        AdminError::WholeLog { .. } | AdminError::TooMuch { .. } => ErrorCode::Malformed,
        AdminError::BeforeTheLog => ErrorCode::AheadOfLog,
        AdminError::Elsewhere { .. }
        | AdminError::Foreign { .. }
        | AdminError::NotFound { .. }
        | AdminError::Unsupported { .. }
        | AdminError::Run(_)
        | AdminError::Stopped => ErrorCode::Unavailable,
    };
    problem(code, error.to_string())
}
