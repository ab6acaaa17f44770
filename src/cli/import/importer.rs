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
    token: Token,
}

/// What it has to show.
#[derive(Debug)]
enum Token {
    /// That of the integration.
    Good(String),
    /// None.
    None,
    /// One of nobody who may speak for the people of a log: it is kept back.
    Unfit,
}

impl Importer {
    /// Whom the token names, if that is an integration: nobody else may speak for the people of a log.
    /// Whether one is wanted at all is known once the server is asked.
    pub(super) fn new(token: Option<String>) -> Self {
        let Some(token) = token else { return Self { user: USER.to_owned(), token: Token::None } };
        let named = Claims::unverified(&token).map(|claims| claims.sub);
        match named.filter(|user: &MemberId| user.kind() == MemberKind::Integration) {
            Some(user) => Self { user: user.to_string(), token: Token::Good(token) },
            None => Self { user: USER.to_owned(), token: Token::Unfit },
        }
    }

    /// Shows its token no more, if it has one to show: where there is no key none is taken, and it is who
    /// it says.
    pub(super) fn forgets_its_token(&mut self) -> bool {
        let had = matches!(self.token, Token::Good(_));
        if had {
            *self = Self { user: USER.to_owned(), token: Token::None };
        }
        had
    }

    /// Its name.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The first message of a connection, JSON.
    pub(super) fn hello(&self, session: &str) -> String {
        let mut hello = json!({"type": "hello", "user": self.user, "session": session, "rooms": []});
        if let (Token::Good(token), Some(fields)) = (&self.token, hello.as_object_mut()) {
            fields.insert("token".to_owned(), token.as_str().into());
        }
        hello.to_string()
    }

    /// What to do about a token that the server does not take.
    pub(super) fn remedy(&self) -> &'static str {
        match self.token {
            Token::Good(_) => "put a fresh token of the same integration into DRAMATIS_TOKEN",
            Token::None => {
                "put the token of an integration into DRAMATIS_TOKEN (see `dramatis token --help`)"
            }
            Token::Unfit => {
                "expected the token of an integration in DRAMATIS_TOKEN, since an import speaks for others: \
                 `dramatis token --user integration:import --for 1h` makes one"
            }
        }
    }
}
