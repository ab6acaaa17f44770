//! Deciders: pure functions from state and command to events.
//!
//! A decider knows no clock, no randomness, no actor and no storage: whatever it needs to know
//! arrives as an argument. It never reads a sealed field.

use std::fmt;

use dramatis_events::{DecodeError, Event, MemberId, Revision};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod command;
mod line;
pub mod room;
pub mod user;

pub use command::CommandError;

/// One entity category's rules.
pub trait Decider: 'static {
    /// The name that snapshots of the state are kept under.
    const NAME: &'static str;
    /// Raised with every change of the state's form, and with every change of `evolve` that
    /// makes another state of the same events: snapshots of other versions are not used.
    const STATE_VERSION: u32;

    /// What may be asked.
    type Command: Send + Unpin + 'static;
    /// What may happen.
    type Event: Event + Send + Sync + 'static;
    /// What deciding needs to know: bounded, it never grows with history.
    type State: Default + Serialize + DeserializeOwned + Send + Unpin + 'static;
    /// Limits an operator sets.
    type Limits: Clone + Send + Sync + Unpin + 'static;
    /// Why the answer is no.
    type Rejection: Rejection;

    /// The recorded event that a command refers to; the entity reads it and hands it in.
    fn target(command: &Self::Command) -> Option<Revision>;

    /// Decides a command. No events means there is nothing to do (a no-op).
    fn decide(
        state: &Self::State,
        context: &Context<'_, Self>,
        command: &Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection>
    where
        Self: Sized;

    /// Folds an event into the state. It accepts everything that `decide` ever returned.
    fn evolve(state: &mut Self::State, event: &Self::Event) -> Result<(), IllegalEvent>;
}

/// What a decision is made from, besides the state.
pub struct Context<'a, D: Decider> {
    /// Who asks.
    pub author: &'a MemberId,
    /// The event named by [`Decider::target`], if it exists.
    pub target: Option<&'a Target<D::Event>>,
    /// The limits in force.
    pub limits: &'a D::Limits,
}

/// A recorded event that a command refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<E> {
    /// Its place in the stream.
    pub revision: Revision,
    /// Who did it.
    pub author: MemberId,
    /// What it was.
    pub event: E,
}

/// The domain's no. Nothing is recorded; asked again, it is decided again.
pub trait Rejection: fmt::Display + fmt::Debug + Send + 'static {
    /// A stable word for programs, such as `text_empty`.
    fn word(&self) -> &'static str;
    /// Which kind of no it is.
    fn class(&self) -> RejectionClass;
}

/// Kinds of rejection, as clients tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionClass {
    /// The entity, or what the command refers to, does not exist.
    NotFound,
    /// Only members may.
    NotAMember,
    /// Others may, this author may not.
    Forbidden,
    /// Any other rule.
    Rule,
}

/// An event that cannot follow the state: history is damaged or was written by other rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEvent {
    /// The event contradicts what happened before.
    #[error("event {event} cannot happen here: {reason}")]
    OutOfPlace {
        /// The event's name.
        event: &'static str,
        /// What contradicts it.
        reason: &'static str,
    },
    /// The stored bytes are no event of this category.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}
