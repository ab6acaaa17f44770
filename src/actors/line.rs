//! The order in which followers are written to: first come, first served, some a turn.
//!
//! What one event sets off may be ten thousand writes of microseconds each. Woken all at once
//! their writers would stand before everything else on the thread: before the next command is
//! read, the next events are fetched. So they wait in a line of which only some are woken a turn.
//! What comes for a connection that stands in the line goes out with what it waits for already:
//! the more there is to do, the more a write carries.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Writers woken in one turn, about a millisecond of writing; a part of all if very many wait, so
/// that beside much other work the line gets on too.
const TURN: usize = 256;
/// Which part.
const TURN_PART: usize = 4;

/// See the module. Without `Line::serve` running, only the first ones are ever woken.
pub struct Line {
    waiting: RefCell<VecDeque<Waker>>,
    /// So many more may write in this turn; none while any wait.
    left: Cell<usize>,
    server: Cell<Option<Waker>>,
}

impl Default for Line {
    fn default() -> Self {
        Self { waiting: RefCell::default(), left: Cell::new(TURN), server: Cell::new(None) }
    }
}

impl Line {
    /// Wakes a writer, at once or when it is its turn.
    pub(super) fn enter(&self, writer: Waker) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            writer.wake();
            return;
        }
        self.waiting.borrow_mut().push_back(writer);
        if let Some(server) = self.server.take() {
            server.wake();
        }
    }

    /// The thread has come round to new events: if nobody waits, a turn begins.
    pub(super) fn renew(&self) {
        if self.waiting.borrow().is_empty() {
            self.left.set(TURN);
        }
    }

    /// Wakes those who wait, turn by turn, for ever.
    pub(super) async fn serve(&self) {
        loop {
            self.filled().await;
            self.left.set(TURN.max(self.waiting.borrow().len() / TURN_PART));
            while self.left.get() > 0
                && let Some(writer) = self.next()
            {
                self.left.set(self.left.get().saturating_sub(1));
                writer.wake();
            }
            tokio::task::yield_now().await;
        }
    }

    fn next(&self) -> Option<Waker> {
        self.waiting.borrow_mut().pop_front()
    }

    async fn filled(&self) {
        poll_fn(|cx| {
            if !self.waiting.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.server.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn some_write_a_turn_in_the_order_they_came_and_others_run_between() {
        actix_rt::System::new().block_on(some_write());
    }

    async fn some_write() {
        let (line, written, turns) =
            (Rc::new(Line::default()), Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        let serving = actix_rt::spawn({
            let line = line.clone();
            async move { line.serve().await }
        });
        let mut writers = Vec::new();
        for number in 0..TURN * 10 {
            let (line, written, turns) = (line.clone(), written.clone(), turns.clone());
            writers.push(actix_rt::spawn(async move {
                let mut entered = false;
                poll_fn(|cx| {
                    if std::mem::replace(&mut entered, true) {
                        return Poll::Ready(());
                    }
                    line.enter(cx.waker().clone());
                    Poll::Pending
                })
                .await;
                written.borrow_mut().push((number, turns.get()));
            }));
        }
        // Stands behind all that was woken before it, as a reader or the hub does.
        let another = actix_rt::spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.set(turns.get() + 1);
                    tokio::task::yield_now().await;
                }
            }
        });
        for writer in writers {
            writer.await.unwrap();
        }
        another.abort();
        serving.abort();
        let written = written.borrow();
        assert!(written.iter().map(|(number, _)| *number).eq(0..TURN * 10));
        let most = written.chunk_by(|a, b| a.1 == b.1).map(<[_]>::len).max().unwrap();
        assert!(most <= TURN * 5, "{most} wrote before others had their turn");
    }
}
