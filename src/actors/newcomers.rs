//! Turns for those who are not there yet: of handshakes and hellos some are done at a time, and then
//! everything else on the thread has its turn.
//!
//! When everybody comes at once, as after an interruption, thousands have the same to ask in the
//! same moment, and each asking is tens of microseconds of work. Done all in a row they would stand
//! before every event and every answer of those who are there already.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use tokio::sync::oneshot;
use tokio::task::yield_now;

/// How many have their turn before others have theirs: about a millisecond.
const TURN: usize = 16;

/// See the module. Without `Newcomers::serve` running, only the first few have a turn.
#[derive(Default)]
pub struct Newcomers {
    taken: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<()>>>,
    server: Cell<Option<Waker>>,
}

impl Newcomers {
    /// Waits for a turn: first come, first served.
    pub async fn turn(&self) {
        let waits = {
            let mut waiting = self.waiting.borrow_mut();
            if waiting.is_empty() && self.taken.get() < TURN {
                self.taken.set(self.taken.get() + 1);
                None
            } else {
                let (called, is_called) = oneshot::channel();
                waiting.push_back(called);
                Some(is_called)
            }
        };
        if let Some(server) = self.server.take() {
            server.wake();
        }
        if let Some(is_called) = waits {
            let _ = is_called.await;
        }
    }

    /// Gives turns, for ever.
    pub(super) async fn serve(&self) {
        loop {
            self.are_there().await;
            yield_now().await;
            self.taken.set(0);
            self.call_some();
        }
    }

    async fn are_there(&self) {
        poll_fn(|cx| {
            if self.taken.get() > 0 || !self.waiting.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.server.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Calls those who have waited longest; who has gone away meanwhile takes no turn.
    fn call_some(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while self.taken.get() < TURN
            && let Some(called) = waiting.pop_front()
        {
            self.taken.set(self.taken.get() + usize::from(called.send(()).is_ok()));
        }
        if waiting.is_empty() {
            *waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    const COMING: usize = TURN * 20;

    #[test]
    fn others_have_their_turn_while_very_many_come_and_who_goes_away_takes_none() {
        actix_rt::System::new().block_on(async {
            let newcomers = Rc::new(Newcomers::default());
            let serving = actix_rt::spawn({
                let newcomers = newcomers.clone();
                async move { newcomers.serve().await }
            });
            // The numbers of those who came, and in which turn of another.
            let (came, turns) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0_usize)));
            let coming = |number: usize| {
                let (newcomers, came, turns) = (newcomers.clone(), came.clone(), turns.clone());
                actix_rt::spawn(async move {
                    newcomers.turn().await;
                    came.borrow_mut().push((number, turns.get()));
                })
            };
            let all: Vec<_> = (0..COMING).map(coming).collect();
            let another = actix_rt::spawn({
                let turns = turns.clone();
                async move {
                    loop {
                        turns.set(turns.get() + 1);
                        yield_now().await;
                    }
                }
            });
            while turns.get() < 2 {
                yield_now().await;
            }
            let away = COMING / 2..COMING / 2 + TURN;
            all.iter().take(away.end).skip(away.start).for_each(actix_rt::task::JoinHandle::abort);
            while came.borrow().len() < COMING - TURN {
                yield_now().await;
            }
            another.abort();
            serving.abort();
            let came = came.borrow();
            assert!(
                came.iter()
                    .map(|(number, _)| *number)
                    .eq((0..COMING).filter(|number| !away.contains(number)))
            );
            let most = came.chunk_by(|a, b| a.1 == b.1).map(<[_]>::len).max();
            assert!(most <= Some(TURN * 2), "{most:?} came before others had their turn");
        });
    }
}
