//! Questions about an entity: answered with what is recorded, never with what is only decided.

use actix::prelude::*;
use dramatis_events::{Epoch, Revision};

use super::{Entity, Phase};
use crate::actors::answer::Refused;
use crate::domain::Decider;

/// An entity as its stream stands.
pub struct Standing<'a, D: Decider> {
    /// The state.
    pub state: &'a D::State,
    /// The last revision folded into it.
    pub head: Option<Revision>,
    /// The epoch of that revision.
    pub epoch: Epoch,
}

/// What is asked; it carries its way back.
pub type Question<D> = Box<dyn for<'a> FnOnce(Result<Standing<'a, D>, Refused>) + Send>;

/// A question, counted by the sender in the entity's count as a request is.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ask<D: Decider> {
    /// What is asked.
    pub question: Question<D>,
    /// Whether the entity stays in memory for it as for a command.
    pub is_use: bool,
}

impl<D: Decider> Entity<D> {
    /// Answers what was asked. To be called only while the state is what is recorded.
    pub(super) fn answer_questions(&mut self) {
        for question in std::mem::take(&mut self.questions) {
            self.count.remove(1);
            question(Ok(Standing { state: &self.state, head: self.head(), epoch: self.epoch }));
        }
    }

    pub(super) fn refuse_questions(&mut self, refused: &Refused) {
        for question in std::mem::take(&mut self.questions) {
            self.count.remove(1);
            question(Err(refused.clone()));
        }
    }
}

impl<D: Decider> Handler<Ask<D>> for Entity<D> {
    type Result = ();

    fn handle(&mut self, Ask { question, is_use }: Ask<D>, ctx: &mut Context<Self>) {
        if is_use {
            self.used();
        }
        self.questions.push(question);
        match self.phase {
            Phase::Idle => self.answer_questions(),
            Phase::Unloaded => self.load(ctx),
            // The batch in hand may be ahead of the log: its end answers.
            Phase::Loading | Phase::Busy => {}
        }
    }
}
