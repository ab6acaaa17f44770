//! The order in which connections are written to: first come, first served, some a turn.
//!
//! What one event sets off may be ten thousand writes of microseconds each. Done all at once
//! they would stand before everything else on the thread: before the next command is read, the
//! next events are fetched. So they wait in a line of which only some are done a turn. What comes
//! for a connection that stands in the line goes out with what it waits for already: the more
//! there is to do, the more a write carries. Who is spoken to alone, with an answer, goes first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::outbox::Outbox;

/// Writes in one turn, about a millisecond; a part of all if very many wait, so that beside much
/// other work the line gets on too.
const TURN: usize = 256;
/// Which part.
const TURN_PART: usize = 4;
/// How far the buffers may stay grown while nobody waits.
const IDLE_CAPACITY_MAX: usize = 1_024;

/// One who writes.
pub(super) enum Writer {
    /// A task, which is woken.
    Task(Waker),
    /// An outbox whose pen writes here and now.
    Here(Rc<Outbox>),
}

impl Writer {
    fn write(self) {
        match self {
            Self::Task(task) => task.wake(),
            Self::Here(outbox) => outbox.write(),
        }
    }
}

/// See the module. Without `Line::serve` running, nobody writes.
#[derive(Default)]
pub struct Line {
    first: RefCell<VecDeque<Writer>>,
    waiting: RefCell<VecDeque<Writer>>,
    server: Cell<Option<Waker>>,
}

impl Line {
    /// Lets one write when it is its turn.
    pub(super) fn enter(&self, writer: Writer) {
        self.waiting.borrow_mut().push_back(writer);
        self.call_server();
    }

    /// The same, before all who were told what many are told.
    pub(super) fn enter_first(&self, writer: Writer) {
        self.first.borrow_mut().push_back(writer);
        self.call_server();
    }

    fn call_server(&self) {
        if let Some(server) = self.server.take() {
            server.wake();
        }
    }

    /// Lets those write who wait, turn by turn, for ever.
    pub(super) async fn serve(&self) {
        loop {
            self.filled().await;
            serve_some(&self.first);
            serve_some(&self.waiting);
            tokio::task::yield_now().await;
        }
    }

    async fn filled(&self) {
        poll_fn(|cx| {
            if !self.first.borrow().is_empty() || !self.waiting.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.server.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// One turn of a line.
fn serve_some(line: &RefCell<VecDeque<Writer>>) {
    let turn = TURN.max(line.borrow().len() / TURN_PART);
    for _ in 0..turn {
        let Some(writer) = line.borrow_mut().pop_front() else { break };
        writer.write();
    }
    let mut line = line.borrow_mut();
    if line.is_empty() && line.capacity() > IDLE_CAPACITY_MAX {
        *line = VecDeque::new();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::actors::outbox::{Next, Pen};
    use crate::actors::share::Share;

    const WRITERS: usize = TURN * 10;

    /// Writes down what it was given, and in which turn of others.
    struct Note {
        number: usize,
        written: Rc<RefCell<Vec<(usize, usize)>>>,
        turns: Rc<Cell<usize>>,
    }

    impl Pen for Note {
        fn write(self: Rc<Self>, outbox: &Rc<Outbox>) {
            while let Some(next) = outbox.next(usize::MAX) {
                let Next::Write(messages) = next else { continue };
                assert_eq!(messages.len(), 2, "what comes while it waits goes out with it");
                self.written.borrow_mut().push((self.number, self.turns.get()));
            }
        }
    }

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
        let share = Rc::new(Share::new(Gauge::default(), Gauge::default(), 1 << 20));
        let outboxes: Vec<_> = (0..=WRITERS)
            .map(|number| {
                let outbox = Rc::new(Outbox::new(share.clone(), 1 << 10, 1).in_line(line.clone()));
                let (written, turns) = (written.clone(), turns.clone());
                outbox.carried_by(Rc::new(Note { number, written, turns }));
                outbox
            })
            .collect();
        let (alone, many) = outboxes.split_last().unwrap();
        // Stands behind all that was there before it, as a reader or the hub does.
        let another = actix_rt::spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.set(turns.get() + 1);
                    tokio::task::yield_now().await;
                }
            }
        });
        // All have been called once, as they were made, and found nothing.
        while turns.get() < WRITERS {
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            for outbox in many {
                outbox.queue_up("event".into());
                outbox.call_writer_in_turn();
            }
        }
        for _ in 0..2 {
            alone.push("answer".into());
        }
        while written.borrow().len() <= WRITERS {
            tokio::task::yield_now().await;
        }
        another.abort();
        serving.abort();
        let written = written.borrow();
        assert!(written.iter().map(|(number, _)| *number).eq(std::iter::once(WRITERS).chain(0..WRITERS)));
        let most = written.chunk_by(|a, b| a.1 == b.1).map(<[_]>::len).max().unwrap();
        assert!(most <= TURN * 5, "{most} wrote before others had their turn");
    }
}
