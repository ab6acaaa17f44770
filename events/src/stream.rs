//! Stream names: `<category>-<tenant>.<id>`, for example `room-main.lobby`.
//!
//! The first hyphen ends the category, the first dot the tenant. This is the one place that
//! reads or writes that form.

use std::sync::Arc;

use crate::id::{ENTITY_ID_ALLOWED, is_entity_id, string_form, string_id};
use crate::{IdError, UserId};

fn is_category(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_tenant_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

string_id!(
    /// A kind of entity: `room`, `user`, ….
    Category, "a category", "1 to 32 of a-z 0-9 _",
    is_category
);

string_id!(
    /// A tenant: a customer or a product whose data never meets another's.
    TenantId, "a tenant id", "1 to 64 of a-z 0-9 _ -",
    is_tenant_id
);

string_id!(
    /// An entity's id within its category and tenant, such as a room's name.
    EntityId, "an entity id", ENTITY_ID_ALLOWED, is_entity_id
);

impl Default for TenantId {
    fn default() -> Self {
        Self("main".into())
    }
}

/// The name of a stream: category, tenant and entity id. 227 bytes at the most.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(Arc<str>);

string_form!(StreamId);

impl StreamId {
    /// Builds the name from its parts.
    pub fn new(category: &Category, tenant: &TenantId, id: &EntityId) -> Self {
        Self(format!("{category}-{tenant}.{id}").into())
    }

    /// The stream of a room of the default tenant.
    pub fn room(id: &EntityId) -> Self {
        Self(format!("room-main.{id}").into())
    }

    /// A user's own stream, in the default tenant.
    pub fn user(user: &UserId) -> Self {
        Self(format!("user-main.{user}").into())
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let parts = text
            .split_once('-')
            .and_then(|(category, rest)| rest.split_once('.').map(|(tenant, id)| (category, tenant, id)));
        let Some((category, tenant, id)) = parts else {
            return Err(IdError::new("a stream", "<category>-<tenant>.<id>, as room-main.lobby", text));
        };
        if is_category(category) && is_tenant_id(tenant) && is_entity_id(id) {
            return Ok(Self(text.into()));
        }
        // One of these says what is wrong.
        Category::parse(category)?;
        TenantId::parse(tenant)?;
        EntityId::parse(id)?;
        Err(IdError::new("a stream", "<category>-<tenant>.<id>, as room-main.lobby", text))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The category's text.
    pub fn category(&self) -> &str {
        self.0.split_once('-').map_or("", |(category, _)| category)
    }

    /// The tenant's text.
    pub fn tenant(&self) -> &str {
        self.after_category().split_once('.').map_or("", |(tenant, _)| tenant)
    }

    /// The entity id's text.
    pub fn id(&self) -> &str {
        self.after_category().split_once('.').map_or("", |(_, id)| id)
    }

    fn after_category(&self) -> &str {
        self.0.split_once('-').map_or("", |(_, rest)| rest)
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
    use super::*;

    #[test]
    fn the_first_hyphen_and_the_first_dot_split() {
        let stream = StreamId::parse("room-acme-eu.2004-11-15_03.raw").unwrap();
        assert_eq!(
            (stream.category(), stream.tenant(), stream.id()),
            ("room", "acme-eu", "2004-11-15_03.raw")
        );
        let again = StreamId::new(
            &Category::parse("room").unwrap(),
            &TenantId::parse("acme-eu").unwrap(),
            &EntityId::parse("2004-11-15_03.raw").unwrap(),
        );
        assert_eq!(again, stream);
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "",
            "room",
            "room-main",
            "room-main.",
            "-main.x",
            "room-.x",
            "Room-main.x",
            "room-MAIN.x",
            "room-main.a b",
        ] {
            assert!(StreamId::parse(bad).is_err(), "{bad}");
        }
    }
}
