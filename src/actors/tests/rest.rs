//! What is left of a frame while its client has as much in flight as may be, and others give room.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix::prelude::*;
use futures_util::Stream;
use futures_util::task::noop_waker;
use tokio::task::yield_now;

use super::{limits, stage_over, start_session};
use crate::actors::hub::Hub;
use crate::actors::outbox::{Next, Outbox};
use crate::actors::session::Inbound;
use crate::clock::SystemClock;
use crate::log::memory::MemoryLog;

const COMMANDS: usize = 40;
/// By then all that is ever answered is.
const TURNS_MAX: usize = 100_000;

/// A transport with frames to read, while somebody else has used up what may wait for all.
struct Frames {
    left: std::vec::IntoIter<String>,
    outbox: Rc<Outbox>,
    /// Ends when the second frame was read.
    slow: Rc<Outbox>,
    read: usize,
}

impl Stream for Frames {
    type Item = Inbound;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        if self.read == 2 {
            self.slow.finish();
        }
        ready!(self.outbox.poll_may_read(cx));
        self.read += 1;
        self.left.next().map_or(Poll::Pending, |frame| Poll::Ready(Some(Inbound::Text(frame))))
    }
}

fn commands(from: usize) -> String {
    let command = |number| {
        format!(
            r#"{{"type":"command","id":"c-{number}-","room":"den","name":"post_message","data":{{"text":"x"}}}}"#
        )
    };
    (from..from + COMMANDS).map(command).collect::<Vec<_>>().join("\n")
}

#[test]
fn room_that_others_give_back_lets_in_no_frame_before_the_rest_of_the_last_one() {
    System::new().block_on(async {
        let limits = crate::config::SocketConfig { outboxes_bytes_max: 1 << 20, ..limits() };
        let stage = stage_over(Arc::new(MemoryLog::new(Arc::new(SystemClock))), limits);
        let rooms = Hub::start_here(&stage);
        let (slow, outbox) = (rooms.outbox(), rooms.outbox());
        slow.push(vec![b'x'; 2 << 20].into());
        let hello = r#"{"type":"hello","user":"alice","session":"s","rooms":[]}"#.to_owned();
        let frames = vec![hello, commands(0), commands(COMMANDS)].into_iter();
        let inbound = Frames { left: frames, outbox: outbox.clone(), slow, read: 0 };
        start_session(&stage, &rooms, &outbox, inbound);
        let (mut heard, last) = (String::new(), format!("c-{}-", 2 * COMMANDS - 1));
        for _ in 0..TURNS_MAX {
            if heard.contains(&last) {
                break;
            }
            yield_now().await;
            let next = outbox.poll_next(&Context::from_waker(&noop_waker()), usize::MAX);
            if let Poll::Ready(Next::Write(messages)) = next {
                messages.iter().for_each(|message| heard += &String::from_utf8_lossy(message));
                outbox.drained(messages.bytes());
            }
        }
        let unanswered: Vec<_> =
            (0..2 * COMMANDS).filter(|number| !heard.contains(&format!("c-{number}-"))).collect();
        assert!(unanswered.is_empty(), "{unanswered:?}");
        outbox.finish();
    });
}
