//! `ui/client/protocol.d.ts`: the protocol's messages as TypeScript, printed from the same schemas
//! as the `AsyncAPI` document. The test fails when the committed file is not what is printed now;
//! with `DRAMATIS_WRITE_TYPES=1` it writes the file anew.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::asyncapi::protocol;
use crate::protocol::schema::Side;

const FILE: &str = "src/web/ui/client/protocol.d.ts";
const HEAD: &str = "// The messages of the protocol. Generated from the server's own types: do not edit.\n";

fn printed() -> String {
    let (messages, schemas) = protocol();
    let mut text = HEAD.to_owned();
    for (name, schema) in &schemas {
        text.push('\n');
        text.push_str(&comment(schema, ""));
        match schema.get("properties") {
            Some(Value::Object(_)) if schema.get("allOf").is_none() => {
                let _ = writeln!(text, "export interface {name} {}", object(schema, ""));
            }
            _ => {
                let _ = writeln!(text, "export type {name} = {};", expression(schema, ""));
            }
        }
    }
    for (side, name) in [(Side::Client, "ClientMessage"), (Side::Server, "ServerMessage")] {
        let all: Vec<_> = messages
            .iter()
            .filter(|message| message.by == side)
            .map(|message| message.schema.as_str())
            .collect();
        let _ = write!(text, "\nexport type {name} = {};\n", all.join(" | "));
    }
    text
}

fn comment(schema: &Value, indent: &str) -> String {
    let Some(words) = schema.get("description").and_then(Value::as_str) else { return String::new() };
    let words = words.replace("*/", "*\u{200b}/").split_whitespace().collect::<Vec<_>>().join(" ");
    // "See [`ServerMessage::Ack`]." leads somewhere in Rust only.
    let words = match words.strip_prefix("See [`").and_then(|rest| rest.split_once("`].")) {
        Some((_, rest)) => rest.trim_start(),
        None => &words,
    };
    if words.is_empty() { String::new() } else { format!("{indent}/** {words} */\n") }
}

/// A schema as a type.
fn expression(schema: &Value, indent: &str) -> String {
    if let Some(path) = schema.get("$ref").and_then(Value::as_str) {
        return path.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        return joined(parts, " & ", indent);
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(parts) = schema.get(word).and_then(Value::as_array) {
            return joined(parts, " | ", indent);
        }
    }
    match schema.get("type") {
        Some(Value::Array(kinds)) => {
            let each = kinds.iter().filter_map(Value::as_str).map(|kind| plain(kind, schema, indent));
            each.collect::<Vec<_>>().join(" | ")
        }
        Some(Value::String(kind)) => plain(kind, schema, indent),
        _ => "unknown".to_owned(),
    }
}

fn joined(parts: &[Value], between: &str, indent: &str) -> String {
    let each = parts.iter().map(|part| {
        let text = expression(part, indent);
        let is_choice = part.get("oneOf").is_some()
            || part.get("anyOf").is_some()
            || part.get("type").is_some_and(Value::is_array);
        if is_choice { format!("({text})") } else { text }
    });
    each.collect::<Vec<_>>().join(between)
}

fn plain(kind: &str, schema: &Value, indent: &str) -> String {
    match kind {
        "string" => "string".to_owned(),
        "integer" | "number" => "number".to_owned(),
        "boolean" => "boolean".to_owned(),
        "null" => "null".to_owned(),
        "array" => {
            let item =
                schema.get("items").map_or_else(|| "unknown".to_owned(), |item| expression(item, indent));
            if item.contains(' ') { format!("({item})[]") } else { format!("{item}[]") }
        }
        "object" if schema.get("properties").is_some() => object(schema, indent),
        "object" => "Record<string, unknown>".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// An object's fields, its `type` first.
fn object(schema: &Value, indent: &str) -> String {
    let nothing = Map::new();
    let fields = schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
    let required: Vec<_> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut names: Vec<_> = fields.keys().map(String::as_str).collect();
    names.sort_unstable_by_key(|name| (*name != "type", *name));
    let inner = format!("{indent}  ");
    let mut text = "{\n".to_owned();
    for name in names {
        let Some(field) = fields.get(name) else { continue };
        text.push_str(&comment(field, &inner));
        let mark = if required.contains(&name) { "" } else { "?" };
        let plain_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let shown = if plain_name { name.to_owned() } else { format!("\"{name}\"") };
        let _ = writeln!(text, "{inner}{shown}{mark}: {};", expression(field, &inner));
    }
    text + indent + "}"
}

#[test]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
fn the_committed_types_are_those_of_the_frames() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let now = printed();
    if std::env::var_os("DRAMATIS_WRITE_TYPES").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == now, "{FILE} is stale: run this test with DRAMATIS_WRITE_TYPES=1");
    assert!(now.contains("export interface Hello {\n  type: \"hello\";"));
}
