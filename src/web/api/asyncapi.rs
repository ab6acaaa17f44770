//! The description of the socket's protocol: an `AsyncAPI` 3 document, made from the frames.

use actix_web::http::header::HOST;
use actix_web::{HttpRequest, HttpResponse};
use dramatis_events::{room as events, user as own};
use serde_json::{Map, Value, json};

use crate::domain::{room as commands, user};
use crate::protocol::SUBPROTOCOL;
use crate::protocol::schema::{
    Message, Schemas, Side, client_messages, event_head, reference, server_messages,
};

/// Adds types and pairs each name with its schema's.
macro_rules! named {
    ($schemas:ident: $($name:literal $type:ty),+ $(,)?) => {
        vec![$(($name, $schemas.add::<$type>())),+]
    };
}

/// `GET /api/asyncapi.json`
pub(super) async fn document(request: HttpRequest) -> HttpResponse {
    // What a proxy says besides is anybody's to say.
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    HttpResponse::Ok().json(described(host.unwrap_or_else(|| request.app_config().host())))
}

fn described(host: &str) -> Value {
    let (messages, schemas) = protocol();
    let all: Map<String, Value> =
        messages.iter().map(|message| (key(message), described_message(message))).collect();
    let channel_messages: Map<String, Value> = all
        .keys()
        .map(|key| (key.clone(), json!({"$ref": format!("#/components/messages/{key}")})))
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "dramatis",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Rooms over one line. A text frame holds one message or several, newline-joined; \
                the first is `hello`. The same messages travel as server-sent events and long polls: see \
                /api/openapi.json.",
        },
        "defaultContentType": "application/json",
        "servers": {"here": {"host": host, "protocol": "ws", "description": "this server"}},
        "channels": {"socket": {
            "address": "/socket",
            "title": format!("subprotocol {SUBPROTOCOL}"),
            "messages": channel_messages,
        }},
        "operations": {
            "from_client": operation("receive", "What clients send", Side::Client, &messages),
            "to_client": operation("send", "What the server sends", Side::Server, &messages),
        },
        "components": {"messages": all, "schemas": schemas},
    })
}

/// Every message of the protocol, and the schemas they refer to.
pub(super) fn protocol() -> (Vec<Message>, Map<String, Value>) {
    let mut schemas = Schemas::default();
    let mut messages = client_messages(&mut schemas);
    messages.extend(server_messages(&mut schemas));
    let head = event_head(&mut schemas);
    let events = event_payloads(&mut schemas);
    let command = json!({"type": "object", "properties": {"command":
        {"type": "string", "description": "The command it came from; only its author is told"}}});
    let event = json!({"allOf": [reference(&head.schema), command, one_of(&events, &["name", "data"])]});
    schemas.put("Event", event);
    messages.push(Message { schema: "Event".to_owned(), ..head });
    let command = command_data(&mut schemas);
    if let Some(frame) = messages.iter_mut().find(|message| message.kind == "command") {
        schemas.put("Command", json!({"allOf": [reference(&frame.schema), one_of(&command, &["name"])]}));
        "Command".clone_into(&mut frame.schema);
    }
    (messages, schemas.into_map().into_iter().collect())
}

/// One of these names, with the data of that name.
fn one_of(named: &[(&'static str, String)], required: &[&str]) -> Value {
    let each = named.iter().map(|(name, schema)| {
        json!({"type": "object", "required": required, "properties":
            {"name": {"type": "string", "const": name}, "data": reference(schema)}})
    });
    json!({"oneOf": each.collect::<Vec<_>>()})
}

fn event_payloads(schemas: &mut Schemas) -> Vec<(&'static str, String)> {
    named![schemas:
        "RoomOpened" events::RoomOpened,
        "RoomRenamed" events::RoomRenamed,
        "RoomClosed" events::RoomClosed,
        "RoomVisibilitySet" events::RoomVisibilitySet,
        "MemberJoined" events::MemberJoined,
        "MemberLeft" events::MemberLeft,
        "MemberRemoved" events::MemberRemoved,
        "MemberRenamed" events::MemberRenamed,
        "MemberInvited" events::MemberInvited,
        "InvitationAccepted" events::InvitationAccepted,
        "InvitationDeclined" events::InvitationDeclined,
        "InvitationWithdrawn" events::InvitationWithdrawn,
        "MessagePosted" events::MessagePosted,
        "MessageEdited" events::MessageEdited,
        "MessageRedacted" events::MessageRedacted,
        "ReactionAdded" events::ReactionAdded,
        "ReactionRemoved" events::ReactionRemoved,
        "ProfileChanged" own::ProfileChanged,
        "InvitationReceived" own::InvitationReceived,
        "InvitationEnded" own::InvitationEnded,
        "ReadMarkerMoved" own::ReadMarkerMoved,
        "SessionStarted" own::SessionStarted,
    ]
}

fn command_data(schemas: &mut Schemas) -> Vec<(&'static str, String)> {
    named![schemas:
        "open_room" commands::OpenRoom,
        "rename_room" commands::RenameRoom,
        "close_room" commands::CloseRoom,
        "set_visibility" commands::SetVisibility,
        "join" commands::Join,
        "leave" commands::Leave,
        "remove_member" commands::RemoveMember,
        "invite_member" commands::InviteMember,
        "decline_invitation" commands::DeclineInvitation,
        "withdraw_invitation" commands::WithdrawInvitation,
        "rename_member" commands::RenameMember,
        "post_message" commands::PostMessage,
        "edit_message" commands::EditMessage,
        "redact_message" commands::RedactMessage,
        "add_reaction" commands::AddReaction,
        "remove_reaction" commands::RemoveReaction,
        "set_profile" user::SetProfile,
        "dismiss_invitation" user::DismissInvitation,
    ]
}

/// Both sides have an `ephemeral` and an `authenticate`.
fn key(message: &Message) -> String {
    let side = match message.by {
        Side::Client => "client",
        Side::Server => "server",
    };
    format!("{side}_{}", message.kind)
}

fn described_message(message: &Message) -> Value {
    json!({"name": message.kind, "payload": reference(&message.schema)})
}

fn operation(action: &str, summary: &str, by: Side, messages: &[Message]) -> Value {
    let messages: Vec<_> = messages
        .iter()
        .filter(|message| message.by == by)
        .map(|message| json!({"$ref": format!("#/channels/socket/messages/{}", key(message))}))
        .collect();
    json!({"action": action, "summary": summary, "channel": {"$ref": "#/channels/socket"}, "messages": messages})
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use dramatis_events::Event;
    use dramatis_events::room::RoomEvent;
    use dramatis_events::user::UserEvent;

    use super::*;
    use crate::domain::room::RoomCommand;
    use crate::domain::user::UserCommand;

    fn resolves(document: &Value, value: &Value, count: &mut usize) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(path)) = fields.get("$ref") {
                    *count += 1;
                    assert!(document.pointer(path.trim_start_matches('#')).is_some(), "{path} leads nowhere");
                }
                for field in fields.values() {
                    resolves(document, field, count);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| resolves(document, item, count)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = described("127.0.0.1:7400");
        let mut count = 0;
        resolves(&document, &document, &mut count);
        assert!(count > 100, "only {count} references");
        assert_eq!(document["servers"]["here"]["host"], "127.0.0.1:7400");
        assert_eq!(document["components"]["messages"]["server_ephemeral"]["name"], "ephemeral");
    }

    #[test]
    fn every_event_and_command_is_described() {
        let mut schemas = Schemas::default();
        let events: Vec<_> = event_payloads(&mut schemas).into_iter().map(|(name, _)| name).collect();
        let known: Vec<_> = RoomEvent::NAMES.iter().chain(UserEvent::NAMES).map(|(name, _)| *name).collect();
        assert_eq!(events, known);
        let commands: Vec<_> = command_data(&mut schemas).into_iter().map(|(name, _)| name).collect();
        assert_eq!(commands, [RoomCommand::NAMES, UserCommand::NAMES].concat());
    }
}
