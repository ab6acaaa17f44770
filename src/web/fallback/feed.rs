//! What a session hears of a client without a socket: its `hello`, and then what is posted.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::actors::outbox::Outbox;
use crate::actors::session::Inbound;

/// See the module. It ends with the outbox.
pub(super) struct Feed {
    hello: Option<String>,
    frames: mpsc::Receiver<Inbound>,
    outbox: Rc<Outbox>,
}

impl Feed {
    pub(super) const fn new(hello: String, frames: mpsc::Receiver<Inbound>, outbox: Rc<Outbox>) -> Self {
        Self { hello: Some(hello), frames, outbox }
    }
}

impl Stream for Feed {
    type Item = Inbound;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(Inbound::Text(hello)));
        }
        ready!(self.outbox.poll_may_read(cx));
        if self.outbox.is_closing() {
            return Poll::Ready(None);
        }
        match ready!(self.frames.poll_recv(cx)) {
            Some(said) => {
                self.outbox.heard(Instant::now());
                Poll::Ready(Some(said))
            }
            // Nobody can post any more; the transport's end is what ends this.
            None => Poll::Pending,
        }
    }
}
