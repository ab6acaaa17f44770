//! Which entity owns which stream in this process: found or started, and handed over safely.
//!
//! A shared map and not an actor: a session must find an entity without giving up its turn,
//! or its commands could overtake each other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use dramatis_events::StreamId;
use tokio::sync::oneshot;

use super::answer::Refused;
use super::entity::{Ask, Entity, Idle, Pending, Question, Standing, Submit, Surroundings};
use super::pending_count::{Added, PendingCount};
use super::shrink::shrink;
use crate::domain::Decider;
use crate::protocol::ErrorCode;

/// What an operator sets for entities.
#[derive(Debug, Clone)]
pub struct EntityOptions {
    /// Requests that may wait at one entity; more are refused as `unavailable`.
    pub pending_max: usize,
    /// An entity without a request for this long leaves memory.
    pub idle_timeout: Duration,
}

/// See the module.
pub struct Registry<D: Decider> {
    shared: Arc<Shared<D>>,
}

struct Shared<D: Decider> {
    around: Surroundings<D>,
    options: EntityOptions,
    arbiters: Vec<ArbiterHandle>,
    entities: Mutex<HashMap<StreamId, Handle<D>>>,
    started: AtomicUsize,
}

struct Handle<D: Decider> {
    entity: Addr<Entity<D>>,
    count: PendingCount,
}

impl<D: Decider> Clone for Handle<D> {
    fn clone(&self) -> Self {
        Self { entity: self.entity.clone(), count: self.count.clone() }
    }
}

impl<D: Decider> Clone for Registry<D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<D: Decider> Registry<D> {
    /// A registry whose entities run on these arbiters in turn; on none, where they are asked for.
    pub fn new(around: Surroundings<D>, options: EntityOptions, arbiters: Vec<ArbiterHandle>) -> Self {
        let (entities, started) = (Mutex::default(), AtomicUsize::new(0));
        Self { shared: Arc::new(Shared { around, options, arbiters, entities, started }) }
    }

    /// Hands requests to the entity of this stream, in their order, starting it if need be.
    /// Those for which there is no room behind what waits there already, the last ones, come back.
    pub fn submit(&self, stream: &StreamId, mut requests: Vec<Pending<D>>) -> Result<(), Vec<Pending<D>>> {
        if requests.is_empty() {
            return Ok(());
        }
        loop {
            let handle = self.find_or_start(stream);
            match handle.count.add(requests.len(), self.shared.options.pending_max) {
                Added::Some(taken) => {
                    let rest = requests.split_off(taken);
                    handle.entity.do_send(Submit(requests));
                    return if rest.is_empty() { Ok(()) } else { Err(rest) };
                }
                Added::Full => return Err(requests),
                Added::Retired => self.shared.forget(stream, &handle.count),
            }
        }
    }

    /// Asks the entity of this stream what it stands at, starting it if need be. The answer is
    /// made on the entity's thread, from what is recorded.
    pub async fn ask<T, F>(&self, stream: &StreamId, question: F) -> Result<T, Refused>
    where
        T: Send + 'static,
        F: FnOnce(Standing<'_, D>) -> T + Send + 'static,
    {
        self.question(stream, question, true).await
    }

    /// The same for who asks very many of them one thing each, and then no more: it keeps no entity in
    /// memory, and one that was started for it leaves soon.
    pub async fn look<T, F>(&self, stream: &StreamId, question: F) -> Result<T, Refused>
    where
        T: Send + 'static,
        F: FnOnce(Standing<'_, D>) -> T + Send + 'static,
    {
        self.question(stream, question, false).await
    }

    async fn question<T, F>(&self, stream: &StreamId, question: F, is_use: bool) -> Result<T, Refused>
    where
        T: Send + 'static,
        F: FnOnce(Standing<'_, D>) -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let question: Question<D> = Box::new(move |standing| {
            // Who has gone away meanwhile no longer wants to know.
            let _ = answer.send(standing.map(question));
        });
        loop {
            let handle = self.find_or_start(stream);
            match handle.count.add(1, self.shared.options.pending_max) {
                Added::Some(_) => {
                    handle.entity.do_send(Ask { question, is_use });
                    break;
                }
                Added::Full => {
                    return Err(Refused::new(
                        ErrorCode::Unavailable,
                        "too much waits there: ask a little later",
                    ));
                }
                Added::Retired => self.shared.forget(stream, &handle.count),
            }
        }
        answered.await.unwrap_or_else(|_| Err(Refused::new(ErrorCode::Unavailable, "the server is ending")))
    }

    /// The limits that its entities decide by.
    pub fn limits(&self) -> &D::Limits {
        &self.shared.around.limits
    }

    /// How many entities are in memory.
    pub fn len(&self) -> usize {
        self.shared.entities.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no entity is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find_or_start(&self, stream: &StreamId) -> Handle<D> {
        let mut entities = self.shared.entities.lock().unwrap_or_else(PoisonError::into_inner);
        match entities.entry(stream.clone()) {
            Entry::Occupied(found) if found.get().entity.connected() => found.get().clone(),
            Entry::Occupied(mut dead) => {
                let handle = self.start(stream);
                dead.insert(handle.clone());
                handle
            }
            Entry::Vacant(place) => place.insert(self.start(stream)).clone(),
        }
    }

    fn start(&self, stream: &StreamId) -> Handle<D> {
        let count = PendingCount::default();
        let (shared, of, counted) = (self.shared.clone(), stream.clone(), count.clone());
        let idle = Idle {
            timeout: shared.options.idle_timeout,
            retired: Box::new({
                let shared = Arc::downgrade(&shared);
                move || {
                    if let Some(shared) = shared.upgrade() {
                        shared.forget(&of, &counted);
                    }
                }
            }),
        };
        let entity = Entity::<D>::new(stream.clone(), shared.around.clone(), count.clone(), idle);
        let turn = shared.started.fetch_add(1, Ordering::Relaxed);
        let arbiter = turn.checked_rem(shared.arbiters.len()).and_then(|index| shared.arbiters.get(index));
        let entity = match arbiter {
            Some(arbiter) => Entity::start_in_arbiter(arbiter, move |_| entity),
            None => entity.start(),
        };
        Handle { entity, count }
    }
}

impl<D: Decider> Shared<D> {
    fn forget(&self, stream: &StreamId, count: &PendingCount) {
        let mut entities = self.entities.lock().unwrap_or_else(PoisonError::into_inner);
        if entities.get(stream).is_some_and(|handle| handle.count.is(count)) {
            entities.remove(stream);
            shrink(&mut entities);
        }
    }
}
