//! Commands on their way to the entities of rooms and users, and answers on their way back.

use std::ops::RangeInclusive;

use actix::prelude::*;
use bytes::Bytes;
use dramatis_events::{CommandId, EntityId, MemberId, MemberKind, StreamId};
use serde_json::value::RawValue;

use super::{Session, join};
use crate::actors::answer::{Accepted, Answer, Answers, ReplyTo};
use crate::actors::entity::{Pending, Request};
use crate::actors::registry::Registry;
use crate::domain::Decider;
use crate::domain::room::{Room, RoomCommand};
use crate::domain::user::{User, UserCommand};
use crate::protocol::{Ack, CommandFrame, ErrorCode, Followed, ME, Reject, ServerMessage};

/// When a room has too much waiting, come back after this, in milliseconds.
const OVERLOADED_AFTER_MS: u64 = 250;

/// Commands of one frame, grouped by runs of the same stream.
#[derive(Default)]
pub(super) struct Batch(Vec<(StreamId, Run)>);

enum Run {
    Room(Vec<Request<Room>>),
    User(Vec<Request<User>>),
}

/// A command and whose it is.
pub(crate) enum Asked {
    /// A room's.
    Room(Request<Room>),
    /// A person's.
    User(Request<User>),
}

impl Asked {
    fn id(&self) -> &CommandId {
        match self {
            Self::Room(request) => &request.id,
            Self::User(request) => &request.id,
        }
    }
}

impl Batch {
    fn push(&mut self, stream: StreamId, asked: Asked) {
        if let Some((last, run)) = self.0.last_mut().filter(|(last, _)| *last == stream) {
            match (run, asked) {
                (Run::Room(requests), Asked::Room(request)) => return requests.push(request),
                (Run::User(requests), Asked::User(request)) => return requests.push(request),
                // One stream has one kind of entity.
                (_, _) => {
                    debug_assert!(false, "{last} has commands of two kinds");
                    return;
                }
            }
        }
        let run = match asked {
            Asked::Room(request) => Run::Room(vec![request]),
            Asked::User(request) => Run::User(vec![request]),
        };
        self.0.push((stream, run));
    }
}

impl Session {
    pub(super) fn command(&mut self, user: &MemberId, frame: CommandFrame, batch: &mut Batch) {
        match prepare(user, frame) {
            Ok((stream, asked)) => {
                self.outbox.begin(answer_bytes(asked.id(), &stream));
                batch.push(stream, asked);
            }
            Err(reject) if reject.code == ErrorCode::Malformed => self.malformed(reject.id, reject.message),
            Err(reject) => self.send(&ServerMessage::Reject(reject)),
        }
    }

    pub(super) fn submit(&mut self, Batch(runs): Batch, ctx: &mut Context<Self>) {
        if runs.is_empty() {
            return;
        }
        let session = ctx.address().recipient::<Answers>();
        let stage = self.stage.clone();
        for (stream, run) in runs {
            match run {
                Run::Room(requests) => self.submit_to(&stage.rooms, &stream, requests, &session),
                Run::User(requests) => self.submit_to(&stage.users, &stream, requests, &session),
            }
        }
    }

    fn submit_to<D: Decider>(
        &self,
        registry: &Registry<D>,
        stream: &StreamId,
        requests: Vec<Request<D>>,
        session: &Recipient<Answers>,
    ) {
        let pending = requests
            .into_iter()
            .map(|request| Pending { request, reply: ReplyTo::Session(session.clone()) })
            .collect();
        let Err(refused) = registry.submit(stream, pending) else { return };
        let mut kept = 0;
        for pending in &refused {
            kept += answer_bytes(&pending.request.id, stream);
            let reject = overloaded(pending.request.id.clone());
            self.send(&ServerMessage::Reject(reject));
        }
        self.outbox.end(refused.len(), kept);
    }
}

/// The refusal of a command that found too many before it.
pub(crate) fn overloaded(id: CommandId) -> Reject {
    let message = "too many commands wait at this room: send it again a little later";
    let mut reject = Reject::new(Some(id), ErrorCode::Unavailable, message);
    reject.after_ms = Some(OVERLOADED_AFTER_MS);
    reject
}

/// What a user's command asks, and of which stream, whichever transport it came by.
pub(crate) fn prepare(user: &MemberId, frame: CommandFrame) -> Result<(StreamId, Asked), Reject> {
    let CommandFrame { id, room, name, data, expected, by, occurred_at, .. } = frame;
    let speaks_for_another = by.as_ref().is_some_and(|by| by != user);
    if (speaks_for_another || occurred_at.is_some()) && user.kind() != MemberKind::Integration {
        let message = "only integrations may set by or occurred_at: send neither, or say hello as one";
        return Err(Reject::new(Some(id), ErrorCode::Forbidden, message));
    }
    if by.as_ref().is_some_and(|by| by.kind() == MemberKind::System) {
        let message = "nobody speaks for the platform itself: by is a person, a persona or an integration";
        return Err(Reject::new(Some(id), ErrorCode::Forbidden, message));
    }
    if let Some(at) = occurred_at.filter(|at| !OCCURRED_AT.contains(&at.get())) {
        let message = format!(
            "occurred_at is in milliseconds since 1970, of the years 1 to 9999 before 9999-12-30T22:00Z; got {}: send \
             no micro- or nanoseconds",
            at.get()
        );
        return Err(Reject::new(Some(id), ErrorCode::Malformed, message));
    }
    let author = by.unwrap_or_else(|| user.clone());
    let room = Followed::from(room);
    let Some(stream) = room.stream(&author) else {
        return Err(Reject::new(Some(id), ErrorCode::NotFound, "only people have a stream of their own"));
    };
    let data = data.as_deref().unwrap_or(RawValue::NULL);
    let cause = None;
    let asked = match room {
        Followed::Room(room) => {
            RoomCommand::parse(&name, data).map_err(|error| error.to_string()).and_then(|command| {
                let opens = matches!(command, RoomCommand::OpenRoom(_));
                if let Some(why) = cannot_be_opened(&room).filter(|_| opens) {
                    return Err(why.to_owned());
                }
                let (id, hash) = (id.clone(), command.content_hash(&stream));
                Ok(Asked::Room(Request { id, hash, author, occurred_at, expected, cause, command }))
            })
        }
        Followed::Me => UserCommand::parse(&name, data).map_err(|error| error.to_string()).map(|command| {
            let (id, hash) = (id.clone(), command.content_hash(&stream));
            Asked::User(Request { id, hash, author, occurred_at, expected, cause, command })
        }),
    };
    match asked {
        Ok(asked) => Ok((stream, asked)),
        Err(why) => Err(Reject::new(Some(id), ErrorCode::Malformed, why)),
    }
}

/// Why a room of this id is not opened. One that is there already is a room like others.
pub(crate) fn cannot_be_opened(room: &EntityId) -> Option<&'static str> {
    match room.as_str() {
        "." | ".." => Some("in a path clients take \".\" and \"..\" for folders: choose another id"),
        ME => Some("\"me\" is what everyone calls their own stream: choose another id"),
        _ => None,
    }
}

/// The years 1 to 9999, in milliseconds since 1970: all that RFC 3339 can write, and that a room may be
/// ordered by. Before 9999-12-30T22:00Z: what is later has no date in zones that are ahead, nor, in
/// what counts by the hour, an hour. A time in micro- or nanoseconds is none of them.
const OCCURRED_AT: RangeInclusive<i64> = -62_135_596_800_000..=253_402_207_199_999;

/// What of an answer is not the command's id or its stream's name, in bytes.
const ANSWER_BYTES_MAX: usize = 320;
/// A sentence is cut that is longer, so that an answer holds no more than that, in bytes.
const SENTENCE_BYTES_MAX: usize = 160;

/// How many bytes a command's answer has at the most, with the line break before it.
pub(super) fn answer_bytes(id: &CommandId, stream: &StreamId) -> usize {
    ANSWER_BYTES_MAX + id.as_str().len() + stream.as_str().len()
}

/// The sentence as far as it may go into an answer.
fn cut(sentence: &str) -> String {
    let mut bytes = 0;
    let fits = |letter: &char| {
        bytes += match letter {
            '"' | '\\' => 2,
            letter if letter.is_control() => 6,
            letter => letter.len_utf8(),
        };
        bytes <= SENTENCE_BYTES_MAX
    };
    sentence.chars().take_while(fits).collect()
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
            room: Followed::name_of(&answer.stream),
            revision: *revision,
            position: *position,
            duplicate: *duplicate,
        }),
        Err(refused) => {
            let mut reject = Reject::new(Some(answer.id.clone()), refused.code, cut(&refused.message));
            if let (ErrorCode::Rule, Some(rule)) = (refused.code, refused.rule) {
                reject.detail = Some(std::mem::replace(&mut reject.message, rule.to_owned()));
            }
            ServerMessage::Reject(reject)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use dramatis_events::{EntityId, Position, Revision};

    use super::*;
    use crate::actors::answer::Refused;

    #[test]
    fn an_answer_is_no_longer_than_what_was_kept_for_it() {
        let id = CommandId::parse(&"i".repeat(128)).unwrap();
        let stream = StreamId::room(&EntityId::parse(&"r".repeat(128)).unwrap());
        let accepted = Accepted {
            revision: Some(Revision::new(u64::MAX)),
            position: Some(Position::from_engine(u64::MAX)),
            duplicate: false,
        };
        let mut outcomes = vec![Ok(accepted)];
        for letter in ["x", "\"", "\u{1}", "ö", "🦀"] {
            let mut refused = Refused::new(ErrorCode::Rule, letter.repeat(10_000));
            refused.rule = Some("invitation_not_found_or_longer");
            outcomes.push(Err(refused));
            outcomes.push(Err(Refused::new(ErrorCode::CommandIdReused, letter.repeat(10_000))));
        }
        for outcome in outcomes {
            let answer = Answer { id: id.clone(), stream: stream.clone(), outcome };
            let text = encode_answers(&[answer]);
            let most = answer_bytes(&id, &stream);
            assert!(text.len() < most, "{} bytes, of {most}: {text:?}", text.len());
        }
    }
}
