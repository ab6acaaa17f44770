//! Documents as canonical JSON: without blanks, fields in their order, text escaped no more than it
//! must be, byte for byte what `serde_json` writes. Floats are refused, and integers beyond 2⁵³: stores
//! and browsers round them.
//!
//! Most bytes of a document are words in which nothing needs escaping: those are looked through and
//! copied many at a time.

use serde::ser::{self, Error as _, Serialize, Serializer};
use serde_json::Error;

/// Bytes of a text that are looked through at once.
const CHUNK: usize = 32;

/// A value as canonical JSON; `like` is the length of another, which saves growing.
pub(crate) fn to_json(value: &impl Serialize, like: usize) -> Result<String, Error> {
    let mut json = Vec::with_capacity(like + like / 8);
    value.serialize(Writer { json: &mut json })?;
    String::from_utf8(json).map_err(Error::custom)
}

struct Writer<'a> {
    json: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn again(&mut self) -> Writer<'_> {
        Writer { json: self.json }
    }

    fn raw(self, json: &str) {
        self.json.extend_from_slice(json.as_bytes());
    }

    fn integer(self, number: impl itoa::Integer) {
        self.json.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.json.push(b'"');
        let mut rest = text.as_bytes();
        while let Some((chunk, after)) = rest.split_first_chunk::<CHUNK>() {
            self.words(chunk);
            rest = after;
        }
        self.words(rest);
        self.json.push(b'"');
    }

    #[inline]
    fn words(&mut self, text: &[u8]) {
        // Looked through to its end whatever there is, which takes a few instructions for all of it.
        if text.iter().fold(false, |any, byte| any | needs_escape(*byte)) {
            self.escaped(text);
        } else {
            self.json.extend_from_slice(text);
        }
    }

    fn escaped(&mut self, text: &[u8]) {
        for byte in text {
            if needs_escape(*byte) {
                self.escape(*byte);
            } else {
                self.json.push(*byte);
            }
        }
    }

    fn escape(&mut self, byte: u8) {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0C => b'f',
            _ => {
                let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
                let [high, low] = [byte >> 4, byte & 15].map(digit);
                self.json.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                return;
            }
        };
        self.json.extend_from_slice(&[b'\\', short]);
    }

    /// The name of a field. Numbers become text, as JSON has no other names.
    fn name(&mut self, name: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let from = self.json.len();
        name.serialize(self.again())?;
        match self.json.get(from) {
            Some(b'"') => {}
            Some(b'0'..=b'9' | b'-' | b't' | b'f') => {
                self.json.insert(from, b'"');
                self.json.push(b'"');
            }
            _ => return Err(Error::custom("the name of a field is no text")),
        }
        self.json.push(b':');
        Ok(())
    }

    fn variant(&mut self, name: &str) {
        self.json.push(b'{');
        self.text(name);
        self.json.push(b':');
    }
}

const fn needs_escape(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// The largest integer that is exact wherever documents go; the smallest is as far below 0.
pub(crate) const INTEGER_MAX: u64 = 1 << 53;

fn check_size(size: u64) -> Result<(), Error> {
    if size <= INTEGER_MAX {
        return Ok(());
    }
    Err(Error::custom("it would hold an integer beyond 2^53, which stores and browsers round"))
}

fn no_floats() -> Error {
    Error::custom("it would hold a float, and documents hold no floats: stores round them")
}

/// What is between brackets.
struct Items<'a> {
    writer: Writer<'a>,
    any: bool,
    /// What ends it.
    end: &'static str,
}

impl<'a> Items<'a> {
    fn begin(writer: Writer<'a>, begin: u8, end: &'static str) -> Self {
        writer.json.push(begin);
        Self { writer, any: false, end }
    }

    fn next(&mut self) -> Writer<'_> {
        if std::mem::replace(&mut self.any, true) {
            self.writer.json.push(b',');
        }
        self.writer.again()
    }

    fn field(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let mut writer = self.next();
        writer.text(name);
        writer.json.push(b':');
        value.serialize(writer)
    }
}

/// Writes integers of these types.
macro_rules! integers {
    ($($method:ident $integer:ty),+) => {
        $(fn $method(self, number: $integer) -> Result<(), Error> {
            self.integer(number);
            Ok(())
        })+
    };
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeStructVariant = Items<'a>;

    integers!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32
    );

    fn serialize_i64(self, number: i64) -> Result<(), Error> {
        check_size(number.unsigned_abs())?;
        self.integer(number);
        Ok(())
    }

    fn serialize_u64(self, number: u64) -> Result<(), Error> {
        check_size(number)?;
        self.integer(number);
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.raw(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Error> {
        Err(no_floats())
    }

    fn serialize_f64(self, _: f64) -> Result<(), Error> {
        Err(no_floats())
    }

    fn serialize_char(mut self, letter: char) -> Result<(), Error> {
        self.text(letter.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(mut self, text: &str) -> Result<(), Error> {
        self.text(text);
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        self.collect_seq(bytes)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.raw("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(variant);
        value.serialize(self.again())?;
        self.raw("}");
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self, b'[', "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self, b'[', "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self, b'[', "]"))
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Error> {
        self.variant(variant);
        Ok(Items::begin(self, b'[', "]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self, b'{', "}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self, b'{', "}"))
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Error> {
        self.variant(variant);
        Ok(Items::begin(self, b'{', "}}"))
    }
}

/// What has items, by the method that takes one.
macro_rules! items {
    ($($kind:ident $method:ident),+) => {
        $(impl ser::$kind for Items<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
                item.serialize(self.next())
            }

            fn end(self) -> Result<(), Error> {
                self.writer.raw(self.end);
                Ok(())
            }
        })+
    };
}

items!(
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field
);

/// What has fields whose names are known.
macro_rules! fields {
    ($($kind:ident),+) => {
        $(impl ser::$kind for Items<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.writer.raw(self.end);
                Ok(())
            }
        })+
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), Error> {
        self.next().name(name)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(self.writer.again())
    }

    fn end(self) -> Result<(), Error> {
        self.writer.raw(self.end);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    fn check(value: &(impl Serialize + std::fmt::Debug)) {
        assert_eq!(to_json(value, 0).unwrap(), serde_json::to_string(value).unwrap(), "{value:?}");
    }

    /// One of each shape that a document may have.
    #[derive(Debug, Serialize)]
    enum Shape {
        Unit,
        One(u8),
        Two(i64, char),
        Named { some: Option<u32>, none: Option<u32> },
    }

    #[test]
    fn every_shape_is_written_as_serde_json_does() {
        check(&[Shape::Unit, Shape::One(7), Shape::Two(-(1 << 53), '"')]);
        check(&Shape::Named { some: Some(u32::MAX), none: None });
        check(&(1_u64 << 53, i8::MIN, true, (), "", [0_u16; 0]));
        check(&BTreeMap::from([(-3, "a"), (12, "b")]));
        check(&BTreeMap::from([(true, BTreeMap::<String, u8>::new())]));
        check(&BTreeMap::from([('\n', vec![Some("x"), None])]));
        for byte in 0..128_u8 {
            // Alone, at the end of a chunk, and past one.
            let letter = char::from(byte);
            check(&letter);
            check(&format!("{}{letter}", "x".repeat(CHUNK - 1)));
            check(&format!("{}{letter}y{letter}{letter}", "ä".repeat(CHUNK)));
        }
    }

    #[test]
    fn what_no_document_holds_is_refused() {
        assert!(to_json(&1.5, 0).unwrap_err().to_string().contains("no floats"));
        for json in
            [to_json(&((1_u64 << 53) + 1), 0), to_json(&(-(1_i64 << 53) - 1), 0), to_json(&u64::MAX, 0)]
        {
            assert!(json.unwrap_err().to_string().contains("beyond 2^53"));
        }
        assert!(to_json(&BTreeMap::from([(vec![1], 2)]), 0).is_err());
        assert!(to_json(&BTreeMap::from([((), 2)]), 0).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_written_as_serde_json_does(text in "(?s)[ -~\"\\\\\n\u{1}äß€😀]{0,100}", any in ".*") {
            check(&text);
            check(&BTreeMap::from([(any.as_str(), text.as_str())]));
        }
    }
}
