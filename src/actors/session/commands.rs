//! Commands on their way to the rooms' entities, and answers on their way back.

use actix::prelude::*;
use bytes::Bytes;
use dramatis_events::{CommandId, EntityId, MemberId, MemberKind, StreamId};
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
        match prepare(user, frame) {
            Ok((room, request)) => {
                self.outbox.begin();
                batch.push(room, request);
            }
            Err(reject) if reject.code == ErrorCode::Malformed => self.malformed(reject.id, reject.message),
            Err(reject) => self.send(&ServerMessage::Reject(reject)),
        }
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
            let reject = overloaded(pending.request.id.clone());
            self.send(&ServerMessage::Reject(reject));
        }
        self.outbox.end(refused.len());
    }
}

/// The refusal of a command that found too many before it.
pub(crate) fn overloaded(id: CommandId) -> Reject {
    let message = "too many commands wait at this room: send it again a little later";
    let mut reject = Reject::new(Some(id), ErrorCode::Unavailable, message);
    reject.after_ms = Some(OVERLOADED_AFTER_MS);
    reject
}

/// What a user's command asks of which room, whichever transport it came by.
pub(crate) fn prepare(user: &MemberId, frame: CommandFrame) -> Result<(EntityId, Request<Room>), Reject> {
    let CommandFrame { id, room, name, data, expected, by, occurred_at, .. } = frame;
    let speaks_for_another = by.as_ref().is_some_and(|by| by != user);
    if (speaks_for_another || occurred_at.is_some()) && user.kind() != MemberKind::Integration {
        let message = "only integrations may set by or occurred_at: send neither, or say hello as one";
        return Err(Reject::new(Some(id), ErrorCode::Forbidden, message));
    }
    let data = data.as_deref().unwrap_or(RawValue::NULL);
    let command = match RoomCommand::parse(&name, data) {
        Ok(command) => command,
        Err(error) => return Err(Reject::new(Some(id), ErrorCode::Malformed, error.to_string())),
    };
    let hash = command.content_hash(&StreamId::room(&room));
    let author = by.unwrap_or_else(|| user.clone());
    Ok((room, Request { id, hash, author, occurred_at, expected, cause: None, command }))
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
