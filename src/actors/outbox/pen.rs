//! How an outbox gets something written: by a pen that writes here and now, or by a task that waits
//! for it.
//!
//! A task for each connection would be a third of what an idle one takes, and of what a delivery
//! costs; so where writing is a matter of one call, that is made in the thread's line of writers.

use std::rc::Rc;

use super::{Next, Outbox};
use crate::actors::line::Writer;

/// What a transport writes with, without waiting for anything.
pub trait Pen {
    /// Writes what the outbox holds, by [`Outbox::next`] until there is nothing. If the transport
    /// takes no more it waits elsewhere, and goes on with that afterwards.
    fn write(self: Rc<Self>, outbox: &Rc<Outbox>);

    /// Has what it waits for come to an end: the other side gets no more.
    fn cut(&self) {}
}

impl Outbox {
    /// From now on this pen writes; to be called once.
    pub fn carried_by(self: &Rc<Self>, pen: Rc<dyn Pen>) {
        let _ = self.pen.set((Rc::downgrade(self), pen));
        self.call_writer();
    }

    /// For a pen: what is to be written now, up to about `bytes` of messages; nothing more once it
    /// was told that there is nothing, until it is called again.
    pub fn next(&self, bytes: usize) -> Option<Next> {
        let next = if self.is_finished() { None } else { self.take_next(bytes) };
        if next.is_none() {
            self.called.set(false);
        }
        next
    }

    /// It is its turn to write.
    pub(in crate::actors) fn write(self: &Rc<Self>) {
        if let Some((_, pen)) = self.pen.get() {
            pen.clone().write(self);
        }
    }

    /// Ends a connection that takes nothing, whatever waits for it.
    pub(in crate::actors) fn cut(&self) {
        if let Some((_, pen)) = self.pen.get() {
            pen.cut();
        }
    }

    /// There is something to write.
    pub(super) fn call_writer(&self) {
        if let Some(task) = self.writer.take() {
            task.wake();
        } else if let Some(outbox) = self.called_pen() {
            match &self.line {
                Some(line) => line.enter_first(Writer::Here(outbox)),
                None => outbox.write(),
            }
        }
    }

    /// There is something to write, for many at once.
    pub(in crate::actors) fn call_writer_in_turn(&self) {
        let Some(line) = &self.line else { return self.call_writer() };
        if let Some(task) = self.writer.take() {
            line.enter(Writer::Task(task));
        } else if let Some(outbox) = self.called_pen() {
            line.enter(Writer::Here(outbox));
        }
    }

    /// The outbox itself, if its pen is to be called and was not yet.
    fn called_pen(&self) -> Option<Rc<Self>> {
        let (outbox, _) = self.pen.get()?;
        if self.is_finished() || self.called.replace(true) { None } else { outbox.upgrade() }
    }
}
