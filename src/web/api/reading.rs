//! What all queries share: how much a page holds, waiting for one's own write, places in pages.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderName, HeaderValue};
use dramatis_events::{Epoch, Position};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Api, problem};
use crate::protocol::ErrorCode;
use crate::read_models::{Place, ReadModelError, Value};

/// Documents of one page, at the most.
const PAGE_MAX: u16 = 500;
/// How long a query waits for `min_position` at the most.
const MIN_POSITION_WITHIN: Duration = Duration::from_secs(5);

/// The header of an answer whose documents wait.
const PARKED_FROM: &str = "dramatis-parked-from";

/// Documents of one page, unless the client says otherwise.
pub(super) const fn limit_default() -> u16 {
    100
}

/// Reads how many documents of one page a client asks for.
pub(super) fn limit<'de, D: Deserializer<'de>>(asked: D) -> Result<u16, D::Error> {
    let text = String::deserialize(asked)?;
    let number = text.parse::<u64>().map_err(|_| {
        D::Error::custom(format!("limit must be a whole number from 1 to {PAGE_MAX}; got {text:?}"))
    })?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
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
    position: Option<MinPosition>,
) -> Result<(), HttpResponse> {
    let Some(position) = position else { return Ok(()) };
    let position = position.check(api).map_err(|(code, why)| problem(code, why))?;
    api.projector
        .wait_for(projection, position, MIN_POSITION_WITHIN)
        .await
        .map_err(|error| problem(ErrorCode::Unavailable, error.to_string()))
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
pub(super) fn marked(api: &Api, projection: &str, key: &str, mut answer: HttpResponse) -> HttpResponse {
    let status = api.projector.status().into_iter().find(|status| status.projection == projection);
    let position = status.as_ref().and_then(|status| status.waits(key)).map(|letter| letter.position);
    if let Some(position) = position.and_then(|position| HeaderValue::from_str(&position.to_string()).ok()) {
        answer.headers_mut().insert(HeaderName::from_static(PARKED_FROM), position);
    }
    answer
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
