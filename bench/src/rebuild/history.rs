//! The history that is folded: in each room, of ten events eight messages, an edit and a
//! reaction, both of a message some way back.

use dramatis::log::EventLog;
use dramatis_events::room::{MessageEdited, ReactionAdded, RoomEvent, RoomOpened};
use dramatis_events::{Envelope, Event as _, Personal, Revision};

use super::Options;
use crate::payload::{Payload, Template, author};

/// Events of one append.
const APPEND: u64 = 20;
/// Of so many events of a room, the last two refer to one before.
const TURN: u64 = 10;

/// Fills the log: one append to each room in turn.
pub(super) async fn fill(log: &dyn EventLog, options: &Options) -> anyhow::Result<()> {
    let payload = Payload::new(options.event_bytes)?;
    let edit = MessageEdited { target: Revision::new(0), text: Personal::from("x".repeat(200)) };
    let mut rooms: Vec<Template> =
        (0..options.rooms).map(|room| payload.template(room, 0)).collect::<anyhow::Result<_>>()?;
    let (mut filled, mut revision) = (0, 0);
    while filled < options.events {
        for (number, room) in (0..).zip(&mut rooms) {
            let events = APPEND.min(options.events - filled);
            if events == 0 {
                break;
            }
            let mut batch = room.batch(usize::try_from(events)?)?;
            for (at, envelope) in (revision..).zip(&mut batch.envelopes) {
                become_another(envelope, at, number, &edit)?;
            }
            filled += events;
            log.append(batch.into_append()).await?;
        }
        revision += APPEND;
    }
    Ok(())
}

/// Every envelope comes as a message; some are to be something else.
fn become_another(
    envelope: &mut Envelope,
    revision: u64,
    room: u64,
    edit: &MessageEdited,
) -> anyhow::Result<()> {
    let target = Revision::new((revision / TURN * TURN).saturating_sub(TURN) + 1);
    let event = match revision % TURN {
        _ if revision == 0 => {
            RoomEvent::from(RoomOpened { title: format!("room {room}"), owner: author(room)? })
        }
        8 => RoomEvent::from(MessageEdited { target, ..edit.clone() }),
        9 => RoomEvent::from(ReactionAdded { target, emoji: "👍".to_owned() }),
        _ => return Ok(()),
    };
    (envelope.name, envelope.version, envelope.data) = (event.event_name(), event.version(), event.encode()?);
    Ok(())
}
