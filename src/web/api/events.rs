//! Recorded events as newline-delimited JSON: of one room or of all, past ones or followed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use dramatis_events::{CATEGORIES, Category, EntityId, EventName, Recorded};
use futures_util::Stream;

use self::source::Source;
use super::times::given;
use super::{Api, problem};
use crate::actors::Stage;
use crate::auth::Pass;
use crate::clock::{Clock as _, SystemClock};
use crate::log::{Filter, Header, LogError};
use crate::protocol::ErrorCode;

mod source;

/// The header that tells of which history the events are.
pub(in crate::web) const EPOCH: &str = "dramatis-epoch";

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    room: Option<EntityId>,
    /// What headers must say.
    filter: Filter,
    from: Option<u64>,
    to: Option<u64>,
    limit: Option<u64>,
    follow: bool,
}

const QUERY_ALLOWED: &str = "room, category, name (again for several), from and to (revisions with room, else positions), since and \
     before (times), limit, follow=true";

impl Asked {
    fn parse(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let mut asked = Self::default();
        for (key, value) in pairs {
            let number =
                || value.parse().map(Some).map_err(|_| format!("{key} must be a number, got {value:?}"));
            match key.as_str() {
                "room" => asked.room = Some(EntityId::parse(&value).map_err(|e| e.to_string())?),
                "category" => asked.filter.category = Some(category(&value)?),
                "since" => asked.filter.recorded_from = given("since", Some(&value))?,
                "before" => asked.filter.recorded_before = given("before", Some(&value))?,
                "to" => asked.to = number()?,
                "name" => asked.filter.names.push(name(&value)?),
                "from" => asked.from = number()?,
                "limit" => {
                    asked.limit = number()?.filter(|limit| *limit > 0);
                    asked.limit.ok_or_else(|| format!("limit must be 1 or more, got {value:?}"))?;
                }
                "follow" => {
                    asked.follow =
                        value.parse().map_err(|_| format!("follow must be true or false, got {value:?}"))?;
                }
                _ => return Err(format!("unknown parameter {key:?}: expected {QUERY_ALLOWED}")),
            }
        }
        Ok(asked)
    }

    /// Whether an event comes after all that is asked for.
    fn is_past(&self, event: &Recorded) -> bool {
        let place = if self.room.is_some() { event.revision.get() } else { event.position.to_engine() };
        self.to.is_some_and(|to| place > to)
            || self.filter.recorded_before.is_some_and(|before| event.recorded_at >= before)
    }
}

/// A category that there is. What a newer release may have recorded of others is read without this filter:
/// one that is misspelled would be taken for a log that holds none.
fn category(text: &str) -> Result<Category, String> {
    let known = CATEGORIES.map(|(category, _)| category);
    if !known.contains(&text) {
        return Err(format!("unknown category {text:?}: there are {}", known.join(", ")));
    }
    Category::parse(text).map_err(|error| error.to_string())
}

/// The name of an event that there is, for the same reason.
fn name(text: &str) -> Result<EventName, String> {
    let known: Vec<_> = CATEGORIES.iter().flat_map(|(_, names)| *names).map(|(name, _)| *name).collect();
    if !known.contains(&text) {
        return Err(format!("unknown event {text:?}: there are {}", known.join(", ")));
    }
    EventName::parse(text).map_err(|error| error.to_string())
}

/// Recorded events, one JSON object a line, in the log's order.
#[utoipa::path(get, path = "/api/events", params(
    ("room" = Option<String>, Query, description = "Only this room's"),
    ("name" = Option<Vec<String>>, Query, description = "Only events of these names, each one that this release knows"),
    ("from" = Option<u64>, Query, description = "From this revision of the room on, or this position of the log"),
    ("to" = Option<u64>, Query, description = "Up to this revision or position"),
    ("category" = Option<String>, Query, description = "Only streams of this category: `room` or `user`"),
    ("since" = Option<String>, Query, description = "Only what was recorded at this time or later: RFC 3339 or Unix milliseconds"),
    ("before" = Option<String>, Query, description = "Only what was recorded before this time"),
    ("limit" = Option<u64>, Query, description = "Events at the most, 1 or more"),
    ("follow" = Option<bool>, Query, description = "Stay and send what comes, until the token runs out or the server goes away: the body is cut short then, and goes on with `from`")),
    responses((status = 200, description = "Events; the header dramatis-epoch names the history that they are of", content_type = "application/x-ndjson"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn read(
    request: HttpRequest,
    api: web::Data<Api>,
    query: web::Query<Vec<(String, String)>>,
) -> HttpResponse {
    let asked = match Asked::parse(query.into_inner()) {
        Ok(asked) => asked,
        Err(why) => return problem(ErrorCode::Malformed, why),
    };
    let source = match Source::new(api.stage.log.clone(), &asked).await {
        Ok(source) => source,
        Err((code, why)) => return problem(code, why),
    };
    let pass = request.extensions().get::<Pass>().cloned();
    let cut: Pin<Box<dyn Future<Output = Cut>>> =
        if asked.follow { Box::pin(cut(api.stage.clone(), pass)) } else { Box::pin(std::future::pending()) };
    HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header((EPOCH, api.stage.log.epoch().to_string()))
        .streaming(lines(source, asked, cut))
}

/// Why a body ends before all that was asked for. It is cut short then: an end in order would say that
/// nothing is missing.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("an event is not JSON: {0}")]
    NoJson(#[from] serde_json::Error),
    #[error("the token of a follower has run out")]
    TokenExpired,
    #[error("the server goes away")]
    Drain,
}

/// Waits until nobody may follow any longer who came with this pass.
async fn cut(stage: Arc<Stage>, pass: Option<Pass>) -> Cut {
    let expired = async move {
        let Some(pass) = pass else { return std::future::pending().await };
        let left = pass.expires_at.get().saturating_sub(SystemClock.now().get());
        actix_rt::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
    };
    tokio::select! {
        () = expired => Cut::TokenExpired,
        () = stage.drain.closes() => Cut::Drain,
    }
}

fn lines(
    source: Source,
    asked: Asked,
    cut: Pin<Box<dyn Future<Output = Cut>>>,
) -> impl Stream<Item = Result<Bytes, Cut>> {
    let left = asked.limit.unwrap_or(u64::MAX);
    let start = (source, asked, left, cut);
    futures_util::stream::try_unfold(start, |(mut source, asked, mut left, mut cut)| async move {
        if left == 0 {
            return Ok(None);
        }
        let events = tokio::select! {
            biased;
            why = &mut cut => return Err(why),
            events = source.next() => events?,
        };
        let Some(events) = events else { return Ok(None) };
        let mut text = Vec::new();
        for event in events {
            if asked.is_past(&event) {
                left = 0;
            }
            if left == 0 {
                break;
            }
            if asked.filter.passes(&Header::of(&event)) {
                serde_json::to_writer(&mut text, &*event)?;
                text.push(b'\n');
                left -= 1;
            }
        }
        Ok(Some((Bytes::from(text), (source, asked, left, cut))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &[(&str, &str)]) -> Result<Asked, String> {
        Asked::parse(query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_query_is_read_or_refused_with_what_is_allowed() {
        let asked = parse(&[("room", "lobby"), ("name", "MessagePosted"), ("from", "3"), ("follow", "true")]);
        assert!(
            asked.is_ok_and(|asked| asked.from == Some(3) && asked.follow && asked.filter.names.len() == 1)
        );
        for (query, part) in [
            ([("room", "a b")], "entity id"),
            ([("from", "x")], "from must be a number"),
            ([("follow", "yes")], "true or false"),
            ([("limit", "0")], "limit must be 1 or more"),
            ([("limit", "some")], "limit must be a number"),
            ([("category", "rooom")], "unknown category \"rooom\": there are room, user"),
            ([("name", "MessagePostet")], "unknown event \"MessagePostet\": there are RoomOpened, "),
            ([("since", "noon")], "since: expected a time"),
            ([("colour", "red")], "unknown parameter"),
        ] {
            assert!(parse(&query).is_err_and(|why| why.contains(part)), "{query:?}");
        }
    }
}
