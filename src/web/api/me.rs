//! What a client shows before it opens a line: who the user is, what invites them, their rooms.

use std::collections::HashMap;

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use dramatis_events::{EntityId, MemberId, Revision, StreamId};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::reading::{PageQuery, answer, marked_where, pack_number, sealed_place};
use super::rooms::ASKED_AT_ONCE;
use super::{Api, refused};
use crate::auth::Pass;
use crate::domain::user::{Profile, UserState};
use crate::protocol::Reject;
use crate::read_models::queries::me::{Joined, rooms_of_member};
use crate::web::caller::may_follow;
use crate::web::fallback::caller;

/// The read models that it is put together of.
const OF: [&str; 3] = ["activity", "rooms", "members"];

#[derive(Serialize)]
struct Me {
    user: MemberId,
    profile: Profile,
    invitations: Vec<Invited>,
    rooms: Vec<Mine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Invited {
    room: EntityId,
    title: String,
    by: MemberId,
}

#[derive(Serialize)]
struct Mine {
    room: Box<RawValue>,
    member: Box<RawValue>,
    /// The last revision that the user has read.
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<Revision>,
}

/// What is known of a user besides documents.
struct Known {
    profile: Profile,
    invitations: Vec<Invited>,
    read: HashMap<EntityId, Revision>,
}

/// The user who asks: profile, invitations, and the rooms they are in, the one first in which they
/// did something last, each with how far they have read.
#[utoipa::path(get, path = "/api/me",
    params(("Dramatis-User" = Option<String>, Header, description = "who asks, where there are no tokens"), PageQuery),
    responses(
        (status = 200, description = "`{user, profile, invitations: [{room, title, by}], rooms: [{room, member, read?}], next?}`: `room` and `member` are documents as of /api/rooms and its members, `read` is the last revision read; `profile` and `invitations` are empty for who is no person"),
        (status = "4XX", description = "Refused", body = super::Problem, content_type = "application/problem+json")))]
pub(super) async fn me(
    api: web::Data<Api>,
    request: HttpRequest,
    query: web::Query<PageQuery>,
) -> HttpResponse {
    let user = match caller::user(&request) {
        Ok(user) => user,
        Err(refusal) => return refused(refusal),
    };
    let (after, limit) = match query.opened(&api, &OF).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let known = match known(&api, &user).await {
        Ok(known) => known,
        Err(refusal) => return refused(refusal),
    };
    let pass = request.extensions().get::<Pass>().cloned();
    let opens = |room: &EntityId| pass.as_ref().is_none_or(|pass| pass.opens(room));
    let mut found = rooms_of_member(&*api.read_models, "main", &user, after, limit).await;
    if let (Some(pass), Ok((joined, _))) = (&pass, &mut found) {
        *joined = followed(&api, pass, std::mem::take(joined)).await;
    }
    let found = found.and_then(|(joined, next)| Ok((joined, next.as_ref().map(pack_number).transpose()?)));
    // Whole rooms that wait, and this member in one.
    let who = user.to_string();
    let concerned = |key: &str| key.split_once('/').is_none_or(|(_, member)| member == who);
    let answer = answer(&api, found, |(joined, next)| {
        let Known { profile, mut invitations, read } = known;
        invitations.retain(|invitation| opens(&invitation.room));
        let read = |id: &EntityId| read.get(id).copied();
        let mine = |Joined { id, room, member }| Mine { room, member, read: read(&id) };
        let rooms = joined.into_iter().map(mine).collect();
        let next = next.and_then(|next| sealed_place(&api, next));
        HttpResponse::Ok().json(Me { user, profile, invitations, rooms, next })
    });
    OF.into_iter().fold(answer, |answer, projection| marked_where(&api, projection, concerned, answer))
}

/// Those of the rooms that the token's user may still follow: the read models may be behind, and say that
/// they are in one that they were removed from.
async fn followed(api: &Api, pass: &Pass, joined: Vec<Joined>) -> Vec<Joined> {
    let asked = joined
        .into_iter()
        .map(|joined| async move { may_follow(&api.stage, pass, &joined.id).await.then_some(joined) });
    let answers = futures_util::stream::iter(asked).buffered(ASKED_AT_ONCE);
    answers.filter_map(std::future::ready).collect().await
}

/// What the user's own stream says. Only people have one.
async fn known(api: &Api, user: &MemberId) -> Result<Known, Reject> {
    let of = |state: &UserState| Known {
        profile: state.profile().clone(),
        invitations: state
            .invitations()
            .map(|(room, invited)| Invited {
                room: room.clone(),
                title: invited.title.clone(),
                by: invited.by.clone(),
            })
            .collect(),
        read: state.read_markers().map(|(room, revision)| (room.clone(), revision)).collect(),
    };
    let Some(person) = user.user() else { return Ok(of(&UserState::default())) };
    // Before the question: what is recorded meanwhile is in its answer.
    let waiting = api.stage.read_markers.waiting(&person);
    let asked = api.stage.users.ask(&StreamId::user(&person), move |standing| of(standing.state)).await;
    let mut known = asked.map_err(|refused| Reject::new(None, refused.code, refused.message))?;
    for (room, revision) in waiting {
        let known = known.read.entry(room).or_insert(revision);
        *known = revision.max(*known);
    }
    Ok(known)
}
