//! Reading what a client is behind from the log, a page at a time and only while there is
//! room in its outbox, until the hub can take over.

use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use dramatis_events::{EntityId, Recorded};

use super::Session;
use crate::actors::hub::{Follow, Rooms, joined};
use crate::actors::outbox::Outbox;
use crate::log::{EventLog, LogError, ReadLimit};
use crate::protocol::{CloseCode, EventFrame, Live, ServerMessage};

/// Events read at a time.
const PAGE: ReadLimit = ReadLimit { events: 256, bytes: 128 * 1024 };

impl Session {
    /// Catches up on every room that is not live. One run at a time serves all of them.
    pub(super) fn catch_up(&mut self, ctx: &mut Context<Self>) {
        if self.catching_up || self.outbox.is_closing() {
            return;
        }
        let behind: Vec<_> = self.follows.iter().filter(|follow| !follow.live.get()).cloned().collect();
        if behind.is_empty() {
            return;
        }
        self.catching_up = true;
        let running = run(self.stage.log.clone(), self.rooms.clone(), self.outbox.clone(), behind);
        ctx.spawn(running.into_actor(self).map(|result, session, ctx| {
            session.catching_up = false;
            match result {
                // Another room may have fallen behind meanwhile.
                Ok(()) => session.catch_up(ctx),
                Err(error) => {
                    tracing::error!(%error, "a client's history cannot be read");
                    session.outbox.close(CloseCode::Internal);
                }
            }
        }));
    }
}

async fn run(
    log: Arc<dyn EventLog>,
    rooms: Rc<Rooms>,
    outbox: Rc<Outbox>,
    behind: Vec<Rc<Follow>>,
) -> Result<(), LogError> {
    for follow in behind {
        loop {
            // One holder is this list alone: the session has unsubscribed.
            if !outbox.has_room().await || Rc::strong_count(&follow) == 1 {
                break;
            }
            let page = log.read_stream(&follow.stream, follow.next.get(), PAGE).await?;
            if Rc::strong_count(&follow) == 1 {
                break;
            }
            if push(&outbox, &follow, &page) || !rooms.try_live(&follow) {
                continue;
            }
            announce(&outbox, &follow);
            break;
        }
    }
    Ok(())
}

/// Pushes a page; `false` if there was nothing to push.
fn push(outbox: &Outbox, follow: &Follow, page: &[Arc<Recorded>]) -> bool {
    let Some(last) = page.last() else { return false };
    let frames: Vec<_> = page.iter().map(|event| EventFrame::encode(event)).collect();
    outbox.push(joined(&frames, Some(&follow.reader)));
    follow.next.set(last.revision.next());
    true
}

fn announce(outbox: &Outbox, follow: &Follow) {
    if follow.announced.replace(true) {
        return;
    }
    if let Ok(room) = EntityId::parse(follow.stream.id()) {
        let revision = follow.next.get().get().checked_sub(1).map(dramatis_events::Revision::new);
        outbox.push(ServerMessage::Live(Live { room: room.into(), revision }).encode());
    }
}
