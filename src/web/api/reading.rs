//! What all queries share: how much a page holds, waiting for one's own write, places in pages.

use std::time::Duration;

use actix_web::HttpResponse;
use dramatis_events::Position;

use super::{Api, problem};
use crate::protocol::ErrorCode;
use crate::read_models::{Place, ReadModelError, Value};

/// Documents of one page, at the most.
const PAGE_MAX: u16 = 500;
/// How long a query waits for `min_position` at the most.
const MIN_POSITION_WITHIN: Duration = Duration::from_secs(5);

/// Documents of one page, unless the client says otherwise.
pub(super) const fn limit_default() -> u16 {
    100
}

pub(super) fn page_len(limit: u16) -> usize {
    usize::from(limit.clamp(1, PAGE_MAX))
}

/// The answer to a query, or that the store does not answer now.
pub(super) fn answer<T>(
    found: Result<T, ReadModelError>,
    then: impl FnOnce(T) -> HttpResponse,
) -> HttpResponse {
    match found {
        Ok(found) => then(found),
        Err(error) => problem(ErrorCode::Unavailable, error.to_string()),
    }
}

/// Waits until a read model has got to a position, so that clients read their own writes.
pub(super) async fn wait(
    api: &Api,
    projection: &str,
    position: Option<Position>,
) -> Result<(), HttpResponse> {
    let Some(position) = position else { return Ok(()) };
    if Some(position) > *api.stage.log.head().borrow() {
        return Err(problem(ErrorCode::AheadOfLog, format!("position {position} is past the log's end")));
    }
    api.projector
        .wait_for(projection, position, MIN_POSITION_WITHIN)
        .await
        .map_err(|error| problem(ErrorCode::Unavailable, error.to_string()))
}

/// A place in a list that is sorted by a number, as clients hand it back.
pub(super) fn pack_number(place: &Place) -> String {
    let number = match place.value {
        Some(Value::Integer(number)) => number,
        Some(Value::Text(_)) | None => 0,
    };
    format!("{number}/{}", place.key)
}

/// Reads what [`pack_number`] wrote.
pub(super) fn unpack_number(text: &str) -> Result<Place, String> {
    let malformed = || format!("after must be the next of an earlier page, got {text:?}");
    let (number, key) = text.split_once('/').ok_or_else(malformed)?;
    let value = Value::Integer(number.parse().map_err(|_| malformed())?);
    Ok(Place { value: Some(value), key: key.to_owned() })
}
