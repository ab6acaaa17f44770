//! What all queries share: how much a page holds, waiting for one's own write, places in pages.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderName, HeaderValue};
use dramatis_events::{EntityId, Epoch, Position, StreamId};
use dramatis_projections::DeadLetter;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::{Api, problem, refused};
use crate::projector::{AdminError, Health, History, JobProgress, JobState, Purpose, Status};
use crate::protocol::{ErrorCode, Reject};
use crate::read_models::queries::Listing;
use crate::read_models::{Place, ReadModelError, Value};

/// Documents of one page, at the most.
const PAGE_MAX: u16 = 500;
/// How long a query waits for `min_position` at the most.
const MIN_POSITION_WITHIN: Duration = Duration::from_secs(5);

/// How long a query waits for the live build to be found.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
/// How often a failure to read is logged.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// When to ask again for what is built anew, at the least and at the most, milliseconds.
const BUILT_WITHIN_MS: (u64, u64) = (1_000, 60_000);

/// The header of an answer whose documents wait.
pub(in crate::web) const PARKED_FROM: &str = "dramatis-parked-from";

/// Documents of one page, unless the client says otherwise.
pub(super) const fn limit_default() -> u16 {
    100
}

/// Reads how many documents of one page a client asks for: what is more than one holds is all of it.
pub(super) fn limit<'de, D: Deserializer<'de>>(asked: D) -> Result<u16, D::Error> {
    let text = String::deserialize(asked)?;
    let number = text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(|| {
        D::Error::custom(format!("limit must be a whole number from 1 to {PAGE_MAX}; got {text:?}"))
    })?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
}

pub(super) fn page_len(limit: u16) -> usize {
    usize::from(limit.clamp(1, PAGE_MAX))
}

/// The answer to a query, or that the store does not answer now.
pub(super) fn answer<T>(
    api: &Api,
    found: Result<T, ReadModelError>,
    then: impl FnOnce(T) -> HttpResponse,
) -> HttpResponse {
    match found {
        Ok(found) => then(found),
        Err(error) => {
            // A store that does not answer says so itself, once for all who ask.
            if api.read_models.health().trouble.is_none() && is_worth_saying() {
                tracing::warn!(%error, "documents cannot be read");
            }
            let told = "the documents cannot be read now".to_owned();
            Hindrance { code: ErrorCode::Unavailable, told, why: Some(error.to_string()) }.for_readers(api)
        }
    }
}

/// Whether an answer that failed is worth a line: who asks decides how many there are.
fn is_worth_saying() -> bool {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let worth = said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
    if worth {
        *said = Some(Instant::now());
    }
    worth
}

/// Why documents are not to be had now.
struct Hindrance {
    code: ErrorCode,
    /// What anybody is told.
    told: String,
    /// In the words of whoever said it, with the addresses of other servers.
    why: Option<String>,
}

impl Hindrance {
    /// The answer to people, who are told why in local mode alone.
    fn for_readers(self, api: &Api) -> HttpResponse {
        if api.stage.keys.is_none() {
            return self.for_operators();
        }
        problem(self.code, self.told)
    }

    fn for_operators(self) -> HttpResponse {
        let why = self.why.map(|why| format!(": {why}")).unwrap_or_default();
        problem(self.code, self.told + &why)
    }
}

/// Refuses what asks for a read model that the store cannot keep, or whose documents are of a history
/// that the rights of today say nothing about, and waits until it has got to a position, so that
/// clients read their own writes.
pub(super) async fn wait(
    api: &Api,
    projection: &str,
    position: Option<MinPosition>,
) -> Result<(), HttpResponse> {
    found(api, projection).await.map_err(|hindrance| hindrance.for_readers(api))?;
    reached(api, projection, position).await?;
    let history = api.projector.watch(projection).map(|status| status.borrow().history);
    if api.stage.keys.is_none() || history.is_none_or(|history| history == History::Present) {
        return Ok(());
    }
    let job = api.projector.job(projection).ok().flatten();
    let (stands, left_ms) = successor(projection, job);
    let why = format!(
        "{projection} {stands}, as the log's history was cut or restored: what is there is of the history before, \
         and who may read it nobody knows any more"
    );
    let mut reject = Reject::new(None, ErrorCode::Unavailable, why);
    reject.after_ms = Some(left_ms.clamp(BUILT_WITHIN_MS.0, BUILT_WITHIN_MS.1));
    Err(refused(reject))
}

/// How what takes the place of a live build stands, and when to ask for it again, milliseconds.
fn successor(projection: &str, job: Option<JobProgress>) -> (String, u64) {
    let (_, late_ms) = BUILT_WITHIN_MS;
    match job.filter(|progress| progress.job.state.is_active()) {
        // What is not begun yet is, in a moment.
        Some(progress) if progress.job.state == JobState::Paused => {
            let wish = if progress.job.purpose == Purpose::Rebuild { "resume" } else { "cancel" };
            (
                format!(
                    "waits until an admin goes on with its build: `dramatis projections {wish} {projection}`"
                ),
                late_ms,
            )
        }
        Some(progress) => ("is built anew".to_owned(), progress.eta_ms.unwrap_or_default()),
        None => (format!("waits to be built anew: `dramatis projections rebuild {projection}`"), late_ms),
    }
}

/// The same for who reads whatever there is.
pub(super) async fn wait_as_operator(
    api: &Api,
    projection: &str,
    position: Option<MinPosition>,
) -> Result<(), HttpResponse> {
    found(api, projection).await.map_err(Hindrance::for_operators)?;
    reached(api, projection, position).await
}

async fn reached(api: &Api, projection: &str, position: Option<MinPosition>) -> Result<(), HttpResponse> {
    let Some(position) = position else { return Ok(()) };
    let position = position.check(api).map_err(|(code, why)| problem(code, why))?;
    api.projector
        .wait_for(projection, position, MIN_POSITION_WITHIN)
        .await
        .map_err(|error| problem(ErrorCode::Unavailable, error.to_string()))
}

/// Waits until it is known what the live build is: before, it may be any log's.
async fn found(api: &Api, projection: &str) -> Result<(), Hindrance> {
    let Some(mut status) = api.projector.watch(projection) else {
        let unknown = AdminError::Unknown(projection.to_owned());
        return Err(Hindrance { code: ErrorCode::NotFound, told: unknown.to_string(), why: None });
    };
    // What came of it is looked at whether it came in time or not.
    let _ = tokio::time::timeout(FOUND_WITHIN, status.wait_for(Status::is_settled)).await;
    let status = status.borrow();
    let (told, why) = match (&status.health, status.refuses()) {
        (_, Some(why)) => (format!("{projection} is not kept"), Some(why)),
        _ if !status.collection.is_empty() => return Ok(()),
        (Health::Retrying { error, .. }, None) => {
            (format!("the live build of {projection} is not found"), Some(error.clone()))
        }
        _ => (format!("the live build of {projection} is not found yet: ask again"), None),
    };
    Err(Hindrance { code: ErrorCode::Unavailable, told, why })
}

/// A position that a client hands in: alone, or with its epoch and a colon before it, and then it
/// is refused if the log has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct MinPosition {
    epoch: Option<Epoch>,
    position: Position,
}

impl TryFrom<String> for MinPosition {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (epoch, position) = match text.split_once(':') {
            Some((epoch, position)) => (Some(epoch.parse().map_err(|e| format!("{e}"))?), position),
            None => (None, text.as_str()),
        };
        Ok(Self { epoch, position: position.parse().map_err(|e| format!("{e}"))? })
    }
}

impl MinPosition {
    /// The position, if it is one of this history.
    pub(super) fn check(self, api: &Api) -> Result<Position, (ErrorCode, String)> {
        let (log, position) = (&api.stage.log, self.position);
        let present = log.epoch();
        if let Some(epoch) = self.epoch.filter(|epoch| *epoch != present) {
            let why = format!(
                "position {position} is of epoch {epoch}, the log is in epoch {present}: what was read before is \
                 of another history; read again"
            );
            return Err((ErrorCode::Conflict, why));
        }
        if Some(position) > *log.head().borrow() {
            return Err((ErrorCode::AheadOfLog, format!("position {position} is past the log's end")));
        }
        Ok(position)
    }
}

/// Says in a header from which event on documents of the answer wait, because it could not be
/// folded: of one key, or of all keys below a stream.
pub(super) fn marked(api: &Api, projection: &str, key: &str, answer: HttpResponse) -> HttpResponse {
    mark(api, projection, |status| status.waits(key), answer)
}

/// The same for an answer out of many streams: of the keys for which this holds.
pub(super) fn marked_where(
    api: &Api,
    projection: &str,
    concerned: impl Fn(&str) -> bool,
    answer: HttpResponse,
) -> HttpResponse {
    mark(api, projection, |status| status.parked.iter().find(|letter| concerned(&letter.key)), answer)
}

/// The answer to who asks for what there is in a room, and there is nothing: if it was never opened, that is said,
/// so that a mistyped name does not look like silence.
pub(super) async fn nowhere<T>(
    api: &Api,
    room: &EntityId,
    found: &Result<T, ReadModelError>,
    is_empty: impl FnOnce(&T) -> bool,
) -> Option<HttpResponse> {
    if !found.as_ref().is_ok_and(is_empty) {
        return None;
    }
    let head = api.stage.log.stream_head(&StreamId::room(room)).await;
    matches!(head, Ok(None)).then(|| problem(ErrorCode::NotFound, format!("there is no room {room}")))
}

/// The answer where there is no document of a key: there is no such thing, or its first event waits.
pub(super) fn absent(api: &Api, projection: &str, key: &str, what: &str) -> HttpResponse {
    let status = api.projector.watch(projection);
    let from = status.and_then(|status| status.borrow().waits(key).map(|letter| letter.position));
    let Some(from) = from else { return problem(ErrorCode::NotFound, format!("there is no {what}")) };
    let why = format!(
        "nothing of {what} can be shown: its events wait from position {from} on, as one could not be folded; \
         `dramatis projections dead-letters {projection}` says why"
    );
    marked(api, projection, key, problem(ErrorCode::Unavailable, why))
}

fn mark(
    api: &Api,
    projection: &str,
    waits: impl FnOnce(&Status) -> Option<&DeadLetter>,
    mut answer: HttpResponse,
) -> HttpResponse {
    let position = api.projector.watch(projection).and_then(|status| {
        let status = status.borrow();
        waits(&status).map(|letter| letter.position)
    });
    let Some(position) = position else { return answer };
    let name = HeaderName::from_static(PARKED_FROM);
    let said = answer.headers().get(&name).and_then(|said| said.to_str().ok()?.parse().ok());
    // Of several read models the one that waits longest counts.
    let position = said.map_or(position, |said: Position| said.min(position));
    if let Ok(position) = HeaderValue::from_str(&position.to_string()) {
        answer.headers_mut().insert(name, position);
    }
    answer
}

/// Which page of a list that is sorted by a number.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Go on after this: `next` of the page before.
    after: Option<String>,
    /// Documents at the most, 1 to 500; more is taken as 500.
    #[serde(default = "limit_default", deserialize_with = "limit")]
    limit: u16,
    /// Wait until the read model has got to this position.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

impl PageQuery {
    /// Past which place the page is, and how much it holds, once these read models have got to the
    /// position asked for.
    pub(super) async fn opened(
        &self,
        api: &Api,
        projections: &[&str],
    ) -> Result<(Option<Place>, usize), HttpResponse> {
        let place = self.place(api).map_err(|why| problem(ErrorCode::Malformed, why))?;
        for projection in projections {
            wait(api, projection, self.min_position).await?;
        }
        Ok(place)
    }

    /// The same for who reads whatever there is.
    pub(super) async fn opened_to_operators(
        &self,
        api: &Api,
        projection: &str,
    ) -> Result<(Option<Place>, usize), HttpResponse> {
        let place = self.place(api).map_err(|why| problem(ErrorCode::Malformed, why))?;
        wait_as_operator(api, projection, self.min_position).await?;
        Ok(place)
    }

    fn place(&self, api: &Api) -> Result<(Option<Place>, usize), String> {
        let after = self.after.as_deref().map(|after| opened_place(api, after));
        let after = after.map(|place| unpack_number(&place)).transpose()?;
        Ok((after, page_len(self.limit)))
    }
}

/// The answer to such a query: the documents, and where the next page begins.
pub(super) fn page(
    api: &Api,
    found: Result<Listing, ReadModelError>,
    then: impl FnOnce(Vec<Box<RawValue>>, Option<String>) -> HttpResponse,
) -> HttpResponse {
    let packed = found.and_then(|Listing { items, next }| {
        let next = next.as_ref().map(pack_number).transpose()?;
        Ok((items, next))
    });
    answer(api, packed, |(items, next)| then(items, next))
}

/// What a place begins with that is sealed: none does that is not.
const SEALED: char = '.';

/// Where a list goes on that not all may read all of: what stands there may be what this reader may not, so
/// where there are tokens nobody can read it.
pub(super) fn sealed_place(api: &Api, place: String) -> Option<String> {
    match &api.stage.keys {
        Some(keys) => keys.seal().seal(&place).map(|sealed| format!("{SEALED}{sealed}")),
        None => Some(place),
    }
}

/// The place that a client handed back; one that was sealed by somebody else stays as it is.
pub(super) fn opened_place<'a>(api: &Api, place: &'a str) -> Cow<'a, str> {
    let sealed = place.strip_prefix(SEALED).zip(api.stage.keys.as_ref());
    match sealed.and_then(|(sealed, keys)| keys.seal().open(sealed)) {
        Some(opened) => opened.into(),
        None => place.into(),
    }
}

/// A place in a list that is sorted by a number, as clients hand it back.
pub(super) fn pack_number(place: &Place) -> Result<String, ReadModelError> {
    match place.value {
        Some(Value::Integer(number)) => Ok(format!("{number}/{}", place.key)),
        Some(Value::Text(_)) | None => {
            let reason = "it has no number to go on from".to_owned();
            Err(ReadModelError::Damaged { place: format!("document {:?}", place.key), reason })
        }
    }
}

/// Reads what [`pack_number`] wrote.
fn unpack_number(text: &str) -> Result<Place, String> {
    let malformed = || format!("after must be the next of an earlier page, got {text:?}");
    let (number, key) = text.split_once('/').ok_or_else(malformed)?;
    let value = Value::Integer(number.parse().map_err(|_| malformed())?);
    Ok(Place { value: Some(value), key: key.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_from_a_number_or_not_at_all() {
        let place = |value| Place { value, key: "room-main.den/7".to_owned() };
        let packed = pack_number(&place(Some(Value::Integer(-3)))).unwrap();
        assert_eq!(packed, "-3/room-main.den/7");
        assert_eq!(unpack_number(&packed).unwrap(), place(Some(Value::Integer(-3))));
        for value in [None, Some(Value::Text("3".to_owned()))] {
            assert!(matches!(pack_number(&place(value)), Err(ReadModelError::Damaged { .. })));
        }
        for text in ["", "3", "x/room-main.den/7"] {
            assert!(unpack_number(text).unwrap_err().contains("next"), "{text:?}");
        }
    }
}
