//! Health and metrics.

use std::fmt;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::Api;
use super::times::ahead_of;
use crate::clock::{Clock as _, SystemClock};
use crate::log::EventLog;
use crate::projector::{Health, Status, another_log, kept_elsewhere};
use crate::telemetry::metrics::OfProjection;
use crate::web::caller;

/// A projection that is behind for longer than this is said so, milliseconds.
const LAG_MS_MAX: u64 = 10_000;

/// `{"status":"ok"}`, or `degraded` with the reasons; `notes` tell what is no failure: what the
/// read-model store cannot keep at all, and that the log is ahead of the clock. Where there are tokens
/// only an integration's tells more than which part it is.
#[utoipa::path(method(get, head), path = "/api/health", responses((status = 200, description = "`{status, reasons?, notes?}`")))]
pub(super) async fn health(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    let mut reasons = Vec::new();
    let poisoned = api.stage.log.poisoned();
    reasons.extend(poisoned.map(|why| Finding::because("the log takes no appends", why)));
    let whole = |part: &'static str| move |full| Finding { part: part.to_owned(), full };
    let warnings = of_the_log(&api, EventLog::warnings).await.unwrap_or_default();
    reasons.extend(warnings.into_iter().map(whole("the log is in trouble")));
    reasons.extend(api.invitations.borrow().clone().map(whole("invitations are not passed on")));
    let store = api.read_models.health();
    reasons.extend(store.trouble.map(|why| Finding::because("the read-model store does not answer", why)));
    let projections = api.projector.status();
    reasons.extend(projections.iter().flat_map(troubles));
    let mut notes: Vec<_> = projections.iter().filter_map(note).collect();
    let ahead = ahead_of(&*api.stage.log, SystemClock.now()).await;
    notes.extend(ahead.map(|full| Finding { part: "the log is ahead of the clock".to_owned(), full }));
    let fully = caller::looks_after(&api.stage, &request);
    let [reasons, notes] = [reasons, notes].map(|found| told(found, fully));
    let mut health = json!({"status": if reasons.is_empty() { "ok" } else { "degraded" }});
    for (name, said) in [("reasons", reasons), ("notes", notes)] {
        if let (Some(health), false) = (health.as_object_mut(), said.is_empty()) {
            health.insert(name.to_owned(), said.into());
        }
    }
    HttpResponse::Ok().json(health)
}

/// Something to be told of.
struct Finding {
    /// Which part it is about, in words of this server alone.
    part: String,
    /// All of it.
    full: String,
}

impl Finding {
    fn because(part: impl Into<String>, why: impl fmt::Display) -> Self {
        let part = part.into();
        Self { full: format!("{part}: {why}"), part }
    }
}

impl From<String> for Finding {
    fn from(part: String) -> Self {
        Self { full: part.clone(), part }
    }
}

fn told(found: Vec<Finding>, fully: bool) -> Vec<String> {
    let mut told: Vec<_> =
        found.into_iter().map(|Finding { part, full }| if fully { full } else { part }).collect();
    told.dedup();
    told
}

fn note(status: &Status) -> Option<Finding> {
    status.unsupported().map(|reason| not_kept(status, reason))
}

fn not_kept(status: &Status, why: impl fmt::Display) -> Finding {
    Finding::because(format!("projection {} is not kept", status.projection), why)
}

fn troubles(status: &Status) -> Vec<Finding> {
    let name = status.projection;
    let parked = status.parked.len();
    let parked = match parked {
        0 => None,
        1 => Some(format!("projection {name} has 1 key parked")),
        parked => Some(format!("projection {name} has {parked} keys parked")),
    };
    let late = status.lag_ms > LAG_MS_MAX && status.health == Health::CatchingUp;
    let late = late.then(|| {
        format!("projection {name} is {} events and {} ms behind", status.lag_events(), status.lag_ms)
    });
    let failing = match &status.health {
        Health::Retrying { error, failures } => {
            Some(Finding::because(format!("projection {name} failed {failures} times in a row"), error))
        }
        Health::Frozen { reason } => Some(Finding {
            part: format!("projection {name} is frozen"),
            full: format!("projection {name}: {reason}"),
        }),
        Health::Foreign { epoch } => Some(not_kept(status, another_log(*epoch))),
        Health::Standby { holder } => Some(not_kept(status, kept_elsewhere(holder))),
        Health::CatchingUp | Health::Live | Health::Unsupported { .. } | Health::Stopped => None,
    };
    failing.into_iter().chain([parked, late].into_iter().flatten().map(Finding::from)).collect()
}

/// What is counted, as `OpenMetrics` text.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "OpenMetrics", content_type = "text/plain")))]
pub(super) async fn metrics(api: web::Data<Api>) -> HttpResponse {
    let metrics = &api.stage.metrics;
    metrics.entities.set(i64::try_from(api.stage.rooms.len()).unwrap_or(i64::MAX));
    if let Some(head) = *api.stage.log.head().borrow() {
        metrics.log_head.set(i64::try_from(head.to_engine()).unwrap_or(i64::MAX));
    }
    let usage = of_the_log(&api, EventLog::usage).await.unwrap_or_default();
    let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.log_segments.set(number(usage.segments));
    metrics.log_stored_bytes.set(number(usage.stored_bytes));
    metrics.log_free_bytes.set(number(usage.free_bytes));
    metrics.log_relaxed.set(i64::from(usage.relaxed));
    metrics.log_poisoned.set(i64::from(api.stage.log.poisoned().is_some()));
    of_the_store(&api);
    of_projections(&api);
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(metrics.encode())
}

/// What the log answers on a thread that may wait for its disk.
async fn of_the_log<T: Send + 'static>(api: &Api, ask: fn(&dyn EventLog) -> T) -> Option<T> {
    let log = api.stage.log.clone();
    tokio::task::spawn_blocking(move || ask(&*log)).await.ok()
}

fn of_projections(api: &Api) {
    let metrics = &api.stage.metrics;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for status in api.projector.status() {
        let of = OfProjection { projection: status.projection.to_string() };
        let position = status.position.map_or(-1, |position| number(position.to_engine()));
        metrics.projection_position.get_or_create(&of).set(position);
        let projections = &metrics.projections;
        projections.lag_events.get_or_create(&of).set(number(status.lag_events()));
        projections.lag_ms.get_or_create(&of).set(number(status.lag_ms));
        projections.parked.get_or_create(&of).set(i64::try_from(status.parked.len()).unwrap_or(i64::MAX));
        let job = api.projector.job(status.projection).ok().flatten();
        let building = job.filter(|progress| progress.job.state.is_active());
        let percent = building.map_or(-1, |progress| number(progress.percent));
        projections.build_percent.get_or_create(&of).set(percent);
    }
}

fn of_the_store(api: &Api) {
    let (metrics, store) = (&api.stage.metrics, api.read_models.health());
    metrics.read_models_up.set(i64::from(store.trouble.is_none()));
    if let Some(latency) = store.latency {
        metrics.read_models_latency_microseconds.set(i64::try_from(latency.as_micros()).unwrap_or(i64::MAX));
    }
}
