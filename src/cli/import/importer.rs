//! Who an importer is to the server.

use dramatis_events::{MemberId, MemberKind};
use serde_json::json;

use crate::auth::Claims;

/// Who it is where there are no tokens.
const USER: &str = "integration:irc-import";

/// See the module.
#[derive(Debug)]
pub(super) struct Importer {
    user: String,
    token: Option<String>,
}

impl Importer {
    /// Whom the token names. It must be an integration: nobody else may speak for the people of a log.
    pub(super) fn new(token: Option<String>) -> anyhow::Result<Self> {
        let Some(token) = token else { return Ok(Self { user: USER.to_owned(), token: None }) };
        let named = Claims::unverified(&token).map(|claims| claims.sub);
        let Some(user) = named.filter(|user: &MemberId| user.kind() == MemberKind::Integration) else {
            anyhow::bail!(
                "expected the token of an integration in DRAMATIS_TOKEN, since an import speaks for others: \
                 `dramatis token --user integration:import --for 1h` makes one"
            );
        };
        Ok(Self { user: user.to_string(), token: Some(token) })
    }

    /// Its name.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The first message of a connection, JSON.
    pub(super) fn hello(&self, session: &str) -> String {
        let mut hello = json!({"type": "hello", "user": self.user, "session": session, "rooms": []});
        if let (Some(token), Some(fields)) = (&self.token, hello.as_object_mut()) {
            fields.insert("token".to_owned(), token.as_str().into());
        }
        hello.to_string()
    }

    /// What to do about a token that the server does not take.
    pub(super) fn remedy(&self) -> &'static str {
        match self.token {
            Some(_) => "put a fresh token of the same integration into DRAMATIS_TOKEN",
            None => "put the token of an integration into DRAMATIS_TOKEN (see `dramatis token --help`)",
        }
    }
}
