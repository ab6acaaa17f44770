//! A session's messages as server-sent events, for `EventSource` or a `fetch` that reads on.
//!
//! An event's data is what a text frame of the socket would be; its `id` is the cursor behind
//! it. A client that does not read holds up its own stream only: its rooms are then read from
//! the log, as for a socket. One that takes nothing at all is ended by the listener (`web::server`).

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};

use super::api::{Problem, refused};
use super::body::Text;
use super::fallback::opening::{Opening, Query};
use super::fallback::{Fallbacks, Started, refusal, start};
use super::socket::Door;
use crate::actors::outbox::Next;
use crate::protocol::{CloseCode, Reject};

/// Bytes of messages put into one event.
const EVENT_BYTES: usize = 64 * 1024;
/// A cursor of so many bytes goes with every event; a longer one, of a session with very many
/// rooms, only once as many bytes of messages went before it, and whenever other rooms are followed.
const CURSOR_BYTES_FREE: usize = 4 * 1024;

/// Starts a session whose messages come as server-sent events.
#[utoipa::path(post, path = "/api/stream",
    request_body(content = serde_json::Value, description = "A `hello` message: `{type, user, session, rooms: [{room, epoch?, after?}], cursor?}`"),
    responses(
        (status = 200, description = "Events: `data` holds messages, newline-joined, `id` the cursor behind them (one of more than about 130 rooms goes with some events alone: after a reconnect skip revisions that were there already); the last event may be one named `close` with `{type, code, reason}`", content_type = "text/event-stream"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn begin(
    request: HttpRequest,
    door: web::ThinData<Door>,
    fallbacks: web::Data<Fallbacks>,
    Text(body): Text,
) -> HttpResponse {
    let opening = Opening::of_body(&request, &body, door.stage.limits.frame_bytes_max);
    answer(&door, &fallbacks, opening).await.unwrap_or_else(refused)
}

/// Goes on with a session from a cursor, or starts one with the latest of some rooms.
#[utoipa::path(get, path = "/api/stream",
    params(
        ("Dramatis-User" = Option<String>, Header, description = "who asks; the cookie dramatis_user says it too"),
        ("Dramatis-Session" = Option<String>, Header, description = "of which session; the parameter session says it too"),
        ("session" = Option<String>, Query),
        ("Last-Event-ID" = Option<String>, Header, description = "the id of the last event handled; before `cursor`. One of very many rooms is too long for a header or an address: it is posted, as `cursor` of a `hello`"),
        ("cursor" = Option<String>, Query, description = "an id of an earlier event, or the cursor of a poll"),
        ("room" = Option<Vec<String>>, Query, description = "without a cursor: the rooms to follow, from their latest page on")),
    responses(
        (status = 200, description = "As for POST", content_type = "text/event-stream"),
        (status = 431, description = "The cursor is too long for this, and all that is said of it: post a `hello` with it"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn resume(
    request: HttpRequest,
    door: web::ThinData<Door>,
    fallbacks: web::Data<Fallbacks>,
    query: web::Query<Vec<(String, String)>>,
) -> HttpResponse {
    let opening = Query::of_pairs(query.into_inner()).and_then(|query| Opening::of_query(&request, &query));
    answer(&door, &fallbacks, opening).await.unwrap_or_else(refused)
}

async fn answer(
    door: &Door,
    fallbacks: &Arc<Fallbacks>,
    opening: Result<Opening, Reject>,
) -> Result<HttpResponse, Reject> {
    let started = start(door, fallbacks, opening?, None)?;
    let mut events = Events { started, unmarked: 0, follows_others: false, cursor_bytes: 0, ended: false };
    // The first word decides between a stream and a refusal.
    let first = match std::future::poll_fn(|cx| events.poll_next(cx)).await {
        Some(Said::Event(event)) => event,
        Some(Said::Close(code)) => return Err(refusal(code)),
        None => return Err(refusal(CloseCode::Internal)),
    };
    let hint = format!("retry: {}\n", door.stage.limits.reconnect.base_ms);
    let first = [hint.into_bytes().into(), first].map(Ok::<Bytes, Infallible>);
    let rest = futures_util::stream::poll_fn(move |cx| {
        events.poll_next(cx).map(|said| said.map(|said| Ok(said.into_bytes())))
    });
    let body = futures_util::StreamExt::chain(futures_util::stream::iter(first), rest);
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

/// A session's outbox as events.
struct Events {
    started: Started,
    /// Bytes of messages since a cursor went out.
    unmarked: usize,
    /// Whether other rooms are followed than in that.
    follows_others: bool,
    /// How long that was.
    cursor_bytes: usize,
    ended: bool,
}

enum Said {
    Event(Bytes),
    Close(CloseCode),
}

impl Said {
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Event(event) => event,
            Self::Close(code) => {
                let (code, reason) = (code.number(), code.reason());
                format!(
                    "event: close\ndata: {{\"type\":\"close\",\"code\":{code},\"reason\":\"{reason}\"}}\n\n"
                )
                .into()
            }
        }
    }
}

impl Events {
    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Said>> {
        while !self.ended {
            match ready!(self.started.outbox.poll_next(cx, EVENT_BYTES)) {
                Next::Write(messages) => return Poll::Ready(Some(Said::Event(self.event(&messages)))),
                Next::Control(_) => {}
                Next::Close(code) => {
                    self.ended = true;
                    return Poll::Ready(Some(Said::Close(code)));
                }
            }
        }
        Poll::Ready(None)
    }

    fn event(&mut self, messages: &[Bytes]) -> Bytes {
        let size = messages.iter().map(Bytes::len).sum();
        // Asked for more: what went before was taken.
        self.started.outbox.heard(Instant::now());
        self.started.outbox.drained(size);
        for message in messages {
            self.follows_others |= self.started.cursor.advance(message);
        }
        self.unmarked += size;
        // As long as the same rooms are followed it is about as long. Made in vain it would be most of the work.
        let is_due = self.follows_others || self.cursor_bytes <= CURSOR_BYTES_FREE.max(self.unmarked);
        // What comes before `ready` leads nowhere.
        let cursor = (is_due && self.started.cursor.has_begun()).then(|| self.started.cursor.encode());
        if let Some(cursor) = &cursor {
            (self.unmarked, self.follows_others, self.cursor_bytes) = (0, false, cursor.len());
        }
        write_event(cursor.as_deref(), messages)
    }
}

/// One event: its id and a line of data a message.
fn write_event(id: Option<&str>, messages: &[Bytes]) -> Bytes {
    let size: usize = messages.iter().map(|message| message.len() + "data: \n".len()).sum();
    let mut event = BytesMut::with_capacity(size + id.map_or(0, str::len) + "id: \n\n".len());
    if let Some(id) = id {
        event.extend_from_slice(b"id: ");
        event.extend_from_slice(id.as_bytes());
        event.extend_from_slice(b"\n");
    }
    for line in messages.iter().flat_map(|message| message.split(|byte| *byte == b'\n')) {
        event.extend_from_slice(b"data: ");
        // To JSON a carriage return is a space between tokens; here it would end the line.
        for (index, part) in line.split(|byte| *byte == b'\r').enumerate() {
            if index > 0 {
                event.extend_from_slice(b" ");
            }
            event.extend_from_slice(part);
        }
        event.extend_from_slice(b"\n");
    }
    event.extend_from_slice(b"\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_holds_its_messages_line_by_line() {
        let messages = [Bytes::from_static(b"{\"a\":1}\n{\"b\":2}"), Bytes::from_static(b"{\"c\":\r\r3}")];
        let event = write_event(Some("x"), &messages);
        assert_eq!(event, "id: x\ndata: {\"a\":1}\ndata: {\"b\":2}\ndata: {\"c\":  3}\n\n");
        assert_eq!(write_event(None, &messages[..1]), "data: {\"a\":1}\ndata: {\"b\":2}\n\n");
    }
}
