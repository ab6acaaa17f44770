//! Opening rooms, and reading rooms, timelines and members.

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use dramatis_events::room::Visibility;
use dramatis_events::{CommandId, EntityId, MemberId, MemberKind, Position, Revision, StreamId};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::reading::{
    MinPosition, absent, answer, limit, limit_default, marked, marked_where, nowhere, opened_place, page_len,
    sealed_place, wait,
};
use super::{Api, ask, problem, titled};
use crate::actors::answer::Accepted;
use crate::actors::entity::Request;
use crate::actors::session::commands::cannot_be_opened;
use crate::auth::Pass;
use crate::domain::room::{OpenRoom, RoomCommand};
use crate::protocol::ErrorCode;
use crate::read_models::queries::{self, Listing, RoomOrder};
use crate::read_models::{Place, ReadModelError, Value};
use crate::web::caller;

/// A room to open.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenRoomBody {
    /// The command's id, for retries: the same id opens the room once. Made up if left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "5b0f6c7e")]
    id: Option<CommandId>,
    /// Who opens it, and owns it from then on.
    #[schema(value_type = String, example = "alice")]
    user: MemberId,
    /// The room's id.
    #[schema(value_type = String, example = "lobby")]
    room: EntityId,
    /// What people call it.
    #[schema(example = "The lobby")]
    title: String,
    /// Who may read it: `open` (anyone) or `invited` (members only).
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "open")]
    visibility: Visibility,
}

/// A command that holds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Opened {
    /// The room's id.
    room: String,
    /// The revision of the command's last event.
    #[schema(value_type = Option<u64>)]
    revision: Option<Revision>,
    /// Its position: hand it in as `min_position` to read your own write.
    #[schema(value_type = Option<String>)]
    position: Option<Position>,
    /// Whether it had been recorded before.
    duplicate: bool,
}

/// Opens a room.
#[utoipa::path(post, path = "/api/rooms", request_body = OpenRoomBody, responses(
    (status = 201, description = "The room is open", body = Opened),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn open(
    api: web::Data<Api>,
    request: HttpRequest,
    body: web::Json<OpenRoomBody>,
) -> HttpResponse {
    let OpenRoomBody { id, user, room, title, visibility } = body.into_inner();
    if let Err(refusal) = caller::act(&api.stage, &request, &user, Some(&room)) {
        return refusal.answer();
    }
    if let Some(why) = cannot_be_opened(&room) {
        return problem(ErrorCode::Malformed, why);
    }
    let made_up = || CommandId::parse(&format!("http-{}", uuid::Uuid::new_v4().simple()));
    let id = match id.map_or_else(made_up, Ok) {
        Ok(id) => id,
        Err(error) => return problem(ErrorCode::Internal, error.to_string()),
    };
    let stream = StreamId::room(&room);
    let command = RoomCommand::OpenRoom(OpenRoom { title, visibility });
    let hash = command.content_hash(&stream);
    let request = Request { id, hash, author: user, occurred_at: None, expected: None, cause: None, command };
    match ask(&api.stage.rooms, &stream, request).await.map(|answer| answer.outcome) {
        Some(Ok(Accepted { revision, position, duplicate })) => {
            HttpResponse::Created().json(Opened { room: room.to_string(), revision, position, duplicate })
        }
        Some(Err(refused)) => {
            let title = refused.rule.unwrap_or_else(|| refused.code.as_str()).to_owned();
            titled(refused.code, title, refused.message)
        }
        None => {
            problem(ErrorCode::Unavailable, "the room takes no commands now: send the same id again later")
        }
    }
}

/// Which rooms.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomsQuery {
    /// `activity` (the default: the latest of when it was opened and of its messages first) or `title`.
    #[serde(default)]
    #[param(inline)]
    order: Order,
    /// Go on after this: `next` of the page before.
    after: Option<String>,
    /// Rooms at the most, 1 to 500; more is taken as 500.
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
    Activity,
    Title,
}

/// Rooms, with what happened in them last; with a token those that its user may follow.
#[utoipa::path(get, path = "/api/rooms", params(RoomsQuery), responses(
    (status = 200, description = "`{rooms: […], next}`: with a token a page may hold fewer rooms than asked for, even none, and there is a next one all the same: of very many that its user may not follow not all are looked at for one page. The list ends where there is no `next`"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    api: web::Data<Api>,
    query: web::Query<RoomsQuery>,
    request: HttpRequest,
) -> HttpResponse {
    if let Err(answer) = wait(&api, "rooms", query.min_position).await {
        return answer;
    }
    let order = match query.order {
        Order::Activity => RoomOrder::Activity,
        Order::Title => RoomOrder::Title,
    };
    let after = query.after.as_deref().map(|after| opened_place(&api, after));
    let after = match after.map(|place| unpack(&place, order)).transpose() {
        Ok(after) => after,
        Err(why) => return problem(ErrorCode::Malformed, why),
    };
    let limit = page_len(query.limit);
    let pass = request.extensions().get::<Pass>().cloned();
    let found = match pass.filter(|pass| !sees_all(pass)) {
        Some(pass) => readable(&api, &pass, order, after, limit).await,
        None => queries::rooms(&*api.read_models, "main", order, after, limit).await,
    };
    let answer = answer(&api, found, |Listing { items, next }| {
        let page = Rooms { rooms: items, next: next.and_then(|place| sealed_place(&api, pack(&place))) };
        HttpResponse::Ok().json(page)
    });
    marked_where(&api, "rooms", |_| true, answer)
}

/// Rooms that are looked at for one page, at the most: who may read few of very many gets them in more pages.
const LOOKED_AT_MAX: usize = 1_000;
/// Rooms that are read at a time to be looked at, at the least.
const READ_AT_ONCE_MIN: usize = 100;
/// Rooms that are asked at a time who may read them.
pub(super) const ASKED_AT_ONCE: usize = 32;

fn sees_all(pass: &Pass) -> bool {
    pass.user.kind() == MemberKind::Integration && pass.opens_all()
}

/// A page of those rooms that the token's user may follow.
async fn readable(
    api: &Api,
    pass: &Pass,
    order: RoomOrder,
    mut after: Option<Place>,
    limit: usize,
) -> Result<Listing, ReadModelError> {
    let (mut items, mut left) = (Vec::new(), LOOKED_AT_MAX);
    loop {
        let at_once = limit.max(READ_AT_ONCE_MIN).min(left);
        let read = queries::rooms(&*api.read_models, "main", order, after, at_once).await?;
        let (mut unseen, next) = (read.items.len(), read.next);
        left = left.saturating_sub(unseen);
        let asked = read.items.into_iter().map(|document| opened(api, pass, document));
        let mut answers = futures_util::stream::iter(asked).buffered(ASKED_AT_ONCE);
        while let Some(answer) = answers.next().await {
            unseen = unseen.saturating_sub(1);
            let Some((room, document)) = answer else { continue };
            // What was read past the last one of this page is for the next page.
            let is_last = items.len() + 1 == limit;
            let cut = (is_last && unseen > 0).then(|| queries::after_room(order, &room, &document));
            items.push(document);
            if is_last {
                return Ok(Listing { items, next: cut.transpose()?.or(next) });
            }
        }
        if next.is_none() || left == 0 {
            return Ok(Listing { items, next });
        }
        after = next;
    }
}

/// A room by its document, if the token's user may follow it.
async fn opened(api: &Api, pass: &Pass, document: Box<RawValue>) -> Option<(StreamId, Box<RawValue>)> {
    #[derive(Deserialize)]
    struct Named {
        room: EntityId,
    }
    let Named { room } = serde_json::from_str(document.get()).ok()?;
    caller::may_follow(&api.stage, pass, &room).await.then(|| (StreamId::room(&room), document))
}

#[derive(Serialize)]
struct Rooms {
    rooms: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A place as text: the sort field's value, a slash, the key.
fn pack(place: &Place) -> String {
    let value = match &place.value {
        Some(Value::Integer(number)) => number.to_string(),
        Some(Value::Text(text)) => text.clone(),
        None => String::new(),
    };
    format!("{}/{value}", place.key)
}

fn unpack(text: &str, order: RoomOrder) -> Result<Place, String> {
    let malformed = || format!("after must be the next of an earlier page in this order, got {text:?}");
    let (key, value) = text.split_once('/').ok_or_else(malformed)?;
    let value = match order {
        RoomOrder::Activity => Value::Integer(value.parse().map_err(|_| malformed())?),
        RoomOrder::Title => Value::Text(value.to_owned()),
    };
    Ok(Place { value: Some(value), key: key.to_owned() })
}

/// Which state of a room.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomQuery {
    /// Wait until the read model has got to this position.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

/// One room.
#[utoipa::path(get, path = "/api/rooms/{room}", params(("room" = String, Path), RoomQuery), responses(
    (status = 200, description = "The room"),
    (status = 404, description = "No such room", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn one(
    api: web::Data<Api>,
    room: web::Path<EntityId>,
    query: web::Query<RoomQuery>,
) -> HttpResponse {
    if let Err(answer) = wait(&api, "rooms", query.min_position).await {
        return answer;
    }
    let stream = StreamId::room(&room);
    let found = queries::room(&*api.read_models, &stream).await;
    answer(&api, found, |found| match found {
        Some(room) => marked(&api, "rooms", stream.as_str(), HttpResponse::Ok().json(room)),
        None => absent(&api, "rooms", stream.as_str(), &format!("room {room}")),
    })
}

/// Which messages.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TimelineQuery {
    /// Only messages below this revision.
    before: Option<u64>,
    /// Messages at the most, 1 to 500; more is taken as 500.
    #[serde(default = "limit_default", deserialize_with = "limit")]
    limit: u16,
    /// Wait until the read model has got to this position.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

#[derive(Serialize)]
struct Messages {
    messages: Vec<Box<RawValue>>,
    more: bool,
}

/// A room's messages, oldest first: the latest, or those before a revision.
#[utoipa::path(get, path = "/api/rooms/{room}/timeline", params(("room" = String, Path), TimelineQuery), responses(
    (status = 200, description = "`{messages: […], more}`"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn timeline(
    api: web::Data<Api>,
    room: web::Path<EntityId>,
    query: web::Query<TimelineQuery>,
) -> HttpResponse {
    if let Err(answer) = wait(&api, "timeline", query.min_position).await {
        return answer;
    }
    let before = query.before.map(Revision::new);
    let stream = StreamId::room(&room);
    let found = queries::timeline(&*api.read_models, &stream, before, page_len(query.limit)).await;
    if let Some(answer) = nowhere(&api, &room, &found, Listing::is_empty).await {
        return answer;
    }
    answer(&api, found, |Listing { mut items, next }| {
        items.reverse();
        let page = HttpResponse::Ok().json(Messages { messages: items, more: next.is_some() });
        marked(&api, "timeline", stream.as_str(), page)
    })
}

/// Which members.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct MembersQuery {
    /// Only members past this one.
    #[param(value_type = Option<String>)]
    after: Option<MemberId>,
    /// Members at the most, 1 to 500; more is taken as 500.
    #[serde(default = "limit_default", deserialize_with = "limit")]
    limit: u16,
    /// Wait until the read model has got to this position.
    #[param(value_type = Option<String>)]
    min_position: Option<MinPosition>,
}

#[derive(Serialize)]
struct Members {
    members: Vec<Box<RawValue>>,
    more: bool,
}

/// Who is in a room, by id.
#[utoipa::path(get, path = "/api/rooms/{room}/members", params(("room" = String, Path), MembersQuery), responses(
    (status = 200, description = "`{members: […], more}`"),
    (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn members(
    api: web::Data<Api>,
    room: web::Path<EntityId>,
    query: web::Query<MembersQuery>,
) -> HttpResponse {
    if let Err(answer) = wait(&api, "members", query.min_position).await {
        return answer;
    }
    let stream = StreamId::room(&room);
    let after = query.after.as_ref().map(|member| Place { value: None, key: format!("{stream}/{member}") });
    let found = queries::members(&*api.read_models, &stream, after, page_len(query.limit)).await;
    if let Some(answer) = nowhere(&api, &room, &found, Listing::is_empty).await {
        return answer;
    }
    answer(&api, found, |Listing { items, next }| {
        let page = HttpResponse::Ok().json(Members { members: items, more: next.is_some() });
        marked(&api, "members", stream.as_str(), page)
    })
}
