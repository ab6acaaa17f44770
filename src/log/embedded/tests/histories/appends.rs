//! The appends of a history, alone or waiting together, and what their answers must be.

use std::collections::HashMap;

use dramatis_events::Envelope;
use futures_util::FutureExt as _;

use super::world::{NAMES, ROOMS, World, room};
use crate::log::Expected;
use crate::log::contract::{event, of_command};
use crate::log::embedded::tests::disk::Op;
use crate::log::embedded::*;

type Answered = Result<Vec<Arc<Recorded>>, AppendError>;

impl World {
    fn tick(&mut self) {
        let step = i64::try_from(self.chance.below(100)).unwrap();
        // One in five steps of the clock is backwards.
        self.now += if step < 20 { -5 * step } else { step };
        self.clock.set(dramatis_events::UnixMillis::new(self.now));
    }

    pub(super) fn build(&mut self, stream: StreamId, expected: Expected, may_repeat: bool) -> Append {
        self.appends += 1;
        let bytes = [40, 40, 40, 40, 400, 400, 3_000][self.chance.below(7)];
        // Now and then so large that it is written beside the writer.
        let bytes = if self.chance.below(40) == 0 { 60_000 } else { bytes };
        let bytes = self.chance.below(bytes);
        let count = 1 + self.chance.below(4);
        let repeated = if may_repeat && self.chance.below(8) == 0 { self.repeated(&stream) } else { None };
        let id = match self.chance.below(3) {
            0 => repeated,
            _ => repeated.or_else(|| Some(format!("c{}", self.appends))),
        };
        let mut envelopes = Vec::new();
        for number in 0..count {
            let data = format!("{}.{number}{}", self.appends, "x".repeat(bytes));
            let name = NAMES[self.chance.below(NAMES.len())];
            let plain = event(name, data);
            envelopes.push(match &id {
                Some(id) => Envelope { name: plain.name, data: plain.data, ..of_command("alice", id) },
                None => plain,
            });
        }
        Append { stream, expected, envelopes }
    }

    /// A command that recorded something before, though not last.
    fn repeated(&mut self, stream: &StreamId) -> Option<String> {
        let id = |event: &Arc<Recorded>| Some(event.envelope.command.as_ref()?.id.as_str().to_owned());
        let last = self.known.last().and_then(id);
        let ids: Vec<_> =
            self.of(stream).iter().filter_map(id).filter(|id| Some(id) != last.as_ref()).collect();
        let at = self.chance.below(ids.len());
        ids.get(at).cloned()
    }

    fn draw_expected(&mut self, head: Option<Revision>) -> Expected {
        match self.chance.below(7) {
            0 => Expected::Exact(head.map_or(Revision::FIRST, Revision::next)),
            1 => Expected::NoStream,
            2 => Expected::Any,
            _ => Expected::after(head),
        }
    }

    pub(super) async fn append_one(&mut self) {
        self.counts.note("step: append");
        self.tick();
        let stream = room(self.chance.below(ROOMS.len()));
        let expected = self.draw_expected(self.head(&stream));
        let append = self.build(stream, expected, true);
        let answer = self.log().append(append.clone()).await;
        self.answered(vec![(append, answer)]);
    }

    /// Appends that wait together: the writer is held within a write until all are queued.
    pub(super) async fn append_together(&mut self) {
        self.counts.note("step: append together");
        self.tick();
        let first = self.build(room(0), Expected::Any, false);
        let (entered, release) = self.disk.hold(Op::Write);
        let mut answer = self.log().append(first.clone());
        let mut held = false;
        let answered = loop {
            if let Some(answered) = (&mut answer).now_or_never() {
                break Some(answered);
            }
            if entered.try_recv().is_ok() {
                held = true;
                break None;
            }
            tokio::task::yield_now().await;
        };
        self.disk.hold_nothing();
        if let Some(answered) = answered {
            assert!(!held && answered.is_err(), "an answer left without a write");
            self.answered(vec![(first, answered)]);
            return;
        }
        let mut heads =
            HashMap::from([(first.stream.clone(), self.next(&first.stream) + first.envelopes.len() as u64)]);
        let mut rest = Vec::new();
        for _ in 0..=self.chance.below(7) {
            let stream = room(self.chance.below(ROOMS.len()));
            let next = heads.get(&stream).copied().unwrap_or_else(|| self.next(&stream));
            let expected = self.draw_expected(head_before(next));
            let append = self.build(stream.clone(), expected, false);
            if fits(expected, next) {
                heads.insert(stream, next + append.envelopes.len() as u64);
            }
            let mut answer = Box::pin(tokio::task::unconstrained(self.log().append(append.clone())));
            assert!((&mut answer).now_or_never().is_none(), "an answer left while the writer is held");
            rest.push((append, answer));
        }
        release.send(()).unwrap();
        let answered = answer.await;
        self.answered(vec![(first, answered)]);
        let mut answers = Vec::new();
        for (append, answer) in rest {
            answers.push((append, answer.await));
        }
        self.answered(answers);
    }

    /// Judges the answers of one batch and takes them into the model.
    pub(super) fn answered(&mut self, answers: Vec<(Append, Answered)>) {
        let poisoned = self.log().poisoned().is_some();
        let mut heads = HashMap::new();
        for (append, answer) in answers {
            let before = self.next(&append.stream);
            let next = *heads.entry(append.stream.clone()).or_insert(before);
            let fits = fits(append.expected, next);
            match answer {
                Ok(recorded) => {
                    assert!(fits, "a wrong condition was let through");
                    let given = recorded.iter().map(|event| &event.envelope).eq(&append.envelopes);
                    assert!(given, "what is recorded is what was given");
                    let last = self.known.last().map_or(i64::MIN, |event| event.recorded_at.get());
                    let now = last.max(self.now);
                    assert!(recorded.iter().all(|event| event.recorded_at.get() == now));
                    self.learn(&recorded);
                    heads.insert(append.stream, next + recorded.len() as u64);
                    self.counts.note("answer: recorded");
                }
                Err(AppendError::Conflict { expected, actual }) => {
                    assert!(!fits && expected == append.expected, "a right condition was refused");
                    assert_eq!(actual, head_before(next));
                    self.counts.note("refusal: conflict");
                }
                Err(AppendError::Failure { .. }) => {
                    assert!(poisoned && fits);
                    heads.insert(append.stream.clone(), next + append.envelopes.len() as u64);
                    self.fated.push(append);
                    self.counts.note("refusal: outcome unknown");
                }
                Err(AppendError::Unavailable { reason }) if poisoned => {
                    assert!(reason.contains("restart"), "{reason}");
                    if fits {
                        heads.insert(append.stream, next + append.envelopes.len() as u64);
                    }
                    self.counts.note("refusal: poisoned");
                }
                Err(AppendError::Unavailable { reason }) => {
                    let unmade = reason.contains("next segment cannot be made: it is tried again: simulated");
                    assert!(unmade || self.low && reason.contains("reserve"), "{reason}");
                    if fits {
                        heads.insert(append.stream, next + append.envelopes.len() as u64);
                    }
                    self.counts.note(if unmade { "refusal: no next segment" } else { "refusal: low space" });
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(super) fn learn(&mut self, recorded: &[Arc<Recorded>]) {
        for event in recorded {
            assert_eq!(
                event.position.to_engine(),
                self.known.len() as u64,
                "no gap, no double, no other order"
            );
            assert_eq!(event.revision.get(), self.next(&event.stream));
            let last = self.known.last().map(|event| event.recorded_at);
            assert!(last <= Some(event.recorded_at), "recorded_at ran backwards");
            self.known.push(event.clone());
        }
    }
}

fn fits(expected: Expected, next: u64) -> bool {
    expected == Expected::Any || expected == Expected::after(head_before(next))
}
