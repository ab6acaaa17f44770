//! What a token says.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dramatis_events::{EntityId, MemberId, MemberKind};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// Whose it is.
    pub sub: MemberId,
    /// When it runs out, seconds since 1970; parts of one, which RFC 7519 allows, do not count.
    #[serde(deserialize_with = "whole_seconds")]
    pub exp: u64,
    /// Whose token this is meant to be, if not a person's: `persona` or `integration`. So that
    /// who lets people choose their names gives nobody a name of another kind by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The only rooms it opens, and `me`; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<EntityId>>,
}

impl Claims {
    /// What a token says of itself, whoever signed it: for a client that shows it. `None` if it
    /// cannot be read.
    pub fn unverified(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (payload, true) = (parts.nth(1)?, parts.count() == 1) else { return None };
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

/// The kinds of members that may have a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A person.
    User,
    /// An AI character.
    Persona,
    /// A trusted program.
    Integration,
}

impl Kind {
    /// The kind that an id is of; `None` for the platform itself, which has no tokens.
    pub fn of(member: &MemberId) -> Option<Self> {
        match member.kind() {
            MemberKind::User => Some(Self::User),
            MemberKind::Persona => Some(Self::Persona),
            MemberKind::Integration => Some(Self::Integration),
            MemberKind::System => None,
        }
    }
}

/// Claims as they are shown: besides those above what bounds where and from when on a token is good, which
/// whoever mints it may add (RFC 7519, 4.1.3 and 4.1.5).
#[derive(Deserialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) claims: Claims,
    /// From when on it is good, seconds since 1970.
    #[serde(default, deserialize_with = "some_whole_seconds")]
    pub(super) nbf: Option<u64>,
    /// Whom it is for.
    #[serde(default)]
    pub(super) aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(name) => name == wanted,
            Self::Several(names) => names.iter().any(|name| name == wanted),
        }
    }
}

fn whole_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let seconds = Number::deserialize(deserializer)?;
    let whole =
        seconds.as_u64().or_else(|| Some(Duration::try_from_secs_f64(seconds.as_f64()?).ok()?.as_secs()));
    whole.ok_or_else(|| D::Error::custom("exp and nbf must be seconds since 1970"))
}

fn some_whole_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    whole_seconds(deserializer).map(Some)
}
