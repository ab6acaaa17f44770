//! Searching messages by their words.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use dramatis_events::{EntityId, MemberId, StreamId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::reading::{
    MinPosition, answer, limit, limit_default, marked, marked_where, nowhere, page_len, wait,
};
use super::{Api, problem};
use crate::actors::meters::Permit;
use crate::protocol::ErrorCode;
use crate::read_models::queries::search::{self, Asked};
use crate::read_models::{ReadModelError, ReadModels, SEARCH_SKIP_MAX, text};
use crate::web::caller;

/// What to search for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchQuery {
    /// Words that must all occur in what was said, or phrases in double quotes; case, accents and optional
    /// points do not count. At most 32 words and phrases, of 256 words together; of Chinese, Japanese kana, Thai, Lao,
    /// Burmese and Khmer each letter counts as a word.
    q: String,
    /// Only in this room.
    #[param(value_type = Option<String>)]
    room: Option<EntityId>,
    /// Only what this member said. Names of members are none of the words that `q` looks for.
    #[param(value_type = Option<String>)]
    by: Option<MemberId>,
    /// `best` (the default) or `newest`.
    #[serde(default)]
    #[param(inline)]
    order: Order,
    /// Leave out so many of the first, at most 10000.
    #[serde(default)]
    skip: usize,
    /// Messages at the most, 1 to 500; more is taken as 500.
    #[serde(default = "limit_default", deserialize_with = "limit")]
    limit: u16,
    /// Wait until the read model has got to this position.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Best,
    Newest,
}

#[derive(Serialize)]
struct Messages {
    messages: Vec<Box<RawValue>>,
    more: bool,
}

/// Messages whose words hold what is asked.
#[utoipa::path(get, path = "/api/search", params(SearchQuery), responses(
    (status = 200, description = "`{messages: […], more}`: to go on, skip as many as came"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn messages(
    api: web::Data<Api>,
    request: HttpRequest,
    query: web::Query<SearchQuery>,
) -> HttpResponse {
    let SearchQuery { q, room, by, order, skip, limit, min_position } = query.into_inner();
    match text::phrases(&q) {
        Ok(phrases) if phrases.is_empty() => {
            return problem(ErrorCode::Malformed, format!("q must hold a word to search for, got {q:?}"));
        }
        Ok(_) => {}
        Err(error) => return problem(ErrorCode::Malformed, error.to_string()),
    }
    if skip > SEARCH_SKIP_MAX {
        let why = format!("skip must be at most {SEARCH_SKIP_MAX}, got {skip}: search for more words");
        return problem(ErrorCode::Malformed, why);
    }
    let permit = match caller::may_search(&api.stage, &request) {
        Ok(permit) => permit,
        Err(refusal) => return refusal.answer(),
    };
    if let Err(answer) = wait(&api, "search", min_position).await {
        return answer;
    }
    let order = match order {
        Order::Best => search::Order::Best,
        Order::Newest => search::Order::Newest,
    };
    let (stream, within) = (room.as_ref().map(StreamId::room), room.clone());
    let asked = Asked { text: q, room, by, order, skip, limit: page_len(limit) };
    let found = to_the_end(api.read_models.clone(), asked, permit).await;
    if let Some(room) = within
        && let Some(answer) = nowhere(&api, &room, &found, |(messages, _)| messages.is_empty()).await
    {
        return answer;
    }
    let answer = answer(&api, found, |(messages, more)| HttpResponse::Ok().json(Messages { messages, more }));
    match stream {
        Some(stream) => marked(&api, "search", stream.as_str(), answer),
        None => marked_where(&api, "search", |_| true, answer),
    }
}

/// Searches, and gives the permit back then and not before: the store goes on, or has the search in its queue,
/// though whoever asked has gone.
async fn to_the_end(
    store: Arc<dyn ReadModels>,
    asked: Asked,
    permit: Option<Permit>,
) -> Result<(Vec<Box<RawValue>>, bool), ReadModelError> {
    let searching = actix_web::rt::spawn(async move {
        let found = search::messages(&*store, "main", asked).await;
        drop(permit);
        found
    });
    searching.await.unwrap_or_else(|error| Err(ReadModelError::Failure { reason: error.to_string() }))
}
