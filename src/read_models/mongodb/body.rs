//! Documents as typed BSON, so that admins can query them in the database's own shell, and back
//! as the canonical JSON they were, byte for byte.
//!
//! Integers become the smaller BSON type that holds them. Names of fields that a server would
//! read as paths or operators, or cannot hold, are escaped as in URIs: `%` and the two digits of
//! `.`, NUL, `%` itself, and of `$` at the beginning; an empty name is a lone `%`.

use std::borrow::Cow;
use std::fmt;

use mongodb::bson::raw::CString;
use mongodb::bson::{RawArrayBuf, RawBson, RawBsonRef, RawDocumentBuf};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::read_models::ReadModelError;
use crate::read_models::names::unfit;

/// Canonical JSON as BSON.
pub(super) fn to_bson(key: &str, json: &str) -> Result<RawBson, ReadModelError> {
    let mut input = serde_json::Deserializer::from_str(json);
    let value = Seed.deserialize(&mut input).and_then(|value| input.end().map(|()| value));
    let expected = "JSON without floats and with integers of 64 bits";
    value.map_err(|error| unfit("a document", expected, &format!("document {key:?}: {error}")))
}

/// BSON as the JSON it was made from. The error says what is not ours.
pub(super) fn to_json(value: RawBsonRef<'_>) -> Result<String, String> {
    let mut json = Vec::new();
    write(value, &mut json)?;
    String::from_utf8(json).map_err(|error| error.to_string())
}

struct Seed;

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = RawBson;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawBson, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = RawBson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without floats")
    }

    fn visit_unit<E: Error>(self) -> Result<RawBson, E> {
        Ok(RawBson::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<RawBson, E> {
        Ok(RawBson::Boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<RawBson, E> {
        Ok(i32::try_from(value).map_or(RawBson::Int64(value), RawBson::Int32))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<RawBson, E> {
        let value = i64::try_from(value).map_err(|_| E::custom(format!("{value} is too large")))?;
        self.visit_i64(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<RawBson, E> {
        Ok(RawBson::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawBson, A::Error> {
        let mut array = RawArrayBuf::new();
        while let Some(item) = items.next_element_seed(Self)? {
            array.push(item);
        }
        Ok(RawBson::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<RawBson, A::Error> {
        let mut document = RawDocumentBuf::new();
        while let Some(name) = fields.next_key::<Cow<'_, str>>()? {
            let name = CString::try_from(escape(&name).as_ref()).map_err(A::Error::custom)?;
            document.append(name, fields.next_value_seed(Self)?);
        }
        Ok(RawBson::Document(document))
    }
}

fn write(value: RawBsonRef<'_>, json: &mut Vec<u8>) -> Result<(), String> {
    match value {
        RawBsonRef::Null => json.extend(b"null"),
        RawBsonRef::Boolean(value) => json.extend(if value { &b"true"[..] } else { b"false" }),
        RawBsonRef::Int32(value) => json.extend(value.to_string().bytes()),
        RawBsonRef::Int64(value) => json.extend(value.to_string().bytes()),
        RawBsonRef::String(value) => text(value, json)?,
        RawBsonRef::Array(array) => {
            json.push(b'[');
            for (number, item) in array.into_iter().enumerate() {
                if number > 0 {
                    json.push(b',');
                }
                write(item.map_err(|error| error.to_string())?, json)?;
            }
            json.push(b']');
        }
        RawBsonRef::Document(document) => {
            json.push(b'{');
            for (number, field) in document.iter_elements().enumerate() {
                let field = field.map_err(|error| error.to_string())?;
                if number > 0 {
                    json.push(b',');
                }
                text(&unescape(field.key().as_str()), json)?;
                json.push(b':');
                write(field.value().map_err(|error| error.to_string())?, json)?;
            }
            json.push(b'}');
        }
        other => return Err(format!("a value of BSON type {:?}", other.element_type())),
    }
    Ok(())
}

fn text(text: &str, json: &mut Vec<u8>) -> Result<(), String> {
    serde_json::to_writer(json, text).map_err(|error| error.to_string())
}

/// The name of a field as it is stored.
pub(super) fn escape(name: &str) -> Cow<'_, str> {
    if name.is_empty() {
        return Cow::Borrowed("%");
    }
    if !name.starts_with('$') && !name.contains(['.', '%', '\0']) {
        return Cow::Borrowed(name);
    }
    let mut escaped = String::with_capacity(name.len() + 8);
    for (at, letter) in name.char_indices() {
        match letter {
            '.' => escaped.push_str("%2E"),
            '%' => escaped.push_str("%25"),
            '\0' => escaped.push_str("%00"),
            '$' if at == 0 => escaped.push_str("%24"),
            letter => escaped.push(letter),
        }
    }
    Cow::Owned(escaped)
}

fn unescape(name: &str) -> Cow<'_, str> {
    match name {
        "%" => Cow::Borrowed(""),
        name if !name.contains('%') => Cow::Borrowed(name),
        // The percent sign comes last, so that none it gives is read again.
        name => {
            Cow::Owned(name.replace("%2E", ".").replace("%24", "$").replace("%00", "\0").replace("%25", "%"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(json: &str) -> String {
        let bson = to_bson("k", json).unwrap();
        to_json(bson.as_raw_bson_ref()).unwrap()
    }

    #[test]
    fn documents_come_back_as_they_were() {
        for json in [
            "null",
            "1",
            "-9007199254740992",
            r#""a\u0000b""#,
            "[]",
            r#"{"z":1,"a":{"":[null,{}]},"$set":{"a.b.":2,"%2E":true,"x\u0000":"😀"},"language":"french"}"#,
        ] {
            assert_eq!(back(json), json);
        }
    }

    #[test]
    fn what_cannot_be_held_is_refused_by_name() {
        for json in ["1.5", r#"{"a":[1e3]}"#, "9223372036854775808", "{", "1 2", "other"] {
            let error = to_bson("rooms/1", json).unwrap_err().to_string();
            assert!(error.contains("rooms/1"), "{error}");
        }
    }

    /// JSON as text, its names in any order, often such as need care.
    fn json() -> impl Strategy<Value = String> {
        let quoted = |text: String| serde_json::to_string(&text).unwrap();
        let names = prop_oneof![any::<String>(), "[$.%\0a2E450]{0,6}"].prop_map(quoted);
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|b| b.to_string()),
            (-(1_i64 << 53)..=1 << 53).prop_map(|n| n.to_string()),
            any::<i32>().prop_map(|n| n.to_string()),
            any::<String>().prop_map(quoted),
        ];
        leaf.prop_recursive(6, 64, 8, move |inner| {
            let fields = proptest::collection::vec((names.clone(), inner.clone()), 0..8);
            prop_oneof![
                proptest::collection::vec(inner, 0..8).prop_map(|items| format!("[{}]", items.join(","))),
                fields.prop_map(|mut fields| {
                    let mut seen = std::collections::HashSet::new();
                    fields.retain(|(name, _)| seen.insert(name.clone()));
                    let fields: Vec<_> =
                        fields.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                    format!("{{{}}}", fields.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_document_comes_back_byte_for_byte(json in json()) {
            prop_assert_eq!(back(&json), json);
        }

        #[test]
        fn no_name_is_a_path_or_an_operator(name in prop_oneof![any::<String>(), "[$.%\0a2E450]{0,6}"]) {
            let escaped = escape(&name);
            prop_assert!(!escaped.is_empty() && !escaped.starts_with('$') && !escaped.contains(['.', '\0']));
            prop_assert_eq!(unescape(&escaped), name.as_str());
        }
    }
}
