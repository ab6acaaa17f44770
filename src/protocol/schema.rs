//! The messages as JSON Schemas, made from the types that read and write them: what the
//! `AsyncAPI` document and the TypeScript types are made of.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::server::EventHead;
use super::{
    Ack, Authenticate, AuthenticateBy, Authenticated, ClientMessage, Closed, CommandFrame, Drain, Ephemeral,
    EphemeralFrame, Followed, Hello, HistoryRequest, Live, Page, Presence, Ready, Reject, RoomState, Seen,
    ServerMessage, Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};

/// Named schemas that refer to each other by `#/components/schemas/NAME`.
#[derive(Debug, Default)]
pub struct Schemas(BTreeMap<String, Value>);

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// One message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub by: Side,
    /// Its `type`.
    pub kind: &'static str,
    /// The name of its schema.
    pub schema: String,
}

impl Schemas {
    /// Adds a type and all it refers to; returns its name.
    pub fn add<T: ToSchema>(&mut self) -> String {
        let name = T::name().into_owned();
        let mut all = Vec::new();
        T::schemas(&mut all);
        all.push((name.clone(), T::schema()));
        for (name, schema) in all {
            if let Ok(schema) = serde_json::to_value(schema) {
                self.0.entry(name).or_insert(schema);
            }
        }
        name
    }

    /// Adds a schema made by hand of others.
    pub fn put(&mut self, name: &str, schema: Value) {
        self.0.insert(name.to_owned(), schema);
    }

    /// All of them by name.
    pub fn into_map(self) -> BTreeMap<String, Value> {
        self.0
    }

    fn message<T: ToSchema>(&mut self, by: Side, kind: &'static str) -> Message {
        let schema = self.add::<T>();
        if let Some(value) = self.0.get_mut(&schema) {
            mark(value, kind);
        }
        Message { by, kind, schema }
    }

    /// A message that has nothing but its type.
    fn bare(&mut self, by: Side, kind: &'static str) -> Message {
        let schema = kind.get(..1).map(str::to_ascii_uppercase).unwrap_or_default()
            + kind.get(1..).unwrap_or_default();
        let mut value = json!({"type": "object"});
        mark(&mut value, kind);
        self.put(&schema, value);
        Message { by, kind, schema }
    }
}

/// Says in a message's schema what its `type` is.
fn mark(schema: &mut Value, kind: &str) {
    let tag = json!({"type": "string", "const": kind});
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(Value::Array(parts)) = fields.get_mut("allOf") {
        parts.push(json!({"type": "object", "properties": {"type": tag}, "required": ["type"]}));
        return;
    }
    if let Some(properties) = fields.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
        properties.insert("type".to_owned(), tag);
    }
    if let Some(required) = fields.entry("required").or_insert_with(|| json!([])).as_array_mut() {
        required.retain(|name| name != "type");
        required.push("type".into());
    }
}

/// Names the messages of one side; a new one does not compile until it is named.
macro_rules! messages {
    ($(#[$doc:meta])* $all:ident($side:ident, $message:ident) { $($variant:ident: $kind:literal $(= $schema:ty)?),+ $(,)? }) => {
        $(#[$doc])*
        pub fn $all(schemas: &mut Schemas) -> Vec<Message> {
            let _: fn(&$message) -> &'static str = |message| match message {
                $($message::$variant { .. } => $kind),+
            };
            vec![$(messages!(@one schemas, $side, $kind $(, $schema)?)),+]
        }
    };
    (@one $schemas:ident, $side:ident, $kind:literal, $schema:ty) => {
        $schemas.message::<$schema>(Side::$side, $kind)
    };
    (@one $schemas:ident, $side:ident, $kind:literal) => { $schemas.bare(Side::$side, $kind) };
}

messages! {
    /// What clients send.
    client_messages(Client, ClientMessage) {
        Hello: "hello" = Hello,
        Subscribe: "subscribe" = Subscribe,
        Unsubscribe: "unsubscribe" = Unsubscribe,
        Command: "command" = CommandFrame,
        History: "history" = HistoryRequest,
        Ephemeral: "ephemeral" = Ephemeral,
        Seen: "seen" = Seen,
        Authenticate: "authenticate" = Authenticate,
        Pong: "pong",
    }
}

messages! {
    /// What the server sends, events apart.
    server_messages(Server, ServerMessage) {
        Ready: "ready" = Ready,
        Subscribed: "subscribed" = Subscribed,
        Unsubscribed: "unsubscribed" = Unsubscribed,
        Live: "live" = Live,
        Ack: "ack" = Ack<'_>,
        Reject: "reject" = Reject,
        Page: "page" = Page,
        RoomState: "room_state" = RoomState,
        Closed: "closed" = Closed,
        Ephemeral: "ephemeral" = EphemeralFrame<'_>,
        Presence: "presence" = Presence<'_>,
        Authenticate: "authenticate" = AuthenticateBy,
        Authenticated: "authenticated" = Authenticated,
        Drain: "drain" = Drain,
        Ping: "ping",
    }
}

/// The fields that every `event` has; returns the schema's name.
pub fn event_head(schemas: &mut Schemas) -> Message {
    schemas.message::<EventHead<'_>>(Side::Server, "event")
}

impl PartialSchema for Followed {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .description(Some("A room's id, or `me`: one's own stream"))
            .into()
    }
}

impl ToSchema for Followed {}

/// A reference to a schema of this name, as the derived ones make them.
pub fn reference(name: &str) -> Value {
    serde_json::to_value(Ref::from_schema_name(name)).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_its_type_and_refers_only_to_what_is_there() {
        let mut schemas = Schemas::default();
        let mut messages = client_messages(&mut schemas);
        messages.extend(server_messages(&mut schemas));
        messages.push(event_head(&mut schemas));
        let schemas = schemas.into_map();
        for message in &messages {
            let text = schemas[&message.schema].to_string();
            assert!(text.contains(&format!("\"const\":\"{}\"", message.kind)), "{text}");
        }
        let all = serde_json::to_string(&schemas).unwrap();
        let names: Vec<_> =
            all.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(names.len() > 40, "only {} references", names.len());
        for name in names {
            assert!(schemas.contains_key(name), "{name} is referred to and not there");
        }
    }
}
