//! A session's messages as answers to polls: each answers at once if there is anything, else
//! once there is, or after its wait.
//!
//! Between two polls the session stays where it is for a while, on its own thread, and polls
//! find it from any other. It saves work and no more: a poll whose cursor is not the one that
//! was last given (the answer was lost, say) starts the session anew from its own.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::api::{Problem, refused};
use super::body::Text;
use super::fallback::opening::{Opening, Query};
use super::fallback::{Fallbacks, POLLS_LEN_MAX, Started, refusal, start};
use super::socket::Door;
use crate::actors::outbox::{Next, Outbox};
use crate::protocol::{CloseCode, ErrorCode, Reject};

/// How long a poll waits if it does not say, and at the most, in seconds.
const WAIT_DEFAULT_S: u64 = 25;
const WAIT_MAX_S: u64 = 60;
/// Bytes of messages at which an answer is full.
const ANSWER_BYTES: usize = 256 * 1024;

/// One poll on its way to its session.
pub(super) struct Take {
    cursor: Option<String>,
    wait: Duration,
    reply: oneshot::Sender<Taken>,
}

/// What became of it.
enum Taken {
    /// Perhaps nothing, and perhaps the session's end; without a cursor it ended before it began.
    Messages { messages: Vec<Bytes>, cursor: Option<String>, close: Option<CloseCode> },
    /// The session does not stand at this cursor.
    Elsewhere,
    /// A later poll has taken its place.
    Superseded,
}

/// Starts a session whose messages are polled for, or goes on from a cursor.
#[utoipa::path(post, path = "/api/poll",
    params(
        ("Dramatis-User" = Option<String>, Header, description = "with a cursor as the body: who asks"),
        ("Dramatis-Session" = Option<String>, Header, description = "with a cursor as the body: of which session"),
        ("wait" = Option<u64>, Query, description = "seconds to wait if there is nothing, up to 60; 25 if left out")),
    request_body(content = serde_json::Value, description = "A `hello` message: `{type, user, session, rooms: [{room, epoch?, after?}], cursor?}`; or `{cursor}` alone, that of the last answer handled: as `GET`, for a cursor of very many rooms, which is too long for an address"),
    responses(
        (status = 200, description = "`{cursor?, messages: […], close?}`: `close` is the code of a session that was ended, without a cursor if that was before it began", body = serde_json::Value),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn begin(
    request: HttpRequest,
    door: web::ThinData<Door>,
    fallbacks: web::Data<Fallbacks>,
    query: web::Query<Vec<(String, String)>>,
    Text(body): Text,
) -> HttpResponse {
    let max = door.stage.limits.frame_bytes_max;
    let asked = Query::of_pairs(query.into_inner())
        .and_then(|query| Ok((wait(&query), Opening::of_hello_or_cursor(&request, &query, &body, max)?)));
    match asked {
        Ok((wait, opening)) => resumed(&door, &fallbacks, opening, wait).await.unwrap_or_else(refused),
        Err(refusal) => refused(refusal),
    }
}

/// What follows a cursor.
#[utoipa::path(get, path = "/api/poll",
    params(
        ("Dramatis-User" = Option<String>, Header, description = "who asks; the cookie dramatis_user says it too"),
        ("Dramatis-Session" = Option<String>, Header, description = "of which session; the parameter session says it too"),
        ("session" = Option<String>, Query),
        ("cursor" = Option<String>, Query, description = "the cursor of the last answer handled, or an id of a stream"),
        ("room" = Option<Vec<String>>, Query, description = "without a cursor: the rooms to follow, from their latest page on"),
        ("wait" = Option<u64>, Query, description = "seconds to wait if there is nothing, up to 60; 25 if left out")),
    responses(
        (status = 200, description = "As for POST", body = serde_json::Value),
        (status = 431, description = "The cursor is too long for this, and all that is said of it: post it"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn resume(
    request: HttpRequest,
    door: web::ThinData<Door>,
    fallbacks: web::Data<Fallbacks>,
    query: web::Query<Vec<(String, String)>>,
) -> HttpResponse {
    let asked = Query::of_pairs(query.into_inner())
        .and_then(|query| Ok((wait(&query), Opening::of_query(&request, &query)?)));
    match asked {
        Ok((wait, opening)) => resumed(&door, &fallbacks, opening, wait).await.unwrap_or_else(refused),
        Err(refusal) => refused(refusal),
    }
}

async fn resumed(
    door: &Door,
    fallbacks: &Arc<Fallbacks>,
    opening: Opening,
    wait: Duration,
) -> Result<HttpResponse, Reject> {
    let cursor = opening.cursor.clone();
    if let Some(cursor) = &cursor
        && let Some(polls) = fallbacks.polls(&opening.key, opening.pass.as_ref())
    {
        let (reply, taken) = oneshot::channel();
        let take = Take { cursor: Some(cursor.clone()), wait, reply };
        if polls.send(take).await.is_ok() {
            match taken.await {
                Ok(Taken::Elsewhere) | Err(_) => {}
                Ok(taken) => return answer(taken, Some(cursor)),
            }
        }
    }
    answer(begun(door, fallbacks, opening, wait).await?, cursor.as_deref())
}

fn wait(query: &Query) -> Duration {
    Duration::from_secs(query.wait.unwrap_or(WAIT_DEFAULT_S).min(WAIT_MAX_S))
}

/// Starts a session and takes its first messages.
async fn begun(
    door: &Door,
    fallbacks: &Arc<Fallbacks>,
    opening: Opening,
    wait: Duration,
) -> Result<Taken, Reject> {
    let (reply, taken) = oneshot::channel();
    let take = Take { cursor: opening.cursor.clone(), wait, reply };
    let (polls, queue) = mpsc::channel(POLLS_LEN_MAX);
    let started = start(door, fallbacks, opening, Some(polls))?;
    actix_rt::spawn(run(started, take, queue));
    Ok(taken.await.unwrap_or(Taken::Superseded))
}

fn answer(taken: Taken, asked: Option<&str>) -> Result<HttpResponse, Reject> {
    match (taken, asked) {
        (Taken::Messages { messages, close: Some(code), .. }, None) if messages.is_empty() => {
            Err(refusal(code))
        }
        // Who has gone on from a cursor stands there still.
        (Taken::Messages { messages, cursor, close }, asked) => {
            Ok(page(cursor.as_deref().or(asked), &messages, close))
        }
        (Taken::Superseded | Taken::Elsewhere, Some(cursor)) => Ok(page(Some(cursor), &[], None)),
        (Taken::Superseded | Taken::Elsewhere, None) => {
            let message = "another request of this session came meanwhile: ask again";
            Err(Reject::new(None, ErrorCode::Unavailable, message))
        }
    }
}

fn page(cursor: Option<&str>, messages: &[Bytes], close: Option<CloseCode>) -> HttpResponse {
    let size: usize = messages.iter().map(|message| message.len() + 1).sum();
    let cursor = cursor.map_or_else(String::new, |cursor| format!("\"cursor\":\"{cursor}\","));
    let mut body = Vec::with_capacity(size + cursor.len() + 64);
    body.extend_from_slice(format!("{{{cursor}\"messages\":[").as_bytes());
    let lines = messages.iter().flat_map(|message| message.split(|byte| *byte == b'\n'));
    for (index, line) in lines.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line);
    }
    body.push(b']');
    if let Some(code) = close {
        body.extend_from_slice(format!(",\"close\":{}", code.number()).as_bytes());
    }
    body.push(b'}');
    HttpResponse::Ok().content_type("application/json").insert_header((CACHE_CONTROL, "no-store")).body(body)
}

/// Answers polls until the session ends, or one comes that it cannot answer. The first is not answered
/// before the session has begun, however short its wait: there is no cursor yet that says which rooms
/// are followed.
async fn run(mut started: Started, mut take: Take, mut takes: mpsc::Receiver<Take>) {
    let mut given = take.cursor.clone();
    let mut messages = Vec::new();
    loop {
        if take.cursor != given {
            // Its place is for the session that begins in its stead.
            drop(started);
            let _ = take.reply.send(Taken::Elsewhere);
            return;
        }
        started.outbox.waits(true);
        let deadline = tokio::time::Instant::now() + take.wait;
        let has_begun = started.cursor.has_begun();
        let (gathered, close) = tokio::select! {
            biased;
            newer = takes.recv() => {
                let _ = take.reply.send(Taken::Superseded);
                match newer {
                    Some(newer) => take = newer,
                    None => return,
                }
                continue;
            }
            gathered = gather(&started.outbox) => gathered,
            () = tokio::time::sleep_until(deadline), if has_begun => (Vec::new(), None),
        };
        for message in &gathered {
            started.cursor.advance(message);
        }
        messages.extend(gathered);
        if !started.cursor.has_begun() && close.is_none() {
            continue;
        }
        let cursor = Some(started.cursor.encode()).filter(|_| started.cursor.has_begun());
        given = cursor.clone().or(given);
        let messages = std::mem::take(&mut messages);
        started.outbox.waits(false);
        let _ = take.reply.send(Taken::Messages { messages, cursor, close });
        if close.is_some() {
            return;
        }
        tokio::select! {
            newer = takes.recv() => match newer {
                Some(newer) => take = newer,
                None => return,
            },
            () = started.outbox.ending() => return,
        }
    }
}

/// Waits for messages and takes all there are, up to a full answer.
async fn gather(outbox: &Outbox) -> (Vec<Bytes>, Option<CloseCode>) {
    let mut gathered = Vec::new();
    let mut size = 0;
    std::future::poll_fn(move |cx| {
        while size < ANSWER_BYTES {
            match outbox.poll_next(cx, ANSWER_BYTES) {
                Poll::Ready(Next::Write(messages)) => {
                    let taken = messages.bytes();
                    outbox.drained(taken);
                    size += taken;
                    gathered.extend_from_slice(&messages);
                }
                Poll::Ready(Next::Control(_)) => {}
                Poll::Ready(Next::Close(code)) => {
                    return Poll::Ready((std::mem::take(&mut gathered), Some(code)));
                }
                Poll::Pending if gathered.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready((std::mem::take(&mut gathered), None))
    })
    .await
}
