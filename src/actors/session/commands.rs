//! Commands on their way to the rooms' entities, and answers on their way back.

use actix::prelude::*;
use bytes::Bytes;
use dramatis_events::{EntityId, MemberId, MemberKind, StreamId};
use serde_json::value::RawValue;

use super::{Session, join};
use crate::actors::answer::{Accepted, Answer, Answers, ReplyTo};
use crate::actors::entity::{Pending, Request};
use crate::domain::room::{Room, RoomCommand};
use crate::protocol::{Ack, CommandFrame, ErrorCode, Reject, ServerMessage};

/// When a room has too much waiting, come back after this, in milliseconds.
const OVERLOADED_AFTER_MS: u64 = 250;

/// Commands of one frame, grouped by runs of the same room.
#[derive(Default)]
pub(super) struct Batch(Vec<(EntityId, Vec<Request<Room>>)>);

impl Batch {
    fn push(&mut self, room: EntityId, request: Request<Room>) {
        match self.0.last_mut() {
            Some((last, requests)) if *last == room => requests.push(request),
            _ => self.0.push((room, vec![request])),
        }
    }
}

impl Session {
    pub(super) fn command(&mut self, user: &MemberId, frame: CommandFrame, batch: &mut Batch) {
        let CommandFrame { id, room, name, data, expected, by, occurred_at, .. } = frame;
        let speaks_for_another = by.as_ref().is_some_and(|by| by != user);
        if (speaks_for_another || occurred_at.is_some()) && user.kind() != MemberKind::Integration {
            let message = "only integrations may set by or occurred_at: send neither, or say hello as one";
            self.reject(Some(id), ErrorCode::Forbidden, message);
            return;
        }
        let data = data.as_deref().unwrap_or(RawValue::NULL);
        let command = match RoomCommand::parse(&name, data) {
            Ok(command) => command,
            Err(error) => return self.malformed(Some(id), error.to_string()),
        };
        let hash = command.content_hash(&StreamId::room(&room));
        let author = by.unwrap_or_else(|| user.clone());
        self.outbox.begin();
        batch.push(room, Request { id, hash, author, occurred_at, expected, cause: None, command });
    }

    pub(super) fn submit(&mut self, Batch(groups): Batch, ctx: &mut Context<Self>) {
        if groups.is_empty() {
            return;
        }
        let session = ctx.address().recipient::<Answers>();
        for (room, requests) in groups {
            let pending = requests
                .into_iter()
                .map(|request| Pending { request, reply: ReplyTo::Session(session.clone()) })
                .collect();
            if let Err(refused) = self.stage.rooms.submit(&StreamId::room(&room), pending) {
                self.overloaded(&refused);
            }
        }
    }

    fn overloaded(&self, refused: &[Pending<Room>]) {
        for pending in refused {
            let message = "too many commands wait at this room: send it again a little later";
            let mut reject = Reject::new(Some(pending.request.id.clone()), ErrorCode::Unavailable, message);
            reject.after_ms = Some(OVERLOADED_AFTER_MS);
            self.send(&ServerMessage::Reject(reject));
        }
        self.outbox.end(refused.len());
    }
}

/// Answers as newline-joined messages.
pub(super) fn encode_answers(answers: &[Answer]) -> Bytes {
    join(answers.iter().map(|answer| encode_answer(answer).encode()))
}

/// An answer as its message.
pub(crate) fn encode_answer(answer: &Answer) -> ServerMessage<'_> {
    match &answer.outcome {
        Ok(Accepted { revision, position, duplicate }) => ServerMessage::Ack(Ack {
            id: &answer.id,
            room: answer.stream.id(),
            revision: *revision,
            position: *position,
            duplicate: *duplicate,
        }),
        Err(refused) => {
            let mut reject = Reject::new(Some(answer.id.clone()), refused.code, refused.message.clone());
            if let (ErrorCode::Rule, Some(rule)) = (refused.code, refused.rule) {
                reject.detail = Some(std::mem::replace(&mut reject.message, rule.to_owned()));
            }
            ServerMessage::Reject(reject)
        }
    }
}
