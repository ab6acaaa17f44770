//! `sessions`: where a user has said hello from. One document a session, keyed
//! `<user stream>/<session>`. Coming back to a session is not recorded and not told here.

use dramatis_events::user::UserEvent;
use dramatis_events::{CommandId, Personal, Recorded, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{Field, FieldKind, FoldError, Index, Projection, happened_at};

/// One session of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSession {
    /// The tenant.
    pub tenant: String,
    /// The user's id.
    pub user: String,
    /// The session's name, made by the client.
    pub session: CommandId,
    /// What the person would call the device, if the client said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Personal>,
    /// When it first said hello.
    pub started_at: UnixMillis,
}

/// The projection that keeps [`UserSession`] documents.
pub struct Sessions;

impl Projection for Sessions {
    const NAME: &'static str = "sessions";
    const VERSION: u32 = 1;
    const KEY: &'static [KeyPart] = &[KeyPart::Text("SESSION")];
    const EVENTS: &'static [&'static str] = &["SessionStarted"];
    const INDEXES: &'static [Index] = &[Index {
        name: "by_user",
        fields: &[
            Field { name: "tenant", kind: FieldKind::Text },
            Field { name: "user", kind: FieldKind::Text },
            Field { name: "started_at", kind: FieldKind::Integer },
        ],
    }];
    type Event = UserEvent;
    type Document = UserSession;

    fn keys(recorded: &Recorded, event: &UserEvent, keys: &mut Vec<String>) {
        match event {
            UserEvent::SessionStarted(started) => {
                keys.push(format!("{}/{}", recorded.stream, started.session));
            }
            UserEvent::ProfileChanged(_)
            | UserEvent::InvitationReceived(_)
            | UserEvent::InvitationEnded(_)
            | UserEvent::ReadMarkerMoved(_) => {}
        }
    }

    fn fold(
        document: &mut Option<UserSession>,
        recorded: &Recorded,
        event: &UserEvent,
    ) -> Result<(), FoldError> {
        match event {
            UserEvent::SessionStarted(started) => {
                // A decider that forgot an old session records it again: it began the first time.
                document.get_or_insert_with(|| UserSession {
                    tenant: recorded.stream.tenant().to_owned(),
                    user: recorded.stream.id().to_owned(),
                    session: started.session.clone(),
                    device: None,
                    started_at: happened_at(recorded),
                });
                if let (Some(session), Some(device)) = (document, &started.device) {
                    session.device = Some(device.clone());
                }
            }
            UserEvent::ProfileChanged(_)
            | UserEvent::InvitationReceived(_)
            | UserEvent::InvitationEnded(_)
            | UserEvent::ReadMarkerMoved(_) => return Err(FoldError::not_mine(event)),
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

    #[test]
    fn a_session_begins_once_and_is_told_its_device() {
        let lines = r#"SessionStarted {"session":"tab-1"}
            SessionStarted {"session":"phone-1","device":"phone"}
            SessionStarted {"session":"tab-1","device":"laptop"}"#;
        let shown = |session: &str| {
            document::<Sessions>(&format!("user-main.alice/{session}"), &user_history(lines)).unwrap()
        };
        assert_eq!(
            shown("tab-1"),
            r#"{"tenant":"main","user":"alice","session":"tab-1","device":"laptop","started_at":1000}"#,
        );
        assert_eq!(
            shown("phone-1"),
            r#"{"tenant":"main","user":"alice","session":"phone-1","device":"phone","started_at":1001}"#,
        );
    }
}
