//! `read_markers`: how far a user has read, on whichever device. One document a room, keyed
//! `<user stream>/<room>`.

use dramatis_events::user::UserEvent;
use dramatis_events::{EntityId, Recorded, Revision, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{FoldError, Index, Projection, happened_at};

/// How far one user has read in one room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarker {
    /// The tenant.
    pub tenant: String,
    /// The user's id.
    pub user: String,
    /// The room.
    pub room: EntityId,
    /// The last revision read.
    pub revision: Revision,
    /// When that was told.
    pub moved_at: UnixMillis,
}

/// The projection that keeps [`ReadMarker`] documents.
pub struct ReadMarkers;

impl Projection for ReadMarkers {
    const NAME: &'static str = "read_markers";
    const VERSION: u32 = 2;
    const KEY: &'static [KeyPart] = &[KeyPart::Text("ROOM")];
    const EVENTS: &'static [&'static str] = &["ReadMarkerMoved"];
    // A user's markers lie together by their keys.
    const INDEXES: &'static [Index] = &[];
    type Event = UserEvent;
    type Document = ReadMarker;

    fn keys(recorded: &Recorded, event: &UserEvent, keys: &mut Vec<String>) {
        match event {
            UserEvent::ReadMarkerMoved(moved) => keys.push(format!("{}/{}", recorded.stream, moved.room)),
            UserEvent::ProfileChanged(_)
            | UserEvent::InvitationReceived(_)
            | UserEvent::InvitationEnded(_)
            | UserEvent::SessionStarted(_) => {}
        }
    }

    fn fold(
        document: &mut Option<ReadMarker>,
        recorded: &Recorded,
        event: &UserEvent,
    ) -> Result<(), FoldError> {
        match event {
            UserEvent::ReadMarkerMoved(moved) => {
                // A decider keeps the latest rooms of a user in mind and may record less of an earlier one.
                if document.as_ref().is_some_and(|marker| marker.revision > moved.revision) {
                    return Ok(());
                }
                *document = Some(ReadMarker {
                    tenant: recorded.stream.tenant().to_owned(),
                    user: recorded.stream.id().to_owned(),
                    room: moved.room.clone(),
                    revision: moved.revision,
                    moved_at: happened_at(recorded),
                });
            }
            UserEvent::ProfileChanged(_)
            | UserEvent::InvitationReceived(_)
            | UserEvent::InvitationEnded(_)
            | UserEvent::SessionStarted(_) => return Err(FoldError::not_mine(event)),
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use crate::projection::testing::{document, user_history};

    use super::*;

    fn shown(lines: &str) -> String {
        document::<ReadMarkers>("user-main.alice/lobby", &user_history(lines))
            .unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_marker_moves_on_in_its_room_alone_and_never_back() {
        let lines = r#"ReadMarkerMoved {"room":"lobby","revision":3}
            ReadMarkerMoved {"room":"den","revision":9}
            ReadMarkerMoved {"room":"lobby","revision":7}"#;
        let moved = r#"{"tenant":"main","user":"alice","room":"lobby","revision":7,"moved_at":1002}"#;
        assert_eq!(shown(lines), moved);
        assert_eq!(shown(&format!("{lines}\nReadMarkerMoved {{\"room\":\"lobby\",\"revision\":6}}")), moved);
    }
}
